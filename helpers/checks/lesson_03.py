"""Checks of the exercises of lesson 03."""

import contextlib
import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks.frame import Unsolved, Wrong, call, check, close, require, tensor


@check
def batch_norm_train(answer) -> str:
    """answer(x, weight, bias, eps): x (B, C, H, W), weight and bias (C,) -> x normalised by the batch's statistics."""
    eps = 0.1
    for shape in ((4, 3, 2, 5), (2, 6, 3, 3)):
        # Channels and images of different mean and spread, few pixels and a large eps, so that every shortcut shows.
        spread = torch.linspace(0.5, 3, shape[1]).view(1, -1, 1, 1)
        x = torch.randn(shape) * spread + torch.arange(float(shape[0])).view(-1, 1, 1, 1) + spread
        weight, bias = torch.rand(shape[1]) + 0.5, torch.randn(shape[1]) * 2
        given = {"x": x.clone(), "weight": weight.clone(), "bias": bias.clone()}
        value = tensor(call(lambda: answer(*given.values(), eps)), x.shape, "the result").float()  # noqa: B023
        right = F.batch_norm(x, None, None, weight, bias, True, eps=eps)
        if not close(value, right):
            words = _batch_norm_faults(value, x, weight.view(1, -1, 1, 1), bias.view(1, -1, 1, 1), eps)
            error = (
                f"the values are wrong: the largest error is {(value - right).abs().max():.3g}. If you bring x into "
            )
            raise Wrong(words or f"{error}rows, move the channels to the front first: `x.transpose(0, 1)`.")
        for (name, now), before in zip(given.items(), (x, weight, bias), strict=True):
            require(torch.equal(now, before), f"{name} itself was changed, as by `x -= ...`. Write `x = x - ...`.")
        try:
            value = call(answer, x.requires_grad_(), weight, bias, eps)
        except Wrong:  # numpy knows no gradients, so none are asked for
            continue
        if value.requires_grad:  # cubes: the squares of normalised numbers have a constant sum
            _same_gradient(value**3, F.batch_norm(x, None, None, weight, bias, True, eps=eps) ** 3, x)
    return "each channel by its own mean and variance over the batch, then weight and bias."


def _batch_norm_faults(value, x, w, b, eps) -> str:
    """Which mistakes give `value`, in words; nothing if none of these does."""
    places = (  # what may be done in each place, the right thing first
        {
            (0, 2, 3): "",
            (2, 3): "each image has statistics of its own. Average over the batch too, not only the pixels.",
            (1, 2, 3): "the statistics mix channels within an image. Each channel has its own: keep dim 1.",
            (0, 1, 2, 3): "one mean serves all channels. Each channel has its own: keep dim 1.",
            (0,): "each pixel position has its own statistics. Average over rows and columns too.",
            (0, 2): "each column has its own statistics. Average over dim 3 too.",
            (0, 3): "each row has its own statistics. Average over dim 2 too.",
            (1,): "the statistics run over the channels. They run over images, rows and columns: dims 0, 2 and 3.",
        },
        {True: "", False: "the mean is not subtracted."},
        {0: "", 1: "the variance is divided by n - 1. Batch norm divides by n: `correction=0`."},
        {
            lambda v: (v + eps).sqrt(): "",
            lambda v: v.sqrt() + eps: "eps is added to the standard deviation. Add it to the variance, then root.",
            lambda v: v.sqrt(): "eps is not used as passed. Add it to the variance before you take the root.",
            lambda v: v + eps: "x is divided by the variance. Divide by its square root.",
            lambda v: 1: "x is not divided by the root of the variance.",
            lambda v: math.sqrt(1 + eps): "the variance is taken as 1, as in eval mode. Take that of the batch.",
        },
        {
            lambda z: z * w + b: "",
            lambda z: z: "weight and bias are not used. Multiply by weight, then add bias, channel by channel.",
            lambda z: z * w: "bias is not added.",
            lambda z: z + b: "the result is not multiplied by weight.",
            lambda z: (z + b) * w: "bias is added before weight multiplies. Multiply first, then add.",
            lambda z: z * w - b: "bias is subtracted. Add it.",
            lambda z: z * b + w: "weight and bias are exchanged. Multiply by weight, add bias.",
        },
    )
    ways = [
        ([words[done] for words, done in zip(places, way, strict=True) if words[done]], way)
        for way in itertools.product(*places)
    ]
    for words, (dims, centred, correction, root, affine) in sorted(ways, key=lambda way: len(way[0])):
        variance = x.var(dim=dims, correction=correction, keepdim=True)
        z = (x - x.mean(dim=dims, keepdim=True) * centred) / root(variance)
        if close(value, affine(z)):
            return " And: ".join(words)
    return ""


