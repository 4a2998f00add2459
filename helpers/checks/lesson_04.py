"""Checks of the exercises of lesson 04."""

import copy
import math
from functools import partial

import torch
import torch.nn.functional as F

from helpers.checks.frame import Exercise, as_tensor, call, number, sizes, snapshot
from helpers.checks.networks import Nested


def _sweep(low, high, count, gaps=None):
    return low * (high / low) ** (torch.arange(count, dtype=torch.float64) / (gaps or count - 1))


lr_sweep = Exercise(
    reference=lambda lr_min, lr_max, steps: _sweep(lr_min, lr_max, steps),
    cases=lambda: [
        (1e-4, 10.0, 6),
        *((10 ** -(1 + 3 * torch.rand(()).item()), 1 + torch.rand(()).item(), steps) for steps in sizes(3, 3, 150)),
        (2.0, 8.0, 2),
    ],
    run=lambda answer, low, high, n: {"rate / lr_min": as_tensor(call(answer, low, high, n), "the result") / low},
    mistakes={
        "the rates have equal differences. Their ratios must be equal: multiply at each step, do not add.": (
            lambda low, high, n: torch.linspace(low, high, n)
        ),
        "these are the logarithms of the rates. Undo the logarithm (math.exp, or 10 ** ...).": (
            lambda low, high, n: _sweep(low, high, n).log(),
            lambda low, high, n: _sweep(low, high, n).log10(),
        ),
        "n rates have n - 1 gaps. Yours do not end at lr_max.": lambda low, high, n: _sweep(low, high, n, gaps=n),
    },
    praise="equal ratios, both ends included.",
)


def _average(losses, beta, start=None):
    smoothed = [losses[0] if start is None else beta * losses[0] + (1 - beta) * start]
    for loss in losses[1:]:
        smoothed.append(beta * loss + (1 - beta) * smoothed[-1])
    return smoothed


smoothed_losses = Exercise(
    reference=lambda losses, beta: _average(losses, beta),
    cases=lambda: [
        ((1 + 3 * torch.rand(count)).tolist(), beta)
        for count, beta in zip([*sizes(3, 7, 40), 1], (0.05, torch.rand(()).item(), 1.0, 0.3), strict=True)
    ],
    mistakes={
        "beta and 1 - beta are exchanged. A small beta must smooth much.": lambda x, beta: _average(x, 1 - beta),
        "the average starts from 0. Start with the first loss itself.": lambda x, beta: _average(x, beta, start=0.0),
        "you mix each loss with the RAW loss before it. Mix it with the smoothed value before it.": (
            lambda x, beta: [beta * new + (1 - beta) * old for old, new in zip([x[0], *x], x, strict=False)]
        ),
    },
    praise="the same smoothing as torch-lr-finder's.",
    tolerance=1e-5,
)


def _range_test(network, optimizer, batches, rates, fault=""):
    """A range test that leaves no trace, or one with a named fault."""
    saved, random_state, losses = copy.deepcopy(network.state_dict()), torch.get_rng_state(), []
    network.train()
    for rate in rates:
        x, y = next(batches)
        for group in optimizer.param_groups[: 1 if fault == "one group" else None]:
            group["lr"] = rate
        loss = F.cross_entropy(network(x), y)
        if fault != "no zero_grad":
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if {"goes on": False, "only NaN": loss.isnan()}.get(fault, not loss.isfinite()):
            break
    if fault != "not restored":
        network.load_state_dict(saved)
    if fault != "random state":
        torch.set_rng_state(random_state)
    return losses


def _range_tested(answer, network, optimizer, batches, rates):
    """The losses, and what is left changed. The batches come once and draw random numbers, as a loader does."""
    torch.rand(1)
    before, random_state, taken = snapshot(network.state_dict()), torch.get_rng_state(), []
    losses = call(answer, network, optimizer, (taken.append(torch.rand(1)) or batch for batch in batches), rates)
    left = [name for name, value in network.state_dict().items() if not torch.equal(value, before[name])]
    weights = sum(name in left for name, _ in network.named_parameters())
    return {
        "the number of batches taken": len(taken),
        "the list of losses": losses,
        "the number of weights (tensors) left changed": weights,
        "the number of batch-norm statistics left changed": len(left) - weights,
        "the number of random states left changed": not torch.equal(random_state, torch.get_rng_state()),
    }


def _range_tests():
    corners = (2, (40.0, -40.0)), (5, (math.nan,)), (3, (1.5e19, -1.5e19))  # a large loss, NaN, an infinite one
    for steps, (at, corner) in zip(sizes(3, 6, 11), corners, strict=True):
        batches = [(torch.randn(n, 3, 4, 4), torch.randint(3, (n,))) for n in (2 + torch.randperm(steps)).tolist()]
        batches[at][0][0, : len(corner), 0, 0], batches[at][1][0] = torch.tensor(corner), 1
        network = Nested().train(at == 3)  # a right answer chooses the mode itself
        optimizer = torch.optim.SGD(network.groups(), lr=0.5, momentum=0.9)
        yield network, optimizer, batches, [0.02 * 1.5**i for i in range(steps)]


range_test = Exercise(
    reference=_range_test,
    cases=_range_tests,
    run=_range_tested,
    changes=("network", "optimizer"),
    mistakes={
        words: partial(_range_test, fault=fault)
        for fault, words in {
            "not restored": "the weights stay changed. Load a COPY of state_dict(): it changes with the network.",
            "random state": "torch's random state stays changed: dropout and loader draw from it. Set it back, too.",
            "goes on": "a loss that is not finite must end the test: `if not math.isfinite(loss): break`.",
            "only NaN": "an infinite loss must end the test, too: it is not NaN. Ask `math.isfinite(loss)`.",
            "no zero_grad": "gradients of earlier steps add up: optimizer.zero_grad() before loss.backward().",
            "one group": "only one group gets the new rate. Set it in every group of optimizer.param_groups.",
        }.items()
    },
    praise="the losses are right, it stops at a loss that is not finite, and it leaves no trace.",
)


def _cycle(step, total, peak, last=1 / 250_000, before=1, pi=math.pi):
    top = 0.3 * total - before
    up = step <= top
    a, b, t = (peak / 25, peak, step / top) if up else (peak, peak * last, (step - top) / (total - 1 - top))
    return b + (a - b) * (1 + math.cos(pi * t)) / 2


def _cycled(answer, step, total, peak):
    rate = number(call(answer, step, total, peak), "the rate of one step")
    last = torch.tensor(rate, dtype=torch.float64).log10() if step == total - 1 else None  # a very small one
    return {"the rate": rate, "the rate, in units of lr_max,": rate / peak, "log10 of the last rate": last}


one_cycle = Exercise(
    reference=lambda step, total_steps, lr_max: _cycle(step, total_steps, lr_max),
    cases=lambda: [
        (step, total, peak)
        for total, peak in zip([10, *sizes(2, 11, 70), 101], [1.0, *(2 * torch.rand(2)).tolist(), 0.05], strict=True)
        for step in range(total)
    ],
    run=_cycled,
    mistakes={
        "the cosine goes only from 0 to 1. It must go from 0 to pi: math.cos(math.pi * t).": partial(_cycle, pi=1),
        "the peak comes late. Steps count from 0: the rise ends at 0.3 * total_steps - 1.": partial(_cycle, before=0),
        "the last rate must be lr_max / 25 / 10,000.": (partial(_cycle, last=1 / 25), partial(_cycle, last=1e-4)),
    },
    praise="equal to torch's OneCycleLR at every step.",
    tolerance=1e-3,
)
