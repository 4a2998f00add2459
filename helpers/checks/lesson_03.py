"""Checks of the exercises of lesson 03."""

import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks.frame import Wrong, call, check, close, require, tensor


@check
def batch_norm_train(answer) -> str:
    """answer(x, weight, bias, eps): x (N, C, H, W), weight and bias (C,) -> x normalised by the batch's statistics."""
    # Channels and images of different mean and spread, few pixels and a large eps, so that every shortcut shows.
    x = torch.randn(4, 3, 2, 5) * torch.tensor([0.5, 1.0, 3.0]).view(1, 3, 1, 1) + torch.arange(4.0).view(4, 1, 1, 1)
    weight, bias, eps = torch.tensor([0.5, 2.0, 1.5]), torch.tensor([1.0, -1.0, 3.0]), 0.1
    value = tensor(call(answer, x, weight, bias, eps), x.shape, "the result").float()
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
        require(not close(value, wrong), words)
    squared = (normal(scale=1, shift=0) / (x.var(dim=(0, 2, 3), correction=0, keepdim=True) + eps).sqrt()) * w + b
    require(not close(value, squared), "x is divided by the variance. Divide by its square root.")
    require(close(value, normal()), f"the values are wrong: the largest error is {(value - normal()).abs().max():.3g}.")
    return "each channel by its own mean and variance over the batch, then weight and bias."


