"""What all checks share. An exercise is a table: cases, a reference, and named mistakes with the words for each.

The answer is run on every case, twice, and compared with the reference. Where they differ, the mistake that gives what
the answer gives in every case has the word; where there is none, the check says what was expected and what came.
"""

import contextlib
import copy
import functools
import inspect
import random
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
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
    """The answer is not right. The message says why, for the reader."""

    error = ""  # what the answer's own code raised, if that is why


class Unsolved(Wrong):
    """The exercise still holds its dots."""


class Exercise:
    """A check: `exercise(answer)` returns a Verdict. It never raises, and leaves the caller's state as it was.

    Args:
        reference: a right answer, of the kind that the reader writes: a function, a class, a network.
        cases: returns argument tuples. Draw numbers and `sizes` at random: they are seeded, the same at each check.
        mistakes: words -> a wrong answer of the same kind, or a tuple of several. The first that fits has the word.
        praise: what is right about a right answer.
        run: run(answer, *case) -> what counts of the answer: numbers, arrays, lists or tensors, one or a dict of them
            (None leaves out an entry that not every right answer has). Default: `call(answer, *case)`.
        changes: names of the reference's parameters that an answer may change, such as ("model", "optimizer").
        tolerance: relative, absolute for numbers below 1; or that of each entry that `run` names.
    """

    def __init__(
        self,
        *,
        reference: Callable,
        cases: Callable[[], Iterable[tuple]],
        mistakes: dict[str, Callable | tuple],
        praise: str,
        run: Callable | None = None,
        changes: tuple[str, ...] = (),
        tolerance: float | dict[str, float] = 1e-4,
    ):
        self.reference, self.cases, self.mistakes, self.praise = reference, cases, mistakes, praise
        self.run = run or (lambda answer, *case: {"": call(answer, *case)})
        self.changes, self.tolerance = changes, tolerance
        self._seen = {}  # what reference and mistakes give in each case: the cases are the same at every check

    def __call__(self, answer) -> Verdict:
        if answer is None or answer is ...:
            return Verdict("Not solved yet", "write your answer in the place of the three dots.")
        with protected():
            try:
                self._judge(answer)
            except Unsolved as unsolved:
                return Verdict("Not solved yet", str(unsolved))
            except Wrong as wrong:
                return Verdict("Not yet", str(wrong))
            except Exception as error:  # an answer so unlike the others that the check itself stumbles over it
                return Verdict("Not yet", f"the check cannot work with this answer ({type(error).__name__}: {error}).")
        return Verdict("Right", self.praise)

    def _judge(self, answer) -> None:
        if not callable(answer):
            raise Wrong(f"pass the function itself, without calling it. Got {type(answer).__name__}.")
        pairs = []  # (case, what the answer gives in it)
        for case in self._cases:
            try:
                pairs.append((case, self._watch(answer, case)))
            except Wrong as wrong:
                if not pairs and isinstance(wrong, Unsolved):
                    raise
                pairs.insert(0, (case, wrong))  # to be told before any other fault
                break
        faulty = [pair for pair in pairs if self._fault(*pair, self.reference)]
        if not faulty:
            return
        case, seen = faulty[0]
        words = self._mistake([*faulty, *pairs])  # what is faulty tells most mistakes apart at once
        if not isinstance(seen, Wrong):
            raise Wrong(words or f"{self._told(case)} {self._fault(case, seen, self.reference)}")
        told = f"{self._told(case)} {seen}" if len(pairs) > 1 else str(seen)
        raise Wrong(f"{told}. {words}" if words else told)

    @functools.cached_property
    def _cases(self) -> list[tuple]:
        seed_all(0)
        return list(self.cases())

    def _mistake(self, pairs) -> str:
        """The words of the first mistake that gives or raises the same in every case; "" if none does."""
        for words, mistakes in self.mistakes.items():
            for mistake in mistakes if isinstance(mistakes, tuple) else (mistakes,):
                if not any(self._fault(case, seen, mistake) for case, seen in pairs):
                    return words
        return ""

    def _fault(self, case, seen, other) -> str:
        """How the answer differs from the reference or a mistake in this case; "" if it does not."""
        known = self._known(other, case)
        if isinstance(seen, Wrong) or isinstance(known, Wrong):
            raised, expected = getattr(seen, "error", ""), getattr(known, "error", "")
            return "" if raised and raised == expected else "one of them cannot be judged."
        (values, left), (expected, left_too) = seen, known
        return (left or left_too) if left != left_too else difference(values, expected, self.tolerance)

    def _known(self, other, case):
        """What `_observe` gives or raises for the reference or a mistake."""
        key = other, id(case)
        if key not in self._seen:
            try:
                self._seen[key] = self._observe(other, case)
            except Wrong as wrong:  # a mistake that cannot be made in this case
                self._seen[key] = wrong
        return self._seen[key]

    def _watch(self, answer, case) -> tuple[dict[str, torch.Tensor], str]:
        """What `_observe` gives. Refuses what the answer keeps between calls."""
        seen = self._observe(answer, case)
        if difference(self._observe(answer, case)[0], seen[0], self.tolerance):
            raise Wrong("a second call with the same arguments gives something else. What is kept between the calls?")
        return seen

    def _observe(self, answer, case) -> tuple[dict[str, torch.Tensor], str]:
        """What counts of the answer in this case; and, in words, what it changes though it may not."""
        given = duplicate(case)
        before = snapshot(given)
        seed_all(0)  # a random answer repeats, whatever it draws with
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)
        try:
            seen = self.run(answer, *given)
        except (Wrong, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit too: whatever a reader's code raises is the reader's to see
            own = [line for line in traceback.extract_tb(error.__traceback__) if not _is_library(line.filename)]
            what = f"{type(error).__name__}: {error}"
            where = f" (in `{own[-1].name}`: `{own[-1].line}`)" if own and own[-1].line else ""
            wrong = Wrong(f"your code raised {what}{where}" if own else f"the check cannot work with this ({what})")
            wrong.error = what
            raise wrong from None
        finally:
            if not torch.is_grad_enabled():
                raise Wrong("it leaves gradients switched off. `with torch.no_grad():` switches them on again.")
        seen = seen if isinstance(seen, dict) else {"": seen}
        values = {name: as_tensor(value, name) for name, value in seen.items() if value is not None}
        return values, self._left(given, before)

    def _left(self, given, before: list) -> str:
        names = [f"`{name}`" for name in self._names()] + ["the input"] * len(given)
        for name, value, old in zip(names, given, before, strict=False):
            new = snapshot(value)
            if name.strip("`") not in self.changes and not same(old, new):
                part = next(p for p in old if not same(old[p], new[p])) if isinstance(value, nn.Module) else ""
                return f"it changes {part}{name}, which it was given. Work on a copy, or undo it."
        return ""

    def _names(self) -> list[str]:
        return list(inspect.signature(self.reference).parameters)

    def _told(self, case) -> str:
        """The case in words: numbers as they are, tensors by their shape."""
        told = [f"{name}={text}" for name, value in zip(self._names(), case, strict=False) if (text := short(value))]
        return f"with {', '.join(told)}:" if told else "in one case:"


def call(answer: Callable, *arguments):
    """answer(*arguments); an answer that returns nothing is not solved yet."""
    result = answer(*arguments)
    if result is None or result is ...:
        what = "`forward`" if isinstance(answer, nn.Module) else "the function"
        raise Unsolved(f"{what} returns nothing yet. Every way through it must end in `return ...`.")
    return result


def require(condition, words: str) -> None:
    if not condition:
        raise Wrong(words)


def parts(result, *names: str) -> dict:
    """The values of an answer that returns several, by name: `return mean, std`."""
    several = isinstance(result, list | tuple | np.ndarray | torch.Tensor) and getattr(result, "ndim", 1)
    require(several and len(result) == len(names), f"return {len(names)} values: `return {', '.join(names)}`.")
    return dict(zip(names, result, strict=True))


def seed_all(number: int) -> None:
    for seed in (random.seed, np.random.seed, torch.default_generator.manual_seed):  # the caller's GPU is left alone
        seed(number)


def sizes(count: int, low: int = 2, high: int = 9) -> list[int]:
    """`count` different whole numbers from low to high, drawn at random: none of them can be taken for another."""
    return (low + torch.randperm(high - low + 1)[:count]).tolist()


def gradient(value: torch.Tensor, of, unused: bool = False) -> torch.Tensor | list[torch.Tensor]:
    """d(sum of value) / d`of`, for `run`: words where none flows. `unused`: None for what none of it reaches."""
    try:
        found = torch.autograd.grad(value.sum(), of, retain_graph=True, allow_unused=unused)
    except (AttributeError, RuntimeError) as error:
        lost = "no gradient flows through it: no `.item()`, `.detach()`, numpy or `no_grad` on the way."
        kept = "`backward` needs a tensor that is overwritten, as by `x += ...`. Write `x = x + ...`."
        raise Wrong(kept if "inplace" in str(error) else lost) from None
    return list(found) if isinstance(of, list | tuple) else found[0]


# ---------------------------------------------------------------- values


def as_tensor(value, name: str = "") -> torch.Tensor:
    """Anything that is a number, or holds numbers in a rectangle, as a float64 tensor; else words about its type."""
    try:
        value = list(value) if isinstance(value, Iterator) else value
        if isinstance(value, list | tuple):
            return torch.stack([as_tensor(v) for v in value]) if value else torch.zeros(0, dtype=torch.float64)
        value = float(value) if hasattr(value, "__float__") and not hasattr(value, "__array__") else value  # a Fraction
        made = torch.as_tensor(value).detach().cpu()
        if not made.is_complex():
            return made.double()
    except Exception:
        pass
    raise Wrong(f"{name or 'the result'} must be a number or numbers of one shape, got {type(value).__name__}.")


def number(value, name: str = "the result") -> float:
    """One number of any kind as a float; else words about its type."""
    made = as_tensor(value, name)
    require(made.numel() == 1, f"{name} must be one number, got {type(value).__name__} of shape {tuple(made.shape)}.")
    return made.item()


def difference(got: dict, expected: dict, tolerance: float | dict) -> str:
    """The first entry that differs, in words; "" if none does. Entries that one of the two lacks are left out."""
    if not got.keys() & expected.keys():  # a dict where none is wanted
        return f"the result is {', '.join(map(repr, got)) or 'empty'}, expected {', '.join(expected) or 'numbers'}."
    for name, right in expected.items():
        if name not in got:
            continue
        value, what = got[name], name or "the result"
        if value.numel() == right.numel() == 1:  # a tensor (1,) is a number too
            value = value.reshape(right.shape)
        if value.shape != right.shape:
            return f"{what} must have the shape {tuple(right.shape)}, got {tuple(value.shape)}."
        allowed = tolerance[name] if isinstance(tolerance, dict) else tolerance
        same = torch.isclose(value, right, rtol=allowed, atol=allowed, equal_nan=True)
        if not same.all():
            at = tuple((~same).nonzero()[0].tolist())
            place = f" at [{', '.join(map(str, at))}]" if at else ""
            return f"{what}{place} is {_plain(value[at].item())}, expected {_plain(right[at].item())}."
    return ""


def short(value) -> str:
    """A value of a case in few words; "" if it needs many."""
    if isinstance(value, torch.Tensor):
        return f"a tensor {tuple(value.shape)}" if value.numel() > 4 else short(value.tolist())
    if isinstance(value, list | tuple):
        parts = [short(v) for v in value]
        text = f"[{', '.join(parts)}]" if all(parts) else ""
    else:
        text = f"{value:.6g}" if type(value) is float else repr(value) if isinstance(value, bool | int | str) else ""
    return text if len(text) < 60 else ""


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"


# ---------------------------------------------------------------- what an answer may not leave changed


@contextlib.contextmanager
def protected():
    """Inside, settings are PyTorch's defaults; afterwards the caller's settings and random numbers are back."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float32)
    try:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast("cpu", enabled=False),
            torch.device("cpu"),
        ):
            yield
    finally:
        for restore, state in zip((random.setstate, np.random.set_state, torch.set_rng_state), states, strict=True):  # noqa: NPY002
            restore(state)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)


def duplicate(case: tuple) -> tuple:
    """A deep copy, with the gradients of networks, which `deepcopy` leaves out."""
    made = copy.deepcopy(case)
    for old, new in zip(case, made, strict=True):
        if isinstance(old, nn.Module):
            for p, q in zip(old.parameters(), new.parameters(), strict=True):
                q.grad = copy.deepcopy(p.grad)
    return made


def _gradient(p: nn.Parameter) -> torch.Tensor | None:
    return p.grad.clone() if p.grad is not None and p.grad.any() else None  # zeros are as good as none


def snapshot(value):
    """A copy of everything in `value` that an answer could change, as nested dicts of tensors and plain values."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return torch.as_tensor(value).clone()
    if isinstance(value, list | tuple):
        return [snapshot(v) for v in value]
    if isinstance(value, dict):
        return {key: snapshot(v) for key, v in value.items()}
    if isinstance(value, nn.Module):
        modules = dict(value.named_modules())
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        return {
            "the weights of ": snapshot(dict(value.named_parameters())),
            "the buffers (such as running averages) of ": snapshot(dict(value.named_buffers())),
            "the gradients of ": {n: _gradient(p) for n, p in value.named_parameters()},
            "which weights are trained in ": {n: p.requires_grad for n, p in value.named_parameters()},
            "the mode (train or eval) of ": {n: m.training for n, m in modules.items()},
            "the hooks of ": {n: [len(getattr(m, kind)) for kind in hooks] for n, m in modules.items()},
            "the attributes of ": {n: sorted(vars(m)) for n, m in modules.items()},
        }
    if isinstance(value, torch.optim.Optimizer):
        return [{k: snapshot(v) for k, v in group.items() if k != "params"} for group in value.param_groups]
    return value if isinstance(value, bool | int | float | str) else None


def same(old, new) -> bool:
    """Whether two snapshots are equal."""
    if type(old) is not type(new):
        return False
    if isinstance(old, torch.Tensor):
        return old.shape == new.shape and torch.equal(old.nan_to_num(), new.nan_to_num())
    if isinstance(old, dict):
        return old.keys() == new.keys() and all(same(old[key], new[key]) for key in old)
    if isinstance(old, list):
        return len(old) == len(new) and all(map(same, old, new))
    return old == new


def _is_library(filename: str) -> bool:
    return (
        Path(filename).parent == Path(__file__).parent or "site-packages" in filename or filename.startswith("<frozen")
    )
