"""Answers to the exercises of lesson 08.

WRONG: name of the check -> what is wrong -> (answer, part of what the check must say).
RIGHT: name of the check -> how it is written -> answer.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def _head(change=None, copier=copy.deepcopy, freeze="first", replace=None):
    """A new head; each argument replaces one step of it."""

    def answer(model, classes):
        network = copier(model)
        if freeze == "first":
            network.requires_grad_(False)
        new = nn.Linear(network.linear.in_features, classes)
        network.linear = replace(new, network.linear) if replace else new
        if freeze == "last":
            network.requires_grad_(False)
        return change(network) if change else network

    return answer


def _out_features_only(model, classes):
    network = copy.deepcopy(model).requires_grad_(False)
    network.linear.out_features = classes
    network.linear.requires_grad_(True)
    return network


def _built_anew(model, classes):
    network = type(model)(6)
    network.requires_grad_(False)
    network.linear = nn.Linear(6, classes)
    return network.eval()


def _weights_only(model, classes):
    """The parameters are copied, batch norm's statistics are not."""
    network = type(model)(6)
    with torch.no_grad():
        for mine, given in zip(network.parameters(), model.parameters(), strict=True):
            mine.copy_(given)
    network.requires_grad_(False)
    network.linear = nn.Linear(6, classes)
    return network.eval()


def _frozen_by_eval(model, classes):
    network = copy.deepcopy(model).eval()
    network.linear = nn.Linear(6, classes)
    return network


def _weights_frozen_only(model, classes):
    """Biases and batch norm can still learn."""
    network = copy.deepcopy(model)
    for p in network.parameters():
        p.requires_grad = p.ndim <= 1
    network.linear = nn.Linear(6, classes)
    return network


def _old_rows(new, old):
    rows = min(len(new.weight), len(old.weight))
    with torch.no_grad():
        new.weight[:rows] = old.weight[:rows]
    return new


def _shares_the_body(model, classes):
    network = copy.copy(model)
    network._modules = dict(model._modules)
    network.linear = nn.Linear(6, classes)
    return network


def _with_relu(network):
    forward = network.forward
    network.forward = lambda x: forward(x).relu()
    return network


def _with_softmax(network):
    forward = network.forward
    network.forward = lambda x: forward(x).softmax(dim=1)
    return network


def _head_by_state(model, classes):
    """A new network of the same class, with the given state."""
    network = type(model)(model.linear.in_features)
    network.load_state_dict(model.state_dict())
    for p in network.parameters():
        p.requires_grad = False
    network.linear = nn.Linear(model.linear.in_features, classes, bias=False)
    return network.train()


def _head_then_freeze(model, classes):
    network = copy.deepcopy(model)
    network.linear = nn.Linear(network.linear.weight.shape[1], classes)
    nn.init.zeros_(network.linear.weight)
    for name, p in network.named_parameters():
        p.requires_grad_(name.startswith("linear"))
    return network


def _inverse(y, classes):
    return 1 / torch.bincount(y, minlength=classes)


def _finite(w):
    return torch.where(w.isfinite(), w, 0.0)


def _balanced(y, classes):
    """As scikit-learn has it, with all classes counted."""
    return _finite(len(y) * _inverse(y, classes) / classes)


def _right_weights(y, classes):
    w = _finite(_inverse(y, classes))
    return w * len(y) / (w > 0).sum()


def _weights_loop(y, classes):
    counts = [int((y == k).sum()) for k in range(classes)]
    present = sum(count > 0 for count in counts)
    return torch.tensor([len(y) / (present * count) if count else 0.0 for count in counts])


def _weights_by_mean(y, classes):
    """Any weights that balance, then scaled by their mean over the images."""
    w = _finite(_inverse(y, classes)).double()
    return w / w[y].mean()


def _loop_of_pairs(known, unknown):
    score = 0.0
    for k in known.tolist():
        for u in unknown.tolist():
            score += 1 if k > u else 0.5 if k == u else 0
    return score / (len(known) * len(unknown))


