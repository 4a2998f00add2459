"""Every check accepts the lesson's solution and refuses the stub and the named wrong answers, in words that help."""

import copy
import importlib
import inspect
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from lessons import LESSONS
from torch import nn

from helpers import checks

EXERCISES = {name: (stub, solution) for lesson in LESSONS for name, stub, solution in lesson.exercises()}
WRONG, RIGHT = {}, {}
for path in sorted((Path(__file__).parent / "wrong_answers").glob("lesson_*.py")):
    answers = importlib.import_module(f"wrong_answers.{path.stem}")
    WRONG.update(answers.WRONG)
    RIGHT.update(getattr(answers, "RIGHT", {}))
CASES = [
    pytest.param(name, wrong, words, id=f"{name}-{what}")
    for name, answers in WRONG.items()
    for what, (wrong, words) in answers.items()
]
OTHERWISE = [
    pytest.param(name, right, id=f"{name}-{how}") for name, answers in RIGHT.items() for how, right in answers.items()
]


def verdict_of(cell):
    """Run an exercise or solution cell with the usual imports only; the value of its last line."""
    *body, last = cell.source.splitlines()
    namespace = {"copy": copy, "math": math, "torch": torch, "nn": nn, "F": F, "checks": checks}
    exec("\n".join(body), namespace)
    return eval(last, namespace)


def test_every_check_belongs_to_an_exercise_and_every_exercise_to_a_check():
    public = {
        name for name, value in vars(checks).items() if inspect.isfunction(value) and hasattr(value, "__wrapped__")
    }
    assert public == set(EXERCISES)
    assert public == set(WRONG)


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_is_right(name):
    verdict = verdict_of(EXERCISES[name][1])
    assert verdict, verdict


@pytest.mark.parametrize("name", EXERCISES)
def test_the_stub_is_not_solved_yet(name):
    verdict = verdict_of(EXERCISES[name][0])
    assert not verdict
    assert verdict.status == "Not solved yet"


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("answer", [None, ...])
def test_no_answer_is_not_solved_yet(name, answer):
    assert getattr(checks, name)(answer).status == "Not solved yet"


@pytest.mark.parametrize("name", EXERCISES)
def test_a_number_a_string_or_a_raising_function_gets_words(name):
    def broken(*args, **kwargs):
        raise KeyError("left out")

    assert getattr(checks, name)(17).status == "Not yet"
    assert getattr(checks, name)("text").status == "Not yet"
    verdict = getattr(checks, name)(broken)
    assert verdict.status == "Not yet"
    assert "KeyError" in verdict.words


@pytest.mark.parametrize("name", EXERCISES)
def test_at_least_three_wrong_answers_are_named(name):
    assert len(WRONG[name]) >= 3


@pytest.mark.parametrize(("name", "wrong", "words"), CASES)
def test_a_wrong_answer_is_told_what_is_wrong(name, wrong, words):
    verdict = getattr(checks, name)(wrong)
    assert verdict.status == "Not yet"
    assert words in verdict.words


@pytest.mark.parametrize(("name", "right"), OTHERWISE)
def test_a_right_answer_written_in_another_way_is_right(name, right):
    verdict = getattr(checks, name)(right)
    assert verdict, verdict


@pytest.mark.parametrize("name", EXERCISES)
def test_a_check_leaves_the_random_numbers_alone(name):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    verdict_of(EXERCISES[name][1])
    assert torch.equal(torch.rand(3), expected)
