"""Wrong answers to the exercises of lesson 04, each with a fragment of the words its check must say."""

import math

import torch


def _without_pi(a, b, t):
    return b + (a - b) * (1 + math.cos(t)) / 2


def _cosine(a, b, t):
    return b + (a - b) * (1 + math.cos(math.pi * t)) / 2


def _cycle(step, total, peak, first=1 / 25, last=1 / 250_000, shift=1, shape=_cosine):
    top = 0.3 * total - shift
    if step <= top:
        return shape(first * peak, peak, step / top)
    return shape(peak, last * peak, (step - top) / (total - 1 - top))


def _linear(a, b, t):
    return a + (b - a) * t


def _average(losses, new, start=None):
    values = [losses[0] if start is None else new * losses[0] + (1 - new) * start]
    for loss in losses[1:]:
        values.append(new * loss + (1 - new) * values[-1])
    return values


def _in_place(losses, beta):
    for i in range(1, len(losses)):
        losses[i] = beta * losses[i] + (1 - beta) * losses[i - 1]
    return losses


def _corrected(losses, beta):
    return [s / (1 - (1 - beta) ** (i + 1)) for i, s in enumerate(_average(losses, beta, start=0.0))]


WRONG = {
    "lr_sweep": {
        "equal differences": (
            lambda low, high, n: [low + (high - low) * i / (n - 1) for i in range(n)],
            "equal ratios",
        ),
        "last rate left out": (
            lambda low, high, n: [low * (high / low) ** (i / n) for i in range(n)],
            "gaps",
        ),
        "one rate too many": (
            lambda low, high, n: [low * (high / low) ** (i / n) for i in range(n + 1)],
            "there must be",
        ),
        "logarithms returned": (
            lambda low, high, n: [
                math.log10(low) + (math.log10(high) - math.log10(low)) * i / (n - 1) for i in range(n)
            ],
            "logarithms",
        ),
        "falling": (lambda low, high, n: [high * (low / high) ** (i / (n - 1)) for i in range(n)], "the rates fall"),
        "ratio not constant": (
            lambda low, high, n: [low * (high / low) ** ((i / (n - 1)) ** 2) for i in range(n)],
            "not always the same",
        ),
        "logspace without log10": (lambda low, high, n: torch.logspace(low, high, n), "log10"),
        "starts one factor late": (
            lambda low, high, n: [low * (high / low) ** ((i + 1) / (n - 1)) for i in range(n)],
            "already multiplied once",
        ),
        "starts late and ends right": (
            lambda low, high, n: [low * (high / low) ** ((i + 1) / n) for i in range(n)],
            "already multiplied once",
        ),
        "always times ten": (lambda low, high, n: [low * 10.0**i for i in range(n)], "10 times the one before"),
        "a single number": (lambda low, high, n: low, "must be a list"),
    },
    "smoothed_losses": {
        "beta weighs the old value": (lambda losses, beta: _average(losses, 1 - beta), "exchanged"),
        "starts from zero": (lambda losses, beta: _average(losses, beta, start=0.0), "starts from 0"),
        "bias correction": (_corrected, "bias correction"),
        "mixed with the raw loss before": (
            lambda losses, beta: [
                losses[0],
                *(beta * b + (1 - beta) * a for a, b in zip(losses[:-1], losses[1:], strict=True)),
            ],
            "RAW loss before it",
        ),
        "changes the list given": (_in_place, "changes the list"),
        "first loss left out": (lambda losses, beta: _average(losses, beta)[1:], "one smoothed loss for each loss"),
    },
    "one_cycle": {
        "straight lines": (lambda s, n, m: _cycle(s, n, m, shape=_linear), "Is it a cosine"),
        "cosine without pi": (lambda s, n, m: _cycle(s, n, m, shape=_without_pi), "math.pi"),
        "peak one step late": (lambda s, n, m: _cycle(s, n, m, shift=0), "highest rate is at step"),
        "starts at zero": (lambda s, n, m: _cycle(s, n, m, first=0.0), "(lr_max / 25)"),
        "ends at the first rate": (lambda s, n, m: _cycle(s, n, m, last=1 / 25), "lr_max / 25 / 10,000"),
        "ends at a 10,000th of the highest rate": (
            lambda s, n, m: _cycle(s, n, m, last=1e-4),
            "lr_max / 25 / 10,000",
        ),
        "up and down in equal halves": (
            lambda s, n, m: _cycle(s, n, m, shift=1 - 0.2 * n),
            "highest rate is at step",
        ),
    },
}
