"""The table of lesson 07: the cell tagged `runner` is run with a training that only counts.

Then what the saved page says, recomputed from the table of that run, which lies beside the page.
"""

import csv
import json
import os
import re
import statistics

import pytest
from lessons import LESSONS, ROOT

from helpers import utils

(LESSON,) = (lesson for lesson in LESSONS if lesson.path.stem == "07_experiments")


@pytest.fixture
def runner(tmp_path):
    """The names of that cell, with a small BASE; `trained` lists the (settings, seed) that were run."""
    (cell,) = LESSON.tagged("runner")
    trained = []

    def run(settings, seed):
        trained.append((dict(settings), seed))
        measured = {"accuracy": 50.0 + seed / 3, "seconds": 1.5, "step_seconds": 0.1}
        return measured | {"note": "", "hits": "1 2 3"}

    names = {"csv": csv, "json": json, "os": os, "utils": utils, "run": run, "trained": trained, "SEEDS": range(3)}
    names |= {"TABLE": tmp_path / "folder" / "table.csv", "BASE": {"lr": 0.05, "clip": None, "augment": ""}}
    exec(cell.source, names)
    return names


def test_a_restarted_lesson_trains_only_what_is_missing(runner):
    runner["complete"]("first", {"faster": {"lr": 0.1}}, [0, 1])
    assert len(runner["trained"]) == 2
    runner["complete"]("second", {"faster": {"lr": 0.1}, "baseline": {}})
    assert runner["trained"][2:] == [(runner["BASE"] | {"lr": 0.1}, 2), *((runner["BASE"], seed) for seed in range(3))]
    assert runner["accuracies"]({"lr": 0.1}) == [50.0 + seed / 3 for seed in range(3)]


def test_rows_come_back_from_the_file_as_they_were_measured(runner):
    row = runner["result"]({"lr": 0.1}, 1)
    assert runner["read_table"]() == [row]
    assert runner["result"]({"lr": 0.1}, 1) == row
    assert json.loads(row["settings"]) == {"lr": 0.1, "clip": None, "augment": ""}


def test_rows_of_another_baseline_are_not_found(runner):
    runner["result"]({"lr": 0.1}, 0)
    runner["BASE"]["clip"] = 1.0
    assert runner["find"]({"lr": 0.1}, 0) is None
    runner["result"]({"lr": 0.1}, 0)
    assert len(runner["trained"]) == len(runner["read_table"]()) == 2


def test_whoever_is_killed_while_writing_keeps_the_table(runner, monkeypatch):
    runner["result"]({}, 0)
    before = runner["TABLE"].read_bytes()

    def killed(*paths):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            runner["result"]({}, 1)
    assert runner["TABLE"].read_bytes() == before
    runner["result"]({}, 1)
    assert [row["seed"] for row in runner["read_table"]()] == [0, 1]


def test_names_say_what_differs_in_the_order_of_the_baseline(runner):
    name_of = runner["name_of"]
    assert name_of({}) == name_of({"lr": 0.05}) == "baseline"
    assert name_of({"clip": 1.0, "lr": 0.1}) == "lr 0.1, clip 1.0"
    runner["BASE"]["augment"] = "crop"
    assert name_of({"augment": ""}) == "augment none"


def test_a_misspelt_setting_is_refused(runner):
    with pytest.raises(ValueError, match=r"BASE has no setting \['rate'\]"):
        runner["result"]({"rate": 0.1}, 0)
    assert runner["trained"] == []


def test_another_file_of_that_name_is_left_alone(runner):
    runner["TABLE"].parent.mkdir()
    runner["TABLE"].write_text("year,sales\n2026,3\n")
    with pytest.raises(ValueError, match="is not a table of this lesson"):
        runner["result"]({}, 0)
    assert runner["TABLE"].read_text() == "year,sales\n2026,3\n"


# ---------------------------------------------------------------- the saved page


@pytest.fixture(scope="module")
def rows():
    """All rows of the table that the saved page was made from."""
    with open(ROOT / "notebooks" / "07_experiments.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def printed():
    """All that the saved page has printed."""
    outputs = [output for cell in LESSON.cells for output in cell.raw.get("outputs", [])]
    texts = ["".join(o.get("text", o.get("data", {}).get("text/plain", ""))) for o in outputs]
    return "".join(text if text.endswith("\n") else f"{text}\n" for text in texts)


def of_seeds(rows, name, seeds=(0, 1, 2)):
    found = {int(row["seed"]): float(row["accuracy"]) for row in rows if row["name"] == name}
    return [found[seed] for seed in seeds]


def test_each_row_says_what_it_was_run_with(rows):
    assert len(rows) > 100
    assert len({(row["settings"], row["seed"]) for row in rows}) == len(rows)
    for row in rows:
        settings = json.loads(row["settings"])
        count = int(settings["judge"].split()[0])
        hits = [int(part) for part in row["hits"].split()]
        assert len(hits) == 10
        assert float(row["accuracy"]) == pytest.approx(100 * sum(hits) / count)
        assert {"network", "images", "data", "computed by"} <= set(settings)
    assert len({json.loads(row["settings"])["computed by"] for row in rows}) == 1


def test_each_line_of_advice_is_that_of_its_rows(rows, printed):
    lines = re.findall(r"(?m)^  .*?(\d+\.\d)% ± (\d+\.\d) +row: (.+)$", printed)
    assert len(lines) > 30
    for mean, spread, name in lines:
        mine = of_seeds(rows, name)
        assert float(mean) == pytest.approx(statistics.mean(mine), abs=0.051)
        assert float(spread) == pytest.approx(statistics.stdev(mine), abs=0.051)


def test_gains_over_the_baseline_are_those_of_the_rows(rows, printed):
    base = of_seeds(rows, "baseline")
    page = printed[printed.index("one augmentation, against none") :]
    topics = re.findall(r"(?m)^(?:.+, against (?:none|the baseline))\n((?: .+\n)+)", page)
    lines = [line for topic in topics for line in topic.splitlines()]
    assert len(lines) > 15
    for line in lines:
        gain, name = re.search(r"([+-]\d+\.\d) .+ row: (.+)$", line).groups()
        assert float(gain) == pytest.approx(statistics.mean(of_seeds(rows, name)) - statistics.mean(base), abs=0.051)
