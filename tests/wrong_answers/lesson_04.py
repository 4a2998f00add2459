"""Answers to the exercises of lesson 04.

WRONG: name of the check -> what is wrong -> (answer, words that must come).
RIGHT: name of the check -> how it is written -> answer.
"""

import copy
import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F


def _without_pi(a, b, t):
    return b + (a - b) * (1 + math.cos(t)) / 2


def _cosine(a, b, t):
    return b + (a - b) * (1 + math.cos(math.pi * t)) / 2


def _cycle(step, total, peak, first=1 / 25, last=1 / 250_000, shift=1, shape=_cosine):
    top = 0.3 * total - shift
    if step <= top:
        return shape(first * peak, peak, step / top)
    return shape(peak, last * peak, (step - top) / (total - 1 - top))


def _late_fall(step, total, peak):
    top = 0.3 * total - 1
    if step <= top:
        return _cosine(peak / 25, peak, step / top)
    return _cosine(peak, peak / 250_000, step / (total - 1))


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


def _test(network, optimizer, batches, rates, fault=""):
    """A range test that leaves no trace, or one with a named fault."""
    random_state = torch.get_rng_state()
    saved = network.state_dict() if fault == "no copy" else copy.deepcopy(network.state_dict())
    network.train(fault != "eval")
    if fault == "seed":
        torch.manual_seed(0)
    if fault.startswith("own"):
        optimizer = torch.optim.SGD(network.parameters(), momentum=0.9 if "momentum" in fault else 0)
    losses, x, y = [], None, None
    trained = copy.deepcopy(network) if fault == "trains a copy" else network
    for rate in rates:
        if x is None or fault != "one batch":
            x, y = next(batches)
        if fault != "no rate":
            for group in optimizer.param_groups[:1] if fault == "one group" else optimizer.param_groups:
                group["lr"] = rate
        logits = trained(x)
        loss = F.cross_entropy(logits.softmax(1) if fault == "softmax" else logits, y)
        if fault == "stops first" and not loss.isfinite():
            break
        if fault != "no zero_grad":
            optimizer.zero_grad()
        loss.backward()
        if fault == "late zero_grad":
            optimizer.zero_grad()
        if fault != "no step":
            optimizer.step()
        losses.append(F.cross_entropy(network(x), y).item() if fault == "after" else loss.item())
        if fault == "stops at inf" and losses[-1] > 5 * min(losses):
            break
        if fault not in ("goes on", "stops at inf") and not math.isfinite(losses[-1]):
            if fault == "returns early":
                return losses
            if fault == "zero for NaN":
                losses[-1] = 0.0
            break
    if fault == "parameters only":
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(saved[name])
    elif fault == "counter":
        network.load_state_dict({name: t for name, t in saved.items() if "num_batches" not in name}, strict=False)
    elif fault != "not restored":
        network.load_state_dict(saved)
    if fault != "random state":
        torch.set_rng_state(random_state)
    if fault == "smoothed":
        return _average(losses, 0.05)
    return (rates, losses) if fault == "both" else losses


def _faulty(fault):
    return lambda network, optimizer, batches, rates: _test(network, optimizer, batches, rates, fault)


def _late_rate(network, optimizer, batches, rates):
    saved, random_state, losses = copy.deepcopy(network.state_dict()), torch.get_rng_state(), []
    network.train()
    for rate, (x, y) in zip(rates, batches, strict=False):
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            break
    network.load_state_dict(saved)
    torch.set_rng_state(random_state)
    return losses


def _test_both_copied(network, optimizer, batches, rates):
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


def _test_by_hand(network, optimizer, batches, rates):
    random_state = torch.random.get_rng_state()
    tensors = [*network.parameters(), *network.buffers()]
    kept = [t.detach().clone() for t in tensors]
    network.train()
    result = np.zeros(0)
    while len(result) < len(rates):
        for group in optimizer.param_groups:
            group["lr"] = rates[len(result)]
        network.zero_grad()
        loss = torch.nn.CrossEntropyLoss()(network.forward((pair := next(batches))[0]), pair[1])
        result = np.append(result, loss.item())
        if np.isnan(result[-1]) or np.isinf(result[-1]):
            break
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for tensor, old in zip(tensors, kept, strict=True):
            tensor.copy_(old)
    torch.random.set_rng_state(random_state)
    return result


