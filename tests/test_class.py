"""A class: copies for students without solutions, and checking what they hand in."""

import builtins
import csv
import json
import subprocess

import commands
import pytest
from lessons import LESSONS, ROOT, Lesson

from helpers.checks import __main__ as command
from helpers.checks import submission

each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.path.stem)


def staying(lesson):
    return [cell for cell in lesson.cells if "solution" not in cell.tags]


# ---------------------------------------------------------------- copies for students


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("students")
    words = [word.replace("build/students", folder.as_posix()) for word in commands.command("remove_cell_tags")]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder


@each_lesson
def test_a_copy_lacks_the_solutions_and_the_outputs_and_nothing_else(lesson, copies):
    copy = Lesson(copies / lesson.path.name)
    kept = staying(lesson)
    assert len(kept) == len(lesson.cells) - len(lesson.tagged("exercise"))
    assert [(cell.kind, cell.source, cell.tags) for cell in copy.cells] == [
        (cell.kind, cell.source, cell.tags) for cell in kept
    ]
    for cell in copy.cells:
        assert not cell.raw.get("outputs")
        assert cell.raw.get("execution_count") is None


@each_lesson
def test_no_cell_that_stays_needs_a_name_from_a_solution(lesson):
    known = {*dir(builtins), "__name__"}
    for cell in staying(lesson):
        if cell.kind == "code":
            bound, used = submission.names(cell.source)
            assert used <= known | bound, cell.source
            known |= bound


# ---------------------------------------------------------------- what is handed in

HEADING = ("markdown", "# 03 · ResNet from scratch\n")
IMPORTS = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n\nfrom helpers import checks"
STUBS = {name: stub.source for name, stub, _ in LESSONS[2].exercises()}
SOLUTIONS = {name: solution.source for name, _, solution in LESSONS[2].exercises()}
RIGHT = {
    name: source.removeprefix("# @title Solution\n").replace("_solution", "").replace("Solution", "")
    for name, source in SOLUTIONS.items()
}


def hand_in(path, *cells):
    """Write a notebook of these cells: code, or (kind, source), or (kind, source, tags)."""
    kinds = [("code", cell) if isinstance(cell, str) else cell for cell in cells]
    content = [
        {"cell_type": kind, "source": source.splitlines(keepends=True), "metadata": {"tags": list(tags)}}
        for kind, source, *tags in kinds
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": content}))
    return path


FAKES = """
import sys

from helpers.checks import frame

frame.require = lambda *arguments: None
checks.batch_norm_train = lambda answer: frame.Verdict("Right", "well done.")
sys.modules["helpers.checks"] = checks


def batch_norm_train(x, weight, bias, eps):
    return x


print("Right: well done.")
checks.batch_norm_train(batch_norm_train)
"""
ENDLESS = "while True:\n    pass\n\n\nclass BasicBlock(nn.Module): ..."


def test_each_answer_is_judged_alone_and_by_nothing_else(tmp_path):
    """One kernel for all, since each takes seconds: faked, raising, endless, not solved, right."""
    file = hand_in(
        tmp_path / "anna" / "my homework.ipynb",
        ("markdown", "Anna, second group"),
        HEADING,
        "assert False, 'no answer needs this cell'",
        IMPORTS,
        FAKES,
        ("code", SOLUTIONS["shortcut"], "solution"),
        "shortcut = shortcut_solution",
        ENDLESS,
        STUBS["first_loss"],
        "# @title Solution\n" + RIGHT["first_loss"],
        "%%time\n" + RIGHT["repaired_network"].rpartition("checks.")[0],
    )
    before = file.read_bytes()
    lesson, verdicts = submission.grade(file, limit=3)
    assert lesson == "03_resnet_from_scratch"
    assert {name: verdict for name, (verdict, _) in verdicts.items()} == {
        "batch_norm_train": "not yet",
        "shortcut": "error",
        "basic_block": "error",
        "first_loss": "not solved",
        "repaired_network": "right",
    }
    assert "the mean is not subtracted" in verdicts["batch_norm_train"][1]
    assert "NameError: name 'shortcut_solution' is not defined" in verdicts["shortcut"][1]
    assert "no answer within 3 seconds" in verdicts["basic_block"][1]
    assert file.read_bytes() == before


def test_exercises_that_were_deleted_are_missing(tmp_path):
    _, verdicts = submission.grade(hand_in(tmp_path / "03_resnet_from_scratch_ben.ipynb", IMPORTS), limit=3)
    assert list(verdicts) == list(STUBS)
    assert {verdict for verdict, _ in verdicts.values()} == {"missing"}
    assert verdicts["basic_block"][1] == "no cell defines `BasicBlock`."


def test_only_what_the_answers_build_on_is_run():
    heavy = "while True: pass"
    sources = ["import a", "b = 1", "c = a.long()", "def half(): return b / 2", heavy, "%%time\nf = half()"]
    assert submission._plan(sources, {"f"}) == ([1, 3, 5], {"f": 5})
    assert submission._plan(["def f(): return sin(b)", "b = 2", "from math import *"], {"f"}) == ([0, 2], {"f": 0})
    assert submission._plan(["def f(): return 1", "print f(2)"], {"f"}) == ([0, 1], {"f": 1})
    assert submission._plan(["def f(x): return [y for y in x]", "g = 3"], {"g", "f"}) == ([0, 1], {"f": 0, "g": 1})


@each_lesson
def test_of_a_lesson_the_exercises_and_the_imports_are_run(lesson):
    asked = submission.exercises(lesson.path)
    assert list(asked) == [name for name, _, _ in lesson.exercises()]
    cells = [cell for cell in staying(lesson) if cell.kind == "code"]
    needed, last = submission._plan([cell.source for cell in cells], set(asked.values()))
    assert [cells[last[answer]] for answer in asked.values()] == [stub for _, stub, _ in lesson.exercises()]
    assert len(needed) <= len(asked) + 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("folder", "is a folder"),
        ("", "holds no JSON"),
        ('{"cells": [', "holds no JSON"),
        ("[1, 2]", "no notebook of format 4"),
        ('{"nbformat": 3, "worksheets": []}', "no notebook of format 4"),
        ('{"nbformat": 4, "cells": [{}]}', "no notebook of format 4"),
        ('{"nbformat": 4, "cells": [{"cell_type": "", "source": "", "metadata": {"tags": 3}}]}', "no notebook of"),
        ('{"nbformat": 4, "cells": []}', "is of no lesson"),
    ],
)
def test_a_file_that_is_no_submission_gets_one_clear_line(tmp_path, content, words):
    file = tmp_path / "homework.ipynb"
    if content == "folder":
        file.mkdir()
    elif content is not None:
        file.write_text(content)
    row, remarks = command.row_of(str(file), 1)
    assert row == [str(file), "", ""]
    assert len(remarks) == 1
    assert words in remarks[0]


