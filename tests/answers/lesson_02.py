"""Answers to the exercises of lesson 02."""

from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

# ---------------------------------------------------------------- receptive_field


def span(layers):
    """Backwards: one output pixel, and how many pixels of the layer before it takes."""
    side = 1
    for kernel, stride in reversed(layers):
        side = (side - 1) * stride + kernel
    return side


def with_product(layers):
    strides = np.cumprod([1] + [stride for _, stride in layers])
    return 1 + np.sum((np.array([kernel for kernel, _ in layers]) - 1) * strides[:-1])


def recursive(layers):
    return layers[0][0] + layers[0][1] * (recursive(layers[1:]) - 1) if layers else 1


def measured(layers):
    """From the first to the last input that has a gradient from one output."""
    x = torch.ones(1, 1, 200, dtype=torch.float64, requires_grad=True)
    out = x
    for kernel, stride in layers:
        out = F.conv1d(out, torch.ones(1, 1, kernel, dtype=torch.float64), stride=stride)
    out[0, 0, 0].backward()
    seen = x.grad[0, 0].nonzero().flatten()
    return seen.max() - seen.min() + 1


def emptied(layers):
    side, step = 1, 1
    while layers:
        kernel, stride = layers.pop(0)
        side, step = side + (kernel - 1) * step, step * stride
    return side


sides = [1]


def kept_between_calls(layers):
    step = 1
    for kernel, stride in layers:
        sides[0] += (kernel - 1) * step
        step *= stride
    return sides[0]


calls = []


def every_other_time(layers):
    calls.append(layers)
    return span(layers) + 1 - len(calls) % 2


# ---------------------------------------------------------------- counts


def counted(*layers):
    return sum(p.numel() for layer in layers for p in layer.parameters())


def loop_over_filters(channels_in, channels_out, kernel, bias):
    total = 0
    for _ in range(channels_out):
        total += channels_in * kernel * kernel + (1 if bias else 0)
    return total


def bottleneck(channels, width):
    total = 0
    for size_in, size_out, kernel in ((channels, width, 1), (width, width, 3), (width, channels, 1)):
        total += size_in * size_out * kernel**2 + 2 * size_out
    return total


def float32(function):
    return lambda *numbers: np.float32(function(*numbers))


# ---------------------------------------------------------------- autocorrelation


def loop(gradients, lag):
    rows = gradients - sum(gradients) / len(gradients)
    return sum(float(a @ b) for a, b in zip(rows, rows[lag:], strict=False)) / sum(float(row @ row) for row in rows)


def with_numpy(gradients, lag):
    g = gradients.numpy() - gradients.numpy().mean(axis=0)
    return np.sum(g[lag:] * g[: g.shape[0] - lag]) / np.sum(g**2)


def matrix(gradients, lag):
    g = gradients - gradients.mean(0, keepdim=True)
    return torch.diagonal(g @ g.T, offset=lag).sum() / torch.trace(g @ g.T)


def means(gradients, lag):
    g = gradients - gradients.mean(0)
    return (g[: len(g) - lag] * g[lag:]).sum() / (len(g) - 1) / (g.square().sum() / (len(g) - 1))


def einsum(gradients, lag):
    g = gradients - gradients.mean(0)
    return torch.einsum("nd,nd->", g[lag:], g[: len(g) - lag]) / g.norm() ** 2


def corrcoef(gradients, lag):
    g = gradients.numpy()
    return np.corrcoef(g[: len(g) - lag].ravel(), g[lag:].ravel())[0, 1]


def in_place(gradients, lag):
    gradients -= gradients.mean(0)
    return (gradients[: len(gradients) - lag] * gradients[lag:]).sum() / gradients.square().sum()


def each_pair(gradients, lag):
    g = gradients - gradients.mean(0)
    return (g[: len(g) - lag] * g[lag:]).sum(dim=1) / g.square().sum()