def _test_finally(network, optimizer, batches, rates):
    kept, mode, random_state, losses = copy.deepcopy(network), network.training, torch.get_rng_state(), []
    state = copy.deepcopy(optimizer.state_dict())
    try:
        for rate in rates:
            x, y = next(batches)
            network.train(True)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = F.cross_entropy(network(x), y)
            losses += [loss.detach()]
            if not loss.isfinite().item():
                return losses
            optimizer.zero_grad(set_to_none=False)
            loss.backward()
            optimizer.step()
        return losses
    finally:
        network.load_state_dict(kept.state_dict())
        optimizer.load_state_dict(state)
        network.train(mode)
        torch.set_rng_state(random_state)


def _test_generator(network, optimizer, batches, rates):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    rng = torch.get_rng_state()

    def steps():
        for rate in rates:
            x, y = next(batches)
            optimizer.zero_grad()
            loss = F.cross_entropy(network.train()(x), y)
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            yield loss.item()
            if loss != loss or loss.abs() == math.inf:  # noqa: PLR0124
                return

    losses = tuple(steps())
    network.load_state_dict(before)
    torch.set_rng_state(rng)
    return losses


def _test_while(network, optimizer, batches, rates):
    random_state, saved = torch.get_rng_state(), {name: t.clone() for name, t in network.state_dict().items()}
    losses = []
    while len(losses) < len(rates) and (not losses or math.isfinite(losses[-1])):
        optimizer.zero_grad()
        x, y = next(batches)
        loss = -network.train()(x).log_softmax(1)[torch.arange(len(y)), y].mean()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = rates[len(losses)]
        optimizer.step()
        losses.append(loss.item())
    for name, t in network.state_dict().items():
        t.copy_(saved[name])
    torch.set_rng_state(random_state)
    return losses


def _test_scheduled(network, optimizer, batches, rates):
    random_state, saved = torch.get_rng_state(), copy.deepcopy(network.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 1.0
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rates[min(step, len(rates) - 1)])
    network.train()
    losses = []
    for x, y in batches:
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.detach().numpy())
        if not np.isfinite(losses[-1]):
            break
    network.load_state_dict(saved)
    torch.set_rng_state(random_state)
    return losses


def _sweep_loop(low, high, n):
    rates = [low]
    while len(rates) < n:
        rates.append(rates[-1] * math.exp(math.log(high / low) / (n - 1)))
    return rates


def _smooth_array(losses, beta):
    result = np.array(losses, dtype=float)
    for i in range(1, len(result)):
        result[i] += (1 - beta) * (result[i - 1] - result[i])
    return result


def _smooth_matrix(losses, beta):
    n = len(losses)
    weights = torch.tensor([[beta * (1 - beta) ** (i - j) if j <= i else 0.0 for j in range(n)] for i in range(n)])
    weights[:, 0] = torch.tensor([(1 - beta) ** i for i in range(n)])
    return weights.double() @ torch.tensor(losses, dtype=torch.float64)


def _smooth_recursive(losses, beta):
    if len(losses) == 1:
        return [losses[0]]
    before = _smooth_recursive(losses[:-1], beta)
    return [*before, torch.lerp(torch.tensor(before[-1]), torch.tensor(losses[-1]), beta).item()]


def _cycle_sine(step, total, peak):
    top = 0.3 * total - 1
    if step < top:
        return peak / 25 + (peak - peak / 25) * math.sin(math.pi / 2 * step / top) ** 2
    return (
        peak / 250_000 + (peak - peak / 250_000) * math.sin(math.pi / 2 * (total - 1 - step) / (total - 1 - top)) ** 2
    )


def _cycle_torch(step, total, peak):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=total, cycle_momentum=False)
    for _ in range(step):
        optimizer.step()
        schedule.step()
    return optimizer.param_groups[0]["lr"]


