"""A small network and batches for the tests of training."""

import torch
from torch import nn

from helpers import data

F32 = torch.float32


class Network(nn.Module):
    """Small, with batch norm and dropout, so that all kinds of state matter."""

    def __init__(self, classes=10):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4)
        self.drop, self.linear = nn.Dropout(0.2), nn.Linear(4 * 8 * 8, classes)

    def forward(self, x):
        return self.linear(self.drop(self.norm(self.conv(x)).relu().flatten(1)))


class Wrapped:
    """Batches around batches, which hide all about them but length and epoch."""

    def __init__(self, inner):
        self.inner = inner

    def __len__(self):
        return len(self.inner)

    def __iter__(self):
        return iter(self.inner)

    def set_epoch(self, epoch):
        if hasattr(self.inner, "set_epoch"):
            self.inner.set_epoch(epoch)


def batches(pictures, seed=0):
    stats = pictures[0].mean_std()
    augment = [data.random_crop(), data.random_flip()]
    learn = data.Batches(pictures[0], stats, 32, augment=augment, shuffle=True, seed=seed)
    return learn, data.Batches(pictures[1], stats, 32)


def network(seed=0, **options):
    torch.manual_seed(seed)
    return Network(**options)


def weights(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


class Changed(Wrapped):
    """Batches with `change` applied to (x, y)."""

    def __init__(self, inner, change):
        super().__init__(inner)
        self.change = change

    def __iter__(self):
        return (self.change(x, y) for x, y in self.inner)
