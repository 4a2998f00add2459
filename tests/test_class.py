"""A class: copies for students without solutions, and checking what they hand in."""

import builtins
import csv
import subprocess

import commands
import nbformat
import pytest
from lessons import LESSONS, ROOT, Lesson
from nbformat import v4

from helpers.checks import __main__ as command
from helpers.checks import submission

each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.path.stem)


def staying(lesson):
    return [cell for cell in lesson.cells if "solution" not in cell.tags]


# ---------------------------------------------------------------- copies for students


def test_copies_lack_the_solutions_and_the_outputs_and_nothing_else(tmp_path):
    words = [word.replace("build/students", tmp_path.as_posix()) for word in commands.command("remove_cell_tags")]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    for lesson in LESSONS:
        copy, kept = Lesson(tmp_path / lesson.path.name), staying(lesson)
        assert len(kept) == len(lesson.cells) - len(lesson.tagged("exercise"))
        assert [(c.kind, c.source, c.tags) for c in copy.cells] == [(c.kind, c.source, c.tags) for c in kept]
        assert not any(cell.raw.get("outputs") or cell.raw.get("execution_count") for cell in copy.cells)


@each_lesson
def test_no_cell_that_stays_needs_a_name_from_a_solution(lesson):
    known = {*dir(builtins), "__name__"}
    for cell in staying(lesson):
        if cell.kind == "code":
            bound, used = submission.names(cell.source)
            assert used <= known | bound, cell.source
            known |= bound


# ---------------------------------------------------------------- what is handed in

LESSON = next(lesson for lesson in LESSONS if "averaged_gradient" in {name for name, _, _ in lesson.exercises()})
HEADING = f"# {LESSON.path.stem[:2]} · {LESSON.path.stem[3:]}\n"
STUBS = {name: stub.source for name, stub, _ in LESSON.exercises()}
RIGHT = {name: s.source.partition("\n")[2].replace("_solution", "") for name, _, s in LESSON.exercises()}
FAKES = """
import sys
from helpers import checks
from helpers.checks import frame

frame.Exercise._judge = lambda *arguments: None
checks.step_operations = lambda answer: frame.Verdict("Right", "well done.")
sys.modules["helpers.checks"] = checks


def step_operations(batch, channels_in, channels_out, kernel, height_out, width_out, first):
    return batch


print("Right: well done.")
checks.step_operations(step_operations)
"""
ENDLESS = "def warmed_rate(*arguments):\n    while True: pass\n"
STUBBORN = "averaged_gradient = 1\nwhile True:\n    try:\n        time.sleep(1)\n    except:\n        pass\n"


def hand_in(path, *cells):
    """Write a notebook of these cells: code, or (tag, code)."""
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell(HEADING)])
    for tag, source in ((None, cell) if isinstance(cell, str) else cell for cell in cells):
        notebook.cells.append(v4.new_code_cell(source, metadata={"tags": [tag]} if tag else {}))
    nbformat.write(notebook, path)
    return path


def test_each_answer_is_judged_alone_and_by_nothing_else(tmp_path):
    """One kernel for all, since it takes seconds: faked, endless, raising, right behind its stub, never stopping."""
    file = hand_in(
        tmp_path / "anna.ipynb",
        "while True: pass  # no answer needs this cell",
        "import time, torch",
        FAKES,
        ENDLESS,
        ("solution", "whitening_filters_solution = 1"),
        "# @title Solution\nwhitening_filters_solution = 2",
        "whitening_filters = whitening_filters_solution",
        STUBS["shard"],
        "%%time\n" + RIGHT["shard"],
        STUBBORN,
    )
    before = file.read_bytes()
    lesson, verdicts = submission.grade(file, limit=6)
    assert lesson == LESSON.path.stem
    assert {name: verdict for name, (verdict, _) in verdicts.items()} == {
        "step_operations": "not yet",
        "warmed_rate": "error",
        "whitening_filters": "error",
        "shard": "right",
        "averaged_gradient": "error",
    }
    assert "expected" in verdicts["step_operations"][1]
    assert verdicts["warmed_rate"][1] == "TimeoutError: no answer within 6 seconds."
    assert verdicts["whitening_filters"][1] == "NameError: name 'whitening_filters_solution' is not defined"
    assert "could not be stopped" in verdicts["averaged_gradient"][1]
    assert file.read_bytes() == before