@check
def shortcut(answer) -> str:
    """answer(channels_in, channels_out, stride) -> nn.Module: x itself, or a projection where the shape changes."""
    for c_in, c_out, stride in ((4, 6, 2), (4, 6, 1), (6, 6, 2), (4, 4, 1), (6, 4, 1), (4, 4, 3)):
        with _case(c_in, c_out, stride) as (x, shape):
            changes = stride != 1 or c_in != c_out
            try:
                path = call(answer, c_in, c_out, stride)
            except Unsolved:  # after a case that was solved: an `if` without an `else`
                require((c_in, c_out, stride) == (4, 6, 2), "the function returns None. Return nn.Identity() here.")
                raise
            require(callable(path), f"it must give an nn.Module, got {type(path).__name__}.")
            require(changes or not list(_parameters(path)), "the shape stays: no projection, return nn.Identity().")
            if not changes:
                require(close(tensor(call(path, x), shape, "the output"), x), "the shape stays: return x unchanged.")
                continue
            require(isinstance(path, nn.Module), f"it must give an nn.Module, got {type(path).__name__}.")
            path.float().train()
            weights = list(_parameters(path))
            problem = _problem(path, x, shape)
            needs = "the shape changes: x needs a projection, a 1x1 convolution and a batch norm."
            require(weights, needs if problem else f"{needs} {_REGISTER}")
            _weights(path, problem, projections=((c_out, c_in),), threes=0)
            require(not problem, problem)
            x.requires_grad_()
            value = call(path, x)
            (weight,) = (p.detach() for p in weights if p.ndim == 4)
            right = _norm(F.conv2d(x, weight, stride=stride))
            pooled = _norm(F.conv2d(F.max_pool2d(x, stride), weight)), _norm(F.conv2d(F.avg_pool2d(x, stride), weight))
            for wrong, words in (
                (right.relu(), "a ReLU follows the batch norm. None belongs on the shortcut."),
                (
                    _norm(F.conv2d(x, weight, stride=stride).relu()),
                    "a ReLU stands in it. None belongs on the shortcut.",
                ),
                (F.conv2d(_norm(x), weight, stride=stride), "the batch norm comes first. It follows the convolution."),
                (F.conv2d(x, weight, stride=stride), "the batch norm is made but not applied."),
                *((p, "pooling makes x smaller here. Let the 1x1 convolution do it, with its stride.") for p in pooled),
            ):
                require(close(right, wrong) or not close(value, wrong, 1e-3), words)
            require(close(value, right, 1e-3), "the output is not batch norm(1x1 convolution of x, with the stride).")
            _all_used(path, value)
            _same_gradient(value, right, x)
            _alone(path, x.detach())
            _both_modes(path, x.detach())
    return "a 1x1 convolution with the stride and a batch norm where the shape changes, x itself elsewhere."


