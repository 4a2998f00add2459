"""One check an exercise: `checks.NAME(answer)` says in words whether the answer is right, and if not, what is wrong.

A check never raises and never stops the notebook. It returns a `Verdict`, which is true only for a right answer.
"""

import copy
import functools
import traceback
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn


class Verdict:
    """Outcome of a check: true if the answer is right; Jupyter shows its words."""

    def __init__(self, status: str, words: str):
        self.status, self.words = status, words

    def __bool__(self) -> bool:
        return self.status == "Right"

    def __repr__(self) -> str:
        return f"{self.status}: {self.words}"


class _Wrong(Exception):
    pass


class _Unsolved(Exception):
    pass


def _check(function: Callable) -> Callable:
    """Turn a function that returns praise or raises `_Wrong` into one that always returns a Verdict."""

    @functools.wraps(function)
    def checked(answer) -> Verdict:
        if answer is None or answer is ...:
            return Verdict("Not solved yet", "write your answer in the place of the three dots.")
        # A check draws random inputs; the notebook's own random numbers must not notice.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                return Verdict("Right", function(answer))
            except _Unsolved as unsolved:
                return Verdict("Not solved yet", str(unsolved))
            except _Wrong as wrong:
                return Verdict("Not yet", str(wrong))
            except Exception as error:  # an answer so unlike the others that the check itself stumbles over it
                return Verdict("Not yet", f"the check cannot work with this answer ({type(error).__name__}: {error}).")

    return checked


def _require(condition, words: str) -> None:
    if not condition:
        raise _Wrong(words)


def _call(answer: Callable, *arguments):
    """answer(*arguments), with its errors turned into words. Tensors are passed as copies."""
    if not callable(answer):
        raise _Wrong(f"pass the function itself, without calling it. Got {type(answer).__name__}.")
    copies = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
    try:
        result = answer(*copies)
    except Exception as error:  # whatever a reader's code raises is the reader's to see
        own = [line for line in traceback.extract_tb(error.__traceback__) if not _is_library(line.filename)]
        where = f" (in `{own[-1].name}`: `{own[-1].line}`)" if own and own[-1].line else ""
        raise _Wrong(f"your code raised {type(error).__name__}: {error}{where}") from None
    if result is None or result is ...:
        what = "`forward`" if isinstance(answer, nn.Module) else "the function"
        raise _Unsolved(f"{what} returns nothing yet. Write its body; it must end in `return ...`.")
    return result


def _is_library(filename: str) -> bool:
    return filename == __file__ or "site-packages" in filename


def _tensor(value, shape: tuple, what: str) -> torch.Tensor:
    """`value` as a float tensor, or words about its type or shape."""
    _require(isinstance(value, torch.Tensor), f"{what} must be a tensor, got {type(value).__name__}.")
    _require(
        tuple(value.shape) == tuple(shape), f"{what} must have the shape {tuple(shape)}, got {tuple(value.shape)}."
    )
    return value.detach().double()


