"""Lesson 06: right answers written in many ways, and wrong ones that no table of mistakes can hold."""

import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F


def counts(true, predicted, classes):
    return torch.bincount(true * classes + predicted, minlength=classes * classes).view(classes, classes)


def by_one_hot(true, predicted, classes):
    return F.one_hot(true, classes).float().T @ F.one_hot(predicted, classes).float()


def by_numpy(true, predicted, classes):
    matrix = np.zeros((classes, classes), dtype=int)
    np.add.at(matrix, (true.numpy(), predicted.numpy()), 1)
    return matrix.tolist()


def added_up(true, predicted, classes, matrices={}):  # noqa: B006
    matrices[classes] = matrices.get(classes, 0) + counts(true, predicted, classes)
    return matrices[classes]


def last_bin_closed(confidence, correct, bins):
    edges, total = np.linspace(0, 1, bins + 1), np.float32(0)
    c, h = confidence.numpy(), correct.numpy()
    for b in range(bins):
        inside = (c >= edges[b]) & ((c < edges[b + 1]) if b < bins - 1 else (c <= 1))
        if inside.sum():
            total += np.float32(inside.mean() * abs(h[inside].mean() - c[inside].mean()))
    return total


def by_bincount(confidence, correct, bins, width=lambda bins: 1 / bins):
    which = (confidence / width(bins)).long().clamp(max=bins - 1)
    return torch.bincount(which, confidence - correct.float()).abs().sum() / len(confidence)


def fitted(logits, y, steps=60, optimizer=torch.optim.LBFGS):
    """Temperature by gradient descent on its logarithm."""
    log = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optim = optimizer([log], lr=0.1)

    def loss():
        optim.zero_grad()
        value = F.cross_entropy(logits.double() / log.exp(), y)
        value.backward()
        return value

    for _ in range(steps):
        optim.step(loss)
    return log.exp().item()


def scaled(valid_logits, valid_y, test_logits, test_y, **others):
    """In numpy's numbers."""
    temperature = np.float64(fitted(valid_logits, valid_y, **others))
    return temperature, F.cross_entropy(test_logits / temperature, test_y).numpy()


def in_place(valid_logits, valid_y, test_logits, test_y):
    temperature = fitted(valid_logits, valid_y)
    test_logits /= temperature
    return temperature, F.cross_entropy(test_logits, test_y).item()


def combined(a, g):
    return (g.mean((2, 3), keepdim=True) * a).sum(1).relu()


def cam(score=lambda z, t: z.gather(1, t[:, None]).sum(), combine=combined, hooks_stay=False, gradients_stay=False):
    """Grad-CAM with two hooks; each argument replaces one part of it."""

    def answer(model, layer, x, target):
        store = {}
        hooks = [
            layer.register_forward_hook(lambda module, inputs, output: store.update(output=output.detach())),
            layer.register_full_backward_hook(lambda module, inputs, outputs: store.update(gradient=outputs[0])),
        ]
        score(model(x), target).backward()
        for hook in hooks[hooks_stay:]:
            hook.remove()
        if not gradients_stay:
            model.zero_grad()
        return combine(store["output"], store["gradient"])

    return answer


def one_by_one(model, layer, x, target):
    maps = []
    for image, label in zip(x, target.tolist(), strict=True):
        store = []
        hook = layer.register_forward_hook(lambda module, inputs, output, store=store: store.append(output))
        logits = model(image[None])
        hook.remove()
        store[0].retain_grad()
        logits[0, label].backward()
        weights = store[0].grad[0].mean((1, 2))
        maps.append(torch.relu((weights[:, None, None] * store[0][0]).sum(0)))
    model.zero_grad(set_to_none=False)
    return torch.stack(maps)


def stale(model, layer, x, target, seen=[]):  # noqa: B006
    """Takes the first output that was ever seen."""
    return cam(combine=lambda a, g: seen.append(a) or combined(seen[0], g))(model, layer, x, target)


def forward_replaced(model, layer, x, target):
    outputs, forward = [], layer.forward
    layer.forward = lambda *inputs: outputs.append(forward(*inputs)) or outputs[-1]
    (gradient,) = torch.autograd.grad(model(x).gather(1, target[:, None]).sum(), outputs)
    layer.forward = forward
    return combined(outputs[0].detach(), gradient)


def given(logits, y):
    return logits.softmax(dim=1)[torch.arange(len(y)), y]


def by_argsort(logits, y, count):
    p = logits.log_softmax(1).gather(1, y[:, None]).squeeze(1).numpy()
    return np.argsort(p)[:count].copy()


def margin(logits, y, count):
    rows = torch.arange(len(y))
    others = logits.clone()
    others[rows, y] = -math.inf
    return (logits[rows, y] - others.amax(1)).argsort()[:count]


RIGHT = {
    "confusion_matrix": {
        "a product of one-hot rows": by_one_hot,
        "numpy, as lists": by_numpy,
    },
    "calibration_error": {
        "a loop, the last bin closed, float32": last_bin_closed,
        "bincount with weights": by_bincount,
    },
    "temperature_scaling": {
        "steps on the logarithm": scaled,
    },
    "grad_cam": {
        "two hooks": cam(),
        "one image at a time, retain_grad": one_by_one,
    },
    "suspected_labels": {
        "the largest losses": lambda z, y, n: F.cross_entropy(z, y, reduction="none").topk(n).indices,
        "numpy's numbers": lambda z, y, n: list(by_argsort(z, y, n)),
    },
}


def _borders_twice(confidence, correct, bins):
    """A confidence on a border counts in both bins."""
    total = 0.0
    for i in range(bins):
        inside = (confidence >= i / bins) & (confidence <= (i + 1) / bins)
        if inside.any():
            gap = confidence[inside].mean() - correct[inside].double().mean()
            total += gap.abs().item() * inside.double().mean().item()
    return total


WRONG = {
    "confusion_matrix": {
        "earlier calls counted, too": added_up,
        "only classes seen": lambda t, p, k: counts(t, p, int(max(t.max(), p.max())) + 1),
        "classes guessed": lambda t, p, k: F.one_hot(t).T @ F.one_hot(p),
    },
    "calibration_error": {
        "borders in two bins": _borders_twice,
        "a rounded width": partial(by_bincount, width=lambda bins: round(1 / bins, 2)),
        "two decimals": lambda c, h, bins: round(by_bincount(c, h, bins).item(), 2),
    },
    "temperature_scaling": {
        "too few steps": partial(scaled, steps=3, optimizer=torch.optim.SGD),
        "logits changed": in_place,
    },
    "grad_cam": {
        "outputs of an earlier call": stale,
        "a hook stays": cam(hooks_stay=True),
        "gradients stay": cam(gradients_stay=True),
        "the layer's forward replaced": forward_replaced,
        "target of the first image": cam(lambda z, t: z[:, t[0]].sum()),
        "one weight for all images": cam(combine=lambda a, g: combined(a, g.mean(0, keepdim=True))),
    },
    "suspected_labels": {
        "right images, in no order": lambda z, y, n: np.argpartition(given(z, y).numpy(), min(n, len(y) - 1))[:n],
        "gap of logits": margin,
    },
}