def _by_ranks(known, unknown):
    """Mann and Whitney: from the ranks, equal scores get their mean rank."""
    scores = torch.cat([known, unknown])
    values, place, counts = scores.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    rank = (last - (counts - 1) / 2)[place]
    n, m = len(known), len(unknown)
    return (rank[:n].sum() - n * (n + 1) / 2) / (n * m)


def _by_curve(known, unknown):
    """The area by trapezes, with every score as a threshold."""
    thresholds = torch.cat([known, unknown]).unique()
    thresholds = torch.cat([thresholds, thresholds[-1:] + 1])[:, None]
    alarms = (known < thresholds).double().mean(1)
    caught = (unknown < thresholds).double().mean(1)
    return torch.trapezoid(caught, alarms)


def _by_search(known, unknown):
    ranked = known.sort().values
    below, up_to = (torch.searchsorted(ranked, unknown, right=side) for side in (False, True))
    return np.float64((1 - (below + up_to).double().mean() / 2 / len(known)).item())


def _on_a_grid(known, unknown):
    """The area by trapezes, with thresholds from 0 to 1."""
    thresholds = torch.linspace(0, 1.1, 111)[:, None] - 0.005
    alarms = (known < thresholds).double().mean(1)
    caught = (unknown < thresholds).double().mean(1)
    return torch.trapezoid(caught, alarms).item()


def _pictures(prepare=None, after=None, keep="buffer", mode=None):
    """A module that takes pictures; each argument replaces one step of it.

    prepare: (x uint8, mean (3, 1, 1), std (3, 1, 1)) -> what the network gets.
    """

    class Module(nn.Module):
        def __init__(self, network, mean, std):
            super().__init__()
            self.network = network
            for name, value in (("mean", mean), ("std", std)):
                value = value.view(3, 1, 1)
                if keep == "buffer":
                    self.register_buffer(name, value)
                elif keep == "parameter":
                    setattr(self, name, nn.Parameter(value))
                else:
                    setattr(self, name, value)

        def forward(self, x):
            if mode == "train":
                self.network.train()
            logits = self.network((prepare or _prepared)(x, self.mean, self.std))
            return after(logits) if after else logits

    return Module


def _small(x, **how):
    return F.interpolate(x, size=(32, 32), **({"mode": "bilinear", "antialias": True} | how))


def _prepared(x, mean, std):
    return (_small(x.float() / 255) - mean) / std


def _each_alone(x, mean, std):
    """One picture after the other, normalised first."""
    return torch.cat([_small((x[i : i + 1] / 255 - mean) / std) for i in range(len(x))])


class _ScaleAndShift(nn.Module):
    def __init__(self, network, mean, std):
        super().__init__()
        self.network = copy.deepcopy(network)
        self.register_buffer("scale", (1 / (255 * std))[:, None, None])
        self.register_buffer("shift", (-mean / std)[:, None, None])

    def forward(self, x):
        return self.network(_small(x.float() * self.scale + self.shift))


class _AsLayers(nn.Module):
    """Normalisation as a frozen batch norm."""

    def __init__(self, network, mean, std):
        super().__init__()
        norm = nn.BatchNorm2d(3, eps=0.0, affine=False)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(std.square())
        self.layers = nn.Sequential(norm, network)

    def forward(self, x):
        return self.layers(_small(x.to(torch.float32).div(255)))


class _NoView(nn.Module):
    def __init__(self, network, mean, std):
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x):
        return self.network((_small(x.float() / 255) - self.mean) / self.std)


