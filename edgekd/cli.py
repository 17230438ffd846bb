"""The command line: which commands there are, and what an error becomes.

stdout is data (`--json` prints one document), stderr is talk. Exit codes: 0 done, 1 a bug,
2 usage, recipe or data, 3 a gate failed, 4 something is missing on this machine, 130 interrupted.
Heavy imports stand inside the commands, so that `--help` is quick and the device needs no torch.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from edgekd.commands import (
    analysis,
    data,
    device,
    importing,
    linting,
    recipes,
    reporting,
    sweeping,
    workflow,
)
from edgekd.errors import EdgekdError, MissingOnHost

INTERRUPTED = 130
BROKEN = {  # of files that Python does not name: what is wrong, and what to do
    errno.EFBIG: ("a file became larger than this system allows",
                  "`ulimit -f` shows the limit of this shell; or write to another disk"),
    errno.EIO: ("a disk could not be read or written (input/output error)",
                "write to another disk; the system's log says more"),
}  # fmt: skip

app = typer.Typer(
    name="edgekd",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Distil, quantize, prove and measure small models for edge medical devices.",
    epilog="Add --debug to any command for a traceback.",
)
data_app = typer.Typer(no_args_is_help=True, help="Look at a data set; make its fast copy.")
recipes_app = typer.Typer(no_args_is_help=True, help="Starting points that came with edgekd.")

app.command()(workflow.distill)
app.command()(workflow.export)
app.command("import")(importing.import_model)
app.command()(workflow.bench)
app.command()(analysis.analyze)
app.command()(reporting.report)
app.command()(workflow.run)
app.command()(sweeping.sweep)
app.command("lint")(linting.lint_command)
app.command()(device.predict)
app.command()(device.verify)
app.command()(device.doctor)
data_app.command("check")(data.data_check)
data_app.command("prepare")(data.data_prepare)
recipes_app.command("list")(recipes.recipes_list)
recipes_app.command("show")(recipes.recipes_show)
recipes_app.command("copy")(recipes.recipes_copy)
recipes_app.command("schema")(recipes.recipes_schema)
app.add_typer(data_app, name="data")
app.add_typer(recipes_app, name="recipes")


def _version(value: bool) -> None:
    if value:
        from edgekd import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        result = app(given, prog_name="edgekd", standalone_mode=False)
        if result == INTERRUPTED:  # what typer makes of KeyboardInterrupt
            return _interrupted(debug)
        return result if isinstance(result, int) else 0
    except KeyboardInterrupt:
        return _interrupted(debug)
    except EdgekdError as error:
        return _fail(error.message, error.hint, error.exit_code, debug)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            place = f" while writing {error.filename}" if error.filename else ""
            return _fail(
                f"the disk is full{place}",
                "free some space and run the same command again",
                MissingOnHost.exit_code,
                debug,
            )
        if error.errno in BROKEN and not error.filename:
            return _fail(*BROKEN[error.errno], MissingOnHost.exit_code, debug)
        if error.filename:
            return _fail(f"{error.filename}: {error.strerror}", None, 2, debug)
        return _bug(error, debug)
    except Exception as error:
        usage = getattr(error, "format_message", None)  # typer's own usage errors
        if usage is not None and type(error).__name__ == "NoArgsIsHelpError":
            print(usage(), file=sys.stderr)
            return 2
        if usage is not None:
            return _fail(usage(), "edgekd --help", 2, debug)
        if type(error).__name__ == "Abort":
            return _interrupted(debug)
        return _bug(error, debug)


def _interrupted(debug: bool) -> int:
    hint = "the same command (without --fresh) goes on from the last checkpoint"
    return _fail("interrupted", hint, INTERRUPTED, debug)


def _fail(message: str, hint: str | None, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    return code


def _bug(error: BaseException, debug: bool) -> int:
    hint = None if debug else "run it again with --debug and report what it prints"
    return _fail(f"this is a bug in edgekd: {type(error).__name__}: {error}", hint, 1, debug)


def entry() -> None:
    """Console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
