"""Lessons are saved by .github/save.py, which also notes the minutes that their heads and README tell."""

import csv
import json
import re

import pytest
from lessons import LESSONS, ROOT

LAST = 'print("Python\\nDevice: cpu. Profile: cpu. Data: CIFAR-10 (JPEG copy).\\nRun on 2026-11-22.")'


@pytest.fixture
def save(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / ".github")
    import save

    for name in ("CHECKPOINT_DIR", "COURSE_PROFILE", "DATA_DIR", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    return save


@pytest.fixture
def course(save, monkeypatch, tmp_path):
    """A course of one lesson, with a checkpoint and a table of runs of lesson 07."""
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": LAST, "outputs": [], "execution_count": None}
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "checkpoints").mkdir()
    page = tmp_path / "notebooks" / "05_training.ipynb"
    page.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}), encoding="utf-8")
    for name in ("05_training_x_cpu.pt", "07_experiments_x_cpu.csv"):
        (tmp_path / "checkpoints" / name).touch()
    monkeypatch.setattr(save, "NOTEBOOKS", page.parent)
    monkeypatch.setattr(save, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(save, "TIMES", page.parent / "seconds.csv")
    return page


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_lesson_is_run_anew_and_its_seconds_are_noted(save, course):
    save.note(dict.fromkeys(save.COLUMNS, "-") | {"lesson": "05_training", "profile": "gpu"})
    for _ in range(2):  # the second run takes the place of the first
        save.save(course)
    (output,) = json.loads(course.read_text(encoding="utf-8"))["cells"][0]["outputs"]
    assert "Profile: cpu" in "".join(output["text"])
    ours, other = rows(save.TIMES)
    assert 0 < int(ours.pop("seconds")) < 300
    said = {"device": "cpu", "profile": "cpu", "data": "CIFAR-10 (JPEG copy)", "date": "2026-11-22"}
    assert ours == {"lesson": "05_training"} | said
    assert other["profile"] == "gpu"
    assert [path.name for path in save.CHECKPOINTS.iterdir()] == ["07_experiments_x_cpu.csv"]


def test_a_run_that_is_not_of_this_machine_as_it_is_or_of_no_lesson_is_refused(save, course, monkeypatch):
    monkeypatch.setattr("sys.argv", ["save.py", "05", "99"])
    with pytest.raises(SystemExit, match="no lesson 99"):
        save.main()
    for name in ("CHECKPOINT_DIR", "DATA_DIR"):
        monkeypatch.setenv(name, "elsewhere")
        with pytest.raises(SystemExit, match=f"{name} is set to elsewhere"):
            save.main()
        monkeypatch.delenv(name)
    assert not save.TIMES.exists()


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.path.stem)
def test_a_lesson_tells_the_minutes_of_its_saved_run(save, lesson):
    (row,) = (row for row in rows(save.TIMES) if (row["lesson"], row["profile"]) == (lesson.path.stem, "cpu"))
    assert {k: row[k] for k in ("profile", "device", "data", "date")} == save.facts(lesson.path)
    number, unit = re.search(r"run in about (\S+) (minutes?|seconds)", lesson.cells[1].source).groups()
    told = float(number) * (1 if unit == "seconds" else 60)
    assert abs(told - int(row["seconds"])) <= max(15, 0.1 * told)
