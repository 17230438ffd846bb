"""The page and its siblings: offline, inert, complete, the same figures everywhere."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from edgekd.report import table
from edgekd.report.render import report
from edgekd.rundir import RunDir
from tests.report import fake_run
from tests.report.conftest import Reported

SECTIONS = ["Results", "Latency", "Classes", "Confusions", "Calibration", "Training", "Gates",
            "Data", "Provenance"]  # fmt: skip
HOSTILE = ["<script>alert(1)</script>", "a|b *c* `d`", 'say "$x$" & go', "正常"]


class Page(HTMLParser):
    """What a browser would make of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.tags.append((tag, facts))
        self.open.append(tag)
        if facts.get("id"):
            self.ids.append(str(facts["id"]))
        for name in ("href", "src", "action", "data", "poster", "srcset"):
            if facts.get(name):
                self.links.append(str(facts[name]))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"h2", "h3"}:
            self.headings.append(data)
        if "style" not in self.open:
            self.text.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


@pytest.fixture(scope="module")
def page(reported: Reported) -> Page:
    return Page(reported.html)


def test_the_page_needs_nothing_from_outside(reported: Reported, page: Page) -> None:
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"url\((?!#)|@import|https?://", reported.html)
    assert "default-src 'none'" in reported.html


def test_there_is_no_script(page: Page) -> None:
    assert page.count("script") == 0
    assert not any(name.startswith("on") for _, facts in page.tags for name in facts)


def test_every_section_is_there_in_order(page: Page) -> None:
    assert page.headings == SECTIONS