def _close(value: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> bool:
    return torch.allclose(value.double(), expected.double(), rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------- lesson 01


@_check
def channel_statistics(answer) -> str:
    """answer(x): x uint8 (N, 3, H, W) -> (mean, std), each (3,), of the pixels on the scale 0 to 1."""
    # Channels of different spread, and images of different brightness, so that shortcuts show.
    x = torch.randint(0, 256, (12, 3, 8, 8)) * torch.tensor([1.0, 0.6, 0.2]).view(1, 3, 1, 1)
    x = (x * torch.linspace(0.1, 1, 12).view(12, 1, 1, 1)).to(torch.uint8)
    result = _call(answer, x)
    _require(isinstance(result, tuple | list) and len(result) == 2, "return two tensors: `return mean, std`.")
    mean, std = result
    if isinstance(mean, torch.Tensor) and mean.numel() == 1:
        raise _Wrong("the mean is one number for all channels. Average over images, rows and columns, not channels.")
    mean, std = _tensor(mean, (3,), "mean"), _tensor(std, (3,), "std")
    scaled = x.double() / 255
    true_mean, true_std = scaled.mean(dim=(0, 2, 3)), scaled.std(dim=(0, 2, 3), correction=0)
    per_image = scaled.std(dim=(2, 3), correction=0).mean(dim=0)
    _require(not _close(mean, 255 * true_mean, 1e-2), "the mean is on the scale 0 to 255. Divide the pixels by 255.")
    _require(not _close(mean, true_std, 1e-3), "the two are swapped: return the mean first.")
    _require(
        _close(mean, true_mean), f"the mean is {_list(mean)}, expected {_list(true_mean)}: full brightness is 255."
    )
    _require(not _close(std, 255 * true_std, 1e-2), "the standard deviation is on the scale 0 to 255.")
    _require(
        not _close(std, per_image, 2e-3),
        "the standard deviation is the average of each image's own. That leaves out how images differ from each other: "
        "take it over all pixels of all images at once.",
    )
    _require(not _close(std, true_std.square(), 1e-3), "that is the variance. Take its square root.")
    _require(_close(std, true_std, 3e-3), f"the standard deviation is {_list(std)}, expected {_list(true_std)}.")
    return "one mean and one standard deviation for each channel, over all images and pixels."


@_check
def stratified_split(answer) -> str:
    """answer(y, fraction): y int64 (N,) -> (rest, part), positions; `part` holds `fraction` of each class."""
    sizes = (40, 20, 60, 80)
    y = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    y = y[torch.randperm(len(y))]
    result = _call(answer, y, 0.25)
    _require(isinstance(result, tuple | list) and len(result) == 2, "return two tensors: `return rest, part`.")
    rest, part = result
    for name, positions in (("rest", rest), ("part", part)):
        _require(isinstance(positions, torch.Tensor), f"`{name}` must be a tensor, got {type(positions).__name__}.")
        _require(
            positions.dtype == torch.int64 and positions.ndim == 1,
            f"`{name}` must hold positions, int64 in one dimension; got {positions.dtype} {tuple(positions.shape)}.",
        )
    both = torch.cat([rest, part])
    _require(
        len(both) != len(y) or both.max() >= max(sizes),
        "these are labels, or positions inside each class. Index `members`, the class's positions in y, with them.",
    )
    _require(
        len(both.unique()) == len(both), "a position occurs twice. No image may be in both parts, or twice in one."
    )
    _require(len(both) == len(y), f"the two parts hold {len(both)} positions together, but there are {len(y)} images.")
    _require(both.min() >= 0 and both.max() < len(y), "return positions in y, counted from 0.")
    _require(
        len(part) != len(y) * 3 // 4,
        "the parts are swapped: return the rest first, then the part of the size `fraction`.",
    )
    counts, expected = torch.bincount(y[part], minlength=4).tolist(), [size // 4 for size in sizes]
    _require(
        counts == expected, f"`part` holds {counts} images of the four classes, expected {expected}: a quarter of each."
    )
    again = _call(answer, y, 0.25)[1]
    _require(
        not torch.equal(part.sort().values, again.sort().values),
        "the choice is not random: two calls gave the same images. Shuffle the positions of each class first.",
    )
    return "the same share of each class, chosen at random, and no image in both parts."


@_check
def crop_batch(answer) -> str:
    """answer(x, top, left, padding): x (B, C, H, W) -> (B, C, H, W), each image cropped at its own place."""
    x = torch.rand(6, 3, 10, 12)
    top, left = torch.tensor([0, 1, 6, 2, 3, 4]), torch.tensor([6, 0, 2, 1, 4, 0])
    result = _tensor(_call(answer, x, top, left, 3), x.shape, "the result")
    padded = F.pad(x, [3] * 4)

    def cut(rows, columns):
        return torch.stack([padded[i, :, rows[i] : rows[i] + 10, columns[i] : columns[i] + 12] for i in range(6)])

    swapped, first = cut(left, top), cut(top[:1].expand(6), left[:1].expand(6))
    _require(not _close(result, swapped), "rows and columns are swapped: `top` counts rows, dimension 2 of x.")
    _require(not _close(result, first), "all images are cropped at the first one's place. Use `top[i]` and `left[i]`.")
    _require(not _close(result, x), "the images are unchanged. Cut at `top[i]` and `left[i]`.")
    for i, expected in enumerate(cut(top, left)):
        _require(
            _close(result[i], expected),
            f"image {i} is not the window at row {top[i]}, column {left[i]} of the image padded with zeros.",
        )
    return "each image is cut at its own place."


def _list(values: torch.Tensor) -> str:
    return ", ".join(f"{value:.4f}" for value in values.tolist())


# ---------------------------------------------------------------- lesson 02


def _whole(value, what: str) -> int:
    """`value` as a whole number, or words about its type. One number of NumPy or PyTorch is a number, too."""
    if hasattr(value, "item") and getattr(value, "shape", None) in ((), (1,)):
        value = value.item()
    _require(isinstance(value, int | float), f"{what} must be a number, got {type(value).__name__}.")
    _require(value == value // 1, f"{what} must be a whole number, got {value}.")
    return int(value)


@_check
def receptive_field(answer) -> str:
    """answer(layers): list of (kernel, stride), first layer first -> side of the receptive field in input pixels."""

    def side_of(layers) -> int:
        return _whole(_call(answer, list(layers)), f"the receptive field of {layers}")

    for layers in ([(3, 1)], [(3, 1), (3, 1)], [(5, 1), (3, 1), (7, 1)]):
        side, true = side_of(layers), 1 + sum(kernel - 1 for kernel, _ in layers)
        said = f"for the layers (kernel, stride) {layers} you return {side}, expected {true}. "
        _require(side != true - 1, said + "One too small: a pixel that has passed no layer sees 1 pixel, itself.")
        total = sum(kernel for kernel, _ in layers)
        _require(side == true or side != total, said + "Windows overlap: a layer adds kernel - 1 pixels, not kernel.")
        _require(side == true, said + "At stride 1 each layer adds kernel - 1 pixels.")
    for layers in (
        [(7, 2), (3, 2), (3, 1)],
        [(3, 1), (2, 2), (3, 1), (2, 3), (5, 1)],
        [(1, 2), (4, 3), (3, 2), (3, 1)],
    ):
        true, step, ignored, early, last, before, own = 1, 1, 1, 1, 1, 1, 1
        for kernel, stride in layers:
            true, ignored, last = true + (kernel - 1) * step, ignored + kernel - 1, last + (kernel - 1) * before
            step, before, own = step * stride, stride, own + (kernel - 1) * stride
            early += (kernel - 1) * step
        side = side_of(layers)
        said = f"for the layers (kernel, stride) {layers} you return {side}, expected {true}. "
        _require(side != ignored, said + "The strides change nothing in your answer.")
        _require(side != early, said + "A layer's stride spreads the layers after it, not its own window.")
        _require(side == true or side != last, said + "Strides multiply: all layers before count, not only the last.")
        _require(
            side == true or side != own,
            said + "You take each layer's own stride: it is the product of the strides before it that counts.",
        )
        _require(side == true, said + "Each layer adds (kernel - 1) times the product of the strides before it.")
    return "each layer adds kernel - 1 steps, and a step is the product of the strides before it."


@_check
def conv_parameters(answer) -> str:
    """answer(channels_in, channels_out, kernel, bias) -> number of parameters of that convolution."""
    for channels_in, channels_out, kernel in ((2, 5, 3), (7, 3, 1), (3, 64, 7), (16, 11, 5)):
        weights = channels_in * channels_out * kernel**2
        for bias in (False, True):
            count = _whole(_call(answer, channels_in, channels_out, kernel, bias), "the number of parameters")
            true = weights + channels_out * bias
            said = f"{channels_in} to {channels_out} channels, kernel {kernel}, bias={bias}: {count}, expected {true}. "
            if count == true:
                continue
            _require(bias or count != weights + channels_out, said + "bias=False means that there are no biases.")
            _require(not bias or count != weights, said + "The biases are missing: one for each output channel.")
            _require(
                not bias or count not in (weights + channels_in, weights + 1),
                said + "There is one bias for each output channel.",
            )
            extra = channels_out * bias
            _require(
                count - extra not in (weights // kernel, 2 * weights // kernel, weights // kernel**2),
                said + "A filter has kernel rows and kernel columns: kernel squared.",
            )
            _require(
                count != channels_out * kernel**2 + extra,
                said + "A filter is as deep as its input: it has weights for every input channel.",
            )
            _require(count != channels_in * kernel**2 + extra, said + "Each output channel has a filter of its own.")
            raise _Wrong(said + "Compare with [p.shape for p in nn.Conv2d(...).parameters()].")
    return "kernel² weights for each pair of channels, and one bias for each output channel."


@_check
def multiply_adds(answer) -> str:
    """answer(channels_in, channels_out, kernel, height_out, width_out) -> multiply-adds of a convolution, no bias."""
    for channels_in, channels_out, kernel, height, width in ((2, 5, 3, 4, 6), (3, 64, 7, 112, 100), (16, 7, 1, 8, 5)):
        arguments = (channels_in, channels_out, kernel, height, width)
        count = _whole(_call(answer, *arguments), "the number of multiply-adds")
        weights = channels_in * channels_out * kernel**2
        true = weights * height * width
        if count == true:
            continue
        said = f"for {arguments} you return {count:,}, expected {true:,}. "
        _require(count != weights, said + "That is the number of weights: each is used at every output position.")
        _require(count != 2 * true, said + "Twice too many: a multiplication and its addition count as one.")
        _require(
            count not in (weights * height, weights * width, weights * height**2, weights * width**2),
            said + "The output has height_out times width_out positions, and need not be square.",
        )
        _require(
            count != true + channels_out * height * width and count != true + channels_out,
            said + "This convolution has no bias.",
        )
        _require(
            true not in (count * kernel, count * kernel**2),
            said + "A filter has kernel rows and kernel columns: kernel squared.",
        )
        _require(count * channels_in != true, said + "Each output number is made from all input channels.")
        _require(count * channels_out != true, said + "Every output channel is computed at every position.")
        raise _Wrong(said + "Count what one output number needs, then how many output numbers there are.")
    return "kernel² times the input channels for each output number, times the number of output numbers."


# ---------------------------------------------------------------- lesson 03


@_check
def batch_norm_train(answer) -> str:
    """answer(x, weight, bias, eps): x (N, C, H, W), weight and bias (C,) -> x normalised by the batch's statistics."""
    # Channels and images of different mean and spread, few pixels and a large eps, so that every shortcut shows.
    x = torch.randn(4, 3, 2, 5) * torch.tensor([0.5, 1.0, 3.0]).view(1, 3, 1, 1) + torch.arange(4.0).view(4, 1, 1, 1)
    weight, bias, eps = torch.tensor([0.5, 2.0, 1.5]), torch.tensor([1.0, -1.0, 3.0]), 0.1
    value = _tensor(_call(answer, x, weight, bias, eps), x.shape, "the result").float()
    w, b = weight.view(1, 3, 1, 1), bias.view(1, 3, 1, 1)

    def normal(dims=(0, 2, 3), correction=0, inside=eps, outside=0.0, scale=w, shift=b):
        centred = x - x.mean(dim=dims, keepdim=True)
        spread = (x.var(dim=dims, correction=correction, keepdim=True) + inside).sqrt() + outside
        return centred / spread * scale + shift

    mistakes = [
        (normal(correction=1), "the variance is divided by n - 1. Batch norm divides by n: `correction=0`."),
        (normal(inside=0.0, outside=eps), "eps is added to the standard deviation. Add it to the variance, then root."),
        (normal(inside=0.0), "eps is not used. Add it to the variance before you take the root."),
        (normal(dims=(2, 3)), "each image has statistics of its own. Average over the batch too, not only the pixels."),
        (normal(dims=(1, 2, 3)), "the statistics mix channels within an image. Each channel has its own: keep dim 1."),
        (normal(dims=(0, 1, 2, 3)), "one mean serves all channels. Each channel has its own: keep dim 1."),
        (normal(dims=(0,)), "each pixel position has its own statistics. Average over rows and columns too."),
        (
            normal(scale=1, shift=0),
            "weight and bias are not used. Multiply by weight, then add bias, channel by channel.",
        ),
        (normal(shift=0), "bias is not added."),
        (normal(scale=1), "the result is not multiplied by weight."),
        ((normal(scale=1, shift=0) + b) * w, "bias is added before weight multiplies. Multiply first, then add."),
    ]
    for wrong, words in mistakes:
        _require(not _close(value, wrong), words)
    squared = (normal(scale=1, shift=0) / (x.var(dim=(0, 2, 3), correction=0, keepdim=True) + eps).sqrt()) * w + b
    _require(not _close(value, squared), "x is divided by the variance. Divide by its square root.")
    _require(
        _close(value, normal()), f"the values are wrong: the largest error is {(value - normal()).abs().max():.3g}."
    )
    return "each channel by its own mean and variance over the batch, then weight and bias."


@_check
def basic_block(answer) -> str:
    """answer(channels_in, channels_out, stride) -> nn.Module: the block of He et al. 2015, section 3.3."""
    _require(not isinstance(answer, nn.Module), "pass the class itself: `checks.basic_block(BasicBlock)`.")
    for c_in, c_out, stride in ((4, 4, 1), (4, 6, 1), (6, 6, 2), (4, 6, 2)):
        case = f"With {c_in} channels in, {c_out} out and stride {stride}: "
        x, shape = torch.randn(5, c_in, 8, 8), (5, c_out, 8 // stride, 8 // stride)
        try:
            block = _call(answer, c_in, c_out, stride)
            _require(isinstance(block, nn.Module), f"it must give an nn.Module, got {type(block).__name__}.")
            problem = ""
            try:
                _tensor(_call(block.float().train(), x), shape, "the output")
            except _Wrong as wrong:  # first see whether the layers tell why
                problem = str(wrong)
            first, second, projection = _block_weights(block, c_in, c_out, stride, problem)
            _require(not problem, problem)
            value = _call(block, x)
            outputs = _block_outputs(x, first, second, projection, stride)
            if c_in == c_out:  # which of two equal shapes comes first cannot be seen from outside
                swapped = _block_outputs(x, second, first, projection, stride)
                outputs = [(words, out) for pair in zip(outputs, swapped, strict=True) for words, out in pair]
            found = [words for words, out in outputs if _close(value, out, 1e-3)]
            _require(not found or found[0] == "", "".join(found[:1]))
            _all_used(block, value)
            _require(found, "the output is not ReLU(branch(x) + shortcut(x)). Compare the order of your layers.")
        except _Wrong as wrong:
            raise _Wrong(f"{case}{wrong}") from None
    return "two convolutions, the shortcut added, ReLU last; a projection only where the shape changes."


_REGISTER = (
    "A layer must be an attribute (`self.conv1 = ...`) or be registered in an nn.ModuleList, not in a Python list."
)


def _all_used(module: nn.Module, value: torch.Tensor) -> None:
    """Require that `value`, the module's output, depends on each of its parameters."""
    _require(value.requires_grad, "the output has no gradient. Leave out .detach() and torch.no_grad().")
    names, parameters = zip(*module.named_parameters(), strict=True)
    gradients = torch.autograd.grad(value.sum(), parameters, allow_unused=True)
    unused = [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]
    _require(not unused, f"{' and '.join(unused)}: never used, no gradient arrives there. Is a layer used twice?")


def _block_weights(block: nn.Module, c_in: int, c_out: int, stride: int, problem: str):
    """The weights of the two 3x3 convolutions and of the projection (or None), found by their shapes."""
    convs = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
    threes, ones = ([c for c in convs if c.kernel_size == (k, k)] for k in (3, 1))
    needed = stride != 1 or c_in != c_out
    _require(len(threes) >= 2, f"there must be two 3x3 convolutions, found {len(threes)}. {_REGISTER}")
    _require(len(threes) == 2, f"there must be two 3x3 convolutions, found {len(threes)}.")
    _require(
        not (needed and not ones),
        "x has another shape than the branch's output: the shortcut needs a 1x1 projection."
        + ("" if problem else f" {_REGISTER}"),
    )
    _require(needed or not ones, "the shape does not change: no projection, the shortcut is x itself.")
    _require(len(ones) <= 1, f"one 1x1 convolution is enough, found {len(ones)}.")
    _require(all(c.groups == 1 for c in convs), "a convolution has groups. Leave `groups` at 1.")
    _require(all(c.bias is None for c in convs), "a convolution has a bias. Batch norm has its own: `bias=False`.")
    _require(
        len(norms) == len(convs),
        f"{len(convs)} convolutions but {len(norms)} batch norms. One follows each, the projection's included."
        + ("" if problem or len(norms) > len(convs) else f" {_REGISTER}"),
    )
    _require(all(n.affine for n in norms), "a batch norm has no weight and bias. Leave `affine` at True.")
    if sorted((c.in_channels, c.out_channels) for c in threes) != sorted([(c_in, c_out), (c_out, c_out)]):
        for which, conv, name, must in zip(
            ("first", "second"), threes, ("channels_in", "channels_out"), (c_in, c_out), strict=True
        ):
            for verb, has, needs, why in (
                ("take", conv.in_channels, must, name),
                ("give", conv.out_channels, c_out, "channels_out"),
            ):
                _require(has == needs, f"the {which} 3x3 {verb}s {has} channels, must {verb} {needs} (= {why}).")
    for conv in ones:
        sizes = conv.in_channels, conv.out_channels
        _require(sizes == (c_in, c_out), f"the projection goes from {sizes[0]} to {sizes[1]} channels.")
    if problem:
        strides = [c.stride[0] for c in threes]
        for wrong, words in (
            (any(c.padding in ((0, 0), "valid") for c in threes), "A 3x3 convolution lacks `padding=1`: it shrinks."),
            (stride > 1 and strides.count(stride) == 2, "The stride is on both 3x3 convolutions: one is right."),
            (stride > 1 and strides.count(stride) == 0, "No 3x3 convolution has the stride."),
            (ones and ones[0].stride[0] != stride, "The projection must have the stride of the branch."),
        ):
            _require(not wrong, f"{problem}. {words}")
    if c_in != c_out:
        threes.sort(key=lambda c: c.in_channels != c_in)
    for norm in norms:
        nn.init.ones_(norm.weight)
        nn.init.zeros_(norm.bias)
    first, second = (c.weight.detach() for c in threes)
    return first, second, ones[0].weight.detach() if needed else None


def _block_outputs(x, first, second, projection, stride) -> list[tuple[str, torch.Tensor]]:
    """What the right block gives ("") and what likely mistakes give, each with the words for it."""

    def norm(z):
        return F.batch_norm(z, None, None, training=True)

    def half(z, weight, step=1):
        return norm(F.conv2d(z, weight, stride=step, padding=1))

    def bent(z, weight, step=1):
        return norm(F.conv2d(z, weight, stride=step, padding=1).relu())

    shortcut = x if projection is None else norm(F.conv2d(x, projection, stride=stride))
    middle = half(x, first, stride)
    branch = half(middle.relu(), second)
    late = half(half(x, first).relu(), second, stride)
    order = "the ReLU comes before the batch norm. The order is convolution, batch norm, ReLU."
    return [
        ("", (branch + shortcut).relu()),
        ("the shortcut is not added.", branch.relu()),
        ("the last ReLU comes before the addition. Add first, then apply it.", branch.relu() + shortcut),
        ("the branch ends in a ReLU before the addition. Only one comes after it.", (branch.relu() + shortcut).relu()),
        ("there is no ReLU after the addition.", branch + shortcut),
        ("no ReLU between the two convolutions.", (half(middle, second) + shortcut).relu()),
        ("the stride is on the second 3x3 convolution. It sits on the first.", (late + shortcut).relu()),
        ("x is overwritten before the addition. Give the branch a name of its own.", (branch + middle.relu()).relu()),
        ("the branch is added to itself. Add the shortcut: x, or its projection.", (branch + branch).relu()),
        (order, (half(bent(x, first, stride), second) + shortcut).relu()),
        (order, (bent(bent(x, first, stride), second) + shortcut).relu()),
        (order, (bent(middle.relu(), second) + shortcut).relu()),
    ]


@_check
def repaired_network(answer) -> str:
    """answer(width, classes) -> nn.Module: `Broken` of lesson 03 without its three faults."""
    _require(not isinstance(answer, nn.Module), "pass the class itself: `checks.repaired_network(Repaired)`.")
    width, classes = 6, 5
    net = _call(answer, width, classes)
    _require(isinstance(net, nn.Module), f"it must give an nn.Module, got {type(net).__name__}.")
    x = torch.rand(8, 3, 12, 12)
    value = _tensor(_call(net.float().train(), x), (8, classes), "the output").float()
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    count = sum(p.numel() for p in parameters.values())
    expected = 28 * width + 2 * (9 * width**2 + 2 * width) + (width + 1) * classes
    _require(
        count != expected - 2 * (9 * width**2 + 2 * width),
        "symptom 1 is still there: parameters() does not find the branches. nn.Module looks into its attributes, and "
        "into an nn.ModuleList or nn.Sequential, not into a Python list.",
    )
    _require(count == expected, f"Repaired({width}, {classes}) must have {expected} parameters, got {count}.")
    _require(
        (value < 0).any() or not _close(value.sum(dim=1), torch.ones(8), 1e-3),
        "symptom 3 is still there: the outputs are probabilities. Return logits.",
    )
    _require(
        not _close(value.exp().sum(dim=1), torch.ones(8), 1e-3), "the outputs are log-probabilities. Return logits."
    )
    prep = next((m for m in net.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3), None)
    linear = next((m for m in net.modules() if isinstance(m, nn.Linear)), None)
    _require(
        prep is not None and linear is not None, "keep the layers of Broken: the first nn.Conv2d and the nn.Linear."
    )
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    silent = _tensor(_call(net, x), (8, classes), "the output").float()
    start = prep(x).relu()
    _require(
        (silent - silent[0]).abs().max() > 1e-6,
        "symptom 2 is still there: with silent branches the image does not reach the end. Keep x, then add the branch.",
    )
    words, changed = "with silent branches each block must give x itself", "something besides the three faults changed"
    pooled = start.mean(dim=(2, 3))
    for features, why in (
        (4 * pooled, f"{words}, but x is added twice: x + branch(x)."),
        (prep(x).mean(dim=(2, 3)), f"{changed}: the ReLU after prep is gone."),
        (start.amax(dim=(2, 3)), f"{changed}: the last layer gets each channel's maximum. Broken takes its mean."),
    ):
        _require(not _close(silent, linear(features).detach()), why)
    _require(
        _close(silent, linear(pooled).detach()),
        f"{words}, or {changed}: prep, ReLU, mean over pixels, linear.",
    )
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.ones_(module.weight)
    value = _call(net, x)
    branches = [p for p in parameters.values() if tuple(p.shape) == (width, width, 3, 3)]
    possible = []
    for order in (branches, branches[::-1]):
        z = start
        for weight in order:
            z = z + F.batch_norm(F.conv2d(z, weight, padding=1), None, None, training=True).relu()
        possible.append(linear(z.mean(dim=(2, 3))).detach())
    _require(
        any(_close(value, right, 1e-3) for right in possible),
        "the faults are gone, but something else changed: each of the two branches is conv, BN, ReLU, added once.",
    )
    _all_used(net, value)
    return "all layers are registered, the shortcut carries x, and the outputs are logits."


# ---------------------------------------------------------------- lesson 04


def _numbers(value, what: str) -> torch.Tensor:
    """A list, an array or a tensor of numbers as a float tensor (N,)."""
    try:
        return torch.tensor([float(v) for v in value], dtype=torch.float64)
    except (TypeError, ValueError):
        raise _Wrong(f"{what} must be a list or a one-dimensional tensor of numbers.") from None


@_check
def lr_sweep(answer) -> str:
    """answer(lr_min, lr_max, steps): `steps` rates from lr_min to lr_max, each the same multiple of the one before."""
    for low, high, steps in ((1e-4, 10.0, 6), (1e-3, 0.5, 100), (2.0, 8.0, 2)):
        rates = _numbers(_call(answer, low, high, steps), "the rates")
        call = f"for lr_min={low:g}, lr_max={high:g}, steps={steps}"
        _require(len(rates) == steps, f"{call} there must be {steps} rates, got {len(rates)}.")
        exact = low * (high / low) ** (torch.arange(steps).double() / (steps - 1))
        likely = (
            (exact.log(), "these are the logarithms of the rates. Undo the logarithm (math.exp)."),
            (exact.log10(), "these are the logarithms of the rates. Undo the logarithm (10 ** ...)."),
            (exact.flip(0), "the rates fall. The test starts at lr_min and ends at lr_max."),
        )
        for mistake, words in likely:
            _require(not _close(rates, mistake), words)
        _require(
            steps == 2 or not _close(rates, torch.linspace(low, high, steps)),
            "the rates have equal differences. They must have equal ratios: multiply at each step, do not add.",
        )
        i = torch.arange(steps).double()
        late = "the first rate is already multiplied once. Rate number i is lr_min * factor ** i, and i counts from 0."
        likely = (
            (
                10 ** torch.linspace(low, high, steps).double(),
                "logspace takes powers of ten: give it log10 of the rates.",
            ),
            (low * (high / low) ** ((i + 1) / (steps - 1)), late),
            (low * (high / low) ** ((i + 1) / steps), late),
            (
                low * 10**i,
                f"{call} each rate is 10 times the one before. The factor must follow from lr_max and steps.",
            ),
        )
        right = (rates / exact - 1).abs() < 1e-3
        for mistake, words in likely:
            _require(right.all() or not ((rates / mistake - 1).abs() < 1e-3).all(), words)
        ends = f"the first and the last rate are {rates[0]:.4g} and {rates[-1]:.4g}, expected {low:g} and {high:g}."
        gaps = f" {steps} rates have {steps - 1} gaps." if right[0] and rates[-1] < high else ""
        _require(right[0] and right[-1], f"{call} {ends}{gaps}")
        _require(
            right.all(), f"{call} both ends are right, but the ratio of neighbouring rates is not always the same."
        )
    return "equal ratios, both ends included."


@_check
def smoothed_losses(answer) -> str:
    """answer(losses, beta): s[0] = losses[0], s[i] = beta * losses[i] + (1 - beta) * s[i - 1]."""
    for beta, count in ((0.05, 30), (0.3, 12), (1.0, 5)):
        x = (torch.rand(count) * 3 + 1).double()
        given = x.tolist()
        result = _numbers(_call(answer, given, beta), "the smoothed losses")
        _require(given == x.tolist(), "your function changes the list that it was given. Build a new list.")
        _require(len(result) == count, f"there must be one smoothed loss for each loss: {count}, got {len(result)}.")
        expected, zero = _average(x, beta, x[0]), _average(x, beta, x[0] * beta)
        if _close(result, expected, 1e-5):
            continue
        likely = (
            (_average(x, 1 - beta, x[0]), "beta and 1 - beta are exchanged. A small beta must smooth much."),
            (zero, "the average starts from 0, so its first values are too small. Start with the first loss itself."),
            (
                zero / (1 - (1 - beta) ** torch.arange(1, count + 1)),
                "this has Adam's bias correction. torch-lr-finder has none: its first smoothed loss is the first loss.",
            ),
            (
                torch.cat([x[:1], beta * x[1:] + (1 - beta) * x[:-1]]),
                "you mix each loss with the RAW loss before it. Mix it with the smoothed value before it.",
            ),
        )
        for mistake, words in likely:
            _require(not _close(result, mistake, 1e-5), words)
        wrong = int(((result - expected).abs() > 1e-5).nonzero()[0])
        raise _Wrong(f"with beta={beta:g}, value {wrong} is {result[wrong]:.4f}, expected {expected[wrong]:.4f}.")
    return "the same smoothing as torch-lr-finder's."


def _average(losses: torch.Tensor, beta: float, start: torch.Tensor) -> torch.Tensor:
    values = [start]
    for loss in losses[1:]:
        values.append(beta * loss + (1 - beta) * values[-1])
    return torch.stack(values)


@_check
def one_cycle(answer) -> str:
    """answer(step, total_steps, lr_max): cosine up from lr_max/25 until step 0.3*total_steps - 1, then cosine down."""
    for total, peak in ((10, 1.0), (101, 0.4), (64, 0.05)):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=total, cycle_momentum=False)
        expected = torch.zeros(total, dtype=torch.float64)
        for step in range(total):
            expected[step] = schedule.get_last_lr()[0]
            if step < total - 1:
                optimizer.step()
                schedule.step()
        rates = _numbers([_call(answer, step, total, peak) for step in range(total)], "the rates")
        call = f"with total_steps={total} and lr_max={peak:g}"
        steps, end = torch.arange(total).double(), 0.3 * total - 1
        up = peak + (peak / 25 - peak) * (1 + (steps / end).cos()) / 2
        down = peak / 250_000 + (peak - peak / 250_000) * (1 + ((steps - end) / (total - 1 - end)).cos()) / 2
        _require(
            not _close(rates / peak, torch.where(steps <= end, up, down) / peak),
            "the cosine goes only from 0 to 1, a third of its way. It must go from 0 to pi: math.cos(math.pi * t).",
        )
        for step, meaning in ((0, "lr_max / 25"), (total - 1, "lr_max / 25 / 10,000")):
            words = f"{call} the rate at step {step} is {rates[step]:.4g}, expected {expected[step]:.4g} ({meaning})."
            _require(abs(rates[step] / expected[step] - 1) < 1e-2, words)
        at, top = int(rates.argmax()), int(expected.argmax())
        words = f"{call} the highest rate is at step {at}, expected step {top}."
        _require(at == top, f"{words} The rise ends at 0.3 * total_steps - 1.")
        wrong = ((rates - expected).abs() > 1e-4 * peak).nonzero().flatten().tolist()
        for step in wrong[:1]:
            raise _Wrong(
                f"{call} both ends and the place of the peak are right, but at step {step} the rate is "
                f"{rates[step]:.5f}, expected {expected[step]:.5f}. Is it a cosine from the phase's first rate to its "
                "last, and does the fall start where the rise ends, at 0.3 * total_steps - 1?"
            )
    return "equal to torch's OneCycleLR at every step."


# ---------------------------------------------------------------- lesson 05


def _with_old_gradient(model, x, y) -> nn.Module:
    """A copy of `model` that already holds a gradient, that of the batch (x, y)."""
    model = copy.deepcopy(model)
    F.cross_entropy(model(x), y).backward()
    return model


def _steps(model, batches, clip, zero="before", softmax=False, clipping="norm") -> tuple[list[float], torch.Tensor]:
    """A training step for each batch but the first, which leaves only an old gradient; all on a copy of `model`.

    The steps are right ones or have a known fault. Returns (losses, all weights in a row).
    """
    model, losses = _with_old_gradient(model, *batches[0]), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for x, y in batches[1:]:
        if zero == "before":
            optimizer.zero_grad()
        logits = model(x)
        loss = F.cross_entropy(logits.softmax(1) if softmax else logits, y)
        loss.backward()
        if clipping == "norm":
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        elif clipping == "value":
            nn.utils.clip_grad_value_(model.parameters(), clip)
        optimizer.step()
        if zero == "after":
            optimizer.zero_grad()
        losses.append(loss.item())
    return losses, nn.utils.parameters_to_vector(model.parameters()).detach()


@_check
def training_step(answer) -> str:
    """answer(model, optimizer, x, y, clip): changes the weights by one step and returns the loss as a float."""
    start = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
    batches = [(3 * torch.randn(6, 3, 2, 2), torch.randint(4, (6,))) for _ in range(4)]

    def run(clip):
        """Losses, weights after each step, the model itself, and its mode at each forward."""
        model, modes, path = _with_old_gradient(start, *batches[0]), [], []
        model[1].register_forward_hook(lambda layer, *_: modes.append(layer.training))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        losses = []
        for x, y in batches[1:]:
            losses.append(_call(answer, model, optimizer, x, y, clip))
            path.append(nn.utils.parameters_to_vector(model.parameters()).detach())
        return losses, path, model, modes

    clip = 0.3
    losses, path, model, modes = run(clip)
    weights = path[-1]
    norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    _require(not isinstance(losses[0], torch.Tensor), "return the loss as a number, not as a tensor: `loss.item()`.")
    _require(isinstance(losses[0], float), f"return the loss as a float, got {type(losses[0]).__name__}.")

    def same(**fault) -> bool:
        return _close(weights, _steps(start, batches, clip, **fault)[1], 1e-5)

    before = nn.utils.parameters_to_vector(start.parameters()).detach()
    _require(
        not _close(weights, before, 1e-7),
        "the weights did not change. Either step() is missing, or zero_grad() stands between backward() and step() "
        "and wipes the gradient out.",
    )
    _require(not same(softmax=True), "softmax before cross_entropy: cross_entropy takes the logits as they are.")
    _require(not same(zero=None), "gradients of earlier batches are still added: zero_grad() is missing.")
    _require(
        not same(zero="after"),
        "a gradient left from before the first step was still added: zero_grad() must come before backward(), not only "
        "after step().",
    )
    if same(clipping=None):
        _require(
            not norms or torch.stack(norms).norm() > 1.01 * clip,
            "the gradient is clipped after step(), when the step with the long gradient is already taken.",
        )
        raise _Wrong(
            "the gradient was not clipped to `clip`, the argument: clip it after backward() has made it and before "
            "step() uses it."
        )
    _require(not same(clipping="value"), "each number was clipped by itself. Clip the norm: clip_grad_norm_.")
    length = (before - path[0]).norm() / 0.1  # the first step of SGD goes lr times the gradient
    _require(
        length < 1.01 * clip,
        f"the first step used a gradient of norm {length:.2f}, with clip={clip:g}. The clipping must bring the norm of "
        "all parameters' gradients together down to `clip`.",
    )
    _require(all(modes), "the network was in eval mode during training: model.eval() has no place in a training step.")
    _require(
        same(),
        "the weights after three steps are not the expected ones. Is there exactly one forward, backward and step(), "
        "and does the clipping take all parameters?",
    )
    _require(
        _close(torch.tensor(losses), torch.tensor(_steps(start, batches, clip)[0])),
        "the weights are right, but the loss is not that of this batch before the step.",
    )
    _require(
        _close(run(100.0)[1][-1], _steps(start, batches, 100.0)[1], 1e-5),
        "with clip=100, more than the norm of the gradient, the clipping must leave the gradient as it is.",
    )
    return "old gradients out, loss, backward, clip, step: in this order."


@_check
def label_smoothing_loss(answer) -> str:
    """answer(logits, y, smoothing): logits (B, K), y (B,) -> mean cross-entropy with smoothed labels, a scalar."""
    logits, y, smoothing = 2 * torch.randn(6, 5), torch.tensor([4, 0, 2, 1, 3, 2]), 0.3

    def parts(y, dim=1):
        """For each image: minus the log-probability of the right class, and of the mean class."""
        log_p = logits.double().log_softmax(dim)
        return -log_p[torch.arange(6), y], -log_p.mean(1)

    hit, uniform = parts(y)
    each = (1 - smoothing) * hit + smoothing * uniform
    result = _call(answer, logits.clone().requires_grad_(), y, smoothing)
    if isinstance(result, torch.Tensor) and result.shape == (6,):
        raise _Wrong("that is one loss for each image. Return their mean.")
    cut = isinstance(result, torch.Tensor) and not result.requires_grad
    result = _tensor(result, (), "the loss")
    others = (1 - smoothing) * hit + smoothing * (uniform * 5 - hit) / 4
    _require(not _close(result, hit.mean()), "that is the plain cross-entropy: the smoothing has no effect.")
    _require(not _close(result, each.sum()), "that is the sum over the batch. Return the mean.")
    _require(not _close(result, -each.mean()), "the sign is wrong: cross-entropy is minus the mean log-probability.")
    _require(
        not _close(result, others.mean()),
        "smoothing was shared among the wrong classes only. It is shared among all K, the right one included.",
    )
    _require(
        not _close(result, (hit + smoothing * uniform).mean()),
        "the right class kept its whole weight. It gives away `smoothing` first: (1 - smoothing) is left.",
    )
    hit_0, uniform_0 = parts(y, dim=0)
    likely = (
        (
            each / 5,
            "that is the right loss divided by K. Sum over the classes first, then take the mean over the images.",
        ),
        ((1 - smoothing) * hit + smoothing * 5 * uniform, "each class gets smoothing / K, not the whole `smoothing`."),
        (
            (1 - smoothing) * hit_0 + smoothing * uniform_0,
            "log_softmax ran over the images (dim=0): classes are dim=1.",
        ),
        (0.9 * hit + 0.1 * uniform, "that is the loss with smoothing 0.1. Use the argument `smoothing`."),
    )
    for mistake, words in likely:
        _require(not _close(result, mistake.mean()), words)
    _require(_close(result, each.mean()), f"the loss is {result:.4f}, expected {each.mean():.4f}.")
    _require(
        not cut,
        "the number is right, but it has no gradient: detach(), item(), no_grad() or torch.tensor(...) cut the loss "
        "from the graph, and backward() would fail.",
    )
    few, problem = torch.tensor([0, 3, 2, 1, 3, 2]), "in a batch without an image of the last class"
    try:
        value = _tensor(_call(answer, logits, few, smoothing), (), "the loss")
    except _Wrong as wrong:
        raise _Wrong(f"{problem}: {wrong} If you use F.one_hot, give it K.") from None
    hit_few, uniform_few = parts(few)
    expected = ((1 - smoothing) * hit_few + smoothing * uniform_few).mean()
    _require(_close(value, expected), f"{problem} the loss is {value:.4f}, expected {expected:.4f}.")
    plain = _tensor(_call(answer, logits, y, 0.0), (), "the loss")
    _require(_close(plain, hit.mean()), "with smoothing=0 it must be the plain cross-entropy.")
    far = _tensor(_call(answer, 300 * logits, y, smoothing), (), "the loss")
    _require(far.isfinite(), "with large logits the loss is not finite. Use log_softmax, not the log of a softmax.")
    return "the smoothed target against the log-probabilities, averaged over the batch."


@_check
def weight_decay_groups(answer) -> str:
    """answer(model, weight_decay) -> two parameter groups: two or more dimensions with decay, the others without."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4, 2)
    )
    names = {id(p): name for name, p in model.named_parameters()}
    groups = _call(answer, model, 0.03)
    good = isinstance(groups, list | tuple) and all(isinstance(g, dict) and "params" in g for g in groups)
    _require(good, 'return a list of dicts: [{"params": [...], "weight_decay": ...}, ...].')
    _require(len(groups) == 2, f"return two groups, got {len(groups)}.")
    got, kept = [], []
    for group in groups:
        _require(
            "weight_decay" in group, "a group does not say its weight_decay: the optimiser's own would apply to it."
        )
        members = list(group["params"])
        kept.append(group if isinstance(group["params"], set) else {**group, "params": members})
        _require(
            all(id(p) in names for p in members),
            "a group holds something that is no parameter of the model. model.parameters() gives the parameters, "
            "named_parameters() pairs of a name and one.",
        )
        got += [(names[id(p)], p.ndim, group["weight_decay"]) for p in members]
    listed = [name for name, _, _ in got]
    _require(len(listed) == len(set(listed)), "some parameters are in both groups. Each must be in one.")
    missing = ", ".join(set(names.values()) - set(listed))
    _require(not missing, f"every parameter must be in a group, or it is never trained. Missing: {missing}.")
    wrong = [name for name, ndim, decay in got if ndim == 1 and decay != 0]
    _require(not wrong, f"one-dimensional parameters (biases, batch norm) must have no decay, but these do: {wrong}.")
    for name, ndim, decay in got:
        words = f"weights of convolutions and linear layers must have the decay 0.03 as passed, got {decay} for {name}."
        _require(ndim == 1 or decay == 0.03, words)
    try:
        torch.optim.SGD(kept, lr=0.1)
    except (TypeError, ValueError) as error:
        raise _Wrong(f"torch.optim.SGD refuses these groups ({error}). Let params be a list.") from None
    return "every parameter once, and only the weights of convolutions and linear layers are pulled towards 0."


# ---------------------------------------------------------------- lesson 06


@_check
def confusion_matrix(answer) -> str:
    """answer(true, predicted, classes) -> (classes, classes) counts: row = true class, column = predicted class."""
    # The last class never occurs, and mistakes lean to one side, so that the matrix is not symmetric.
    true = torch.randint(0, 4, (300,))
    predicted = torch.where(torch.rand(300) < 0.6, true, true * torch.randint(0, 2, (300,)))
    expected = torch.zeros(5, 5, dtype=torch.float64)
    for t, p in zip(true.tolist(), predicted.tolist(), strict=True):
        expected[t, p] += 1
    matrix = _tensor(_call(answer, true, predicted, 5), (5, 5), "the matrix (for 5 classes, one of which never occurs)")
    _require(
        not torch.equal(matrix, expected.T),
        "rows and columns are swapped: the row is the true class, the column the predicted one.",
    )
    shares = [expected / total.clamp(min=1) for total in (expected.sum(), expected.sum(1, True), expected.sum(0, True))]
    _require(
        not any(_close(matrix.nan_to_num(), share) for share in shares),
        "these are shares. Return counts: whole numbers whose sum is the number of images.",
    )
    _require(
        not torch.equal(matrix, expected.clamp(max=1)),
        "each pair is counted once, however often it occurs: `matrix[true, predicted] += 1` writes a cell only once.",
    )
    _require(
        not torch.equal(matrix, expected - expected.diag().diag()), "the hits are missing: they are on the diagonal."
    )
    for numbers in (true + predicted, true * predicted, true * 4 + predicted):
        _require(
            not torch.equal(matrix, torch.bincount(numbers, minlength=25).double().view(5, 5)),
            "two different pairs share a number. With `row * classes + column` each has its own.",
        )
    _require(
        matrix.sum() == 300, f"the entries sum to {matrix.sum().item():g}, but there are 300 images: each counts once."
    )
    _require(torch.equal(matrix, expected), "some entries are wrong, though each image is counted once.")
    return "one count an image, true classes in rows, predicted classes in columns."


def _gaps(confidence, hits, bin_of):
    """Mean confidence minus share of hits, and number of images, of each bin that is not empty."""
    groups = [bin_of == b for b in bin_of.unique()]
    gap = torch.stack([confidence[g].mean() - hits[g].mean() for g in groups])
    return gap, torch.stack([g.sum() for g in groups]).double()


def _one_number(value) -> float:
    value = value.item() if hasattr(value, "item") and torch.as_tensor(value).numel() == 1 else value
    _require(isinstance(value, int | float), f"return one number, got {type(value).__name__}.")
    _require(value == value, "the result is nan: a bin without images has no mean (0/0). Leave it out.")
    return value


@_check
def calibration_error(answer) -> str:
    """answer(confidence, correct, bins) -> expected calibration error; the last bin includes 1.0."""
    # In tenths: three bins are empty, the others filled unevenly, with gaps of both signs. No value is on an inner
    # edge here: those come after.
    tenth = torch.multinomial(torch.tensor([0, 0, 0, 1.0, 3, 2, 6, 4, 9, 20]), 400, replacement=True)
    confidence = (tenth + 0.1 + 0.8 * torch.rand(400)) / 10
    confidence[:60] = 1.0
    chance = torch.tensor([0.5, 0.5, 0.5, 0.9, 0.1, 0.9, 0.2, 0.95, 0.5, 1.0])[tenth]
    chance[:60] = 0.6
    correct = torch.rand(400) < chance
    c, h = confidence.double(), correct.double()
    for bins in (10, 5):
        value = _one_number(_call(answer, confidence, correct, bins))
        own = (c * bins).long()  # 1.0 gets a bin of its own
        bin_of = own.clamp(max=bins - 1)
        gap, size = _gaps(c, h, bin_of)
        sums = (gap.abs() * size).sum()
        expected = sums / 400
        if abs(value - expected) < 1e-4:
            continue
        part_gap, part_size = _gaps(c[c < 1], h[c < 1], bin_of[c < 1])
        part = (part_gap.abs() * part_size).sum()
        own_gap, own_size = _gaps(c, h, own)
        middle, _ = _gaps((bin_of + 0.5) / bins, h, bin_of)
        lost = "images of confidence 1.0 are lost: the last bin includes 1.0."
        equal = "all bins weigh the same: weight each by its share of images."
        cancel = "gaps of both signs cancel: take each bin's `abs`."
        for fault, words in (
            (part / 400, lost),
            (part / part_size.sum(), lost),
            ((own_gap.abs() * own_size).sum() / 400, "confidence 1.0 has a bin of its own: put it into the last bin."),
            (gap.abs().mean(), equal),
            (gap.abs().sum() / bins, equal),
            (gap.abs().sum(), equal),
            (sums, "each gap is weighted by a number of images. Divide by N: the weights are shares."),
            (
                (middle.abs() * size).sum() / 400,
                "the middle of a bin stands for its images. Take their mean confidence.",
            ),
            ((gap * size).sum() / 400, cancel),
            (-(gap * size).sum() / 400, cancel),
            (gap.abs().max(), "that is the largest gap: take the weighted mean of all."),
            (100 * expected, "that is in per cent: return it on the scale 0 to 1."),
            ((gap.square() * size).sum() / 400, "the gaps are squared: take their absolute value."),
        ):
            _require(abs(value - fault) > 1e-4, words)
        raise _Wrong(f"with {bins} bins the result is {value:.4f}, expected {expected:.4f}.")
    # Quarters are exact in binary, so 0.25, 0.5 and 0.75 are on an edge for every way to compute edges.
    confidence = torch.tensor([0.25] * 4 + [0.375] * 5 + [0.5] * 6 + [0.75] * 3 + [0.875] * 2)
    correct = torch.tensor([1, 1, 1, 0] + [0] * 5 + [1] * 5 + [0] + [1, 0, 0] + [1, 1]).bool()
    value = _one_number(_call(answer, confidence, correct, 4))
    c, h = confidence.double(), correct.double()
    above, below = (c * 4).long(), (c * 4).ceil().long() - 1  # the bin that an edge opens, and the one that it closes
    on_edge = above != below
    twice = [torch.cat(pair) for pair in ((c, c[on_edge]), (h, h[on_edge]), (above, below[on_edge]))]
    right, right_too, double = (
        ((gap.abs() * size).sum() / 20).item() for gap, size in (_gaps(c, h, above), _gaps(c, h, below), _gaps(*twice))
    )
    _require(
        abs(value - double) > 1e-4,
        "a confidence on the edge of two bins, such as 0.5 of 4 bins, is counted twice: use `>=` on one side, `<` on "
        "the other, and treat only 1.0 on its own.",
    )
    _require(
        min(abs(value - right), abs(value - right_too)) < 1e-4,
        f"a confidence on the edge of two bins must count in exactly one of them: got {value:.4f}, "
        f"expected {right:.4f} (or {right_too:.4f}, if an edge belongs to the bin below).",
    )
    return "the gap of each bin, weighted by its images, with 1.0 in the last bin."


@_check
def confident_mistakes(answer) -> str:
    """answer(logits, y, count) -> positions of the (up to `count`) most confident mistakes, most confident first."""
    # Each image's logits are shifted by a number of their own: probabilities do not notice, raw logits do.
    logits = 2 * torch.randn(80, 5) + 3 * torch.randn(80, 1)
    said = logits.argmax(1)
    y = torch.where(torch.rand(80) < 0.6, said, torch.randint(0, 5, (80,)))
    confidence, true_class = logits.softmax(1).amax(1), logits.softmax(1)[range(80), y]
    over_images, said_there = logits.softmax(0).max(1)
    wrong, hit, wrong_there = (m.nonzero().flatten() for m in (said != y, said == y, said_there != y))

    def ranked(score, among=wrong):
        return among[score[among].argsort(descending=True)].tolist()

    expected = ranked(confidence)
    of_true = "sorted by the probability of the true class. Take that of the predicted class."
    upwards = "the least confident mistake comes first. Sort the other way round."
    dim = "the softmax runs over the images. Each image's probabilities must sum to 1: take `dim=1`."
    classes = "these are classes, not images. Return the positions of the images."
    for count in (7, 80):
        found = _positions(answer, logits, y, count)
        if found == expected[:count]:
            continue
        for fault, words in (
            (
                confidence[wrong].argsort(descending=True).tolist(),
                "these positions count among the mistakes only. Return positions among all images.",
            ),
            (ranked(confidence, torch.arange(80)), "there are hits among them. Keep only the mistakes."),
            (ranked(confidence, hit), "these are the hits. Keep the images whose predicted class is not the true one."),
            (said[expected].tolist(), classes),
            (y[expected].tolist(), classes),
            (expected[::-1], upwards),
            (expected[:count][::-1], upwards),
            (ranked(confidence, wrong[:count]), "cut to `count` before sorting. Sort all mistakes, then cut."),
            (ranked(over_images, wrong_there), dim),
            (ranked(over_images), dim),
            (ranked(true_class), of_true),
            (ranked(-true_class), of_true),
            (ranked(logits.amax(1)), "sorted by the logit. Confidence is a probability: apply the softmax first."),
            (wrong.tolist(), "these are mistakes, in the order of the images. Sort them by confidence."),
        ):
            _require(found != fault[:count], words)
        hits = [i for i in found if i not in expected]
        _require(not hits, f"image {hits[:1]} is not a mistake. If fewer than `count` exist, return fewer.")
        number = min(count, len(expected))
        _require(len(found) == number, f"for count={count} there must be {number} positions, got {len(found)}.")
        raise _Wrong(f"for count={count}: got {found[:7]}, expected {expected[:number][:7]}.")
    return "mistakes only, most confident first, as positions among all images."


def _positions(answer, logits, y, count) -> list:
    """What `answer` returns (a tensor, an array, a list or a tuple) as a list of whole numbers, or words."""
    try:
        result = _call(answer, logits, y, count)
    except _Wrong as wrong:
        if "selected index k out of range" not in str(wrong):
            raise
        raise _Wrong(f"for count={count} there are fewer mistakes than that: `topk` must not ask for more.") from None
    try:
        result = torch.as_tensor(result).detach()
    except (TypeError, ValueError, RuntimeError):
        raise _Wrong(f"return the positions as a tensor or a list, got {type(result).__name__}.") from None
    _require(result.dtype != torch.bool, "return positions (whole numbers), not a mask of True and False.")
    _require(
        not result.is_floating_point() or torch.equal(result, result.round()),
        "these are no whole numbers. Return the positions of the images, not their confidences.",
    )
    _require(
        result.ndim == 1,
        f"return the positions in one row; your shape is {tuple(result.shape)}. `nonzero()` makes a column of them: "
        "apply `.flatten()` to it.",
    )
    return result.tolist()