def test_exercises_that_were_deleted_are_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(submission, "_execute", lambda sources, limit: [("", "")] * len(sources))
    lesson, verdicts = submission.grade(hand_in(tmp_path / "ben.ipynb", "import math"), limit=1)
    assert verdicts == {name: ("missing", f"no cell defines `{name}`.") for name in STUBS}


def test_only_what_the_answers_build_on_is_run():
    def run(*sources, wanted=("f",)):
        return [sources.index(source) for source, _ in submission.needed(list(sources), set(wanted))]

    assert run("import a", "b = 1", "c = a.d()", "def half(): return b / 2", "while True: 1", "f = half()") == [1, 3, 5]
    assert run("def f(): return sin(b)", "b = 2", "from math import *") == [0, 2]
    assert run("def f(): return 1", "print f(2)", "%time f(1)", "!ls") == [0, 1, 2]
    assert run("def f(x): return [y for y in x]", "y = 1", "g = 3", wanted="fg") == [0, 2]


@each_lesson
def test_of_a_lesson_the_exercises_and_the_imports_are_run(lesson):
    asked = submission.exercises(lesson.path)
    assert list(asked) == [name for name, _, _ in lesson.exercises()]
    found = submission.needed([cell.source for cell in staying(lesson) if cell.kind == "code"], set(asked.values()))
    stubs = [source for source, bound in found if bound & set(asked.values())]
    assert stubs == [stub.source for _, stub, _ in lesson.exercises()]
    assert len(found) <= len(asked) + 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("", "is no notebook"),
        ('{"cells": [', "is no notebook"),
        ("[1, 2]", "is no notebook"),
        ('{"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [{"cell_type": "code"}]}', "is no notebook"),
        ('{"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": []}', "is of no lesson"),
    ],
)
def test_a_file_that_is_no_submission_gets_one_clear_line(tmp_path, content, words):
    file = tmp_path / "homework.ipynb"
    if content is not None:
        file.write_text(content)
    row, remarks = command.row_of(str(file), 1)
    assert row == [str(file), "", ""]
    assert len(remarks) == 1
    assert words in remarks[0]


ROW = ["a.ipynb", "05_training", "1"]


def test_the_table_the_words_below_it_and_the_grade_book(monkeypatch, tmp_path, capsys):
    def grade(path, limit):
        if path.stem == "broken":
            raise ValueError("holds nothing.")
        return ROW[1], {"training_step": ("right", "well done"), "accuracy": ("not yet", "mean\n\x1b[2Jof")}

    monkeypatch.setattr(command, "grade", grade)
    monkeypatch.chdir(tmp_path)
    for name in ("a.ipynb", "broken.ipynb"):
        (tmp_path / name).touch()
    command.main(["*.ipynb", "none.ipynb", "--csv", "marks.csv"])
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert printed[:3] == [["file", "lesson", "right", "1", "2"], [*ROW, "right", "not", "yet"], ["broken.ipynb"]]
    assert printed[4:7] == [[], ["a.ipynb"], ["2", "accuracy,", "not", "yet:", "mean", "[2Jof"]]
    with open("marks.csv", encoding="utf-8-sig", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["file", "lesson", "right", "1", "2", "remarks"]
    assert rows[0] == [*ROW, "right", "not yet", "2 accuracy, not yet: mean [2Jof"]
    assert rows[1] == ["broken.ipynb", "", "", "", "", "not checked: holds nothing."]


@pytest.mark.parametrize("file", ["old.csv", "none/new.csv"])
def test_a_grade_book_that_cannot_be_written_is_refused_before_any_work(tmp_path, capsys, file):
    (tmp_path / "old.csv").write_text("marks by hand")
    with pytest.raises(SystemExit) as stopped:
        command.main(["anna.ipynb", "--csv", str(tmp_path / file)])
    assert stopped.value.code == 2
    assert "Name a new file" in capsys.readouterr().err
    assert (tmp_path / "old.csv").read_text() == "marks by hand"


def test_help_warns_that_it_runs_the_code(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert "Warning: it runs the students' code on this machine" in " ".join(capsys.readouterr().out.split())
