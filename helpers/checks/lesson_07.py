"""Checks of the exercises of lesson 07."""

import math
import statistics

import torch

from helpers.checks.frame import Exercise, Wrong, call, parts, require, sizes


def _error(gains):
    return statistics.stdev(gains) / math.sqrt(len(gains))


def _paired(error):
    def answer(changed, baseline):
        gains = [c - b for c, b in zip(changed, baseline, strict=True)]
        return statistics.mean(gains), error(gains)

    return answer


paired_difference = Exercise(
    reference=_paired(_error),
    cases=lambda: [((50 + torch.randn(n)).tolist(), (50 + 3 * torch.randn(n)).tolist()) for n in [2, *sizes(4, 3, 12)]],
    run=lambda answer, changed, baseline: parts(call(answer, changed, baseline), "mean", "error"),
    mistakes={
        "that is baseline minus changed. A gain must be positive: changed minus baseline.": (
            lambda changed, baseline: paired_difference.reference(baseline, changed)
        ),
        "that is the scatter of one difference. The mean of n of them scatters less: divide by math.sqrt(n).": (
            _paired(statistics.stdev)
        ),
        "the scatter was divided by n. The error of a mean falls with the root of n: math.sqrt(n).": _paired(
            lambda gains: statistics.stdev(gains) / len(gains)
        ),
        "the squares were divided by n. Divide by n - 1, since the mean was taken from the same numbers.": _paired(
            lambda gains: statistics.pstdev(gains) / math.sqrt(len(gains))
        ),
        "that is the error for two groups that have nothing in common. Here each seed has run on both sides: take the "
        "scatter of the differences.": lambda changed, baseline: (
            statistics.mean(changed) - statistics.mean(baseline),
            math.hypot(_error(changed), _error(baseline)),
        ),
    },
    praise="changed minus baseline, seed by seed; the error from the scatter of the differences.",
)


def _runs(spread, difference, z=1.96 + 0.84, factor=2.0):
    return factor * (z * spread / difference) ** 2


def _clear_cases():
    """Spreads and differences of which 2.8 and its exact value, 2.8016, need equally many runs."""
    drawn = [(1.0, 0.3), (0.4, 0.5), (0.7, 0.5), *(0.2 + torch.rand(12, 2, dtype=torch.float64)).tolist()]
    return [(s, d) for s, d in drawn if _runs(s, d) > 2 and math.ceil(_runs(s, d)) == math.ceil(1.0015 * _runs(s, d))]


seeds_needed = Exercise(
    reference=lambda spread, difference: math.ceil(_runs(spread, difference)),
    cases=_clear_cases,
    tolerance=1e-6,
    mistakes={
        "there is no such part of a run, and with one run less the power is below 80%. Round up: math.ceil.": (
            _runs,
            lambda s, d: math.floor(_runs(s, d)),
            lambda s, d: round(_runs(s, d)),
        ),
        "the factor 2 is missing: both sides scatter, the changed runs and the baseline's.": (
            lambda s, d: math.ceil(_runs(s, d, factor=1))
        ),
        "that is both sides together. Return the runs of one side.": lambda s, d: math.ceil(_runs(s, d, factor=4)),
        "with 1.96 alone the difference is found in half of the experiments only. For 80%, add 0.84.": (
            lambda s, d: math.ceil(_runs(s, d, z=1.96))
        ),
        "the square is missing: half the difference takes four times the runs.": (
            lambda s, d: math.ceil(2 * 2.8 * s / d)
        ),
    },
    praise="twice the square of 2.8 spreads over the difference, rounded up.",
)