@check
def basic_block(answer) -> str:
    """answer(channels_in, channels_out, stride) -> nn.Module: the block of He et al. 2015, section 3.3."""
    require(not isinstance(answer, nn.Module), "pass the class itself: `checks.basic_block(BasicBlock)`.")
    for c_in, c_out, stride in ((4, 4, 1), (4, 6, 1), (6, 6, 2), (4, 6, 2)):
        case = f"With {c_in} channels in, {c_out} out and stride {stride}: "
        x, shape = torch.randn(5, c_in, 8, 8), (5, c_out, 8 // stride, 8 // stride)
        try:
            block = call(answer, c_in, c_out, stride)
            require(isinstance(block, nn.Module), f"it must give an nn.Module, got {type(block).__name__}.")
            problem = ""
            try:
                tensor(call(block.float().train(), x), shape, "the output")
            except Wrong as wrong:  # first see whether the layers tell why
                problem = str(wrong)
            first, second, projection = _block_weights(block, c_in, c_out, stride, problem)
            require(not problem, problem)
            value = call(block, x)
            outputs = _block_outputs(x, first, second, projection, stride)
            if c_in == c_out:  # which of two equal shapes comes first cannot be seen from outside
                swapped = _block_outputs(x, second, first, projection, stride)
                outputs = [(words, out) for pair in zip(outputs, swapped, strict=True) for words, out in pair]
            found = [words for words, out in outputs if close(value, out, 1e-3)]
            require(not found or found[0] == "", "".join(found[:1]))
            _all_used(block, value)
            require(found, "the output is not ReLU(branch(x) + shortcut(x)). Compare the order of your layers.")
        except Wrong as wrong:
            raise Wrong(f"{case}{wrong}") from None
    return "two convolutions, the shortcut added, ReLU last; a projection only where the shape changes."


_REGISTER = (
    "A layer must be an attribute (`self.conv1 = ...`) or be registered in an nn.ModuleList, not in a Python list."
)


def _all_used(module: nn.Module, value: torch.Tensor) -> None:
    """Require that `value`, the module's output, depends on each of its parameters."""
    require(value.requires_grad, "the output has no gradient. Leave out .detach() and torch.no_grad().")
    names, parameters = zip(*module.named_parameters(), strict=True)
    gradients = torch.autograd.grad(value.sum(), parameters, allow_unused=True)
    unused = [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]
    require(not unused, f"{' and '.join(unused)}: never used, no gradient arrives there. Is a layer used twice?")


def _block_weights(block: nn.Module, c_in: int, c_out: int, stride: int, problem: str):
    """The weights of the two 3x3 convolutions and of the projection (or None), found by their shapes."""
    convs = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
    threes, ones = ([c for c in convs if c.kernel_size == (k, k)] for k in (3, 1))
    needed = stride != 1 or c_in != c_out
    require(len(threes) >= 2, f"there must be two 3x3 convolutions, found {len(threes)}. {_REGISTER}")
    require(len(threes) == 2, f"there must be two 3x3 convolutions, found {len(threes)}.")
    require(
        not (needed and not ones),
        "x has another shape than the branch's output: the shortcut needs a 1x1 projection."
        + ("" if problem else f" {_REGISTER}"),
    )
    require(needed or not ones, "the shape does not change: no projection, the shortcut is x itself.")
    require(len(ones) <= 1, f"one 1x1 convolution is enough, found {len(ones)}.")
    require(all(c.groups == 1 for c in convs), "a convolution has groups. Leave `groups` at 1.")
    require(all(c.bias is None for c in convs), "a convolution has a bias. Batch norm has its own: `bias=False`.")
    require(
        len(norms) == len(convs),
        f"{len(convs)} convolutions but {len(norms)} batch norms. One follows each, the projection's included."
        + ("" if problem or len(norms) > len(convs) else f" {_REGISTER}"),
    )
    require(all(n.affine for n in norms), "a batch norm has no weight and bias. Leave `affine` at True.")
    if sorted((c.in_channels, c.out_channels) for c in threes) != sorted([(c_in, c_out), (c_out, c_out)]):
        for which, conv, name, must in zip(
            ("first", "second"), threes, ("channels_in", "channels_out"), (c_in, c_out), strict=True
        ):
            for verb, has, needs, why in (
                ("take", conv.in_channels, must, name),
                ("give", conv.out_channels, c_out, "channels_out"),
            ):
                require(has == needs, f"the {which} 3x3 {verb}s {has} channels, must {verb} {needs} (= {why}).")
    for conv in ones:
        sizes = conv.in_channels, conv.out_channels
        require(sizes == (c_in, c_out), f"the projection goes from {sizes[0]} to {sizes[1]} channels.")
    if problem:
        strides = [c.stride[0] for c in threes]
        for wrong, words in (
            (any(c.padding in ((0, 0), "valid") for c in threes), "A 3x3 convolution lacks `padding=1`: it shrinks."),
            (stride > 1 and strides.count(stride) == 2, "The stride is on both 3x3 convolutions: one is right."),
            (stride > 1 and strides.count(stride) == 0, "No 3x3 convolution has the stride."),
            (ones and ones[0].stride[0] != stride, "The projection must have the stride of the branch."),
        ):
            require(not wrong, f"{problem}. {words}")
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


@check
def repaired_network(answer) -> str:
    """answer(width, classes) -> nn.Module: `Broken` of lesson 03 without its three faults."""
    require(not isinstance(answer, nn.Module), "pass the class itself: `checks.repaired_network(Repaired)`.")
    width, classes = 6, 5
    net = call(answer, width, classes)
    require(isinstance(net, nn.Module), f"it must give an nn.Module, got {type(net).__name__}.")
    x = torch.rand(8, 3, 12, 12)
    value = tensor(call(net.float().train(), x), (8, classes), "the output").float()
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    count = sum(p.numel() for p in parameters.values())
    expected = 28 * width + 2 * (9 * width**2 + 2 * width) + (width + 1) * classes
    require(
        count != expected - 2 * (9 * width**2 + 2 * width),
        "symptom 1 is still there: parameters() does not find the branches. nn.Module looks into its attributes, and "
        "into an nn.ModuleList or nn.Sequential, not into a Python list.",
    )
    require(count == expected, f"Repaired({width}, {classes}) must have {expected} parameters, got {count}.")
    require(
        (value < 0).any() or not close(value.sum(dim=1), torch.ones(8), 1e-3),
        "symptom 3 is still there: the outputs are probabilities. Return logits.",
    )
    require(not close(value.exp().sum(dim=1), torch.ones(8), 1e-3), "the outputs are log-probabilities. Return logits.")
    prep = next((m for m in net.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3), None)
    linear = next((m for m in net.modules() if isinstance(m, nn.Linear)), None)
    require(
        prep is not None and linear is not None, "keep the layers of Broken: the first nn.Conv2d and the nn.Linear."
    )
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    silent = tensor(call(net, x), (8, classes), "the output").float()
    start = prep(x).relu()
    require(
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
        require(not close(silent, linear(features).detach()), why)
    require(
        close(silent, linear(pooled).detach()),
        f"{words}, or {changed}: prep, ReLU, mean over pixels, linear.",
    )
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.ones_(module.weight)
    value = call(net, x)
    branches = [p for p in parameters.values() if tuple(p.shape) == (width, width, 3, 3)]
    possible = []
    for order in (branches, branches[::-1]):
        z = start
        for weight in order:
            z = z + F.batch_norm(F.conv2d(z, weight, padding=1), None, None, training=True).relu()
        possible.append(linear(z.mean(dim=(2, 3))).detach())
    require(
        any(close(value, right, 1e-3) for right in possible),
        "the faults are gone, but something else changed: each of the two branches is conv, BN, ReLU, added once.",
    )
    _all_used(net, value)
    return "all layers are registered, the shortcut carries x, and the outputs are logits."
