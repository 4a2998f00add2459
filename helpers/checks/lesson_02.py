"""Checks of the exercises of lesson 02."""

import math

import torch
import torch.nn.functional as F

from helpers.checks.frame import Wrong, call, check, require


def _whole(value, what: str) -> int:
    """`value` as a whole number, or words about its type. One number of NumPy or PyTorch is a number, too."""
    if hasattr(value, "item") and getattr(value, "shape", None) in ((), (1,)):
        value = value.item()
    require(isinstance(value, int | float), f"{what} must be a number, got {type(value).__name__}.")
    require(value == value // 1, f"{what} must be a whole number, got {value}.")
    return int(value)


def _require_no_xor(count: int, candidates: tuple, said: str) -> None:
    require(count not in candidates, said + "In Python `^` is no power: write `**`.")


@check
def receptive_field(answer) -> str:
    """answer(layers): list of (kernel, stride), first layer first -> side of the receptive field in input pixels."""

    def side_of(layers) -> int:
        return _whole(call(answer, list(layers)), f"the receptive field of {layers}")

    for layers in ([(5, 1)], [(3, 1), (3, 1)], [(5, 1), (3, 1), (7, 1)]):
        side, true = side_of(layers), 1 + sum(kernel - 1 for kernel, _ in layers)
        said = f"for the layers (kernel, stride) {layers} you return {side}, expected {true}. "
        require(side != true**2, said + "That is the area in pixels: return its side.")
        first_only = side != true and len(layers) > 1 and side in (layers[0][0], 1 + layers[0][0])
        require(not first_only, said + "Only the first layer counts in it. Is `return` inside the loop?")
        half = "A window has pixels on both sides of its middle: a layer adds kernel - 1, not kernel // 2."
        require(side != 1 + sum(kernel // 2 for kernel, _ in layers), said + half)
        require(side != true - 1, said + "One too small: a pixel that has passed no layer sees 1 pixel, itself.")
        total = sum(kernel for kernel, _ in layers)
        require(side == true or side != total, said + "Windows overlap: a layer adds kernel - 1 pixels, not kernel.")
        require(side == true, said + "At stride 1 each layer adds kernel - 1 pixels.")
    for layers in (
        [(7, 2), (3, 2), (3, 1)],
        [(3, 1), (2, 2), (3, 1), (2, 3), (5, 1)],
        [(1, 2), (4, 3), (3, 2), (3, 1)],
    ):
        true, step, ignored, early, last, before, own = 1, 1, 1, 1, 1, 1, 1
        backwards, step_back = 1, 1
        for kernel, stride in reversed(layers):
            backwards, step_back = backwards + (kernel - 1) * step_back, step_back * stride
        for kernel, stride in layers:
            true, ignored, last = true + (kernel - 1) * step, ignored + kernel - 1, last + (kernel - 1) * before
            step, before, own = step * stride, stride, own + (kernel - 1) * stride
            early += (kernel - 1) * step
        side = side_of(layers)
        said = f"for the layers (kernel, stride) {layers} you return {side}, expected {true}. "
        turned = "You go from the last layer to the first: begin next to the image."
        require(side == true or side != backwards, said + turned)
        require(side != ignored, said + "The strides change nothing in your answer.")
        require(side != early, said + "A layer's stride spreads the layers after it, not its own window.")
        require(side == true or side != last, said + "Strides multiply: all layers before count, not only the last.")
        require(
            side == true or side != own,
            said + "You take each layer's own stride: it is the product of the strides before it that counts.",
        )
        require(side == true, said + "Each layer adds (kernel - 1) times the product of the strides before it.")
    return "each layer adds kernel - 1 steps, and a step is the product of the strides before it."


@check
def conv_parameters(answer) -> str:
    """answer(channels_in, channels_out, kernel, bias) -> number of parameters of that convolution."""
    for channels_in, channels_out, kernel in ((2, 5, 7), (7, 3, 1), (3, 64, 3), (16, 11, 5)):
        weights = channels_in * channels_out * kernel**2
        for bias in (False, True):
            count = _whole(call(answer, channels_in, channels_out, kernel, bias), "the number of parameters")
            true = weights + channels_out * bias
            said = f"{channels_in} to {channels_out} channels, kernel {kernel}, bias={bias}: {count}, expected {true}. "
            if count == true:
                continue
            pairs, extra = channels_in * channels_out, channels_out * bias
            xor = (pairs * (kernel ^ 2) + extra, (pairs * kernel) ^ (2 + extra), kernel ^ (2 * pairs + extra))
            _require_no_xor(count, (*xor, channels_out * ((channels_in * kernel) ^ (2 + bias))), said)
            require(bias or count != weights + channels_out, said + "bias=False means that there are no biases.")
            require(not bias or count != weights, said + "The biases are missing: one for each output channel.")
            require(
                not bias or count not in (weights + channels_in, weights + 1),
                said + "There is one bias for each output channel.",
            )
            require(count - extra != 9 * pairs, said + "Not every filter is 3x3: use `kernel`.")
            require(
                count - extra not in (pairs * kernel, 2 * pairs * kernel, pairs, weights * kernel),
                said + "A filter has kernel rows and kernel columns: kernel squared.",
            )
            require(
                count != channels_out * kernel**2 + extra,
                said + "A filter is as deep as its input: it has weights for every input channel.",
            )
            require(count != channels_in * kernel**2 + extra, said + "Each output channel has a filter of its own.")
            shapes = f"The weights have the shape {(channels_out, channels_in, kernel, kernel)}"
            raise Wrong(said + shapes + (f", the biases {(channels_out,)}." if bias else "; there are no biases."))
    return "kernel² weights for each pair of channels, and one bias for each output channel."


@check
def multiply_adds(answer) -> str:
    """answer(channels_in, channels_out, kernel, height_out, width_out) -> multiply-adds of a convolution, no bias."""
    for channels_in, channels_out, kernel, height, width in ((2, 5, 7, 9, 13), (3, 64, 3, 112, 100), (16, 7, 1, 8, 5)):
        arguments = (channels_in, channels_out, kernel, height, width)
        count = _whole(call(answer, *arguments), "the number of multiply-adds")
        weights = channels_in * channels_out * kernel**2
        true = weights * height * width
        if count == true:
            continue
        said = f"for {arguments} you return {count:,}, expected {true:,}. "
        pairs, positions = channels_in * channels_out, height * width
        xor = (pairs * (kernel ^ 2) * positions, (pairs * kernel) ^ (2 * positions), (pairs * positions * kernel) ^ 2)
        _require_no_xor(count, (*xor, kernel ^ (2 * pairs * positions)), said)
        moved = [weights * (height + by) * (width + by) for by in (kernel - 1, 1 - kernel, 2, -2)]
        given = "height_out and width_out are the output's sides already: no kernel or padding changes them."
        require(count not in moved or kernel == 1, said + given)
        require(count != weights, said + "That is the number of weights: each is used at every output position.")
        require(count != 2 * true, said + "Twice too many: a multiplication and its addition count as one.")
        require(
            count not in (weights * height, weights * width, weights * height**2, weights * width**2),
            said + "The output has height_out times width_out positions, and need not be square.",
        )
        require(
            count != true + channels_out * height * width and count != true + channels_out,
            said + "This convolution has no bias.",
        )
        require(
            count not in (pairs * kernel * positions, 2 * pairs * kernel * positions, pairs * positions, true * kernel),
            said + "A filter has kernel rows and kernel columns: kernel squared.",
        )
        require(count * channels_in != true, said + "Each output number is made from all input channels.")
        require(count * channels_out != true, said + "Every output channel is computed at every position.")
        raise Wrong(said + "Count what one output number needs, then how many output numbers there are.")
    return "kernel² times the input channels for each output number, times the number of output numbers."


@check
def bottleneck_parameters(answer) -> str:
    """answer(channels, width) -> parameters of conv 1x1, BN, conv 3x3, BN, conv 1x1, BN; no biases in convolutions."""
    for channels, width in ((20, 7), (48, 10), (256, 64)):
        count = _whole(call(answer, channels, width), "the number of parameters")
        down, middle, norms = channels * width, 9 * width**2, 2 * (2 * width + channels)
        true = 2 * down + middle + norms
        if count == true:
            continue
        said = f"for channels={channels}, width={width} you return {count:,}, expected {true:,}. "
        quarter = channels // 4
        xor = (2 * down + 9 * (width ^ 2) + norms, (2 * down + 9 * width) ^ (2 + norms))
        _require_no_xor(count, xor, said)
        no_norms = said + "Batch norm is missing: two parameters for each channel that it normalises."
        middle_words = said + "The 3x3 convolution goes from width to width channels: 9 * width * width weights."
        for fault, words in (
            (2 * down + middle, no_norms),
            (2 * down + middle + norms // 2, said + "Batch norm has two parameters a channel: a scale and a shift."),
            (true + 2 * width + channels, said + "You count biases: these convolutions have none."),
            (2 * down + middle + 2 * norms, said + "Batch norm has two parameters a channel; its averages are none."),
            (true - 2 * channels, said + "The third batch norm is missing: it normalises `channels` channels."),
            (2 * down + middle + 6 * width, said + "The third batch norm normalises `channels` channels, not `width`."),
            (2 * down + middle + 6 * channels, said + "The first two batch norms normalise `width` channels."),
            (
                2 * channels * quarter + 9 * quarter**2 + 2 * (2 * quarter + channels),
                said + "`width` is given: it need not be a quarter of `channels`.",
            ),
            (
                2 * down + middle + 2 * (width + 2 * channels),
                said + "The second batch norm follows the 3x3 convolution: it normalises `width` channels.",
            ),
            (true - 2 * width, said + "One of the first two batch norms is missing: one follows each convolution."),
            (true - down, said + "There are two 1x1 convolutions: one down to `width`, one back up to `channels`."),
            (true - middle + width**2, said + "The second convolution is 3x3: nine weights for each pair of channels."),
            (true - middle + 3 * width**2, said + "A 3x3 filter has 9 weights for each pair of channels, not 3."),
            (true - middle + 9 * channels**2, middle_words),
            (true - middle + 9 * down, middle_words),
            (true + down, said + "The shortcut is x itself: it has no parameters."),
            (true + channels**2, said + "The shortcut is x itself: it has no parameters."),
            (
                true + 16 * down,
                said + "The first and the last convolution are 1x1: one weight for each pair of channels.",
            ),
            (2 * down + 9 * channels**2 + 2 * (2 * channels + width), middle_words),
            (
                down + middle + 4 * width**2 + 12 * width,
                said + "The block returns `channels` channels, whatever `width` is: they need not be 4 * width.",
            ),
            (2 * 9 * channels**2 + 4 * channels, said + "That is a basic block: two 3x3 convolutions on all channels."),
        ):
            require(count != fault, words)
        raise Wrong(said + "Add up conv 1x1, conv 3x3, conv 1x1 and the batch norm after each.")
    return "two 1x1 convolutions on all channels, one 3x3 on the few, two numbers a channel for each batch norm."


@check
def autocorrelation(answer) -> str:
    """answer(gradients, lag): (N, D), lag 0 to N - 1 -> products of centred rows lag apart, over the sum of squares."""
    # A drifting mean and columns of different size, so that each wrong centring or weighting shows.
    noise = torch.randn(40, 6).cumsum(dim=0) + 4 * torch.rand(6) + torch.linspace(0, 3, 40).view(-1, 1)
    gradients = noise * torch.tensor([1.0, 0.3, 2.0, 0.7, 1.5, 0.1])
    gradients = gradients * torch.linspace(0.4, 1.6, 40).view(-1, 1)
    empty = "at lag 0 `g[:-lag]` is empty: write `g[: len(g) - lag]`."
    for lag in (3, 1, 12, 25, 0):
        try:
            value = call(answer, gradients, lag)
        except Wrong as error:
            raise Wrong(f"{empty} ({error})" if lag == 0 else str(error)) from None
        if getattr(value, "shape", None) in ((), (1,)):
            value = value.item()
        shape = getattr(value, "shape", None)
        words = "return one number: sum over rows and over columns. Yours has the shape "
        require(shape is None, words + f"{tuple(shape or ())}.")
        require(isinstance(value, int | float), f"return one number, got {type(value).__name__}.")
        require(value == value or lag, f"the result is nan: {empty}")
        require(value == value, f"the result at lag {lag} is nan.")
        raw = gradients.double()
        g = raw - raw.mean(dim=0)
        true = _ratio(g, lag)
        if _near(value, true):
            continue
        early, late, square = g[: 40 - lag], g[lag:], _lagged(g, 0)
        each_row, of_all = raw - raw.mean(dim=1, keepdim=True), raw - raw.mean()
        scaled = g / g.norm(dim=0)
        slices = [part - part.mean(dim=0) for part in (raw[: 40 - lag], raw[lag:])]
        flat = torch.stack([raw[: 40 - lag].flatten(), raw[lag:].flatten()])
        own_means = "you centre each slice by its own mean. Subtract the mean of all N rows, before slicing."
        one_side = "only one factor is centred. Subtract the mean row from both, and below the line as well."
        top, all_rows = _lagged(g, lag), "divide by the sum of squares of all N rows, not of "
        for fault, words in (
            (math.nan if lag else 0.0, f"the result is 0: {empty}"),
            (abs(true), "the sign is lost. Unlike gradients give a negative number."),
            (max(true, 0), "the sign is lost. Unlike gradients give a negative number."),
            (true * 40 / (40 - lag), "divide sums, not means: the upper sum has fewer terms, and that is meant."),
            (_lagged(raw, lag) / _lagged(raw, 0), "the mean is still in it. Subtract the mean row first."),
            (_lagged(raw, lag) / square, "the mean is still in the products. Subtract the mean row from both factors."),
            (_ratio(each_row, lag), "you subtract each row's own mean. Subtract the mean row, over `dim=0`."),
            (_ratio(of_all, lag), "you subtract one number, the mean of all. Subtract the mean row, over `dim=0`."),
            ((g * g.roll(lag, 0)).sum() / square, "`roll` lets the end meet the beginning. Only N - lag pairs exist."),
            (_lagged(g, lag + 1) / square, "your rows lie lag + 1 apart."),
            (_lagged(g, lag - 1) / square if lag else math.nan, "your rows lie lag - 1 apart."),
            (_lagged(g.T, lag) / square, "you shift columns. An input is a row."),
            (top, "the sum of products is not divided. Divide by the sum of squares."),
            (top / square**0.5, "divide by the sum of squares, not by its root."),
            (top / (40 - lag), "the products are averaged, but not divided by the mean square."),
            (F.cosine_similarity(early, late).mean(), "you average cosines. Sum all products, then divide once."),
            (
                F.cosine_similarity(raw[: 40 - lag], raw[lag:]).mean(),
                "you average cosines, with the mean left in. Subtract the mean row, sum all products, divide once.",
            ),
            (_ratio(scaled, lag), "you scale each column. Sum over all columns, then divide once."),
            (top / (early.norm() * late.norm()), all_rows + "those that have a partner."),
            (top / _lagged(early, 0), all_rows + "the first N - lag."),
            (top / _lagged(late, 0), all_rows + "the last N - lag."),
            ((slices[0] * slices[1]).sum() / square, own_means),
            ((slices[0] * slices[1]).sum() / (slices[0].norm() * slices[1].norm()), own_means),
            (torch.corrcoef(flat)[0, 1], own_means),
            (F.cosine_similarity(*slices).mean(), "you average cosines. Sum all products, then divide once."),
            (
                F.cosine_similarity(*flat, dim=0),
                "this is a cosine, with the mean left in. Subtract the mean row first.",
            ),
            (early.sum(dim=0) @ late.sum(dim=0) / square, "you multiply every row with every other. Take pairs only."),
            (top / _lagged(raw, 0), "the mean is still in the sum of squares. Subtract the mean row first."),
            ((raw[: 40 - lag] * late).sum() / square, one_side),
            ((early * raw[lag:]).sum() / square, one_side),
            ((early * late)[:-1].sum() / square, "the last pair is missing: N - lag pairs exist."),
            (top / g.var(), "divide by the sum of squares, not by the variance."),
            (top / g.square().mean(), "divide by the sum of squares, not by their mean."),
            (F.cosine_similarity(raw[0], raw[lag], dim=0), "you compare one pair of rows. Sum over all pairs."),
            (F.cosine_similarity(g[0], g[lag], dim=0), "you compare one pair of rows. Sum over all pairs."),
            (1 - true, "this is 1 minus the autocorrelation."),
        ):
            require(not _near(value, float(fault)), f"at lag {lag}: {words}")
        raise Wrong(f"at lag {lag} you return {value:.4f}, expected {true:.4f}.")
    return "products of centred rows that lie lag apart, over the sum of squares."


def _lagged(g: torch.Tensor, lag: int) -> float:
    return (g[: len(g) - lag] * g[lag:]).sum().item()


def _ratio(g: torch.Tensor, lag: int) -> float:
    return _lagged(g, lag) / _lagged(g, 0)


def _near(value: float, other: float) -> bool:
    return abs(value - other) < 1e-4 * max(1, abs(other))
