"""Checks of the exercises of lesson 02. Counts are exact, up to the digits of float32."""

import torch
import torch.nn.functional as F

from helpers.checks.frame import Exercise, sizes


def _field(grow=lambda kernel, step, stride: (kernel - 1) * step, step=lambda step, stride: step * stride, start=1):
    def answer(layers):
        side, distance = start, 1
        for kernel, stride in layers:
            side, distance = side + grow(kernel, distance, stride), step(distance, stride)
        return side

    return answer


receptive_field = Exercise(
    reference=_field(),
    cases=lambda: [
        (list(zip(sizes(len(strides), 1, 6), strides, strict=True)),)
        for strides in ((1, 1, 1), (1,), (2, 2, 1), (1, 3, 1, 2, 1), (2, 1, 3, 2))
    ],
    tolerance=1e-6,
    mistakes={
        "windows overlap: a layer adds kernel - 1 pixels, not kernel.": (
            _field(lambda kernel, step, stride: kernel, start=0),
            _field(lambda kernel, step, stride: kernel * step),
        ),
        "one too small: a pixel that has passed no layer sees 1 pixel, itself.": _field(start=0),
        "the strides change nothing in your answer.": _field(step=lambda step, stride: 1),
        "a layer's stride spreads the layers after it, not its own window.": (
            _field(lambda kernel, step, stride: (kernel - 1) * step * stride)
        ),
        "the product of all strides before a layer counts, not one stride alone.": (
            _field(step=lambda step, stride: stride),
            _field(lambda kernel, step, stride: (kernel - 1) * stride),
        ),
        "you go from the last layer to the first: begin next to the image.": lambda layers: _field()(layers[::-1]),
        "only the first layer counts in it. Is `return` inside the loop?": lambda layers: layers[0][0],
    },
    praise="each layer adds kernel - 1 steps, and a step is the product of the strides before it.",
)

conv_parameters = Exercise(
    reference=lambda channels_in, channels_out, kernel, bias: channels_out * (channels_in * kernel**2 + bias),
    cases=lambda: [*((*sizes(3, 2, 12), bias) for bias in (True, False, True)), (*sizes(2, 20, 70), 1, False)],
    tolerance=1e-6,
    mistakes={
        "the biases are missing: one for each output channel.": lambda i, o, k, bias: i * o * k**2,
        "bias=False means that there are no biases.": lambda i, o, k, bias: i * o * k**2 + o,
        "there is one bias for each output channel.": (
            lambda i, o, k, bias: i * (o * k**2 + bias),
            lambda i, o, k, bias: i * o * k**2 + bias,
        ),
        "a filter has kernel rows and kernel columns: kernel squared.": (
            lambda i, o, k, bias: o * (i * k + bias),
            lambda i, o, k, bias: o * (i * k * 2 + bias),
        ),
        "in Python `^` is no power: write `**`.": lambda i, o, k, bias: i * o * k ^ 2 + o * bias,
        "a filter is as deep as its input: it has weights for every input channel.": (
            lambda i, o, k, bias: o * (k**2 + bias)
        ),
        "each output channel has a filter of its own.": lambda i, o, k, bias: i * k**2 + o * bias,
    },
    praise="kernel² weights for each pair of channels, and one bias for each output channel.",
)

multiply_adds = Exercise(
    reference=lambda channels_in, channels_out, kernel, height_out, width_out: (
        channels_in * channels_out * kernel**2 * height_out * width_out
    ),
    cases=lambda: [tuple(sizes(5, 2, 12)), (*sizes(2, 16, 70), 1, *sizes(2, 5, 12)), tuple(sizes(5, 3, 30))],
    tolerance=1e-6,
    mistakes={
        "that is the number of weights: each is used at every output position.": lambda i, o, k, h, w: i * o * k**2,
        "twice too many: a multiplication and its addition count as one.": lambda i, o, k, h, w: (
            2 * i * o * k**2 * h * w
        ),
        "the output has height_out times width_out positions, and need not be square.": (
            lambda i, o, k, h, w: i * o * k**2 * h**2
        ),
        "height_out and width_out are the output's sides already: no kernel or padding changes them.": (
            lambda i, o, k, h, w: i * o * k**2 * (h - k + 1) * (w - k + 1),
            lambda i, o, k, h, w: i * o * k**2 * (h + k - 1) * (w + k - 1),
        ),
        "this convolution has no bias.": lambda i, o, k, h, w: (i * k**2 + 1) * o * h * w,
        "a filter has kernel rows and kernel columns: kernel squared.": lambda i, o, k, h, w: i * o * k * h * w,
        "in Python `^` is no power: write `**`.": lambda i, o, k, h, w: i * o * k ^ 2 * h * w,
        "each output number is made from all input channels.": lambda i, o, k, h, w: o * k**2 * h * w,
    },
    praise="kernel² times the input channels for each output number, times the number of output numbers.",
)


