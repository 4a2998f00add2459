"""Wrong answers to the exercises of lesson 02, each with a fragment of the words its check must say.

And right ones, written differently from the lesson's solution.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from helpers import model


def _sum_of_kernels(layers):
    return sum(kernel for kernel, _ in layers)


def _starts_at_zero(layers):
    return _receptive_field(layers) - 1


def _ignores_stride(layers):
    return 1 + sum(kernel - 1 for kernel, _ in layers)


def _own_stride_first(layers):
    side, step = 1, 1
    for kernel, stride in layers:
        step *= stride
        side += (kernel - 1) * step
    return side


def _own_stride_only(layers):
    return 1 + sum((kernel - 1) * stride for kernel, stride in layers)


def _last_stride_only(layers):
    side, step = 1, 1
    for kernel, stride in layers:
        side += (kernel - 1) * step
        step = stride
    return side


def _receptive_field(layers):
    side, step = 1, 1
    for kernel, stride in layers:
        side += (kernel - 1) * step
        step *= stride
    return side


def _backwards(layers):
    return _receptive_field(layers[::-1])


def _centred(gradients):
    return gradients - gradients.mean(dim=0)


def _wrong_autocorrelation(change=_centred, shift=0, over="all"):
    def answer(gradients, lag):
        g = change(gradients)
        early, late = g[: len(g) - lag - shift], g[lag + shift :]
        below = {"all": g, "early": early, "late": late}[over]
        return (early * late).sum() / (below * below).sum()

    return answer


def _empty_at_lag_zero(gradients, lag):
    g = _centred(gradients)
    return (g[:-lag] * g[lag:][: len(g[:-lag])]).sum() / (g * g).sum()


def _round_the_end(gradients, lag):
    g = _centred(gradients)
    return (g * g.roll(lag, 0)).sum() / (g * g).sum()


def _mean_of_cosines(gradients, lag):
    g = _centred(gradients)
    return F.cosine_similarity(g[: len(g) - lag], g[lag:]).mean()


def _a_number_for_each_pair(gradients, lag):
    g = _centred(gradients)
    return (g[: len(g) - lag] * g[lag:]).sum(dim=1) / (g * g).sum()


def _own_means(gradients, lag):
    g = _centred(gradients)
    return (_centred(gradients[: len(g) - lag]) * _centred(gradients[lag:])).sum() / (g * g).sum()


def _not_divided(gradients, lag):
    g = _centred(gradients)
    return (g[: len(g) - lag] * g[lag:]).sum()


def _overlap_norms(gradients, lag):
    g = _centred(gradients)
    early, late = g[: len(g) - lag], g[lag:]
    return (early * late).sum() / (early.norm() * late.norm())


def _first_layer_only(layers):
    side = 1
    for kernel, _ in layers:
        side += kernel - 1
        return side


def _slices(gradients, lag):
    g = _centred(gradients)
    return g[: len(g) - lag], g[lag:], (g * g).sum()


def _minus_lag(gradients, lag):
    g = _centred(gradients)
    return (g[:-lag] * g[lag:]).sum() / (g * g).sum()


def _means(gradients, lag):
    g = gradients - gradients.mean(0)
    pairs = (g[lag:] * g[: len(g) - lag]).sum(1)
    return pairs.mean() / g.square().sum(1).mean()


def _pearson(gradients, lag):
    early, late = _centred(gradients[: len(gradients) - lag]), _centred(gradients[lag:])
    return (early * late).sum() / (early.norm() * late.norm())


def _corrcoef(gradients, lag):
    g = gradients.numpy()
    return float(np.corrcoef(g[: len(g) - lag].ravel(), g[lag:].ravel())[0, 1])


def _every_pair(gradients, lag):
    early, late, square = _slices(gradients, lag)
    return (early @ late.T).sum() / square


def _uncentred_below(gradients, lag):
    early, late, _ = _slices(gradients, lag)
    return (early * late).sum() / (gradients * gradients).sum()


def _one_factor(gradients, lag):
    _, late, square = _slices(gradients, lag)
    return (gradients[: len(gradients) - lag] * late).sum() / square


def _last_pair_missing(gradients, lag):
    g = _centred(gradients)
    return sum((g[i] * g[i + lag]).sum() for i in range(len(g) - lag - 1)) / (g * g).sum()


def _over_variance(gradients, lag):
    early, late, _ = _slices(gradients, lag)
    return (early * late).sum() / _centred(gradients).var()


def _one_pair(gradients, lag):
    return F.cosine_similarity(gradients[0], gradients[lag], dim=0)


WRONG = {
    "receptive_field": {
        "adds kernel instead of kernel - 1": (_sum_of_kernels, "overlap"),
        "starts at 0": (_starts_at_zero, "One too small"),
        "ignores the strides": (_ignores_stride, "strides change nothing"),
        "applies a stride to its own layer": (_own_stride_first, "not its own window"),
        "uses the stride of the layer before only": (_last_stride_only, "Strides multiply"),
        "takes each layer's own stride": (_own_stride_only, "own stride"),
        "goes through the layers backwards": (_backwards, "next to the image"),
        "half a window a layer": (lambda layers: 1 + sum(kernel // 2 for kernel, _ in layers), "both sides"),
        "returns the area": (lambda layers: _receptive_field(layers) ** 2, "return its side"),
        "return inside the loop": (_first_layer_only, "inside the loop"),
        "returns text": (lambda layers: "5", "must be a number"),
    },
    "conv_parameters": {
        "forgets the bias": (lambda i, o, k, bias: i * o * k**2, "biases are missing"),
        "always counts a bias": (lambda i, o, k, bias: i * o * k**2 + o, "no biases"),
        "one bias for each input channel": (lambda i, o, k, bias: i * o * k**2 + i * bias, "each output channel"),
        "one bias in all": (lambda i, o, k, bias: i * o * k**2 + bias, "each output channel"),
        "kernel not squared": (lambda i, o, k, bias: i * o * k + o * bias, "kernel squared"),
        "no kernel at all": (lambda i, o, k, bias: i * o + o * bias, "kernel squared"),
        "kernel times two": (lambda i, o, k, bias: i * o * k * 2 + o * bias, "kernel squared"),
        "forgets the input channels": (lambda i, o, k, bias: o * k**2 + o * bias, "every input channel"),
        "forgets the output channels": (lambda i, o, k, bias: i * k**2 + o * bias, "a filter of its own"),
        "every filter 3x3": (lambda i, o, k, bias: 9 * i * o + o * bias, "Not every filter"),
        "kernel cubed": (lambda i, o, k, bias: i * o * k**3 + o * bias, "kernel squared"),
        "adds the channels": (lambda i, o, k, bias: (i + o) * k**2 + o * bias, "shape (5, 2, 7, 7)"),
        "input channels squared": (lambda i, o, k, bias: i**2 * k**2 + o * bias, "shape (5, 2, 7, 7)"),
        "^ for a power": (lambda i, o, k, bias: i * o * k ^ 2 + o * bias, "no power"),
        "^ in brackets": (lambda i, o, k, bias: i * o * (k ^ 2) + o * bias, "no power"),
        "^ in the other order": (lambda i, o, k, bias: o * (i * k ^ 2 + bias), "no power"),
    },
    "multiply_adds": {
        "counts the weights": (lambda i, o, k, h, w: i * o * k**2, "number of weights"),
        "counts FLOPs": (lambda i, o, k, h, w: 2 * i * o * k**2 * h * w, "Twice too many"),
        "takes the output for square": (lambda i, o, k, h, w: i * o * k**2 * h * h, "need not be square"),
        "forgets the width": (lambda i, o, k, h, w: i * o * k**2 * h, "height_out times width_out"),
        "adds a bias": (lambda i, o, k, h, w: (i * k**2 + 1) * o * h * w, "no bias"),
        "kernel not squared": (lambda i, o, k, h, w: i * o * k * h * w, "kernel squared"),
        "no kernel at all": (lambda i, o, k, h, w: i * o * h * w, "kernel squared"),
        "forgets the input channels": (lambda i, o, k, h, w: o * k**2 * h * w, "all input channels"),
        "forgets the output channels": (lambda i, o, k, h, w: i * k**2 * h * w, "Every output channel"),
        "kernel times two": (lambda i, o, k, h, w: i * o * k * 2 * h * w, "kernel squared"),
        "a border of 1": (lambda i, o, k, h, w: i * o * k**2 * (h + 2) * (w + 2), "sides already"),
        "a border of the kernel": (lambda i, o, k, h, w: i * o * k**2 * (h + k - 1) * (w + k - 1), "sides already"),
        "a smaller output": (lambda i, o, k, h, w: i * o * k**2 * (h - k + 1) * (w - k + 1), "sides already"),
        "^ for a power": (lambda i, o, k, h, w: h * w * i * o * k ^ 2, "no power"),
        "^ in the middle": (lambda i, o, k, h, w: i * o * k ^ 2 * h * w, "no power"),
        "^ in brackets": (lambda i, o, k, h, w: i * o * (k ^ 2) * h * w, "no power"),
    },
    "bottleneck_parameters": {
        "forgets batch norm": (lambda c, w: 2 * c * w + 9 * w * w, "Batch norm is missing"),
        "one number a channel": (lambda c, w: 2 * c * w + 9 * w * w + 2 * w + c, "a scale and a shift"),
        "counts biases": (lambda c, w: 2 * c * w + 9 * w * w + 3 * (2 * w + c), "have none"),
        "third batch norm on width": (lambda c, w: 2 * c * w + 9 * w * w + 6 * w, "not `width`"),
        "all batch norms on channels": (lambda c, w: 2 * c * w + 9 * w * w + 6 * c, "first two batch norms"),
        "no third batch norm": (lambda c, w: 2 * c * w + 9 * w * w + 4 * w, "third batch norm is missing"),
        "no way back up": (lambda c, w: c * w + 9 * w * w + 4 * w + 2 * c, "two 1x1"),
        "3x3 on all channels": (lambda c, w: 2 * c * w + 9 * c * c + 4 * w + 2 * c, "width to width"),
        "3x3 from channels": (lambda c, w: 2 * c * w + 9 * c * w + 4 * w + 2 * c, "width to width"),
        "3x3 counted once": (lambda c, w: 2 * c * w + w * w + 4 * w + 2 * c, "nine weights"),
        "3x3 counted as 3": (lambda c, w: 2 * c * w + 3 * w * w + 4 * w + 2 * c, "not 3"),
        "all three are 3x3": (lambda c, w: 18 * c * w + 9 * w * w + 4 * w + 2 * c, "are 1x1"),
        "a projection shortcut": (lambda c, w: 2 * c * w + 9 * w * w + 4 * w + 2 * c + c * c, "shortcut is x itself"),
        "arguments swapped": (lambda c, w: 2 * c * w + 9 * c * c + 2 * (2 * c + w), "width to width"),
        "always four times the width": (lambda c, w: c * w + 13 * w * w + 12 * w, "need not be 4"),
        "a basic block": (lambda c, w: 18 * c * c + 4 * c, "basic block"),
        "a quarter of the channels": (lambda c, w: _block_loop(c, c // 4), "need not be a quarter"),
        "second batch norm on channels": (lambda c, w: 2 * c * w + 9 * w * w + 2 * (w + 2 * c), "The second batch"),
        "^ for a power": (lambda c, w: 2 * c * w + 9 * w ^ 2 + 2 * (2 * w + c), "no power"),
        "^ in brackets": (lambda c, w: 2 * c * w + 9 * (w ^ 2) + 2 * (2 * w + c), "no power"),
        "a list": (lambda c, w: [c * w, 9 * w * w, w * c], "must be a number"),
    },
    "autocorrelation": {
        "mean left in": (_wrong_autocorrelation(lambda g: g), "mean is still in it"),
        "mean of each row": (_wrong_autocorrelation(lambda g: g - g.mean(dim=1, keepdim=True)), "own mean"),
        "one mean for all": (_wrong_autocorrelation(lambda g: g - g.mean()), "one number"),
        "off by one": (_wrong_autocorrelation(shift=1), "lag + 1 apart"),
        "squares of the first rows only": (_wrong_autocorrelation(over="early"), "not of the first N - lag"),
        "squares of the last rows only": (_wrong_autocorrelation(over="late"), "not of the last N - lag"),
        "norms of the overlap": (_overlap_norms, "all N rows"),
        "empty at lag 0": (_empty_at_lag_zero, "len(g) - lag"),
        "round the end": (_round_the_end, "roll"),
        "mean of cosines": (_mean_of_cosines, "divide once"),
        "one number for each pair": (_a_number_for_each_pair, "shape"),
        "a mean for each slice": (_own_means, "before slicing"),
        "without the sign": (lambda g, lag: _autocorrelation_matrix(g, lag).abs(), "sign is lost"),
        "cut off at 0": (lambda g, lag: _autocorrelation_matrix(g, lag).clamp(0, 1), "sign is lost"),
        "means in place of sums": (_means, "sums, not means"),
        "an error at lag 0": (_minus_lag, "at lag 0 `g[:-lag]` is empty"),
        "Pearson's, slice by slice": (_pearson, "own mean"),
        "corrcoef": (_corrcoef, "own mean"),
        "every row with every other": (_every_pair, "pairs only"),
        "squares with the mean in": (_uncentred_below, "in the sum of squares"),
        "one factor centred": (_one_factor, "only one factor"),
        "the last pair missing": (_last_pair_missing, "last pair"),
        "over the variance": (_over_variance, "variance"),
        "one pair of rows": (_one_pair, "one pair"),
        "not divided": (_not_divided, "not divided"),
        "divided by the root": (lambda g, lag: _not_divided(g, lag) / _not_divided(g, 0).sqrt(), "not by its root"),
        "columns for rows": (lambda g, lag: _not_divided(g.T - g.T.mean(dim=1, keepdim=True), lag), "at lag"),
    },
}


def _span(layers):
    """Backwards: one output pixel, and how many pixels of the layer before it takes."""
    side = 1
    for kernel, stride in reversed(layers):
        side = (side - 1) * stride + kernel
    return side


def _sum_with_product(layers):
    strides = np.cumprod([1] + [stride for _, stride in layers])
    return 1 + np.sum((np.array([kernel for kernel, _ in layers]) - 1) * strides[:-1])


def _recursive(layers):
    if not layers:
        return 1
    (kernel, stride), *rest = layers
    return kernel + stride * (_recursive(rest) - 1)


def _jump_and_size(layers):
    jump, size = 1.0, 1.0
    for layer in layers:
        size = size + (layer[0] - 1) * jump
        jump = jump * layer[1]
    return size


def _probe(layers):
    """By measurement: from the first to the last input that has a gradient from one output."""
    x = torch.ones(1, 1, 200, dtype=torch.float64, requires_grad=True)
    out = x
    for kernel, stride in layers:
        out = F.conv1d(out, torch.ones(1, 1, kernel, dtype=torch.float64), stride=stride)
    out[0, 0, 0].backward()
    seen = x.grad[0, 0].nonzero().flatten()
    return seen.max() - seen.min() + 1


def _conv_from_torch(channels_in, channels_out, kernel, bias):
    return sum(p.numel() for p in nn.Conv2d(channels_in, channels_out, kernel, bias=bias).parameters())


def _conv_branches(channels_in, channels_out, kernel, bias):
    weights = kernel * kernel * channels_in * channels_out
    if bias:
        return weights + channels_out
    return weights


def _conv_loop(channels_in, channels_out, kernel, bias):
    total = 0
    for _ in range(channels_out):
        total += channels_in * kernel * kernel
        total += 1 if bias else 0
    return total


def _work_from_shapes(channels_in, channels_out, kernel, height_out, width_out):
    layer = nn.Conv2d(channels_in, channels_out, kernel, bias=False)
    return torch.tensor(layer.weight.numel() * height_out * width_out)


def _block_from_model(channels, width):
    block = nn.Sequential(
        nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width),
        nn.Conv2d(width, width, 3, bias=False), nn.BatchNorm2d(width),
        nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels),
    )  # fmt: skip
    return sum(p.numel() for p in block.parameters())


def _block_loop(channels, width):
    total = 0
    for size_in, size_out, kernel in ((channels, width, 1), (width, width, 3), (width, channels, 1)):
        total += size_in * size_out * kernel**2 + 2 * size_out
    return total


def _autocorrelation_loop(gradients, lag):
    mean = sum(gradients) / len(gradients)
    above = sum(float((gradients[i] - mean) @ (gradients[i + lag] - mean)) for i in range(len(gradients) - lag))
    return above / sum(float((row - mean) @ (row - mean)) for row in gradients)


def _autocorrelation_numpy(gradients, lag):
    g = gradients.numpy()
    g = g - g.mean(axis=0)
    return np.sum(g[lag:] * g[: g.shape[0] - lag]) / np.sum(g**2)


def _autocorrelation_matrix(gradients, lag):
    g = gradients - gradients.mean(0, keepdim=True)
    products = g @ g.T
    return torch.diagonal(products, offset=lag).sum() / torch.trace(products)


RIGHT = {
    "receptive_field": {
        "backwards": _span,
        "numpy": _sum_with_product,
        "recursive": _recursive,
        "floats": _jump_and_size,
        "by measurement": _probe,
    },
    "conv_parameters": {
        "asks PyTorch": _conv_from_torch,
        "with if": _conv_branches,
        "loop over filters": _conv_loop,
        "bias as a number": lambda i, o, k, bias: i * o * k**2 + o * bias,
        "float": lambda i, o, k, bias: float(o) * (i * k * k + (1 if bias else 0)),
        "numpy": lambda i, o, k, bias: np.prod([i, o, k, k]) + np.int64(o * bias),
    },
    "multiply_adds": {
        "from the weights": _work_from_shapes,
        "other order": lambda i, o, k, h, w: (h * w) * (k * k) * (i * o),
        "parameters times positions": lambda i, o, k, h, w: _conv_branches(i, o, k, False) * h * w,
        "float": lambda i, o, k, h, w: 1.0 * i * o * k**2 * h * w,
        "numpy": lambda i, o, k, h, w: np.prod(np.array([i, o, k, k, h, w], dtype=np.int64)),
    },
    "bottleneck_parameters": {
        "asks PyTorch": _block_from_model,
        "the library's block": lambda c, w: (
            sum(p.numel() for p in model.Bottleneck(c, w).parameters()) if c == 4 * w else _block_loop(c, w)
        ),
        "loop": _block_loop,
        "factored": lambda c, w: w * (2 * c + 9 * w + 4) + 2 * c,
        "from conv_parameters": lambda c, w: (
            2 * _conv_loop(c, w, 1, False) + _conv_loop(w, w, 3, False) + 4 * w + 2 * c
        ),
        "float": lambda c, w: 2.0 * c * w + 9.0 * w**2 + 4 * w + 2 * c,
    },
    "autocorrelation": {
        "loop": _autocorrelation_loop,
        "numpy": _autocorrelation_numpy,
        "matrix of products": _autocorrelation_matrix,
        "over len - 1, above and below": lambda g, lag: (
            (_not_divided(g, lag) / (len(g) - 1)) / (_centred(g).square().sum() / (len(g) - 1))
        ),
        "einsum": lambda g, lag: (
            torch.einsum("nd,nd->", _centred(g)[lag:], _centred(g)[: len(g) - lag]) / _centred(g).norm() ** 2
        ),
        "one number in a tensor": lambda g, lag: _autocorrelation_matrix(g, lag).reshape(1),
    },
}