@check
def basic_block(answer) -> str:
    """answer(channels_in, channels_out, stride) -> nn.Module: the block of He et al. 2015, section 3.3."""
    require(not isinstance(answer, nn.Module), "pass the class itself: `checks.basic_block(BasicBlock)`.")
    for c_in, c_out, stride in ((4, 4, 1), (4, 6, 1), (6, 6, 2), (4, 6, 2), (6, 4, 1), (4, 4, 3)):
        with _case(c_in, c_out, stride) as (x, shape):
            block = call(answer, c_in, c_out, stride)
            require(isinstance(block, nn.Module), f"it must give an nn.Module, got {type(block).__name__}.")
            problem = _problem(block.float().train(), x, shape)  # first see whether the layers tell why
            first, second, projection = _block_weights(block, c_in, c_out, stride, problem)
            require(not problem, problem)
            x.requires_grad_()
            value = call(block, x)
            outputs = _block_outputs(x, first, second, projection, stride)
            if c_in == c_out:  # which of two equal shapes comes first cannot be seen from outside
                swapped = _block_outputs(x, second, first, projection, stride)
                outputs = [(words, out) for pair in zip(outputs, swapped, strict=True) for words, out in pair]
            found = [words for words, out in outputs if close(value, out, 1e-3)]
            require(not found or found[0] == "", "".join(found[:1]))
            _all_used(block, value)
            if not found:
                others = [m for m in block.modules() if isinstance(m, nn.GroupNorm | nn.LayerNorm | nn.InstanceNorm2d)]
                require(not others, f"{', '.join(type(m).__name__ for m in others)}: only nn.BatchNorm2d belongs here.")
                require((value >= 0).all(), "the output has negative numbers. Its last step must be a ReLU.")
                raise Wrong(
                    "the output is not ReLU(branch(x) + shortcut(x)). Compare your layers, one by one: convolution, "
                    "batch norm, ReLU, convolution, batch norm, addition, ReLU; nothing else, and their defaults."
                )
            rights = [out for words, out in outputs if not words and close(value, out, 1e-3)]
            _same_gradient(value, rights[0], x)
            _alone(block, x.detach())
            _both_modes(block, x.detach())
    default = _problem(lambda z: answer(4, 4)(z), torch.randn(5, 4, 8, 8), (5, 4, 8, 8))
    require(not default, f"BasicBlock(4, 4), without a stride: {default.rstrip('.')}. Write `stride=1` in `__init__`.")
    return "two convolutions, the shortcut added, ReLU last; a projection only where the shape changes."


