"""Answers to the exercises of lesson 07.

WRONG: name of the check -> what is wrong -> (answer, words that must come).
RIGHT: name of the check -> how it is written -> answer.
"""

import math
import random
import statistics

import torch


def _gains(changed, baseline):
    return [c - b for c, b in zip(changed, baseline, strict=True)]


def _error(gains):
    return statistics.stdev(gains) / math.sqrt(len(gains))


def difference_turned_round(changed, baseline):
    gains = _gains(baseline, changed)
    return statistics.mean(gains), _error(gains)


def difference_without_signs(changed, baseline):
    gains = [abs(gain) for gain in _gains(changed, baseline)]
    return statistics.mean(gains), _error(gains)


def difference_summed(changed, baseline):
    gains = _gains(changed, baseline)
    return sum(gains), _error(gains)


def difference_median(changed, baseline):
    gains = _gains(changed, baseline)
    return statistics.median(gains), _error(gains)


def difference_mean_only(changed, baseline):
    return statistics.mean(_gains(changed, baseline))


def difference_scatter(changed, baseline):
    gains = _gains(changed, baseline)
    return statistics.mean(gains), statistics.stdev(gains)


def difference_divided_by_count(changed, baseline):
    gains = _gains(changed, baseline)
    return statistics.mean(gains), statistics.stdev(gains) / len(gains)


def difference_of_a_population(changed, baseline):
    gains = _gains(changed, baseline)
    return statistics.mean(gains), statistics.pstdev(gains) / math.sqrt(len(gains))


def difference_without_root(changed, baseline):
    gains = _gains(changed, baseline)
    return statistics.mean(gains), statistics.variance(gains) / len(gains)


def difference_unpaired(changed, baseline):
    parts = [statistics.variance(side) / len(side) for side in (changed, baseline)]
    return statistics.mean(_gains(changed, baseline)), math.sqrt(sum(parts))


def difference_from_range(changed, baseline):
    gains = _gains(changed, baseline)
    return statistics.mean(gains), (max(gains) - min(gains)) / 2 / math.sqrt(len(gains))


def difference_as_interval(changed, baseline):
    gains = _gains(changed, baseline)
    return statistics.mean(gains), 1.96 * _error(gains)


def difference_sorts_in_place(changed, baseline):
    changed.sort()
    baseline.sort()
    gains = _gains(changed, baseline)
    return statistics.mean(gains), _error(gains)


def seeds_unrounded(spread, difference):
    return 2 * (2.8 * spread / difference) ** 2


def seeds_rounded_down(spread, difference):
    return int(seeds_unrounded(spread, difference))


def seeds_rounded(spread, difference):
    return round(seeds_unrounded(spread, difference))


def seeds_of_one_scatter(spread, difference):
    return math.ceil((2.8 * spread / difference) ** 2)


def seeds_of_both_sides(spread, difference):
    return math.ceil(4 * (2.8 * spread / difference) ** 2)


def seeds_at_half_power(spread, difference):
    return math.ceil(2 * (1.96 * spread / difference) ** 2)


def seeds_of_power_alone(spread, difference):
    return math.ceil(2 * (0.84 * spread / difference) ** 2)


def seeds_without_square(spread, difference):
    return math.ceil(2 * 2.8 * spread / difference)


def seeds_half_squared(spread, difference):
    return math.ceil(2 * 2.8**2 * spread / difference)


def seeds_swapped(spread, difference):
    return math.ceil(2 * (2.8 * difference / spread) ** 2)


def seeds_as_text(spread, difference):
    return "about 175"


def draw_uniform(low, high, count):
    return low + (high - low) * torch.rand(count)


def draw_logarithms(low, high, count):
    return math.log(low) + (math.log(high) - math.log(low)) * torch.rand(count)


def draw_logarithms_of_ten(low, high, count):
    return math.log10(low) + (math.log10(high) - math.log10(low)) * torch.rand(count)


def draw_powers_of_ten(low, high, count):
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    return 10.0 ** torch.randint(first, last + 1, (count,))


def draw_a_grid(low, high, count):
    return torch.logspace(math.log10(low), math.log10(high), count)


