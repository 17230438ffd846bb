"""The printed tables as data: none is missing, and they are as consistent as the papers are."""

from __future__ import annotations

import pytest

from edgekd.published import PublishedRow, table, tables

FIGURES = {
    "dspkd_table1": 70, "dspkd_table2": 27, "dspkd_table3": 27, "dspkd_table4": 36,
    "dspkd_table5": 28, "dspkd_table6": 15, "dspkd_table7": 14,
    "rskd_table1": 0, "rskd_table2": 10, "rskd_table3": 112, "rskd_table4": 20,
}  # fmt: skip
SIZES = {"params_m", "gmacs", "latency_s"}


def one(name: str, method: str, scenario: str | None = None) -> PublishedRow:
    [row] = table(name).rows_of(method, scenario)
    return row


@pytest.mark.parametrize("name", FIGURES)
def test_no_figure_is_missing(name: str) -> None:
    assert sum(len(row.values) for row in table(name).rows) == FIGURES[name]


def test_that_are_all_tables_of_the_two_papers() -> None:
    papers = ("dspkd_", "rskd_")
    assert {name for name in tables() if name.startswith(papers)} == set(FIGURES)
    totals = [sum(n for name, n in FIGURES.items() if name.startswith(p)) for p in papers]
    lines_of_words = len(table("rskd_table1").rows)
    assert totals == [217, 146 - lines_of_words]


def test_a_table_of_words_has_words() -> None:
    found = {row.method: row.examples for row in table("rskd_table1").rows}
    assert list(found) == ["optic_disc", "macula", "vessels", "global"]
    assert found["vessels"] == [
        "arteriovenous crossing phenomenon", "perivascular sheathing"]  # fmt: skip


def test_scores_are_shares_and_a_line_stands_once() -> None:
    for name in FIGURES:
        rows = table(name).rows
        assert len({(row.scenario, row.method) for row in rows}) == len(rows), name
        if name == "rskd_table2":
            continue  # it counts images
        for row in rows:
            for score, value in row.values.items():
                assert score in SIZES or value is None or 0 < value < 1, (name, row.method, score)


def test_images_add_up_to_their_sum() -> None:
    for dataset in ("Lesion-10", "Disease-48"):
        values = dict(one("rskd_table2", "images", dataset).values)
        total = values.pop("labels_sum")
        assert sum(value or 0 for value in values.values()) == total


def test_rskds_total_is_the_mean_of_three_groups_but_in_two_doubtful_lines() -> None:
    walked, doubtful = 0, []
    for row in (*table("rskd_table3").rows, *table("rskd_table4").rows):
        groups = [row.values[f"map_{name}"] or 0 for name in ("head", "medium", "tail")]
        total = row.values["map_groups"] or 0
        fits = abs(sum(groups) / 3 - total) < 0.00011
        assert fits != bool(row.suspect), row
        walked += 1
        doubtful += [] if fits else [row.method]
    assert walked == 33
    assert doubtful == ["RW_reweighting", "KD_T20"]


@pytest.mark.parametrize("name", ["dspkd_table4", "dspkd_table5"])
def test_dspkds_macro_f1_is_the_mean_of_the_classes(name: str) -> None:
    for row in table(name).rows:
        classes = [value or 0 for score, value in row.values.items() if score.startswith("f1_")]
        assert sum(classes) / len(classes) == pytest.approx(row.values["macro_f1"], abs=0.00011)


def test_dspkd_prints_the_same_figure_everywhere() -> None:
    for dataset, name in (("ISIC2019", "dspkd_table2"), ("PSD", "dspkd_table3")):
        for teacher in ("Res2Net101", "ConvNeXt", "EfficientNet-B4"):
            alone = one("dspkd_table1", teacher, dataset).values["accuracy"]
            assert one(name, "teacher_alone", teacher).values["accuracy"] == alone
            student = one("dspkd_table1", "ShuffleNetV2", dataset).values["accuracy"]
            assert one(name, "student_alone", teacher).values["accuracy"] == student
    for first, method, second, again in (
        ("dspkd_table2", "DSP-KD", "dspkd_table6", "DSP-KD"),
        ("dspkd_table2", "SSD-KD", "dspkd_table6", "SSD-KD"),
        ("dspkd_table2", "DSP-KD", "dspkd_table7", "S+MGD+HF+NKD (DSP-KD)"),
        ("dspkd_table2", "MGD", "dspkd_table7", "S+MGD (a)"),
        ("dspkd_table2", "KD", "dspkd_table7", "S+VKD (b)"),
    ):
        accuracy = one(first, method, "Res2Net101").values["accuracy"]
        assert one(second, again).values["accuracy"] == accuracy


def test_dspkds_gains_are_differences() -> None:
    over = {"S+MGD (a)": "S", "S+MGD+HF (stage 1)": "S+MGD (a)", "S+VKD (b)": "S",
            "S+NKD (stage 2)": "S+VKD (b)", "S+MGD+HF+VKD": "S+MGD+HF (stage 1)",
            "S+MGD+HF+NKD (DSP-KD)": "S+MGD+HF (stage 1)"}  # fmt: skip
    accuracy = {row.method: row.values["accuracy"] or 0 for row in table("dspkd_table7").rows}
    for row in table("dspkd_table7").rows:
        gain = row.values["gain"]
        if row.method == "S":
            assert gain is None
        else:
            assert gain == pytest.approx(accuracy[row.method] - accuracy[over[row.method]])
