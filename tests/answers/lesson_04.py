"""Lesson 04: right answers written in many ways, and wrong ones that no table of mistakes can hold."""

import copy
import itertools
import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F


def multiplied(low, high, n):
    rates = [low]
    while len(rates) < n:
        rates.append(rates[-1] * math.exp(math.log(high / low) / (n - 1)))
    return rates


def accumulated(losses, beta):
    return list(itertools.accumulate(losses, lambda old, new: old + beta * (new - old)))


def as_array(losses, beta):
    result = np.array(losses, dtype=float)
    for i in range(1, len(result)):
        result[i] += (1 - beta) * (result[i - 1] - result[i])
    return result


def kept_between_calls(function):
    """Results of earlier calls are still in the list that is returned."""
    kept = []
    return lambda *arguments: kept.extend(function(*arguments)) or kept


def with_copies(network, optimizer, batches, rates):
    network, optimizer = copy.deepcopy((network, optimizer))
    network.train()
    losses = []
    with torch.random.fork_rng():
        for (x, y), rate in zip(batches, rates, strict=False):
            [group.update(lr=rate) for group in optimizer.param_groups]
            optimizer.zero_grad()
            losses.append(F.nll_loss(F.log_softmax(network(x), dim=1), y))
            losses[-1].backward()
            optimizer.step()
            if not torch.isfinite(losses[-1]):
                break
    return torch.stack(losses)


def range_tested(network, optimizer, batches, rates, fault=""):
    """A range test that leaves no trace, or one with a named fault."""
    batches = iter(list(batches)) if fault == "all batches at once" else batches
    random_state, saved = torch.get_rng_state(), copy.deepcopy(network.state_dict())
    if fault == "another optimiser":
        optimizer = torch.optim.SGD(network.parameters(), momentum=0.9)
    network.train(fault != "eval mode")
    losses = []
    for rate in rates:
        x, y = next(batches)
        if fault == "random state saved late" and not losses:
            random_state = torch.get_rng_state()
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if not loss.isfinite():
            if fault == "not restored when it stops early":
                return losses
            break
    layers = dict(network.named_parameters()) if fault == "only parameters restored" else saved
    network.load_state_dict({name: saved[name] for name in layers}, strict=False)
    torch.set_rng_state(random_state)
    return losses


def cycle(step, total, peak):
    """Of sines squared; the fall is counted backwards."""
    top, last = 0.3 * total - 1, peak / 250_000
    if step < top:
        return peak / 25 + (peak - peak / 25) * math.sin(math.pi / 2 * step / top) ** 2
    return last + (peak - last) * math.sin(math.pi / 2 * (total - 1 - step) / (0.7 * total)) ** 2


def cycle_of_torch(step, total, peak):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=total, cycle_momentum=False)
    for _ in range(step):
        optimizer.step()
        schedule.step()
    return optimizer.param_groups[0]["lr"]


def counted_by_itself(step, total, peak, calls=itertools.count()):  # noqa: B008
    return cycle(next(calls) % total, total, peak)


RIGHT = {
    "lr_sweep": {
        "torch.logspace": lambda low, high, n: torch.logspace(math.log10(low), math.log10(high), n),
        "numpy's float32": lambda low, high, n: [np.float32(rate) for rate in np.geomspace(low, high, n)],
        "a loop that multiplies": multiplied,
        "a tuple, backwards": lambda low, high, n: tuple(high * (low / high) ** (i / (n - 1)) for i in range(n))[::-1],
    },
    "smoothed_losses": {
        "an array": as_array,
        "a tensor of float32": lambda losses, beta: torch.tensor(accumulated(losses, beta)),
        "a generator": lambda losses, beta: (value for value in accumulated(losses, beta)),
    },
    "one_cycle": {
        "sines squared": cycle,
        "torch's own schedule": cycle_of_torch,
        "a tensor of one element": lambda step, total, peak: torch.tensor([cycle(step, total, peak)]),
        "a numpy number": lambda step, total, peak: np.float32(cycle(step, total, peak)),
    },
    "range_test": {
        "copies of network and optimiser together": with_copies,
        "step by step": range_tested,
    },
}


def _smoothed_in_place(losses, beta):
    for i in range(1, len(losses)):
        losses[i] = beta * losses[i] + (1 - beta) * losses[i - 1]
    return losses


WRONG = {
    "smoothed_losses": {"in place": _smoothed_in_place},
    "lr_sweep": {
        "equal differences": torch.linspace,
        "rates of earlier calls": kept_between_calls(multiplied),
        "rounded": lambda low, high, n: [round(rate, 4) for rate in multiplied(low, high, n)],
    },
    "one_cycle": {
        "counts its calls": counted_by_itself,
        "100 steps": lambda step, total, peak: cycle(step, 100, peak),
    },
    "range_test": {
        fault: partial(range_tested, fault=fault)
        for fault in (
            *("all batches at once", "another optimiser", "eval mode", "random state saved late"),
            *("not restored when it stops early", "only parameters restored"),
        )
    },
}

WORDS = {"lr_sweep": {"equal differences": "the rates have equal differences"}}
