"""Checks of the exercises of lesson 07."""

import math

import torch

from helpers.checks.frame import Wrong, call, check, require


def _near(value: float, expected: float) -> bool:
    return math.isclose(value, expected, rel_tol=1e-3, abs_tol=1e-3)


def _two_numbers(value) -> tuple[float, float]:
    try:
        first, second = value
        return float(first), float(second)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(
            "return two numbers, the mean of the differences and its standard error: `return mean, error`."
        ) from None


@check
def paired_difference(answer) -> str:
    """answer(changed, baseline): accuracies of the same seeds in the same order -> (mean difference, its error)."""
    cases = (([50.2, 54.1, 47.3, 52.4], [1.0, 1.7, 0.6, 1.5]), ([61.0, 58.2], [-0.4, -1.1]))
    for baseline, gains in cases:
        changed = [b + g for b, g in zip(baseline, gains, strict=True)]
        given = list(changed), list(baseline)
        mean, error = _two_numbers(call(answer, changed, baseline))
        require(given == (changed, baseline), "your function changes the lists that it was given. Build new ones.")
        d, n = torch.tensor(gains, dtype=torch.float64), len(gains)
        sd, case = d.std().item(), f"for the differences {gains}"
        expected = d.mean().item()
        if _near(mean, -expected):
            raise Wrong(
                "that is baseline minus changed. A gain must be positive: changed minus baseline."
                if expected > 0
                else "the signs of the differences were dropped. Take them as they are, without abs()."
            )
        require(not _near(mean, n * expected), "that is the sum of the differences. Divide it by their number.")
        require(_near(mean, expected), f"{case} the mean is {mean:.4f}, expected {expected:.4f}.")
        sides = [torch.tensor(side, dtype=torch.float64).var().item() / n for side in (changed, baseline)]
        likely = (
            (sd, "that is the scatter of one difference. The mean of n of them scatters less: divide by math.sqrt(n)."),
            (sd / n, "the scatter was divided by n. The error of a mean falls with the root of n: math.sqrt(n)."),
            (
                d.std(correction=0).item() / math.sqrt(n),
                "the squares were divided by n. With so few seeds that is too little: divide them by n - 1, since the "
                "mean was taken from the same numbers.",
            ),
            (d.var().item() / n, "that is the square of the error: the root is missing."),
            (
                math.sqrt(sum(sides)),
                "that is the error for two groups that have nothing in common. Here each seed has run on both sides: "
                "take the scatter of the differences.",
            ),
            (1.96 * sd / math.sqrt(n), "that is 1.96 errors. Return one; the factor comes in the next section."),
        )
        for mistake, words in likely:
            require(not _near(error, mistake), words)
        exact = sd / math.sqrt(n)
        require(_near(error, exact), f"{case} the standard error is {error:.4f}, expected {exact:.4f}.")
    return "changed minus baseline, seed by seed; the error from the scatter of the differences."


@check
def seeds_needed(answer) -> str:
    """answer(spread, difference) -> 2 * ((1.96 + 0.84) * spread / difference)^2, rounded up: runs of one side."""
    for spread, difference in ((1.0, 0.3), (0.4, 0.5), (0.7, 0.5)):
        case = f"for spread={spread:g} and difference={difference:g}"
        result = call(answer, spread, difference)
        try:
            count = float(result)
        except (TypeError, ValueError, RuntimeError):
            raise Wrong(f"return one whole number, the runs of one side. Got {type(result).__name__}.") from None
        require(math.isfinite(count), f"{case} the answer is {count}.")

        def formula(z=2.8, factor=2.0, spread=spread, difference=difference):
            return factor * (z * spread / difference) ** 2

        exact = formula()
        if count == math.ceil(exact):
            continue
        require(
            abs(count - exact) > 1e-6 * exact,
            f"{case} the formula gives {exact:.2f}, and there is no such part of a run. Round up: math.ceil.",
        )
        require(
            count != math.floor(exact),
            f"{case} the formula gives {exact:.2f}. Round up: with one run less the power is below 80%.",
        )
        likely = (
            (formula(factor=1.0), "the factor 2 is missing: both sides scatter, the changed runs and the baseline's."),
            (formula(factor=4.0), "that is both sides together. Return the runs of one side."),
            (
                formula(z=1.96),
                "with 1.96 alone the difference is found in half of the experiments only. For 80%, add 0.84.",
            ),
            (formula(z=0.84), "0.84 alone is the 80%. Add 1.96, for the interval that must not contain 0."),
            (formula() ** 0.5, "that is the root of the number of runs: the square is missing."),
            (2 * 2.8 * spread / difference, "the square is missing: half the difference takes four times the runs."),
            (2 * 2.8**2 * spread / difference, "square the ratio spread / difference, too."),
            (formula(spread=difference, difference=spread), "spread and difference are swapped."),
        )
        for mistake, words in likely:
            near = (mistake, math.ceil(mistake), math.floor(mistake))
            require(count not in near, f"{case} you get {count:g}: {words}")
        raise Wrong(f"{case} the number of runs is {count:g}, expected {math.ceil(exact)}.")
    return "twice the square of 2.8 spreads over the difference, rounded up."


