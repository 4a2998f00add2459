"""Checks of the exercises of lesson 04."""

import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks.frame import Wrong, call, check, close, require


def _numbers(value, what: str) -> torch.Tensor:
    """A list, an array or a tensor of numbers as a float tensor (N,)."""
    try:
        plain = (v.detach() if isinstance(v, torch.Tensor) else v for v in value)
        return torch.tensor([float(v) for v in plain], dtype=torch.float64)
    except (TypeError, ValueError):
        raise Wrong(f"{what} must be a list or a one-dimensional tensor of numbers.") from None


def _number(value) -> torch.Tensor:
    """One number of any kind as a float tensor ()."""
    try:
        return torch.tensor(float(value), dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"return one number, the rate of this one step. Got {type(value).__name__}.") from None


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
        short = low * (high / low) ** (i / steps)
        gaps = f" {steps} rates have {steps - 1} gaps." if close(rates / short, torch.ones(steps)) else ""
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
            (x, "these are the losses as they were. Mix each one with the smoothed value before it."),
            (
                torch.cat([x[:1], beta * x[1:] + (1 - beta) * x[:-1]]),
                "you mix each loss with the RAW loss before it. Mix it with the smoothed value before it.",
            ),
        )
        for mistake, words in likely:
            require(not close(result, mistake, 1e-5), words)
        wrong = _first_apart(result, expected, 1e-5)
        raise Wrong(f"with beta={beta:g}, value {wrong} is {result[wrong]:.4f}, expected {expected[wrong]:.4f}.")
    return "the same smoothing as torch-lr-finder's."


def _first_apart(values: torch.Tensor, expected: torch.Tensor, tolerance: float) -> int:
    """Position of the first value that is not as expected; a value that is no number never is."""
    return int((~((values - expected).abs() <= tolerance)).nonzero()[0])


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
        rates = torch.stack([_number(call(answer, step, total, peak)) for step in range(total)])
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


@check
def range_test(answer) -> str:
    """answer(network, optimizer, batches, rates): the raw losses; network and random numbers end as they came."""
    rates = [0.02 * 1.5**i for i in range(8)]
    for broken in (None, 5):
        batches = [(torch.randn(6, 3, 4, 4), torch.randint(3, (6,))) for _ in rates]
        if broken is not None:
            batches[broken][0][0, 0, 0, 0] = float("nan")
        network, optimizer = _small_network()
        network.eval()  # a right answer chooses the mode itself
        before = {name: value.clone() for name, value in network.state_dict().items()}
        random_state = torch.get_rng_state()
        result = call(answer, network, optimizer, _copies(batches), list(rates))
        moved = not torch.equal(random_state, torch.get_rng_state())
        if isinstance(result, tuple) and len(result) in (2, 3) and not isinstance(result[0], (int, float)):
            raise Wrong("return the losses alone, one number for each step. Got several things at once.")
        losses = _numbers(result, "the losses")
        _same_curve(losses, batches, rates, random_state, broken)
        changed = [name for name, value in network.state_dict().items() if not torch.equal(before[name], value)]
        weights = [name for name in changed if name in dict(network.named_parameters())]
        statistics = [name for name in changed if name not in weights]
        require(
            not weights,
            "the losses are right, but the network is left changed: its weights are those after the last step. Keep a "
            "COPY before the first step and load it at the end, also when you stop early. (state_dict() alone is no "
            "copy: it hands out the very tensors that training changes.)",
        )
        require(
            not statistics,
            f"the weights are restored, but batch norm's running statistics are not ({', '.join(statistics)}): they "
            "are no parameters. state_dict() holds both.",
        )
        require(
            not moved,
            "the network is restored, but torch's random state is not: this network has dropout, which draws random "
            "numbers. torch.get_rng_state() and torch.set_rng_state(...).",
        )
    return "the losses are right, it stops at a loss that is not finite, and it leaves no trace."