RIGHT = {
    "receptive_field": {
        "backwards": span,
        "numpy": with_product,
        "recursive": recursive,
        "by measurement": measured,
        "float": lambda layers: float(span(layers)),
        "fraction": lambda layers: Fraction(span(layers)),
    },
    "conv_parameters": {
        "asks PyTorch": lambda i, o, kernel, bias: counted(nn.Conv2d(i, o, kernel, bias=bias)),
        "loop over filters": loop_over_filters,
        "float": lambda i, o, k, bias: float(o) * (i * k * k + (1 if bias else 0)),
        "numpy": lambda i, o, k, bias: np.prod([i, o, k, k]) + np.int64(o * bias),
        "np.float32": float32(loop_over_filters),
    },
    "multiply_adds": {
        "from the weights": lambda i, o, k, h, w: torch.tensor(counted(nn.Conv2d(i, o, k, bias=False)) * h * w),
        "float": lambda i, o, k, h, w: 1.0 * i * o * k**2 * h * w,
        "numpy": lambda i, o, k, h, w: np.prod(np.array([i, o, k, k, h, w], dtype=np.int64)),
        "product of a float32 tensor": lambda i, o, k, h, w: torch.tensor([i, o, k, k, h, w]).float().prod(),
    },
    "bottleneck_parameters": {
        "asks PyTorch": lambda c, w: counted(
            nn.Conv2d(c, w, 1, bias=False),
            nn.Conv2d(w, w, 3, bias=False),
            nn.Conv2d(w, c, 1, bias=False),
            *(nn.BatchNorm2d(channels) for channels in (w, w, c)),
        ),
        "loop": bottleneck,
        "factored": lambda c, w: w * (2 * c + 9 * w + 4) + 2 * c,
        "one number in a tensor": lambda c, w: torch.tensor([bottleneck(c, w)]),
        "np.float32": float32(bottleneck),
    },
    "autocorrelation": {
        "loop": loop,
        "numpy": with_numpy,
        "np.float32": float32(matrix),
        "matrix of products": matrix,
        "over len - 1, above and below": means,
        "einsum": einsum,
        "one number in a tensor": lambda g, lag: matrix(g, lag).reshape(1),
    },
}

WRONG = {
    "receptive_field": {
        "kernels added": lambda layers: sum(kernel for kernel, _ in layers),
        "half a window a layer": lambda layers: 1 + sum(kernel // 2 for kernel, _ in layers),
        "the area": lambda layers: span(layers) ** 2,
        "text": lambda layers: str(span(layers)),
        "layers used up": emptied,
        "kept between calls": kept_between_calls,
        "right every other time": every_other_time,
    },
    "conv_parameters": {
        "every filter 3x3": lambda i, o, k, bias: 9 * i * o + o * bias,
        "adds the channels": lambda i, o, k, bias: (i + o) * k**2 + o * bias,
        "a bias too many": lambda i, o, k, bias: loop_over_filters(i, o, k, bias) + 1,
        "a complex number": lambda i, o, k, bias: complex(loop_over_filters(i, o, k, bias)),
    },
    "multiply_adds": {
        "forgets the width": lambda i, o, k, h, w: i * o * k**2 * h,
        "forgets the output channels": lambda i, o, k, h, w: i * k**2 * h * w,
        "a border of 1": lambda i, o, k, h, w: i * o * k**2 * (h + 2) * (w + 2),
    },
    "bottleneck_parameters": {
        "all three are 3x3": lambda c, w: 18 * c * w + 9 * w * w + 4 * w + 2 * c,
        "arguments swapped": lambda c, w: bottleneck(w, c),
        "a list": lambda c, w: [c * w, 9 * w * w, w * c],
        "^ for a power": lambda c, w: 2 * c * w + 9 * w ^ 2 + 2 * (2 * w + c),
    },
    "autocorrelation": {
        "without the sign": lambda gradients, lag: matrix(gradients, lag).abs(),
        "no sign below 0": lambda gradients, lag: matrix(gradients, lag).clamp(0, 1),
        "lag + 1": lambda gradients, lag: matrix(gradients, lag + 1),
        "corrcoef": corrcoef,
        "gradients overwritten": in_place,
        "one number for each pair": each_pair,
        "not divided": lambda gradients, lag: matrix(gradients, lag) * gradients.square().sum(),
    },
}

WORDS = {
    "receptive_field": {
        "kernels added": "windows overlap",
        "the area": "the result is 121, expected 11",
        "text": "must be a number or numbers of one shape, got str",
        "right every other time": "a second call with the same arguments",
    }
}