def _bottleneck(middle=lambda c, w: 9 * w * w, ones=lambda c, w: 2 * c * w, norms=lambda c, w: 2 * (2 * w + c)):
    return lambda channels, width: ones(channels, width) + middle(channels, width) + norms(channels, width)


bottleneck_parameters = Exercise(
    reference=_bottleneck(),
    cases=lambda: [tuple(sizes(2, 5, 30)), (64, 16), tuple(sizes(2, 40, 60)), (7, 20)],
    tolerance=1e-6,
    mistakes={
        "batch norm is missing: two parameters for each channel that it normalises.": _bottleneck(norms=lambda c, w: 0),
        "batch norm has two parameters a channel: a scale and a shift.": (
            _bottleneck(norms=lambda c, w: 2 * w + c),
            _bottleneck(norms=lambda c, w: 4 * (2 * w + c)),
        ),
        "the first two batch norms normalise `width` channels, the third `channels`.": (
            _bottleneck(norms=lambda c, w: 6 * w),
            _bottleneck(norms=lambda c, w: 6 * c),
            _bottleneck(norms=lambda c, w: 4 * w),
        ),
        "there are two 1x1 convolutions: one down to `width`, one back up to `channels`.": (
            _bottleneck(ones=lambda c, w: c * w)
        ),
        "the 3x3 convolution goes from width to width channels: 9 * width * width weights.": (
            _bottleneck(middle=lambda c, w: 9 * c * c),
            _bottleneck(middle=lambda c, w: w * w),
        ),
        "`width` is given: it need not be a quarter of `channels`.": (
            lambda c, w: _bottleneck()(c, c // 4),
            lambda c, w: _bottleneck()(4 * w, w),
        ),
        "the shortcut is x itself: it has no parameters.": _bottleneck(ones=lambda c, w: 2 * c * w + c * c),
    },
    praise="two 1x1 convolutions on all channels, one 3x3 on the few, two numbers a channel for each batch norm.",
)


def _gradients():
    """A drifting mean, rows and columns of different size, so that each wrong centring or weighting shows."""
    for lag in (3, 1, 0, -1, 5):
        rows, columns = sizes(2, 7, 40)
        g = torch.randn(rows, columns).cumsum(0) + 4 * torch.rand(columns) + torch.linspace(0, 3, rows).view(-1, 1)
        yield g * (0.1 + 2 * torch.rand(columns)) * torch.linspace(0.4, 1.6, rows).view(-1, 1), lag % rows


def _ratio(centre=lambda g: g - g.mean(0), top=lambda early, late: (early * late).sum(), below=None):
    def answer(gradients, lag):
        g = centre(gradients)
        early, late = g[: len(g) - lag], g[lag:]
        return top(early, late) / (below(early, late) if below else (g * g).sum())

    return answer


def _from_the_end(gradients, lag):
    g = gradients - gradients.mean(0)
    return (g[:-lag] * g[lag:]).sum() / (g * g).sum()


def _rolled(gradients, lag):
    g = gradients - gradients.mean(0)
    return (g * g.roll(lag, 0)).sum() / (g * g).sum()


autocorrelation = Exercise(
    reference=_ratio(),
    cases=_gradients,
    mistakes={
        "the mean is still in it. Subtract the mean row first.": _ratio(centre=lambda g: g),
        "subtract the mean row, over `dim=0`: not each row's own mean, nor one number.": (
            _ratio(centre=lambda g: g - g.mean(1, keepdim=True)),
            _ratio(centre=lambda g: g - g.mean()),
        ),
        "you centre each slice by its own mean. Subtract the mean of all N rows, before slicing.": (
            _ratio(top=lambda early, late: ((early - early.mean(0)) * (late - late.mean(0))).sum())
        ),
        "divide sums, not means: the upper sum has fewer terms, and that is meant.": (
            lambda gradients, lag: _ratio()(gradients, lag) * len(gradients) / (len(gradients) - lag)
        ),
        "divide by the sum of squares of all N rows, not only of those that have a partner.": (
            _ratio(below=lambda early, late: early.norm() * late.norm()),
            _ratio(below=lambda early, late: early.square().sum()),
        ),
        "you average cosines. Sum all products, then divide once.": (
            _ratio(top=lambda *two: F.cosine_similarity(*two).mean(), below=lambda *_: 1)
        ),
        "`roll` lets the end meet the beginning. Only N - lag pairs exist.": _rolled,
        "at lag 0 `g[:-lag]` is empty: write `g[: len(g) - lag]`.": (
            _from_the_end,
            lambda gradients, lag: _ratio()(gradients, lag) if lag else 0,
        ),
    },
    praise="products of centred rows that lie lag apart, over the sum of squares.",
)
