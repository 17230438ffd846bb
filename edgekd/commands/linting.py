"""lint: is this ONNX file legal for every runtime, and what to do if not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.commands.common import Json, print_json
from edgekd.errors import BundleError


def lint_command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.onnx...")], json: Json = False
) -> None:
    """Is this ONNX legal for TensorRT, OpenVINO and ONNX Runtime (exit code 2 if not)?"""
    from edgekd.plugins import missing_package

    try:
        from edgekd.export.lint import lint

        found = {file: lint(file) for file in files}
    except ModuleNotFoundError as error:
        raise missing_package(error.name or "onnx", "edgekd lint") from None
    illegal = [file for file, problems in found.items() if not all(p.is_legal for p in problems)]
    if json:
        print_json(
            [
                {
                    "file": str(file),
                    "legal": file not in illegal,
                    "problems": [
                        {
                            "rule": problem.rule,
                            "where": problem.where,
                            "message": problem.message,
                            "legal": problem.is_legal,
                            "hint": problem.hint,
                        }
                        for problem in problems
                    ],
                }
                for file, problems in found.items()
            ]
        )
    else:
        for file, problems in found.items():
            verdict = "not legal" if file in illegal else "legal"
            typer.echo(f"{file}: {verdict} for ONNX Runtime, OpenVINO and TensorRT")
            for problem in problems:
                typer.echo(f"  {'slow: ' if problem.is_legal else ''}{problem}")
                typer.echo(f"    hint: {problem.hint}")
    if illegal:
        count = f"{len(illegal)} of {len(files)} file{'s' * (len(files) > 1)}"
        verb = "is" if len(illegal) == 1 else "are"
        raise BundleError(f"{count} {verb} not legal for every runtime")