@contextlib.contextmanager
def _case(c_in: int, c_out: int, stride: int):
    """x and the shape that must come. Says in front of each fault with which arguments it was found."""
    sides = (8, 8) if c_in <= c_out and stride < 3 else (12, 6)
    try:
        yield torch.randn(5, c_in, *sides), (5, c_out, *(side // stride for side in sides))
    except Wrong as wrong:
        raise Wrong(f"With {c_in} channels in, {c_out} out and stride {stride}: {wrong}") from None


def _problem(module: nn.Module, x: torch.Tensor, shape: tuple) -> str:
    """What goes wrong in words, or nothing."""
    try:
        tensor(call(module, x), shape, "the output")
    except Wrong as wrong:
        return str(wrong)
    return ""


def _parameters(module):
    return module.parameters() if isinstance(module, nn.Module) else []


def _norm(z: torch.Tensor) -> torch.Tensor:
    return F.batch_norm(z, None, None, training=True)


_REGISTER = (
    "A layer must be an attribute (`self.conv1 = ...`) or be registered in an nn.ModuleList, not in a Python list nor "
    "made in `forward`; and one object under two names counts once."
)


def _gradients(value: torch.Tensor, sources) -> tuple:
    """The gradients that `value` sends back to `sources`, None where none arrives."""
    try:
        return torch.autograd.grad(value.square().sum(), sources, allow_unused=True, retain_graph=True)
    except RuntimeError as error:
        words = "`backward` fails: a tensor that it needs was overwritten, as by `x += ...`. Write `x = x + ...`."
        require("inplace" not in str(error), words)
        raise


def _all_used(module: nn.Module, value: torch.Tensor) -> None:
    """Require that `value`, the module's output, depends on each of its parameters."""
    require(value.requires_grad, "the output has no gradient. Leave out .detach() and torch.no_grad().")
    names, parameters = zip(*module.named_parameters(), strict=True)
    frozen = [name for name, p in zip(names, parameters, strict=True) if not p.requires_grad]
    require(not frozen, f"{' and '.join(frozen)}: requires_grad is False, so no training would change it.")
    gradients = _gradients(value, parameters)
    unused = [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]
    why = "Is another layer used twice, or this one run under torch.no_grad()?"
    require(not unused, f"{' and '.join(unused)}: never used, no gradient arrives there. {why}")


def _same_gradient(value: torch.Tensor, right: torch.Tensor, source: torch.Tensor) -> None:
    """Require that `value`, equal to `right`, sends the same gradient back to `source`."""
    found, expected = (_gradients(out, [source])[0] for out in (value, right))
    require(
        found is not None and close(found / expected.abs().max(), expected / expected.abs().max(), 1e-2),
        "the output is right, but not the gradient that comes back. Is there a .detach(), .data or torch.no_grad()?",
    )


def _alone(module: nn.Module, x: torch.Tensor) -> None:
    """Require that in eval mode an image gives the same in company as alone."""
    module.eval()
    with torch.no_grad():
        together, alone = call(module, x)[:1], call(module, x[:1])
    require(
        close(together, alone, 1e-3),
        "in eval mode an image's output depends on its neighbours. Batch norm must use its running averages there: "
        "nn.BatchNorm2d as a layer does.",
    )


def _both_modes(module: nn.Module, x: torch.Tensor) -> None:
    """Require that eval mode comes to what train mode gives, as the running averages settle."""
    for norm in module.modules():
        momentum = norm.momentum if isinstance(norm, nn.BatchNorm2d) else None
        require(momentum in (None, 0.1), f"a batch norm has momentum {momentum}. Leave it at 0.1.")
    with torch.no_grad():
        module.train()
        for _ in range(100):  # 0.9 to the 100th: next to nothing is left of the start
            in_train = call(module, x)
        in_eval = call(module.eval(), x)
    require(
        in_eval.shape == in_train.shape and close(in_eval, in_train, 0.05),
        "after 100 passes over one batch in train mode, eval mode must give nearly the same for it. Do the running "
        "averages follow? Does `forward` do the same in both modes?",
    )


def _weights(module: nn.Module, problem: str, projections: tuple, threes: int):
    """(3x3 weights, 1x1 weights), found by their shapes whatever their names; words if some are missing or too many."""
    four = [p for p in module.parameters() if p.ndim == 4]
    big, ones = ([p for p in four if tuple(p.shape[2:]) == (k, k)] for k in (3, 1))
    register = "" if problem else f" {_REGISTER}"
    if threes:
        if len(big) == 3 and projections and not ones:
            raise Wrong("the projection is a 3x3 convolution. On the shortcut it is a 1x1.")
        more = f" {_REGISTER}" if len(big) < threes else ""
        others = [p for p in four if tuple(p.shape[2:]) not in ((1, 1), (3, 3))] + ones[len(projections) :]
        others = [f"a {p.shape[2]}x{p.shape[3]}" for p in others]
        more = f" There is also {' and '.join(others)}." if others else more
        require(len(big) == threes, f"there must be two 3x3 convolutions, found {len(big)}.{more}")
        require(
            ones or not projections,
            f"x has another shape than the branch's output: the shortcut needs a 1x1 projection.{register}",
        )
        require(projections or not ones, "the shape does not change: no projection, the shortcut is x itself.")
    else:
        sides = " and ".join(f"{p.shape[2]}x{p.shape[3]}" for p in four) or "none"
        require(len(four) == len(ones) == 1, f"one 1x1 convolution is needed, found: {sides}.")
    require(len(ones) <= 1, f"one 1x1 convolution is enough, found {len(ones)}.")
    convs = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    require(all(c.groups == 1 for c in convs), "a convolution has groups. Leave `groups` at 1.")
    require(all(c.bias is None for c in convs), "a convolution has a bias. Batch norm has its own: `bias=False`.")
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    require(all(n.affine for n in norms), "a batch norm has no weight and bias. Leave `affine` at True.")
    count = sum(p.ndim == 1 for p in module.parameters())  # two a batch norm, whoever wrote it
    made = f"{len(four)} convolution{'s' * (len(four) > 1)} but {count // 2} batch norm{'s' * (count // 2 != 1)}"
    require(
        count == 2 * len(four),
        f"{made}. One follows each, the projection's included.{register if count < 2 * len(four) else ''}",
    )
    for weight, (c_out, c_in) in zip(ones, projections, strict=True):
        sizes = tuple(weight.shape[:2])
        require(sizes == (c_out, c_in), f"the projection goes from {sizes[1]} to {sizes[0]} channels.")
    for layer in module.modules():  # a batch norm may start at other values than 1 and 0
        own = dict(layer.named_parameters(recurse=False))
        if set(own) == {"weight", "bias"} and own["weight"].ndim == 1:
            nn.init.ones_(own["weight"])
            nn.init.zeros_(own["bias"])
    return big, ones


def _block_weights(block: nn.Module, c_in: int, c_out: int, stride: int, problem: str):
    """The weights of the two 3x3 convolutions and of the projection (or None), found by their shapes."""
    needed = stride != 1 or c_in != c_out
    threes, ones = _weights(block, problem, projections=((c_out, c_in),) if needed else (), threes=2)
    if sorted(tuple(p.shape[:2]) for p in threes) != sorted([(c_out, c_in), (c_out, c_out)]):
        for which, weight, name, must in zip(
            ("first", "second"), threes, ("channels_in", "channels_out"), (c_in, c_out), strict=True
        ):
            for verb, has, needs, why in (
                ("take", weight.shape[1], must, name),
                ("give", weight.shape[0], c_out, "channels_out"),
            ):
                require(has == needs, f"the {which} 3x3 {verb}s {has} channels, must {verb} {needs} (= {why}).")
    if problem:
        convs = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
        big, small = ([c for c in convs if c.kernel_size == (k, k)] for k in (3, 1))
        strides = [c.stride[0] for c in big]
        for wrong, words in (
            (any(c.padding in ((0, 0), "valid") for c in big), "A 3x3 convolution lacks `padding=1`: it shrinks."),
            (stride > 1 and strides.count(stride) == 2, "The stride is on both 3x3 convolutions: one is right."),
            (stride > 1 and big and strides.count(stride) == 0, "No 3x3 convolution has the stride."),
            (small and small[0].stride[0] != stride, "The projection must have the stride of the branch."),
            (small and small[0].padding in ((1, 1), "same"), "The projection has padding: a 1x1 window needs none."),
        ):
            require(not wrong, f"{problem}. {words}")
    if c_in != c_out:
        threes.sort(key=lambda p: p.shape[1] != c_in)
    first, second = (p.detach() for p in threes)
    return first, second, ones[0].detach() if needed else None


def _block_outputs(x, first, second, projection, stride) -> list[tuple[str, torch.Tensor]]:
    """What the right block gives ("") and what likely mistakes give, each with the words for it."""

    def half(z, weight, step=1):
        return _norm(F.conv2d(z, weight, stride=step, padding=1))

    def bent(z, weight, step=1):
        return _norm(F.conv2d(z, weight, stride=step, padding=1).relu())

    shortcut = x if projection is None else _norm(F.conv2d(x, projection, stride=stride))
    middle = half(x, first, stride)
    branch = half(middle.relu(), second)
    late = half(half(x, first).relu(), second, stride)
    order = "the ReLU comes before the batch norm. The order is convolution, batch norm, ReLU."
    outputs = [
        ("", (branch + shortcut).relu()),
        ("the shortcut is not added.", branch.relu()),
        ("the last ReLU comes before the addition. Add first, then apply it.", branch.relu() + shortcut),
        ("the branch ends in a ReLU before the addition. Only one comes after it.", (branch.relu() + shortcut).relu()),
        ("there is no ReLU after the addition.", branch + shortcut),
        ("no ReLU between the two convolutions.", (half(middle, second) + shortcut).relu()),
        ("the stride is on the second 3x3 convolution. It sits on the first.", (late + shortcut).relu()),
        ("x is overwritten before the addition. Give the branch a name of its own.", (branch + middle.relu()).relu()),
        ("the branch is added to itself. Add the shortcut: x, or its projection.", (branch + branch).relu()),
        ("the shortcut is subtracted. Add it.", (branch - shortcut).relu()),
        ("the shortcut is multiplied with the branch. Add it.", (branch * shortcut).relu()),
        (order, (half(bent(x, first, stride), second) + shortcut).relu()),
        (order, (bent(bent(x, first, stride), second) + shortcut).relu()),
        (order, (bent(middle.relu(), second) + shortcut).relu()),
    ]
    if projection is not None:
        outputs.append(("a ReLU stands on the shortcut. None belongs there.", (branch + shortcut.relu()).relu()))
        bare = F.conv2d(x, projection, stride=stride)
        outputs.append(("the projection has no batch norm behind it.", (branch + bare).relu()))
    else:
        words = "a ReLU or batch norm stands on the shortcut. It must be x itself."
        outputs += [(words, (branch + z).relu()) for z in (x.relu(), _norm(x))]
    return outputs


class _Probe(nn.Module):
    """A small network, of which every mode and every pass shows, and whose last layer is not its last attribute."""

    def __init__(self, classes: int):
        super().__init__()
        self.head, self.body = nn.Linear(12, classes), nn.Linear(12, 12)
        self.drop, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(12)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.body(x.flatten(1)))))


