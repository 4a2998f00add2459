"""Lesson 05: right answers written in many ways, and wrong ones that no table of mistakes can hold."""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from helpers.train import parameter_groups

clip_norm = nn.utils.clip_grad_norm_


def step(clipping=None, loss=F.cross_entropy, back=lambda loss: loss.item(), before=None, after=None):
    """A training step; each argument replaces or adds a part of it."""

    def answer(model, optimizer, x, y, clip):
        optimizer.zero_grad()
        if before:
            before(model, x)
        value = loss(model(x), y)
        value.backward()
        (clipping or (lambda model, optimizer, clip: clip_norm(model.parameters(), clip)))(model, optimizer, clip)
        optimizer.step()
        if after:
            after(model, optimizer)
        return back(value)

    return answer


def with_a_closure(model, optimizer, x, y, clip):
    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        clip_norm(model.parameters(), clip)
        return loss

    return float(optimizer.step(closure).detach())


def half_detached(logits, y):
    """The right loss, without the gradient of its normalisation."""
    return F.nll_loss(logits - logits.logsumexp(1, keepdim=True).detach(), y)


def share(model, batches):
    hits = seen = 0
    for x, y in batches:
        hits += (model(x).argmax(dim=1) == y).sum().item()
        seen += len(y)
    return hits / seen


def judged(loop, prepare=lambda model: None):
    """An evaluation that leaves the network as it came, but for what `prepare` does."""

    def answer(model, batches):
        was = model.training
        prepare(model.eval())
        with torch.no_grad():
            result = loop(model, batches)
        model.train(was)
        return result

    return answer


@torch.inference_mode()
def decorated(model, batches):
    was = model.training
    try:
        return share(model.eval(), batches)
    finally:
        model.train(was)


def without_no_grad(model, batches):
    was = model.training
    result = np.float32(share(model.eval(), batches))
    model.train(was)
    return result


def only_the_root(model, batches):
    was = model.training
    result = share(model.eval(), batches)
    model.training = was
    return result


def halves(parameters, weight_decay):
    parameters = list(parameters)
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]


def of_modules(model, weight_decay):
    groups = {True: {}, False: {}}
    for layer in model.modules():
        for p in layer.parameters(recurse=False):
            groups[p.dim() >= 2][p] = None
    return tuple({"weight_decay": weight_decay * many, "params": iter(found)} for many, found in groups.items())


def smoothed(logits, y, s, log_p):
    k = logits.shape[1]
    return -(((1 - s) * F.one_hot(y, k) + s / k) * log_p).sum(1).mean()


RIGHT = {
    "training_step": {
        "the optimiser's parameters": step(
            lambda model, optimizer, clip: clip_norm([p for g in optimizer.param_groups for p in g["params"]], clip)
        ),
        "numpy's float32": step(back=lambda loss: np.float32(loss.item())),
        "a closure": with_a_closure,
    },
    "accuracy": {
        "a copy in eval mode": lambda model, batches: share(copy.deepcopy(model).eval(), batches),
        "inference_mode as a decorator": decorated,
        "loop over no_grad": judged(share),
        "without no_grad": without_no_grad,
    },
    "weight_decay_groups": {
        "the library's": parameter_groups,
        "the other one first": lambda model, decay: halves(model.parameters(), decay)[::-1],
        "module by module, a tuple": of_modules,
    },
    "label_smoothing_loss": {
        "two losses mixed": lambda x, y, s: (1 - s) * F.cross_entropy(x, y) - s * x.log_softmax(1).mean(),
        "in float64": lambda x, y, s: smoothed(x, y, s, x.double().log_softmax(1)),
    },
}

WRONG = {
    "training_step": {
        "two forward passes": step(before=lambda model, x: model(x)),
        "one group clipped": step(lambda model, optimizer, clip: clip_norm(optimizer.param_groups[0]["params"], clip)),
        "each tensor clipped": step(lambda model, _, clip: [clip_norm(p, clip) for p in model.parameters()]),
        "part of the loss detached": step(loss=half_detached),
        "left in eval mode": step(after=lambda model, optimizer: model.eval()),
    },
    "accuracy": {
        "only the root's mode set back": only_the_root,
        "batches indexed": judged(lambda model, batches: share(model, [batches[i] for i in range(len(batches))])),
        "rounded": judged(lambda model, batches: round(share(model, batches), 3)),
        "a tensor": judged(lambda model, batches: torch.tensor(share(model, batches))),
        "gradients wiped": judged(share, lambda model: model.zero_grad()),
    },
    "weight_decay_groups": {
        "not recursive": lambda model, decay: halves((p for c in model.children() for p in c.parameters(False)), decay),
        "copies": lambda model, decay: halves((nn.Parameter(p.detach().clone()) for p in model.parameters()), decay),
        "pairs of names and parameters": lambda model, decay: [
            {"params": list(model.named_parameters()), "weight_decay": decay},
            {"params": [], "weight_decay": 0.0},
        ],
    },
    "label_smoothing_loss": {
        "a small number added": lambda x, y, s: smoothed(x, y, s, (x.softmax(1) + 1e-8).log()),
        "part of it detached": lambda x, y, s: smoothed(x, y, s, x - x.logsumexp(1, keepdim=True).detach()),
        "classes guessed from y": lambda x, y, s: (
            -(F.one_hot(y) * (1 - s) + s / x.shape[1]).mul(x.log_softmax(1)).sum(1).mean()
        ),
        "one loss an image": lambda x, y, s: F.cross_entropy(x, y, label_smoothing=s, reduction="none"),
    },
}