def _numbers(value, count: int) -> torch.Tensor:
    """A list or a tensor of `count` numbers as a float tensor (count,)."""
    try:
        plain = value.tolist() if isinstance(value, torch.Tensor) else value
        values = torch.tensor([float(v) for v in plain], dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong("return a list or a one-dimensional tensor of numbers.") from None
    require(len(values) == count, f"there must be {count:,} numbers, got {len(values):,}.")
    require(bool(values.isfinite().all()), "some of the numbers are not finite: a logarithm of 0, or an exp too large?")
    return values


@check
def log_uniform(answer) -> str:
    """answer(low, high, count): `count` random numbers from low to high; their logarithms are uniform."""
    count = 20_000
    for low, high in ((1e-4, 1.0), (0.5, 2.0)):
        values = _numbers(call(answer, low, high, count), count)
        case = f"for low={low:g} and high={high:g}"
        for name, log in (("10 **", math.log10), ("exp", math.log)):
            inside = (values >= log(low) - 1e-6).all() and (values <= log(high) + 1e-6).all()
            require(not (inside and values.min() < low), f"these are logarithms. Undo them with {name}.")
        outside = int(((values < low * (1 - 1e-4)) | (values > high * (1 + 1e-4))).sum())  # room for rounding
        require(
            outside == 0,
            f"{case} {outside:,} of {count:,} numbers lie outside: the logarithm must lie between both logs.",
        )
        require(
            len(values.unique()) > count // 4,
            f"{case} only {len(values.unique()):,} different numbers occur. Draw the exponent with torch.rand, so that "
            "every value in between can come.",
        )
        again = _numbers(call(answer, low, high, count), count)
        require(
            not torch.equal(values, again),
            "two calls give the same numbers. A search needs random ones: torch.rand, and no seed set inside.",
        )
        share = ((values / low).log() / math.log(high / low) * 4).long().clamp(max=3).bincount(minlength=4) / count
        middle = (values < (low + high) / 2).double().mean()
        words = ", ".join(f"{part:.0%}" for part in share.tolist())
        require(
            high / low < 100 or abs(middle - 0.5) > 0.02,
            f"{case} half of the numbers lie above {(low + high) / 2:g}: that is uniform, and the small values hardly "
            "ever come. Draw the logarithm uniformly.",
        )
        require(
            bool(((share - 0.25).abs() < 0.02).all()),
            f"{case} the four quarters of the logarithmic range hold {words} of the numbers. Each must hold 25%.",
        )
    return "uniform on the logarithmic scale, from low to high."


# What each of eight candidates reaches after 1, 2 and 4 epochs. The right answer is number 3.
_REACHED = {
    1: (0.30, 0.41, 0.22, 0.35, 0.50, 0.18, 0.28, 0.38),
    2: (0.40, 0.58, 0.90, 0.55, 0.52, 0.20, 0.30, 0.44),
    4: (0.42, 0.60, 0.95, 0.66, 0.53, 0.25, 0.31, 0.47),
}


def _halve(answer, count: int, rungs: list[int]) -> tuple[object, list[tuple[int, int]], list[dict]]:
    """(what the answer returns, its calls of score as (candidate, epochs), the candidates)."""
    candidates, calls = [{"lr": 0.01 * (number + 1)} for number in range(count)], []

    def score(candidate, epochs):
        number = round(candidate["lr"] / 0.01) - 1
        if epochs not in rungs:
            raise ValueError(f"score(candidate, {epochs!r}): epochs must be one of the rungs, {rungs}")
        calls.append((number, epochs))
        return _REACHED[epochs][number]

    given = list(candidates)
    best = call(answer, candidates, score, list(rungs))
    require(candidates == given, "your function changes the list of candidates that it was given. Build new lists.")
    return best, calls, candidates


@check
def successive_halving(answer) -> str:
    """answer(candidates, score, rungs) -> the best of the last round; after each round the better half goes on."""
    for count, rungs, rounds, right in (
        (8, [1, 2, 4], [set(range(8)), {1, 3, 4, 7}, {1, 3}], 3),
        (5, [1, 4], [set(range(5)), {1, 3, 4}], 3),  # of five, three go on
        (4, [2], [set(range(4))], 2),
    ):
        best, calls, candidates = _halve(answer, count, rungs)
        case = f"with {count} candidates and rungs {rungs}:"
        require(calls, "score was never called: it is what tells how good a candidate is.")
        used = {epochs for _, epochs in calls}
        missing = [epochs for epochs in rungs if epochs not in used]
        require(not missing, f"{case} no candidate was trained for {missing} epochs. Each round has its own number.")
        for place, (epochs, wanted) in enumerate(zip(rungs, rounds, strict=True), start=1):
            asked = [number for number, e in calls if e == epochs]
            where = f"{case} in round {place}"
            require(
                len(asked) == len(set(asked)),
                f"{where} score was called twice for one candidate. Each call is a training: keep what it returned.",
            )
            if place > 1:
                first = sorted(rounds[place - 2], key=lambda number: _REACHED[rungs[place - 2]][number])
                require(
                    set(asked) != set(first[: len(wanted)]),
                    f"{where} the worse half went on. Higher scores are better.",
                )
                require(
                    len(asked) != len(rounds[place - 2]),
                    f"{where} all {len(asked)} of the round before were trained again. Half of them must go.",
                )
            require(
                len(asked) == len(wanted),
                f"{where} {len(asked)} candidates were trained, expected {len(wanted)}"
                f"{' (half of 5, rounded up)' if len(wanted) == 3 else ''}.",
            )
            require(
                set(asked) == wanted,
                f"{where} candidates {sorted(asked)} were trained, expected {sorted(wanted)}: the better half by the "
                "scores of the round before.",
            )
        require(
            not isinstance(best, int | float),
            f"{case} return the candidate itself, not its score or place. Got {best}.",
        )
        require(not isinstance(best, list | tuple), f"{case} return one candidate, not {type(best).__name__} of them.")
        if best != candidates[right]:
            first = max(range(count), key=lambda number: _REACHED[rungs[0]][number])
            require(
                best != candidates[first] or len(rungs) == 1,
                f"{case} that is the best of the first round. The last round decides.",
            )
            raise Wrong(f"{case} the answer is {best}, expected {candidates[right]}, the best of the last round.")
    return "the better half of each round goes on, and the last round decides."