def draw_with_a_seed(low, high, count):
    torch.manual_seed(0)
    return low * (high / low) ** torch.rand(count)


def draw_normal(low, high, count):
    middle = math.sqrt(low * high)
    return (middle * torch.exp(torch.randn(count))).clamp(low, high)


def draw_beyond(low, high, count):
    return high * (high / low) ** torch.rand(count)


def draw_one(low, high, count):
    return [low * (high / low) ** torch.rand(1).item()]


def draw_squared(low, high, count):
    return low * (high / low) ** torch.rand(count).square()


def _halving(candidates, score, rungs, keep, epochs_of=lambda rungs, place: rungs[place], reverse=True):
    """Successive halving with its parts open to mistakes."""
    for place in range(len(rungs)):
        pairs = [(score(candidate, epochs_of(rungs, place)), candidate) for candidate in candidates]
        pairs.sort(key=lambda pair: pair[0], reverse=reverse)
        candidates = [candidate for _, candidate in pairs[: keep(len(pairs))]]
    return pairs


def half(count):
    return math.ceil(count / 2)


def halving_keeps_the_worse(candidates, score, rungs):
    return _halving(candidates, score, rungs, half, reverse=False)[0][1]


def halving_drops_nobody(candidates, score, rungs):
    return _halving(candidates, score, rungs, lambda count: count)[0][1]


def halving_keeps_one(candidates, score, rungs):
    return _halving(candidates, score, rungs, lambda count: 1)[0][1]