@pytest.fixture
def graded(monkeypatch):
    """The command without kernels: every submission gets these verdicts; one of them cannot be read."""

    def grade(path, limit):
        if path.stem == "broken":
            raise ValueError("holds no JSON.")
        words = "mean\n\x1b[2Jof means"
        return "05_training", {"training_step": ("right", "well done"), "accuracy": ("not yet", words)}

    monkeypatch.setattr(command, "grade", grade)


def test_the_table_and_below_it_the_words(graded, capsys):
    command.main(["anna.ipynb", "broken.ipynb"])
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["file", "lesson", "right", "1", "2"],
        ["anna.ipynb", "05_training", "1", "right", "not", "yet"],
        ["broken.ipynb"],
        [],
        ["anna.ipynb"],
        ["2", "accuracy,", "not", "yet:", "mean", "[2Jof", "means"],
        [],
        ["broken.ipynb"],
        ["not", "checked:", "holds", "no", "JSON."],
    ]


def test_the_grade_book_holds_the_same(graded, tmp_path):
    for name in ("a.ipynb", "broken.ipynb", "b.ipynb"):
        (tmp_path / name).touch()
    command.main([str(tmp_path / "*.ipynb"), "--csv", str(tmp_path / "marks.csv")])
    with open(tmp_path / "marks.csv", encoding="utf-8-sig", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["file", "lesson", "right", "1", "2", "remarks"]
    assert [row[1:5] for row in rows] == [["05_training", "1", "right", "not yet"]] * 2 + [[""] * 4]
    assert [row[0] for row in rows] == [str(tmp_path / name) for name in ("a.ipynb", "b.ipynb", "broken.ipynb")]
    assert rows[0][5] == "2 accuracy, not yet: mean [2Jof means"
    assert rows[2][5] == "not checked: holds no JSON."


@pytest.mark.parametrize(("file", "words"), [("old.csv", "it exists"), ("none/new.csv", "no such folder")])
def test_a_grade_book_that_cannot_be_written_is_refused_before_any_work(tmp_path, capsys, file, words):
    (tmp_path / "old.csv").write_text("marks by hand")
    with pytest.raises(SystemExit) as stopped:
        command.main(["anna.ipynb", "--csv", str(tmp_path / file)])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err
    assert (tmp_path / "old.csv").read_text() == "marks by hand"


def test_help_warns_that_it_runs_the_code(capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert "Warning: it runs the students' code on this machine" in " ".join(capsys.readouterr().out.split())