def _cycle_tensor(step, total, peak):
    top = torch.tensor(0.3 * total - 1)
    up = step <= top
    t = step / top if up else (step - top) / (total - 1 - top)
    a, b = (peak / 25, peak) if up else (peak, peak / 25 / 1e4)
    return torch.lerp(torch.tensor(b), torch.tensor(a), 0.5 + 0.5 * torch.cos(torch.pi * t))


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
        "always twice": (lambda low, high, n: [low * 2.0**i for i in range(n)], "0.0032, expected 0.0001 and 10."),
        "difference in place of ratio": (
            lambda low, high, n: [low * (high - low) ** (i / (n - 1)) for i in range(n)],
            "expected 0.0001 and 10.",
        ),
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
        "not smoothed at all": (lambda losses, beta: list(losses), "as they were"),
        "no numbers": (lambda losses, beta: [math.nan] * len(losses), "value 0 is nan"),
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
        "all rates at once": (lambda s, n, m: [_cycle(i, n, m) for i in range(n)], "return one number"),
        "rise without a fall to t = 0": (
            lambda s, n, m: _late_fall(s, n, m),
            "does the fall start where the rise ends",
        ),
        "up and down in equal halves": (
            lambda s, n, m: _cycle(s, n, m, shift=1 - 0.2 * n),
            "highest rate is at step",
        ),
    },
    "range_test": {
        "network not restored": (_faulty("not restored"), "Keep a COPY"),
        "state_dict without a copy": (_faulty("no copy"), "no copy"),
        "restored only without an early stop": (_faulty("returns early"), "also when you stop early"),
        "only parameters restored": (_faulty("parameters only"), "running statistics"),
        "random state moved": (_faulty("random state"), "random state"),
        "goes on after NaN": (_faulty("goes on"), "your test goes on"),
        "stops only where the loss is larger": (_faulty("stops at inf"), "math.isfinite"),
        "stops before it keeps the loss": (_faulty("stops first"), "Append it, then stop"),
        "gradients add up": (_faulty("no zero_grad"), "zero_grad"),
        "one parameter group": (_faulty("one group"), "every group"),
        "eval mode": (_faulty("eval"), "eval mode"),
        "loss after the step": (_faulty("after"), "after its step"),
        "no step": (_faulty("no step"), "does not learn"),
        "trains a copy that the optimiser does not know": (_faulty("trains a copy"), "another copy"),
        "rate never set": (_faulty("no rate"), "keeps its own rate"),
        "rate set after the step": (_late_rate, "after its step, so every step"),
        "one batch for all": (_faulty("one batch"), "same batch"),
        "rates and losses returned": (_faulty("both"), "the losses alone"),
        "smoothed": (_faulty("smoothed"), "unsmoothed"),
        "zero in the place of NaN": (_faulty("zero for NaN"), "loss 5 (counted from 0) is 0.0000, expected nan"),
        "counter of batch norm left": (_faulty("counter"), "num_batches_tracked"),
        "an optimiser of its own": (_faulty("own"), "another optimiser than the one given"),
        "an optimiser of its own, with momentum": (_faulty("own momentum"), "another optimiser than the one given"),
        "zero_grad after backward": (_faulty("late zero_grad"), "the order is not zero_grad, backward, step"),
        "softmax before cross-entropy": (_faulty("softmax"), "F.cross_entropy(network(x), y)"),
        "sets a seed": (_faulty("seed"), "no seed set"),
        "a single number": (lambda network, optimizer, batches, rates: 0.5, "must be a list"),
    },
}

RIGHT = {
    "lr_sweep": {
        "torch.logspace": lambda low, high, n: torch.logspace(math.log10(low), math.log10(high), n),
        "numpy.geomspace": np.geomspace,
        "a loop that multiplies": _sweep_loop,
        "exp of a linspace": lambda low, high, n: torch.linspace(math.log(low), math.log(high), n).exp(),
        "a tuple, backwards": lambda low, high, n: tuple(high * (low / high) ** (i / (n - 1)) for i in range(n))[::-1],
        "accumulate": lambda low, high, n: list(
            itertools.accumulate([low] + [(high / low) ** (1 / (n - 1))] * (n - 1), lambda a, b: a * b)
        ),
    },
    "smoothed_losses": {
        "an array": _smooth_array,
        "a product of matrices": _smooth_matrix,
        "recursive": _smooth_recursive,
        "accumulate": lambda losses, beta: list(
            itertools.accumulate(losses, lambda old, new: old + beta * (new - old))
        ),
        "a tensor of float32": lambda losses, beta: torch.tensor(_average(losses, beta)),
        "a generator": lambda losses, beta: (value for value in _average(losses, beta)),
        "a tuple": lambda losses, beta: tuple(_average(losses, beta)),
    },
    "one_cycle": {
        "sines squared": _cycle_sine,
        "torch's own schedule": _cycle_torch,
        "tensors and lerp": _cycle_tensor,
        "a tensor of one element": lambda step, total, peak: torch.tensor([_cycle(step, total, peak)]),
        "a numpy number": lambda step, total, peak: np.float32(_cycle(step, total, peak)),
        "the fall counted backwards": lambda step, total, peak: (
            _cycle(step, total, peak)
            if step <= 0.3 * total - 1
            else _cosine(peak / 250_000, peak, (total - 1 - step) / (0.7 * total))
        ),
    },
    "range_test": {
        "copies of network and optimiser together": _test_both_copied,
        "weights and statistics by hand": _test_by_hand,
        "in a finally": _test_finally,
        "a generator of losses": _test_generator,
        "step by step": _test,
        "a while loop": _test_while,
        "torch's LambdaLR": _test_scheduled,
    },
}