def halving_rounds_down(candidates, score, rungs):
    return _halving(candidates, score, rungs, lambda count: max(1, count // 2))[0][1]


def halving_always_one_epoch(candidates, score, rungs):
    return _halving(candidates, score, rungs, half, epochs_of=lambda rungs, place: rungs[0])[0][1]


def halving_returns_the_score(candidates, score, rungs):
    return _halving(candidates, score, rungs, half)[0][0]


def halving_returns_the_pair(candidates, score, rungs):
    return _halving(candidates, score, rungs, half)[0]


def halving_returns_the_survivors(candidates, score, rungs):
    return [candidate for _, candidate in _halving(candidates, score, rungs, half)]


def halving_first_round_decides(candidates, score, rungs):
    first, best = None, None
    for epochs in rungs:
        scores = [score(candidate, epochs) for candidate in candidates]
        order = sorted(range(len(candidates)), key=lambda i: scores[i], reverse=True)
        first = candidates[order[0]] if first is None else first
        best = first
        candidates = [candidates[i] for i in order[: half(len(order))]]
    return best


def halving_scores_twice(candidates, score, rungs):
    for epochs in rungs:
        ranked = sorted(candidates, key=lambda candidate: score(candidate, epochs), reverse=True)
        best = max(ranked, key=lambda candidate: score(candidate, epochs))
        candidates = ranked[: half(len(ranked))]
    return best


def halving_without_order(candidates, score, rungs):
    for epochs in rungs:
        scores = [score(candidate, epochs) for candidate in candidates]
        best = candidates[scores.index(max(scores))]
        candidates = candidates[: half(len(candidates))]
    return best


def halving_in_place(candidates, score, rungs):
    for epochs in rungs:
        candidates.sort(key=lambda candidate: score(candidate, epochs), reverse=True)
        best = candidates[0]
        del candidates[half(len(candidates)) :]
    return best


def halving_never_trains(candidates, score, rungs):
    return candidates[3]


def halving_as_keys(candidates, score, rungs):
    scores = {candidate: score(candidate, rungs[0]) for candidate in candidates}
    return max(scores, key=scores.get)


WRONG = {
    "paired_difference": {
        "baseline minus changed": (difference_turned_round, "changed minus baseline"),
        "signs dropped": (difference_without_signs, "without abs()"),
        "sum": (difference_summed, "sum of the differences"),
        "median": (difference_median, "the mean is"),
        "the mean alone": (difference_mean_only, "two numbers"),
        "scatter in place of error": (difference_scatter, "math.sqrt(n)"),
        "scatter divided by n": (difference_divided_by_count, "root of n"),
        "squares divided by n": (difference_of_a_population, "n - 1"),
        "no root": (difference_without_root, "the root is missing"),
        "not paired": (difference_unpaired, "nothing in common"),
        "times 1.96": (difference_as_interval, "1.96 errors"),
        "half the range": (difference_from_range, "the standard error is"),
        "sorts the lists": (difference_sorts_in_place, "changes the lists"),
    },
    "seeds_needed": {
        "not rounded": (seeds_unrounded, "math.ceil"),
        "rounded down": (seeds_rounded_down, "Round up"),
        "rounded": (seeds_rounded, "Round up"),
        "one side scatters": (seeds_of_one_scatter, "factor 2 is missing"),
        "both sides together": (seeds_of_both_sides, "both sides together"),
        "1.96 alone": (seeds_at_half_power, "half of the experiments"),
        "0.84 alone": (seeds_of_power_alone, "Add 1.96"),
        "no square": (seeds_without_square, "the square is missing"),
        "ratio not squared": (seeds_half_squared, "square the ratio"),
        "swapped": (seeds_swapped, "swapped"),
        "text": (seeds_as_text, "one whole number"),
    },
    "log_uniform": {
        "uniform": (draw_uniform, "hardly ever come"),
        "natural logarithms": (draw_logarithms, "Undo them with exp"),
        "logarithms of ten": (draw_logarithms_of_ten, "Undo them with 10 **"),
        "powers of ten": (draw_powers_of_ten, "different numbers occur"),
        "a grid": (draw_a_grid, "two calls give the same numbers"),
        "a seed inside": (draw_with_a_seed, "no seed set inside"),
        "bell-shaped": (draw_normal, "Each must hold 25%"),
        "upwards from high": (draw_beyond, "lie outside"),
        "one number": (draw_one, "there must be 20,000"),
        "squared draws": (draw_squared, "Each must hold 25%"),
    },
    "successive_halving": {
        "worse half": (halving_keeps_the_worse, "the worse half went on"),
        "drops nobody": (halving_drops_nobody, "Half of them must go"),
        "keeps one": (halving_keeps_one, "1 candidates were trained, expected 4"),
        "rounds down": (halving_rounds_down, "half of 5, rounded up"),
        "always the first rung": (halving_always_one_epoch, "no candidate was trained for [2, 4]"),
        "returns the score": (halving_returns_the_score, "return the candidate itself"),
        "returns score and candidate": (halving_returns_the_pair, "return one candidate, not tuple"),
        "returns the last round": (halving_returns_the_survivors, "return one candidate, not list"),
        "first round decides": (halving_first_round_decides, "The last round decides"),
        "trains twice": (halving_scores_twice, "twice for one candidate"),
        "first half of the list": (halving_without_order, "the better half by the"),
        "sorts the list it was given": (halving_in_place, "changes the list"),
        "never trains": (halving_never_trains, "never called"),
        "candidates as keys": (halving_as_keys, "unhashable"),
    },
}


def difference_with_tensors(changed, baseline):
    gains = torch.tensor(changed) - torch.tensor(baseline)
    return gains.mean(), gains.std() / len(gains) ** 0.5


def seeds_with_exact_quantiles(spread, difference):
    normal = statistics.NormalDist()
    return math.ceil(2 * ((normal.inv_cdf(0.975) + normal.inv_cdf(0.8)) * spread / difference) ** 2)


def draw_with_random(low, high, count):
    return [math.exp(random.uniform(math.log(low), math.log(high))) for _ in range(count)]


def draw_between_logarithms(low, high, count):
    return torch.empty(count).uniform_(math.log(low), math.log(high)).exp()


def halving_by_pairs(candidates, score, rungs):
    return _halving(candidates, score, rungs, half)[0][1]


RIGHT = {
    "paired_difference": {"with tensors": difference_with_tensors},
    "seeds_needed": {"exact quantiles": seeds_with_exact_quantiles},
    "log_uniform": {"random module": draw_with_random, "uniform_ and exp": draw_between_logarithms},
    "successive_halving": {"by pairs": halving_by_pairs},
}