@check
def first_loss(answer) -> str:
    """answer(network, x, y) -> (loss in eval mode, natural logarithm of the number of classes)."""
    for classes, mode, count in ((7, True, 20), (10, True, 15), (3, False, 9)):
        network = _Probe(classes).train(mode)
        norm = network.norm
        norm.running_mean.uniform_(-1, 1)
        x, y = (
            torch.randn(count, 3, 2, 2) * 3 + 1,
            torch.randint(0, classes - 1, (count,)),
        )  # the last class does not occur
        logits = nn.Module.__call__(network.eval(), x).detach()
        before = {name: t.clone() for name, t in network.train(mode).state_dict().items()}
        with torch.enable_grad():  # at its end, gradients are switched on or off as they were
            value = call(answer, network, x, y)
            require(
                torch.is_grad_enabled(),
                "gradients stay switched off for the rest of the notebook. Use `with torch.no_grad():`.",
            )
        pair = isinstance(value, tuple | list) or tuple(getattr(value, "shape", ())) == (2,)
        require(pair and len(value) == 2, "return two numbers: the loss, and that of a network that knows nothing.")
        for number in value:
            one = isinstance(number, torch.Tensor) and number.numel() == 1
            require(one or hasattr(number, "__float__"), f"each must be a number, got {type(number).__name__}.")
        loss, expected = (torch.tensor(float(n.detach() if isinstance(n, torch.Tensor) else n)) for n in value)
        after = network.state_dict()
        changed = [name for name in before if not torch.equal(before[name], after[name])]
        for name in changed:
            require(
                "running" not in name and "tracked" not in name,
                "the batch norm's running averages moved. Call network.eval() before the forward pass.",
            )
            raise Wrong(f"{name} changed. Measure only: no training step.")
        for p in network.parameters():
            require(
                p.requires_grad, "the network comes back with requires_grad=False: it could not be trained any more."
            )
            require(p.grad is None, "the network comes back with gradients. Measure only: no `backward`.")
        require(norm.training == network.training, "some layers come back in another mode than the rest.")
        words = {True: "train", False: "eval"}
        require(
            network.training == mode,
            f"the network came in {words[mode]} mode and comes back in {words[not mode]} mode. Remember "
            "`network.training` before you change it, and give it back.",
        )
        right = F.cross_entropy(logits, y)
        chosen = logits.softmax(dim=1).gather(1, y.view(-1, 1))
        for wrong, text in (
            (F.cross_entropy(logits.softmax(dim=1), y), "a softmax is applied twice: F.cross_entropy takes logits."),
            (F.cross_entropy(logits, y, reduction="sum"), "the loss is the sum over the images. Take their mean."),
            (-chosen.mean(), "the probabilities' logarithm is missing."),
            (-chosen.mean().log(), "take the logarithm of each probability first, then the mean."),
            (-right, "the sign of the loss is wrong: minus the logarithm."),
            (torch.tensor(math.log(classes)), "the first number must be measured: F.cross_entropy of the logits."),
        ):
            require(not close(loss, wrong), text)
        require(
            close(loss, right), f"the loss is {loss:.4f}, must be {right:.4f}: the mean cross-entropy in eval mode."
        )
        about = f"the second number is {expected:.4f}, must be {math.log(classes):.4f} for {classes} classes"
        for wrong, text in (
            (math.log10(classes), "that is the logarithm to base 10. Take the natural one: math.log."),
            (math.log2(classes), "that is the logarithm to base 2. Take the natural one: math.log."),
            (-math.log(classes), "the sign is wrong: -log(1/classes)."),
            (math.log(len(y)), "that is the logarithm of the number of images. Take that of the classes."),
            (math.log(10), "the number of classes is not always ten: it is the last side of the logits."),
            (1 / classes, "that is the probability. The loss is minus its natural logarithm."),
            (float(right), "that is the measured loss again. It must be the natural logarithm of the classes."),
            (
                float(len(y.unique())) and math.log(len(y.unique())),
                "count the outputs of the network, not the labels that occur.",
            ),
        ):
            require(
                math.isclose(wrong, math.log(classes), abs_tol=1e-6) or not close(expected, torch.tensor(wrong)),
                f"{about}: {text}",
            )
        require(close(expected, torch.tensor(math.log(classes))), f"{about}: the natural logarithm of the classes.")
    return "the loss in eval mode and log(classes), and the network is as it was."


