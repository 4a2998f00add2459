"""A small network on which answers that walk a network are judged; CustomResNet is the other one."""

import torch
from torch import nn


class Nested(nn.Module):
    """(B, 3, 4, 4) -> logits (B, 3): modules in modules, batch norm, dropout, and a weight that belongs to no layer.

    What it answers depends on the mode. A shortcut adds x * |x| of the first pixel: 1.5e19 makes the loss infinite.
    """

    def __init__(self):
        super().__init__()
        inner = {"norm": nn.BatchNorm2d(4), "end": nn.Sequential(nn.ReLU(), nn.Dropout(0.4), nn.Flatten())}
        self.body = nn.ModuleList([nn.Conv2d(3, 4, 3, bias=False), nn.ModuleDict(inner)])
        self.weight, self.bias = nn.Parameter(torch.randn(16, 3) / 4), nn.Parameter(torch.zeros(3))

    def forward(self, x):
        first, inner = self.body
        corner = x[:, :, 0, 0]
        return inner["end"](inner["norm"](first(x))) @ self.weight + self.bias + corner * corner.abs()

    def groups(self) -> list[dict]:
        """For an optimiser: two groups that differ in weight decay."""
        return [{"params": self.body.parameters()}, {"params": [self.weight, self.bias], "weight_decay": 0.3}]
