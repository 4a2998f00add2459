"""What all checks share: how an answer is called and judged, and how the verdict is said in words."""

import functools
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn


class Verdict:
    """Outcome of a check: true if the answer is right; Jupyter shows its words."""

    def __init__(self, status: str, words: str):
        self.status, self.words = status, words

    def __bool__(self) -> bool:
        return self.status == "Right"

    def __repr__(self) -> str:
        return f"{self.status}: {self.words}"


class Wrong(Exception):
    pass


class Unsolved(Exception):
    pass


def check(function: Callable) -> Callable:
    """Turn a function that returns praise or raises `Wrong` into one that always returns a Verdict."""

    @functools.wraps(function)
    def checked(answer) -> Verdict:
        if answer is None or answer is ...:
            return Verdict("Not solved yet", "write your answer in the place of the three dots.")
        # A check draws random inputs; the notebook's own random numbers must not notice.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                return Verdict("Right", function(answer))
            except Unsolved as unsolved:
                return Verdict("Not solved yet", str(unsolved))
            except Wrong as wrong:
                return Verdict("Not yet", str(wrong))
            except Exception as error:  # an answer so unlike the others that the check itself stumbles over it
                return Verdict("Not yet", f"the check cannot work with this answer ({type(error).__name__}: {error}).")

    return checked


def require(condition, words: str) -> None:
    if not condition:
        raise Wrong(words)


def call(answer: Callable, *arguments):
    """answer(*arguments), with its errors turned into words. Tensors are passed as copies."""
    if not callable(answer):
        raise Wrong(f"pass the function itself, without calling it. Got {type(answer).__name__}.")
    copies = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
    try:
        result = answer(*copies)
    except Exception as error:  # whatever a reader's code raises is the reader's to see
        own = [line for line in traceback.extract_tb(error.__traceback__) if not _is_library(line.filename)]
        where = f" (in `{own[-1].name}`: `{own[-1].line}`)" if own and own[-1].line else ""
        raise Wrong(f"your code raised {type(error).__name__}: {error}{where}") from None
    if result is None or result is ...:
        what = "`forward`" if isinstance(answer, nn.Module) else "the function"
        raise Unsolved(f"{what} returns nothing yet. Write its body; every way through it must end in `return ...`.")
    return result


def _is_library(filename: str) -> bool:
    return Path(filename).parent == Path(__file__).parent or "site-packages" in filename


def tensor(value, shape: tuple, what: str) -> torch.Tensor:
    """`value` as a float tensor, or words about its type or shape."""
    require(isinstance(value, torch.Tensor), f"{what} must be a tensor, got {type(value).__name__}.")
    require(tuple(value.shape) == tuple(shape), f"{what} must have the shape {tuple(shape)}, got {tuple(value.shape)}.")
    return value.detach().double()


def close(value: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> bool:
    return torch.allclose(value.double(), expected.double(), rtol=tolerance, atol=tolerance)