@check
def repaired_network(answer) -> str:
    """answer(width, classes) -> nn.Module: `Broken` of lesson 03 without its five faults."""
    require(not isinstance(answer, nn.Module), "pass the class itself: `checks.repaired_network(Repaired)`.")
    width, classes = 6, 5
    net = call(answer, width, classes)
    require(isinstance(net, nn.Module), f"it must give an nn.Module, got {type(net).__name__}.")
    x = torch.rand(8, 3, 12, 10)
    output = call(net.float().train(), x)
    value = tensor(output, (8, classes), "the output").float()
    parameters = dict(net.named_parameters())
    count = sum(p.numel() for p in parameters.values())
    expected = 29 * width + 2 * (9 * width**2 + 2 * width) + (width + 1) * classes
    require(
        count != expected - 2 * (9 * width**2 + 2 * width),
        "symptom 1 is still there: parameters() does not find the branches. nn.Module looks into its attributes, and "
        "into an nn.ModuleList or nn.Sequential, not into a Python list.",
    )
    twice = " Is one branch used twice?" if count == expected - 9 * width**2 - 2 * width else ""
    require(count == expected, f"Repaired({width}, {classes}) must have {expected} parameters, got {count}.{twice}")
    by_shape = {}
    for p in parameters.values():
        by_shape.setdefault(tuple(p.shape), []).append(p)
    wanted = [(width, 3, 3, 3), (width, width, 3, 3), (width,), (classes, width), (classes,)]
    require(
        {shape: len(by_shape.get(shape, [])) for shape in wanted} == dict(zip(wanted, (1, 2, 6, 1, 1), strict=True)),
        "keep the layers of Broken: prep, its batch norm, two branches of a convolution and a batch norm, and linear.",
    )
    (prep,), (weight,), (bias,) = (by_shape[shape] for shape in ((width, 3, 3, 3), (classes, width), (classes,)))
    require(output.requires_grad, "the output has no gradient. Leave out .detach() and torch.no_grad().")
    require(prep.requires_grad, "symptom 2 is still there: the first convolution's weight has requires_grad=False.")
    (reached,) = _gradients(output, [prep])
    require(
        reached is not None,
        "symptom 2 is still there: no gradient reaches the first convolution. Run it outside torch.no_grad().",
    )
    require(
        (value < 0).any() or not close(value.sum(dim=1), torch.ones(8), 1e-3),
        "symptom 4 is still there: the outputs are probabilities. Return logits.",
    )
    require(not close(value.exp().sum(dim=1), torch.ones(8), 1e-3), "the outputs are log-probabilities. Return logits.")
    norms = [m for m in net.modules() if {"weight", "bias"} == {n for n, _ in m.named_parameters(recurse=False)}]
    norms = [m for m in norms if m.weight.ndim == 1]
    require(len(norms) == 3, f"{len(norms)} batch norms are found as layers, must be 3. {_REGISTER}")

    def start_from(scale, only=None):
        for norm in norms:
            nn.init.constant_(norm.weight, scale if norm is not only else 1)
            nn.init.zeros_(norm.bias)

    linear, call_net = (lambda z: F.linear(z.mean(dim=(2, 3)), weight, bias)), (lambda: call(net, x).detach())
    first = _norm(F.conv2d(x, prep, padding=1)).relu()
    silent = {}
    for norm in norms:  # the one that alone lets the image through is prep's
        start_from(0.0, only=norm)
        silent[norm] = call_net()
    through = [norm for norm in norms if (silent[norm] - silent[norm][0]).abs().max() > 1e-6]
    require(
        through,
        "symptom 5 is still there: with silent branches the image does not reach the end. Keep x, then add the branch.",
    )
    words, changed = "with silent branches each block must give x itself", "something besides the five faults changed"
    quiet = silent[through[0]]
    plain = F.conv2d(x, prep, padding=1).detach()
    for features, why in (
        (4 * first, f"{words}, but x is added twice: x + branch(x)."),
        (_norm(plain), f"{changed}: the ReLU after the first batch norm is gone."),
        (plain.relu(), f"{changed}: the batch norm after prep is not applied."),
        (_norm(plain.relu()), f"{changed}: the first ReLU comes before the batch norm."),
        (
            first.amax(dim=(2, 3), keepdim=True),
            f"{changed}: linear gets each channel's maximum. Broken takes its mean.",
        ),
    ):
        require(not close(quiet, linear(features), 1e-3), why)
    require(
        close(quiet, linear(first), 1e-3),
        f"{words}, or {changed}: prep, batch norm, ReLU, mean over pixels, linear.",
    )
    start_from(1.0)
    value = call(net, x)
    possible, branches = [], by_shape[width, width, 3, 3]
    for order in (branches, branches[::-1]):
        z = first
        for p in order:
            z = z + _norm(F.conv2d(z, p, padding=1)).relu()
        possible.append(linear(z))
    rights = [right for right in possible if close(value, right, 1e-3)]
    if not rights:
        _all_used(net, value)
        raise Wrong(
            "the faults are gone, but something else changed: each of the two branches is conv, BN, ReLU, added once."
        )
    _all_used(net, value)
    _same_gradient(value, rights[0], prep)
    try:
        _alone(net, x)
    except Wrong as wrong:
        raise Wrong(f"symptom 3 is still there: {wrong}") from None
    _both_modes(net, x)
    default = _problem(lambda z: answer()(z), torch.rand(2, 3, 32, 32), (2, 10))
    require(not default, f"Repaired(), with the defaults of Broken (width 8, 10 classes): {default}")
    return "all five are gone: registered layers, gradients, both modes, logits, and x on the shortcut."
