"""Every check accepts the lesson's solution and other right answers, and names each mistake of its table."""

import copy
import importlib
import math
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lessons import LESSONS
from torch import nn

from helpers import checks
from helpers.checks.frame import Exercise

CELLS = {name: (stub, solution) for lesson in LESSONS for name, stub, solution in lesson.exercises()}
CHECKS = {name: value for name, value in vars(checks).items() if isinstance(value, Exercise)}
ANSWERS = [
    importlib.import_module(f"answers.{path.stem}")
    for path in sorted((Path(__file__).parent / "answers").glob("lesson_*.py"))
]
each_check = pytest.mark.parametrize("name", CHECKS)


def verdict_of(cell):
    """Run an exercise or solution cell with the usual imports only; the value of its last line."""
    *body, last = cell.source.splitlines()
    namespace = {"copy": copy, "math": math, "torch": torch, "nn": nn, "F": F, "checks": checks}
    exec("\n".join(body), namespace)
    return eval(last, namespace)


def each_answer(kind):
    """(name of the check, answer, words that must come) of each."""
    return pytest.mark.parametrize(
        ("name", "answer", "words"),
        [
            pytest.param(name, answer, getattr(a, "WORDS", {}).get(name, {}).get(how, ""), id=f"{name}-{how}")
            for a in ANSWERS
            for name, answers in getattr(a, kind).items()
            for how, answer in answers.items()
        ],
    )


def mistakes():
    for name, check in CHECKS.items():
        for words, mistake in check.mistakes.items():
            for number, one in enumerate(mistake if isinstance(mistake, tuple) else (mistake,)):
                yield pytest.param(name, one, words, id=f"{name}-{words[:40]}-{number}")


def test_every_check_belongs_to_an_exercise_and_every_exercise_to_a_check():
    assert set(CHECKS) == set(CELLS)
    for a in ANSWERS:
        assert set(a.RIGHT) | set(a.WRONG) <= set(CHECKS)
        assert all(set(some) <= set(a.WRONG[name]) for name, some in getattr(a, "WORDS", {}).items())


@each_check
def test_the_solution_and_the_reference_are_right(name):
    verdict = verdict_of(CELLS[name][1])
    assert verdict, verdict
    verdict = CHECKS[name](CHECKS[name].reference)
    assert verdict, verdict


@each_check
def test_what_is_not_there_is_not_solved_yet(name):
    for verdict in (verdict_of(CELLS[name][0]), CHECKS[name](None), CHECKS[name](...)):
        assert not verdict
        assert verdict.status == "Not solved yet"


@each_check
def test_what_is_no_answer_gets_words(name):
    def broken(*args, **kwargs):
        raise KeyError("left out")

    for answer in (17, "text"):
        assert CHECKS[name](answer).status == "Not yet"
        assert "without calling it" in CHECKS[name](answer).words
    assert CHECKS[name](lambda *args, **kwargs: "text").status == "Not yet"
    for answer, error in ((broken, "KeyError"), (lambda *args, **kwargs: sys.exit(3), "SystemExit")):
        verdict = CHECKS[name](answer)
        assert verdict.status == "Not yet"
        assert error in verdict.words


@pytest.mark.parametrize(("name", "mistake", "words"), list(mistakes()))
def test_a_mistake_is_told_by_its_words(name, mistake, words):
    verdict = CHECKS[name](mistake)
    assert verdict.status == "Not yet"
    assert verdict.words == words or verdict.words.endswith(f". {words}")  # the second behind the error that it raises


@each_answer("RIGHT")
def test_a_right_answer_written_in_another_way_is_right(name, answer, words):
    verdict = CHECKS[name](answer)
    assert verdict, verdict


@each_answer("WRONG")
def test_a_wrong_answer_that_no_table_holds_is_refused(name, answer, words):
    verdict = CHECKS[name](answer)
    assert verdict.status == "Not yet"
    assert words in verdict.words


def state():
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "python": random.getstate(),
        "settings": [torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()],
    }


@each_check
def test_the_callers_random_numbers_and_settings_stay_as_they_were(name):
    def rude(*args, **kwargs):
        for seed in (torch.manual_seed, np.random.seed, random.seed):
            seed(7)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(2 if torch.get_num_threads() != 2 else 1)
        torch.set_grad_enabled(False)

    before = state()
    CHECKS[name](CHECKS[name].reference)
    assert state() == before
    CHECKS[name](rude)
    assert state() == before
    with torch.no_grad():
        CHECKS[name](rude)
        assert not torch.is_grad_enabled()


@each_check
def test_a_check_does_not_depend_on_the_callers_settings(name):
    reference = CHECKS[name].reference
    for context in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16)):
        with context:
            verdict = CHECKS[name](reference)
            assert verdict, verdict
    torch.set_default_dtype(torch.float64)
    try:
        verdict = CHECKS[name](reference)
    finally:
        torch.set_default_dtype(torch.float32)
    assert verdict, verdict
