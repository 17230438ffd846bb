"""A sweep whose table stands in the documents.

    python benchmarks/study.py quickstart recipes/quickstart.yaml --seeds 1,2,3,4,5 --budget 45m

runs `edgekd sweep` with everything after the study's name, copies its results to
`benchmarks/results/NAME.json`, and puts the table made of them between the marks of
`docs/studies/NAME.md`. It can be stopped and given again; what was not run says `not run`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgekd.rundir import write_text
from edgekd.sweep.show import markdown as render

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "studies"
BEGIN = "<!-- table: made by a script in benchmarks/, not by hand -->"
END = "<!-- end of table -->"


def insert(document: str, table: str) -> str:
    """Replace what stands between the marks of a document."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"the document lacks the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"


def publish(name: str, record: dict[str, Any], table: str) -> None:
    """Keep a study's results, and its table in its document."""
    write_text(
        HERE / "results" / f"{name}.json", json.dumps(record, indent=1, sort_keys=True) + "\n"
    )
    document = DOCS / f"{name}.md"
    if document.is_file():
        write_text(document, insert(document.read_text(encoding="utf-8"), table))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("sweep", nargs=argparse.REMAINDER, help="what `edgekd sweep` is given")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "edgekd", "sweep", *arguments.sweep, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.stdout:
        record = json.loads(done.stdout)
        publish(arguments.name, record, render(record))
        print(render(record))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