def _scale_of(answer, low, high, count):
    """How the numbers lie on the logarithmic scale: that is alike for all random numbers of the right kind."""
    drawn = [call(answer, low, high, count) for _ in range(2)]
    try:
        lists = [numbers.tolist() if hasattr(numbers, "tolist") else numbers for numbers in drawn]
        values, again = (torch.tensor([float(v) for v in numbers], dtype=torch.float64) for numbers in lists)
    except (TypeError, ValueError):
        raise Wrong("return a list or a one-dimensional tensor of numbers.") from None
    seen = {"how many numbers there are": len(values)}
    if count < 1000 or len(values) != count:
        return seen
    alike = torch.equal(values, again)
    require(not alike, "two calls give the same numbers. Draw random ones, with no seed set inside.")
    different = len(values.unique())
    require(different > count // 4, f"only {different:,} different numbers occur. Draw the exponent with torch.rand.")
    edges = torch.tensor([low * (high / low) ** (q / 4) for q in range(5)], dtype=torch.float64)
    edges += torch.tensor([-1e-5, 0, 0, 0, 1e-5]) * edges  # room for rounding
    shares = torch.bucketize(values, edges).bincount(minlength=6) / count
    names = "below low", *(f"in quarter {q} of the logarithmic scale" for q in (1, 2, 3, 4)), "above high"
    return seen | {f"the share of numbers {name}": share for name, share in zip(names, shares, strict=True)}


def _between(change, undo):
    """Uniform draws between change(low) and change(high), undone."""
    return lambda low, high, count: undo(change(low) + (change(high) - change(low)) * torch.rand(count).double())


log_uniform = Exercise(
    reference=_between(math.log, torch.exp),
    cases=lambda: [(1e-4, 1.0, 20_000), (0.5, 2.0, 20_000), (3.0, 700.0, 20_000), (0.1, 0.2, 1), (1.0, 9.0, 7)],
    run=_scale_of,
    tolerance=0.02,
    mistakes={
        "these are logarithms. Undo them: torch.exp for math.log, 10 ** for math.log10.": (
            _between(math.log, lambda log: log),
            _between(math.log10, lambda log: log),
        ),
        "that is uniform: half of the numbers lie above the middle, and small values hardly ever come. Draw the "
        "logarithm uniformly.": _between(lambda v: v, lambda v: v),
    },
    praise="uniform on the logarithmic scale, from low to high.",
)


def _halve(answer, candidates, reached, rungs):
    """Who is trained in each round, and who is returned. reached[round][candidate] is what `score` returns."""
    rates, rounds = [candidate["lr"] for candidate in candidates], list(rungs)
    trained = torch.zeros(len(rounds), len(rates))

    def score(candidate, epochs):
        if epochs not in rounds:
            raise ValueError(f"score(candidate, {epochs!r}): epochs must be one of the rungs, {rounds}")
        place = rounds.index(epochs), rates.index(candidate["lr"])
        trained[place] += 1
        return reached[place[0]][place[1]]

    best = call(answer, candidates, score, rungs)
    require(trained.any(), "score was never called: it is what tells how good a candidate is.")
    require(
        trained.max() < 2,
        "score was called twice for one candidate and the same epochs. Each call is a training: keep what it returned. "
        "Each round has epochs of its own.",
    )
    found = isinstance(best, dict) and best.get("lr") in rates
    require(found, f"return one candidate, not its score, its place or several. Got {type(best).__name__}.")
    return {
        "the number of candidates trained, round by round,": trained.sum(1),
        "who was trained (a row a round)": trained,
        "the place of the best": rates.index(best["lr"]),
    }


def _halving(keep=lambda count: math.ceil(count / 2), better_first=True, best=lambda winners: winners[-1]):
    def answer(candidates, score, rungs):
        winners = []
        for epochs in rungs:
            pairs = [(score(candidate, epochs), candidate) for candidate in candidates]
            pairs.sort(key=lambda pair: pair[0], reverse=better_first)
            winners.append(pairs[0])
            candidates = [candidate for _, candidate in pairs[: keep(len(pairs))]]
        return best(winners)[1]

    return answer


def _halving_cases():
    for count, rungs in ((8, [1, 2, 4]), (5, [1, 4]), (4, [2]), (11, [3, 6, 12]), (*sizes(1, 20, 30), [1, 2, 4, 8])):
        candidates = [{"lr": rate, "flip": True} for rate in (0.01 + torch.rand(count)).tolist()]
        yield candidates, torch.rand(len(rungs), count).tolist(), rungs


successive_halving = Exercise(
    reference=_halving(),
    cases=_halving_cases,
    run=_halve,
    mistakes={
        "the worse half went on. Higher scores are better.": _halving(better_first=False),
        "all candidates were trained again in the second round. Half of them must go.": _halving(lambda count: count),
        "of 5 candidates three go on: round the half up.": _halving(lambda count: max(1, count // 2)),
        "that is the highest score of any round. The last round decides.": _halving(
            best=lambda winners: max(winners, key=lambda pair: pair[0])
        ),
    },
    praise="the better half of each round goes on, and the last round decides.",
)