def _small_network():
    """A network with batch norm and dropout, and an optimiser with two parameter groups; always the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.25), nn.Flatten(), nn.Linear(32, 3)
    network = nn.Sequential(*layers)
    groups = [{"params": network[:2].parameters()}, {"params": network[2:].parameters(), "weight_decay": 0.3}]
    return network, torch.optim.SGD(groups, lr=0.5, momentum=0.9)


def _copies(batches):
    yield from ((x.clone(), y.clone()) for x, y in batches)


def _curve(batches, rates, random_state, fault="") -> torch.Tensor:
    """The losses of a range test on the small network, right or with one named fault."""
    network, optimizer = _small_network()
    if fault.startswith("own"):
        optimizer = torch.optim.SGD(network.parameters(), momentum=0.9 if "momentum" in fault else 0.0)
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(random_state)
        network.train(fault != "eval mode")
        losses = []
        for i, rate in enumerate(rates):
            x, y = batches[0 if fault == "one batch" else i]
            rate = {"no rate": 0.5, "late": rates[i - 1] if i else 0.5}.get(fault, rate)
            for group in optimizer.param_groups[: 1 if fault == "one group" else None]:
                group["lr"] = rate
            loss = F.cross_entropy(network(x), y)
            if fault != "no zero_grad":
                optimizer.zero_grad()
            loss.backward()
            if fault != "no step":
                optimizer.step()
            losses.append(F.cross_entropy(network(x), y).item() if fault == "after" else loss.item())
    return torch.tensor(losses, dtype=torch.float64)


def _same_curve(losses, batches, rates, random_state, broken) -> None:
    """Words about the first way in which `losses` differs from the right curve."""
    expected = _curve(batches, rates, random_state)
    count = len(rates) if broken is None else broken + 1
    if broken is None:
        require(len(losses) == count, f"there must be one loss for each of the {count} rates, got {len(losses)}.")
    else:
        require(
            len(losses) <= count,
            f"the loss of step {broken} (counted from 0) is not a number, and your test goes on: {len(losses)} losses, "
            f"expected {count}. NaN is not larger than anything: ask math.isfinite(loss).",
        )
        require(
            len(losses) == count,
            f"the loss of step {broken} (counted from 0) is not finite. Append it, then stop: expected {count} losses, "
            f"got {len(losses)}.",
        )

    def same(other):
        other = other[:count]
        finite = other.isfinite() & expected[:count].isfinite()
        return close(losses[finite], other[finite], 1e-4) and not losses[~expected[:count].isfinite()].isfinite().any()

    if same(expected):
        return
    own = "the network is trained by another optimiser than the one given. Use `optimizer`: it has its own settings."
    likely = {
        "no zero_grad": "gradients of earlier steps add up. Call optimizer.zero_grad() before loss.backward().",
        "one group": "only one parameter group gets the new rate. Set it in every group of optimizer.param_groups.",
        "eval mode": "these are the losses of eval mode. Training happens in train mode: network.train().",
        "after": "each loss is measured after its step. Append the loss that you call backward() on.",
        "no step": "the network does not learn. Either optimizer.step() is missing, or it moves another copy of the "
        "network, or the order is not zero_grad, backward, step.",
        "no rate": "the optimiser keeps its own rate. Set group['lr'] to the step's rate before optimizer.step().",
        "late": "each rate is set after its step, so every step uses the one before. Set it before optimizer.step().",
        "own": own,
        "own with momentum": own,
        "one batch": "every step uses the same batch. Take the next one: next(batches).",
    }
    for fault, words in likely.items():
        require(not same(_curve(batches, rates, random_state, fault)), words)
    wrong = _first_apart(losses, expected[:count], 1e-4)
    first = "No step is taken before this loss: is it F.cross_entropy(network(x), y), and is no seed set? "
    raise Wrong(
        f"loss {wrong} (counted from 0) is {losses[wrong]:.4f}, expected {expected[wrong]:.4f}. "
        f"{first if wrong == 0 else ''}Each step: set the rate, take the next batch, train mode, cross-entropy, "
        "zero_grad, backward, step. Return the losses as they are, unsmoothed."
    )