WRONG = {
    "new_head": {
        "no copy": (_head(copier=lambda model: model), "its head is new"),
        "a shallow copy": (_head(copier=copy.copy), "its head is new"),
        "given network frozen, then copied": (
            lambda model, classes: _head()(model.requires_grad_(False), classes),
            "weights are frozen",
        ),
        "body shared": (_shares_the_body, "shares weights"),
        "nothing done": (lambda model, classes: model, "passed in"),
        "a copy, nothing else": (lambda model, classes: copy.deepcopy(model), "still 4 outputs"),
        "only the printed number changed": (_out_features_only, "still 4 outputs"),
        "head alone": (lambda model, classes: nn.Linear(6, classes), "head alone"),
        "frozen last": (_head(freeze="last"), "head is frozen, too"),
        "nothing frozen": (_head(freeze=None), "body can still learn"),
        "frozen by eval": (_frozen_by_eval, "body can still learn"),
        "biases not frozen": (_weights_frozen_only, "norm.weight"),
        "built anew": (_built_anew, "built or initialised anew"),
        "statistics lost": (_weights_only, "built or initialised anew"),
        "rows of the old head": (_head(replace=_old_rows), "weights of the old one"),
        "a softmax in the head": (
            _head(replace=lambda new, old: nn.Sequential(new, nn.Softmax(dim=1))),
            "one nn.Linear",
        ),
        "a softmax behind it": (_head(change=_with_softmax), "without a softmax"),
        "a ReLU behind it": (_head(change=_with_relu), "the logits are not"),
        "features counted by hand": (
            _head(replace=lambda new, old: nn.Linear(64, new.out_features)),
            "cannot be multiplied",
        ),
        "features of one network counted by hand": (
            _head(replace=lambda new, old: nn.Linear(6, new.out_features)),
            "cannot be multiplied",
        ),
    },
    "class_weights": {
        "shares": (lambda y, k: torch.bincount(y, minlength=k) / len(y), "shares of the classes"),
        "counts": (lambda y, k: torch.bincount(y, minlength=k).float(), "these are the counts"),
        "one by the count": (lambda y, k: _finite(_inverse(y, k)), "Multiply by N / P"),
        "N by the count": (lambda y, k: _finite(len(y) * _inverse(y, k)), "With P classes"),
        "empty class counted": (_balanced, "has a part in N"),
        "infinite": (lambda y, k: len(y) * _inverse(y, k) / (torch.bincount(y) > 0).sum(), "divides by 0"),
        "empty class with a weight": (
            lambda y, k: len(y) / (len(y.unique()) * torch.bincount(y, minlength=k).clamp(min=1)),
            "Give it 0",
        ),
        "no minlength": (lambda y, k: len(y) / (len(y.unique()) * torch.bincount(y)), "minlength"),
        "sum 1": (lambda y, k: F.normalize(_finite(_inverse(y, k)), p=1, dim=0), "add up to 1"),
        "mean 1 over the classes": (
            lambda y, k: k * F.normalize(_finite(_inverse(y, k)), p=1, dim=0),
            "over the classes",
        ),
        "square root": (lambda y, k: _right_weights(y, k).sqrt(), "square root"),
        "one minus the share": (lambda y, k: 1 - torch.bincount(y, minlength=k) / len(y), "one minus the share"),
        "largest class 1": (
            lambda y, k: _finite(torch.bincount(y).max() * _inverse(y, k)),
            "largest class has the weight 1",
        ),
        "a weight an image": (lambda y, k: _right_weights(y, k)[y], "for each image"),
        "a list": (lambda y, k: _right_weights(y, k).tolist(), "must be a tensor"),
        "squared": (lambda y, k: _right_weights(y, k).square(), "in all"),
    },
    "auroc": {
        "swapped": (lambda k, u: _loop_of_pairs(u, k), "swapped"),
        "equal scores left out": (lambda k, u: (k[:, None] > u).float().mean().double(), "count nothing"),
        "equal scores counted whole": (lambda k, u: (k[:, None] >= u).double().mean(), "count whole"),
        "per cent": (lambda k, u: 100 * _loop_of_pairs(k, u), "per cent"),
        "not divided": (lambda k, u: _loop_of_pairs(k, u) * len(k) * len(u), "number of all pairs"),
        "from -1 to 1": (lambda k, u: 2 * _loop_of_pairs(k, u) - 1, "from -1 to 1"),
        "distance of the means": (lambda k, u: (k.double().mean() - u.double().mean()).item(), "means lie apart"),
        "one threshold": (
            lambda k, u: (((k >= 0.5).sum() + (u < 0.5).sum()) / (len(k) + len(u))).double(),
            "one threshold",
        ),
        "position by position": (lambda k, u: (k[: len(u)] > u).double().mean(), "same position"),
        "position by position, as it comes": (lambda k, u: (k > u).double().mean(), "must match the size"),
        "against the mean": (lambda k, u: (k > u.double().mean()).double().mean(), "mean of the strangers"),
        "against the highest": (lambda k, u: (k > u.max()).double().mean(), "highest stranger"),
        "thresholds from 0 to 1 only": (_on_a_grid, "any numbers"),
        "the table": (lambda k, u: (k[:, None] > u).double(), "return one number"),
    },
    "takes_pictures": {
        "not divided by 255": (
            _pictures(lambda x, m, s: (_small(x.float()) - m) / s),
            "not divided by 255",
        ),
        "divided twice": (_pictures(lambda x, m, s: (_small(x.float() / 255) / 255 - m) / s), "255 twice"),
        "divided by 256": (_pictures(lambda x, m, s: (_small(x.float() / 256) - m) / s), "divided by 256"),
        "not normalised": (_pictures(lambda x, m, s: _small(x.float() / 255)), "not normalised"),
        "only resized": (_pictures(lambda x, m, s: _small(x.float())), "neither"),
        "mean only": (_pictures(lambda x, m, s: _small(x / 255) - m), "not divided by the standard"),
        "deviation only": (_pictures(lambda x, m, s: _small(x / 255) / s), "mean is not subtracted"),
        "multiplied": (_pictures(lambda x, m, s: (_small(x / 255) - m) * s), "multiplied"),
        "mean added": (_pictures(lambda x, m, s: (_small(x / 255) + m) / s), "mean is added"),
        "divided first": (_pictures(lambda x, m, s: _small(x / 255) / s - m), "after the division"),
        "exchanged": (_pictures(lambda x, m, s: (_small(x / 255) - s) / m), "exchanged"),
        "whole numbers resized": (
            _pictures(lambda x, m, s: (_small(x).float() / 255 - m) / s),
            "whole numbers",
        ),
        "no antialias": (
            _pictures(lambda x, m, s: (_small(x / 255, antialias=False) - m) / s),
            "without `antialias=True`",
        ),
        "nearest": (
            _pictures(lambda x, m, s: (_small(x / 255, mode="nearest", antialias=False) - m) / s),
            "nearest",
        ),
        "bicubic": (_pictures(lambda x, m, s: (_small(x / 255, mode="bicubic") - m) / s), "bicubic"),
        "corners aligned": (
            _pictures(lambda x, m, s: (_small(x / 255, align_corners=True) - m) / s),
            "align_corners",
        ),
        "cut": (_pictures(lambda x, m, s: (x[..., :32, :32] / 255 - m) / s), "cut, not resized"),
        "not resized": (_pictures(lambda x, m, s: (x / 255 - m) / s), "the network takes float (B, 3, 32, 32)"),
        "first picture only": (_pictures(lambda x, m, s: _prepared(x, m, s)[:1]), "images reach the network"),
        "probabilities": (_pictures(after=lambda z: z.softmax(dim=1)), "probabilities"),
        "classes": (_pictures(after=lambda z: z.argmax(dim=1)), "the result must have the shape"),
        "train mode": (_pictures(mode="train"), "still in eval mode"),
        "plain attributes": (_pictures(keep="plain"), "no buffers"),
        "parameters": (_pictures(keep="parameter"), "are parameters"),
        "means not shaped": (_NoView, "must match the size"),
        "an instance": (nn.Identity(), "pass the class itself"),
    },
}

RIGHT = {
    "new_head": {
        "deepcopy, freeze, replace": _head(),
        "a state loaded, no bias": _head_by_state,
        "by name, zeros": _head_then_freeze,
    },
    "class_weights": {
        "inverse, where finite": _right_weights,
        "a loop": _weights_loop,
        "scaled by the mean over the images": _weights_by_mean,
    },
    "auroc": {
        "two loops": _loop_of_pairs,
        "ranks": _by_ranks,
        "the area under the curve": _by_curve,
        "a search in sorted scores": _by_search,
    },
    "takes_pictures": {
        "buffers": _pictures(),
        "one picture at a time": _pictures(_each_alone),
        "scale and shift": _ScaleAndShift,
        "a batch norm": _AsLayers,
    },
}
