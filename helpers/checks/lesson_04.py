"""Checks of the exercises of lesson 04."""

import torch

from helpers.checks.frame import Wrong, call, check, close, require


def _numbers(value, what: str) -> torch.Tensor:
    """A list, an array or a tensor of numbers as a float tensor (N,)."""
    try:
        return torch.tensor([float(v) for v in value], dtype=torch.float64)
    except (TypeError, ValueError):
        raise Wrong(f"{what} must be a list or a one-dimensional tensor of numbers.") from None


@check
def lr_sweep(answer) -> str:
    """answer(lr_min, lr_max, steps): `steps` rates from lr_min to lr_max, each the same multiple of the one before."""
    for low, high, steps in ((1e-4, 10.0, 6), (1e-3, 0.5, 100), (2.0, 8.0, 2)):
        rates = _numbers(call(answer, low, high, steps), "the rates")
        case = f"for lr_min={low:g}, lr_max={high:g}, steps={steps}"
        require(len(rates) == steps, f"{case} there must be {steps} rates, got {len(rates)}.")
        exact = low * (high / low) ** (torch.arange(steps).double() / (steps - 1))
        likely = (
            (exact.log(), "these are the logarithms of the rates. Undo the logarithm (math.exp)."),
            (exact.log10(), "these are the logarithms of the rates. Undo the logarithm (10 ** ...)."),
            (exact.flip(0), "the rates fall. The test starts at lr_min and ends at lr_max."),
        )
        for mistake, words in likely:
            require(not close(rates, mistake), words)
        require(
            steps == 2 or not close(rates, torch.linspace(low, high, steps)),
            "the rates have equal differences. They must have equal ratios: multiply at each step, do not add.",
        )
        i = torch.arange(steps).double()
        late = "the first rate is already multiplied once. Rate number i is lr_min * factor ** i, and i counts from 0."
        likely = (
            (
                10 ** torch.linspace(low, high, steps).double(),
                "logspace takes powers of ten: give it log10 of the rates.",
            ),
            (low * (high / low) ** ((i + 1) / (steps - 1)), late),
            (low * (high / low) ** ((i + 1) / steps), late),
            (
                low * 10**i,
                f"{case} each rate is 10 times the one before. The factor must follow from lr_max and steps.",
            ),
        )
        right = (rates / exact - 1).abs() < 1e-3
        for mistake, words in likely:
            require(right.all() or not ((rates / mistake - 1).abs() < 1e-3).all(), words)
        ends = f"the first and the last rate are {rates[0]:.4g} and {rates[-1]:.4g}, expected {low:g} and {high:g}."
        gaps = f" {steps} rates have {steps - 1} gaps." if right[0] and rates[-1] < high else ""
        require(right[0] and right[-1], f"{case} {ends}{gaps}")
        require(right.all(), f"{case} both ends are right, but the ratio of neighbouring rates is not always the same.")
    return "equal ratios, both ends included."


@check
def smoothed_losses(answer) -> str:
    """answer(losses, beta): s[0] = losses[0], s[i] = beta * losses[i] + (1 - beta) * s[i - 1]."""
    for beta, count in ((0.05, 30), (0.3, 12), (1.0, 5)):
        x = (torch.rand(count) * 3 + 1).double()
        given = x.tolist()
        result = _numbers(call(answer, given, beta), "the smoothed losses")
        require(given == x.tolist(), "your function changes the list that it was given. Build a new list.")
        require(len(result) == count, f"there must be one smoothed loss for each loss: {count}, got {len(result)}.")
        expected, zero = _average(x, beta, x[0]), _average(x, beta, x[0] * beta)
        if close(result, expected, 1e-5):
            continue
        likely = (
            (_average(x, 1 - beta, x[0]), "beta and 1 - beta are exchanged. A small beta must smooth much."),
            (zero, "the average starts from 0, so its first values are too small. Start with the first loss itself."),
            (
                zero / (1 - (1 - beta) ** torch.arange(1, count + 1)),
                "this has Adam's bias correction. torch-lr-finder has none: its first smoothed loss is the first loss.",
            ),
            (
                torch.cat([x[:1], beta * x[1:] + (1 - beta) * x[:-1]]),
                "you mix each loss with the RAW loss before it. Mix it with the smoothed value before it.",
            ),
        )
        for mistake, words in likely:
            require(not close(result, mistake, 1e-5), words)
        wrong = int(((result - expected).abs() > 1e-5).nonzero()[0])
        raise Wrong(f"with beta={beta:g}, value {wrong} is {result[wrong]:.4f}, expected {expected[wrong]:.4f}.")
    return "the same smoothing as torch-lr-finder's."


def _average(losses: torch.Tensor, beta: float, start: torch.Tensor) -> torch.Tensor:
    values = [start]
    for loss in losses[1:]:
        values.append(beta * loss + (1 - beta) * values[-1])
    return torch.stack(values)


@check
def one_cycle(answer) -> str:
    """answer(step, total_steps, lr_max): cosine up from lr_max/25 until step 0.3*total_steps - 1, then cosine down."""
    for total, peak in ((10, 1.0), (101, 0.4), (64, 0.05)):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=total, cycle_momentum=False)
        expected = torch.zeros(total, dtype=torch.float64)
        for step in range(total):
            expected[step] = schedule.get_last_lr()[0]
            if step < total - 1:
                optimizer.step()
                schedule.step()
        rates = _numbers([call(answer, step, total, peak) for step in range(total)], "the rates")
        case = f"with total_steps={total} and lr_max={peak:g}"
        steps, end = torch.arange(total).double(), 0.3 * total - 1
        up = peak + (peak / 25 - peak) * (1 + (steps / end).cos()) / 2
        down = peak / 250_000 + (peak - peak / 250_000) * (1 + ((steps - end) / (total - 1 - end)).cos()) / 2
        require(
            not close(rates / peak, torch.where(steps <= end, up, down) / peak),
            "the cosine goes only from 0 to 1, a third of its way. It must go from 0 to pi: math.cos(math.pi * t).",
        )
        for step, meaning in ((0, "lr_max / 25"), (total - 1, "lr_max / 25 / 10,000")):
            words = f"{case} the rate at step {step} is {rates[step]:.4g}, expected {expected[step]:.4g} ({meaning})."
            require(abs(rates[step] / expected[step] - 1) < 1e-2, words)
        at, top = int(rates.argmax()), int(expected.argmax())
        words = f"{case} the highest rate is at step {at}, expected step {top}."
        require(at == top, f"{words} The rise ends at 0.3 * total_steps - 1.")
        wrong = ((rates - expected).abs() > 1e-4 * peak).nonzero().flatten().tolist()
        for step in wrong[:1]:
            raise Wrong(
                f"{case} both ends and the place of the peak are right, but at step {step} the rate is "
                f"{rates[step]:.5f}, expected {expected[step]:.5f}. Is it a cosine from the phase's first rate to its "
                "last, and does the fall start where the rise ends, at 0.3 * total_steps - 1?"
            )
    return "equal to torch's OneCycleLR at every step."
