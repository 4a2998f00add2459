"""Answers to the exercises of lesson 07, that the tables of its checks do not hold.

RIGHT and WRONG: name of the check -> how it is written, or what is wrong -> answer.
"""

import math
import random
import statistics

import numpy as np
import torch


def _gains(changed, baseline):
    return [c - b for c, b in zip(changed, baseline, strict=True)]


def _both(gains):
    return statistics.mean(gains), statistics.stdev(gains) / math.sqrt(len(gains))


def paired_by_tensors(changed, baseline):
    gains = torch.tensor(changed) - torch.tensor(baseline)
    return gains.mean(), gains.std() / len(gains) ** 0.5


def paired_by_arrays(changed, baseline):
    gains = np.float32(changed) - np.float32(baseline)
    return np.array([gains.mean(), gains.std(ddof=1) / len(gains) ** 0.5])


def paired_of_sorted(changed, baseline):
    return _both(_gains(sorted(changed), sorted(baseline)))


def paired_in_place(changed, baseline):
    for i, b in enumerate(baseline):
        changed[i] -= b
    return _both(changed)


def paired_over_all_calls(changed, baseline, gains=[]):  # noqa: B006
    gains += _gains(changed, baseline)
    return _both(gains)


def runs(spread, difference):
    return 2 * (2.8 * spread / difference) ** 2


def exact_runs(spread, difference):
    z = statistics.NormalDist().inv_cdf(0.975) + statistics.NormalDist().inv_cdf(0.8)
    return math.ceil(2 * (z * spread / difference) ** 2)


def halving(candidates, score, rungs):
    for epochs in rungs:
        pairs = [(score(candidate, epochs), candidate) for candidate in candidates]
        pairs.sort(key=lambda pair: pair[0], reverse=True)
        candidates = [candidate for _, candidate in pairs[: math.ceil(len(pairs) / 2)]]
    return pairs[0][1]


def halving_by_positions(candidates, score, rungs):
    left = list(range(len(candidates)))
    for epochs in rungs:
        scores = np.array([score(candidates[i], epochs) for i in left])
        order = np.argsort(-scores)
        left = [left[i] for i in order]
        best, left = left[0], left[: (len(left) + 1) // 2]
    return dict(candidates[best])


def halving_of_marked(candidates, score, rungs):
    for epochs in rungs:
        for candidate in candidates:
            candidate["score"] = score(candidate, epochs)
        candidates = sorted(candidates, key=lambda c: c["score"], reverse=True)
        best, candidates = candidates[0], candidates[: math.ceil(len(candidates) / 2)]
    return best


def halving_in_place(candidates, score, rungs):
    for epochs in rungs:
        candidates.sort(key=lambda candidate: score(candidate, epochs), reverse=True)
        best = candidates[0]
        del candidates[math.ceil(len(candidates) / 2) :]
    return best


def halving_by_the_median(candidates, score, rungs):
    """Of an odd number the middle one does not go on."""
    for epochs in rungs:
        scores = [score(candidate, epochs) for candidate in candidates]
        best = candidates[scores.index(max(scores))]
        middle = statistics.median(scores)
        candidates = [c for c, s in zip(candidates, scores, strict=True) if s > middle]
    return best


RIGHT = {
    "paired_difference": {"tensors": paired_by_tensors, "one float32 array": paired_by_arrays},
    "seeds_needed": {
        "exact quantiles": exact_runs,
        "numpy": lambda s, d: np.ceil(np.float32(runs(s, d))),
        "a tensor": lambda s, d: torch.tensor([runs(s, d)]).ceil().int(),
    },
    "log_uniform": {
        "random": lambda low, high, count: [low * (high / low) ** random.random() for _ in range(count)],
        "numpy": lambda low, high, count: 10 ** np.random.uniform(math.log10(low), math.log10(high), count),  # noqa: NPY002
        "a generator that nobody seeds": lambda low, high, count: (
            low * (high / low) ** np.random.default_rng().random(count)
        ),
    },
    "successive_halving": {"pairs": halving, "positions": halving_by_positions},
}
WRONG = {
    "paired_difference": {
        "of sorted accuracies": paired_of_sorted,
        "in place": paired_in_place,
        "over all calls": paired_over_all_calls,
        "the mean alone": lambda c, b: statistics.mean(_gains(c, b)),
    },
    "seeds_needed": {
        "text": lambda s, d: str(exact_runs(s, d)),
    },
    "log_uniform": {
        "a seed": lambda low, high, count: low * (high / low) ** np.random.default_rng(0).random(count),
        "a grid": lambda low, high, count: torch.logspace(math.log10(low), math.log10(high), count),
        "always as many": lambda low, high, count: low * (high / low) ** torch.rand(20_000),
        "between powers of ten": lambda low, high, count: 10 ** (4 * torch.rand(count) - 4),
    },
    "successive_halving": {
        "marks the candidates": halving_of_marked,
        "in place": halving_in_place,
        "by the median": halving_by_the_median,
        "the place": lambda c, score, r: c.index(halving(c, score, r)),
    },
}