def test_links_and_drawings_refer_to_ids_that_exist_once(reported: Reported, page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    wanted = {link[1:] for link in page.links} | set(re.findall(r"url\(#([^)]+)\)", reported.html))
    assert wanted <= set(page.ids)


def test_every_table_has_headings_and_a_name(page: Page) -> None:
    tables = [facts for tag, facts in page.tags if tag == "table"]
    assert len(tables) > 10
    assert all(facts.get("aria-label") for facts in tables)
    scopes = [facts.get("scope") for tag, facts in page.tags if tag == "th"]
    assert set(scopes) == {"col", "row"}


def test_every_figure_says_in_words_what_it_shows(page: Page) -> None:
    drawings = [facts for tag, facts in page.tags if tag == "svg"]
    assert len(drawings) == 12  # 2 hosts x 3, classes, calibration, 2 stages x 2
    assert all(facts.get("role") == "img" and facts.get("aria-label") for facts in drawings)


def test_drawings_take_their_colours_from_the_page(reported: Reported) -> None:
    drawings = "".join(re.findall(r"<svg.*?</svg>", reported.html, flags=re.DOTALL))
    assert "var(--ink)" in drawings
    assert not re.search(r"(fill|stroke): #", drawings)


def test_the_header_says_what_to_deploy_and_why(page: Page) -> None:
    text = " ".join(" ".join(page.text).split())
    assert "Deploy on bedside: openvino-int8" in text
    assert "15.6×" in text  # over the teacher fp32 in ONNX Runtime
    assert "8.94×" in text  # like for like
    assert "onnx-int8: refused" in text


def test_measured_figures_say_on_how_much(page: Page) -> None:
    text = " ".join(page.text)
    assert "360 images of 120 groups; one training run, seed 1" in text
    assert "latency measured at batch 1 on bedside (CPU, 2 threads)" in text


def test_names_from_the_data_are_inert(tmp_path: Path) -> None:
    run = fake_run.write(tmp_path / "run", classes=HOSTILE)
    files = report([run.root])
    text = files.html.read_text(encoding="utf-8")
    page = Page(text)
    assert page.count("script") == 0
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert 'say "$x$" & go' in page.text  # not read as mathematics
    markdown = files.markdown.read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert r"a\|b \*c\* \`d\`" in markdown


def test_a_run_without_benchmarks_says_so_in_every_place(
    copy_run: Callable[..., RunDir],
) -> None:
    run = copy_run()
    shutil.rmtree(run.bundle / "bench")
    shutil.rmtree(run.reference / "bench")
    files = report([run.root])
    page = Page(files.html.read_text(encoding="utf-8"))
    assert page.headings == SECTIONS
    text = " ".join(" ".join(page.text).split())
    assert "Deploy on this host: not measured" in text
    assert "Latency: not measured." in text
    assert "latency_p50,,,,ms,not measured" in files.csv.read_text()


def test_the_same_run_gives_the_same_bytes(reported: Reported, tmp_path: Path) -> None:
    again = report([reported.run.root], out=tmp_path / "again")
    for name in ("html", "markdown", "csv", "json"):
        assert getattr(again, name).read_bytes() == getattr(reported.files, name).read_bytes()


def test_markdown_tables_are_rectangular(reported: Reported) -> None:
    lines = reported.files.markdown.read_text(encoding="utf-8").splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert len(tables) > 40
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
    for line, (before, here) in zip(lines[1:], itertools.pairwise(widths), strict=True):
        if re.match(r"\|[ -]+:? ", line):
            assert before == here


def test_csv_is_long_and_labelled(reported: Reported) -> None:
    rows = list(csv.DictReader(io.StringIO(reported.files.csv.read_text(encoding="utf-8"))))
    assert {"model", "artifact", "host", "metric", "value", "low", "high", "unit", "status"} <= set(
        rows[0]
    )
    found = [r for r in rows if (r["model"], r["artifact"], r["host"], r["metric"], r["batch"])
             == ("student", "openvino-int8", "bedside", "latency_p50", "1")]  # fmt: skip
    assert [(float(r["value"]), r["unit"], r["status"]) for r in found] == [
        (pytest.approx(0.41), "ms", "measured")
    ]
    assert all(bool(r["value"]) == (r["status"] == "measured")
               for r in rows if r["metric"] != "gate")  # fmt: skip


def test_json_holds_the_joined_data(reported: Reported) -> None:
    tree = json.loads(reported.files.json.read_text(encoding="utf-8"))
    assert tree["summary"] == reported.files.summary
    assert tree["summary"]["runs"][0]["hosts"][0]["deploy"] == "openvino-int8"
    assert tree["runs"][0]["gates"][1]["word"] == "refused"


def test_several_runs_share_a_page_with_a_comparison(
    copy_run: Callable[..., RunDir], tmp_path: Path
) -> None:
    for seed in (1, 2, 3):
        run = copy_run(f"runs/seed{seed}")
        text = run.recipe.read_text().replace("seed: 1\n", f"seed: {seed}\n")
        run.recipe.write_text(text.replace("name: quickstart", f"name: quickstart-seed{seed}"))
    files = report([tmp_path / "runs"])
    assert files.html == tmp_path / "runs" / "report" / "index.html"
    page = Page(files.html.read_text(encoding="utf-8"))
    assert len(page.ids) == len(set(page.ids))
    assert [h for h in page.headings if h.startswith("quickstart")] == [
        "quickstart-seed1", "quickstart-seed2", "quickstart-seed3"]  # fmt: skip
    text = " ".join(page.text)
    assert "3 runs side by side" in text
    assert "over seeds" in text
    # the report of a folder is not one of its runs the next time
    assert len(report([tmp_path / "runs"]).data) == 3


def test_out_keeps_what_else_is_there(reported: Reported, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    report([reported.run.root], out=tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_the_closing_table_fits_a_terminal(reported: Reported) -> None:
    from rich.console import Console

    console = Console(width=80, file=io.StringIO())
    with console.capture() as capture:
        console.print(table.terminal(reported.files.data[0]))
    text = capture.get()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    words = " ".join(text.split())
    assert "Deploy on this host: openvino-int8: fastest that passed its gates" in words
    for expected in ("1.26 M", "12.3 M", "0.410", "15.6×", "refused"):
        assert expected in words
