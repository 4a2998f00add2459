"""Answers to the exercises of lesson 08, that the tables of its checks do not hold.

RIGHT and WRONG: name of the check -> how it is written, or what is wrong -> answer.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def head_by_state(model, classes):
    """A new network of the same class, with the given state."""
    network = type(model)(model.linear.in_features)
    network.load_state_dict(model.state_dict())
    for p in network.parameters():
        p.requires_grad = False
    network.linear = nn.Linear(model.linear.in_features, classes, bias=False)
    return network.train()


def _head(model, classes, then=lambda network: None, copied=copy.deepcopy):
    network = copied(model).requires_grad_(False)
    network.linear = nn.Linear(network.linear.in_features, classes)
    then(network)
    return network


def head_of_a_shell(model, classes):
    """The same layers in another network: what trains one changes the other."""
    network = copy.copy(model)
    network._modules = model._modules | {"linear": nn.Linear(model.linear.in_features, classes)}
    return network


def head_of_frozen_layers(model, classes):
    """A parameter of the network itself belongs to no layer."""
    network = copy.deepcopy(model)
    for layer in network.children():
        layer.requires_grad_(False)
    network.linear = nn.Linear(network.linear.in_features, classes)
    return network


def head_with_old_rows(model, classes):
    network, rows = _head(model, classes), min(classes, model.linear.out_features)
    network.linear.weight.data[:rows] = model.linear.weight.data[:rows]
    return network


def head_without_statistics(model, classes):
    network = type(model)(model.linear.in_features)
    for mine, given in zip(network.parameters(), model.parameters(), strict=True):
        mine.data.copy_(given.data)
    return _head(network, classes)


def weights_by_loop(y, classes):
    counts = [int((y == k).sum()) for k in range(classes)]
    present = sum(count > 0 for count in counts)
    return torch.tensor([len(y) / (present * count) if count else 0.0 for count in counts])


def weights_by_numpy(y, classes):
    found, counts = np.unique(y.numpy(), return_counts=True)
    w = np.zeros(classes, dtype=np.float32)
    w[found] = len(y) / (len(found) * counts)
    return torch.from_numpy(w)


def weights_up_to_the_last_label(y, classes):
    w = weights_by_loop(y, classes)
    counts = torch.bincount(y, minlength=classes)
    return torch.where(counts > 0, len(y) / ((y.max() + 1) * counts.clamp(min=1)), 0 * w)


def weights_of_the_first_call(y, classes, seen={}):  # noqa: B006
    return seen.setdefault(classes, weights_by_loop(y, classes))


def auroc_by_loop(known, unknown):
    pairs = [1.0 if k > u else 0.5 if k == u else 0.0 for k in known.tolist() for u in unknown.tolist()]
    return sum(pairs) / len(pairs)


def auroc_by_ranks(known, unknown):
    """Mann and Whitney: equal scores get their mean rank."""
    values, place, counts = torch.cat([known, unknown]).unique(return_inverse=True, return_counts=True)
    rank = (counts.cumsum(0).double() - (counts - 1) / 2)[place]
    n, m = len(known), len(unknown)
    return (rank[:n].sum() - n * (n + 1) / 2) / (n * m)


def auroc_by_search(known, unknown):
    ranked = known.sort().values
    below, up_to = (torch.searchsorted(ranked, unknown, right=side) for side in (False, True))
    return np.float32(1 - (below + up_to).double().mean().item() / 2 / len(known))


def auroc_by_plain_ranks(known, unknown):
    """Equal scores get different ranks."""
    n, m = len(known), len(unknown)
    rank = torch.cat([known, unknown]).argsort().argsort().double() + 1
    return (rank[:n].sum() - n * (n + 1) / 2) / (n * m)


def _small(x, **how):
    return F.interpolate(x, size=(32, 32), **({"mode": "bilinear", "antialias": True} | how))


def _pictures(prepare=lambda x: _small(x / 255), run=lambda network, x: network(x), normal=lambda x, m, s: (x - m) / s):
    class TakesPictures(nn.Module):
        def __init__(self, network, mean, std):
            super().__init__()
            self.network = network
            self.register_buffer("mean", mean[:, None, None])
            self.register_buffer("std", std[:, None, None])

        def forward(self, x):
            return run(self.network, normal(prepare(x), self.mean, self.std))

    return TakesPictures


class ScaleAndShift(nn.Module):
    def __init__(self, network, mean, std):
        super().__init__()
        self.network = copy.deepcopy(network)
        self.register_buffer("scale", (1 / (255 * std))[:, None, None])
        self.register_buffer("shift", (-mean / std)[:, None, None])

    def forward(self, x):
        return self.network(_small(x.float() * self.scale + self.shift))


class AsLayers(nn.Module):
    """Normalisation as a frozen batch norm."""

    def __init__(self, network, mean, std):
        super().__init__()
        norm = nn.BatchNorm2d(3, eps=0.0, affine=False)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(std.square())
        self.layers = nn.Sequential(norm, network)

    def forward(self, x):
        return self.layers(_small(x.to(torch.float32).div(255)))


class BuffersForShow(_pictures()):
    """It keeps buffers, and computes with something else."""

    def __init__(self, network, mean, std):
        super().__init__(network, mean, std)
        self.plain = mean[:, None, None], std[:, None, None]

    def forward(self, x):
        return self.network((_small(x / 255) - self.plain[0]) / self.plain[1])


RIGHT = {
    "new_head": {"a state loaded, no bias": head_by_state, "copied": _head},
    "class_weights": {"a loop": weights_by_loop, "numpy": weights_by_numpy},
    "auroc": {
        "two loops": auroc_by_loop,
        "ranks": auroc_by_ranks,
        "a search, as float32": auroc_by_search,
    },
    "takes_pictures": {
        "normalised, then resized": _pictures(lambda x: x / 255, normal=lambda x, m, s: _small((x - m) / s)),
        "the network image by image": _pictures(
            run=lambda network, x: torch.cat([network(image[None]) for image in x])
        ),
        "scale and shift": ScaleAndShift,
        "a batch norm": AsLayers,
    },
}
WRONG = {
    "new_head": {
        "the same layers": head_of_a_shell,
        "only layers frozen": head_of_frozen_layers,
        "rows of the old head": head_with_old_rows,
        "statistics lost": head_without_statistics,
        "the given network's mode": lambda model, classes: _head(model.eval(), classes),
        "the head alone": lambda model, classes: nn.Linear(model.linear.in_features, classes),
    },
    "class_weights": {
        "classes up to the last label": weights_up_to_the_last_label,
        "kept from other calls": weights_of_the_first_call,
        "a list": lambda y, k: weights_by_loop(y, k).tolist(),
        "ten classes": lambda y, k: weights_by_loop(y, 10)[:k],
    },
    "auroc": {
        "plain ranks": auroc_by_plain_ranks,
        "position by position": lambda k, u: (k[: len(u)] > u[: len(k)]).double().mean(),
    },
    "takes_pictures": {
        "resized if too wide": _pictures(lambda x: _small(x / 255) if x.shape[3] != 32 else x / 255),
        "the brightest pixel is 1": _pictures(lambda x: _small(x / x.max())),
        "buffers for show": BuffersForShow,
        "an instance": _pictures()(nn.Identity(), torch.zeros(3), torch.ones(3)),
    },
}
