"""Checks of the exercises of lesson 08."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks.frame import Wrong, call, check, close, require, tensor


class _Old(nn.Module):
    """A trained network in small: body `conv` and `norm`, head `linear`."""

    def __init__(self, width):
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Linear(width, 4)
        with torch.no_grad():
            self.norm.running_mean.uniform_(-1, 1)
            self.norm.running_var.uniform_(0.5, 2)

    def features(self, x):
        return self.norm(self.conv(x)).relu().mean(dim=(2, 3))

    def forward(self, x):
        return self.linear(self.features(x))


def _body(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in network.state_dict().items() if not name.startswith("linear.")}


@check
def new_head(answer) -> str:
    """answer(model, classes) -> a copy of `model` with a new head of `classes` outputs, its body frozen."""
    for width, classes in ((6, 7), (9, 3)):
        old, x = _Old(width).eval(), torch.randn(5, 3, 8, 8)
        before = copy.deepcopy(old)
        network = call(answer, old, classes)
        require(isinstance(network, nn.Module), f"return the network, got {type(network).__name__}.")
        require(not isinstance(network, nn.Linear), "this is the head alone. Return the whole network.")
        changed = "the given network has changed: {}. Work on a copy of its own, `copy.deepcopy(model)`."
        require(isinstance(old.linear, nn.Linear) and old.linear.out_features == 4, changed.format("its head is new"))
        require(all(p.requires_grad for p in old.parameters()), changed.format("some of its weights are frozen"))
        now, then = old.state_dict(), before.state_dict()
        require(
            now.keys() == then.keys() and all(torch.equal(now[key], then[key]) for key in then),
            changed.format("other weights"),
        )
        require(network is not old, "this is the network that was passed in. Return a copy with a new head.")

        network.eval()
        logits = call(network, x)
        require(
            not isinstance(logits, torch.Tensor) or tuple(logits.shape) != (5, 4),
            f"there are still 4 outputs instead of {classes}: put a new nn.Linear in the place of `network.linear`.",
        )
        logits = tensor(logits, (5, classes), f"the logits (for 5 images and {classes} classes)").float()
        head = getattr(network, "linear", None)
        require(
            isinstance(head, nn.Linear),
            f"the head must be one nn.Linear with the name `linear`, got {type(head).__name__}.",
        )
        mine, given = _body(network), _body(before)
        require(mine.keys() == given.keys(), "the body must keep its layers and their names: copy the whole network.")
        require(
            all(torch.equal(mine[key], given[key]) for key in given),
            "the body does not hold the given weights and statistics: it was built or initialised anew.",
        )
        require(
            not {p.data_ptr() for p in network.parameters()} & {p.data_ptr() for p in old.parameters()},
            "the copy shares weights with the given network: what trains one changes the other. Use `copy.deepcopy`.",
        )
        learning = [n for n, p in network.named_parameters() if p.requires_grad and not n.startswith("linear.")]
        require(
            not learning,
            f"the body can still learn: {', '.join(learning)}. Set `requires_grad` to False there. (`eval()` "
            "changes what batch norm does, not who learns.)",
        )
        require(
            all(p.requires_grad for p in head.parameters()),
            "the head is frozen, too, so nothing can learn: freeze first, then make the new head.",
        )
        require(
            not torch.equal(head.weight[:3], before.linear.weight[:3]),
            "the head holds weights of the old one: those belong to the old classes. Make a new nn.Linear.",
        )
        expected = F.linear(before.features(x), head.weight, head.bias).detach()
        require(
            close(logits, expected) or not close(logits, expected.softmax(1)),
            "the network returns probabilities. Logits are wanted, without a softmax.",
        )
        require(close(logits, expected), "the logits are not `linear` of the body's features.")
    return "a copy, the same body, frozen, and a new head that can learn."


@check
def class_weights(answer) -> str:
    """answer(y, classes) -> (classes,): every class with images gets the same total, all images together N."""
    for sizes in ((60, 6, 25, 1, 0), (8, 2, 20)):
        classes, n = len(sizes), torch.tensor(sizes)
        y = torch.repeat_interleave(torch.arange(classes), n)
        y = y[torch.randperm(len(y))]
        result = call(answer, y, classes)
        shape = tuple(result.shape) if isinstance(result, torch.Tensor) else None
        require(shape != (len(y),), "this is one weight for each image. Return one for each class.")
        require(
            shape != (4,),
            "the last of 5 classes has no image, and no weight either: `torch.bincount(y, minlength=classes)`.",
        )
        w = tensor(result, (classes,), f"the weights of {classes} classes")
        require(w.isfinite().all(), "some weights are infinite or nan: a class without images divides by 0. Give it 0.")
        n, present = n.double(), n > 0
        count, some, each = n.sum(), present.sum(), n.clamp(min=1)
        right = present * count / (some * each)
        if close(w, right):
            require(result.is_floating_point(), "the weights are whole numbers. The loss needs floats.")
            continue
        once = present / each
        require(
            not close(w[present], right[present]),
            f"a class without images has the weight {w[~present].max() if not present.all() else 0:g}. Give it 0.",
        )
        for fault, words in (
            (n / count, "these are the shares of the classes: the frequent ones count most. Divide by the counts."),
            (n, "these are the counts: the frequent classes count most. Divide by them."),
            (once, f"the weights of all {count:g} images add up to {some}, the number of classes. Multiply by N / P."),
            (count * once, f"each class spends all of N = {count:g}. With P classes it may spend N / P."),
            (count * once / classes, "the class without images has a part in N. Divide by the classes that have some."),
            (once / once.sum(), "the weights of the classes add up to 1. Those of all images together must give N."),
            (
                some * once / once.sum(),
                "the weights have the mean 1 over the classes. It is the images whose weights must have the mean 1.",
            ),
            (
                classes * once / once.sum(),
                "the weights have the mean 1 over the classes. It is the images whose weights must have the mean 1.",
            ),
            (right.sqrt(), "that is the square root: frequent classes still count more. Leave it out."),
            (1 - n / count, "one minus the share: a frequent class still counts more in all. Divide by the counts."),
            (n.max() * once, "the largest class has the weight 1, so the weights of all images exceed N."),
        ):
            require(not close(w, fault), words)
        totals = ", ".join(f"{total:.3g}" for total in (w * n)[present])
        raise Wrong(
            f"classes of {', '.join(f'{size:g}' for size in n[present])} images get {totals} in all; "
            f"each should get {count / some:.3g}."
        )
    return "every class with images has the same total, and the images' weights have the mean 1."


def _one_number(value) -> float:
    if isinstance(value, torch.Tensor):
        require(value.numel() == 1, f"return one number, got a tensor of shape {tuple(value.shape)}.")
    value = value.item() if hasattr(value, "item") else value
    require(isinstance(value, int | float), f"return one number, got {type(value).__name__}.")
    require(value == value, "the result is nan.")
    return value


def _share(known, unknown, equal=0.5) -> float:
    """Share of pairs in which the known score is higher; a pair of equal ones counts `equal`."""
    known = known.double()[:, None]
    return ((known > unknown).double() + equal * (known == unknown).double()).mean().item()


@check
def auroc(answer) -> str:
    """answer(known, unknown) -> share of pairs in which the known score is higher, equal ones half."""
    # In tenths, so that many scores are equal; of different number, so that positions cannot be paired.
    known = (3 + torch.randint(0, 8, (45,))) / 10
    unknown = torch.randint(0, 9, (32,)) / 10
    value, right = _one_number(call(answer, known, unknown)), _share(known, unknown)
    k, u = known.double(), unknown.double()
    few = len(u)
    if abs(value - right) > 1e-6:
        at_half = (((k >= 0.5).sum() + (u < 0.5).sum()) / 77).item()
        above_half = (((k > 0.5).sum() + (u <= 0.5).sum()) / 77).item()
        one_threshold = "that is the share of right answers at one threshold. AUROC has no threshold: count pairs."
        no_ties = "pairs of equal scores count nothing. Each counts half."
        paired = "only scores at the same position are compared. Compare all pairs: `known[:, None]` makes a column."
        for fault, words in (
            (1 - right, "the two are swapped: count the pairs in which the *known* one is higher."),
            (_share(k, u, 0), no_ties),
            (_share(k, u, 1), "pairs of equal scores count whole. Each counts half."),
            (1 - _share(k, u, 1), "the two are swapped: count the pairs in which the *known* one is higher."),
            (1 - _share(k, u, 0), "the two are swapped: count the pairs in which the *known* one is higher."),
            (100 * right, "that is in per cent. Return it on the scale 0 to 1."),
            (right * 45 * 32, "that is the number of pairs. Divide by the number of all pairs, N times M."),
            (2 * right - 1, "that runs from -1 to 1. Return the share itself: a coin toss is 0.5."),
            ((k.mean() - u.mean()).item(), "that is how far the means lie apart. Count pairs."),
            (at_half, one_threshold),
            (above_half, one_threshold),
            ((k[:few] > u).double().mean().item(), paired),
            (((k[:few] > u).double() + (k[:few] == u).double() / 2).mean().item(), paired),
            ((k > u.mean()).double().mean().item(), "known scores are compared with the mean of the strangers only."),
            ((k > u.median()).double().mean().item(), "known scores are compared with the median stranger only."),
            ((k > u.max()).double().mean().item(), "known scores are compared with the highest stranger only."),
        ):
            require(abs(value - fault) > 1e-6, words)
        raise Wrong(f"the result is {value:.4f}, expected {right:.4f}.")
    for factor, shift in ((30.0, -12.0), (0.001, 5.0)):  # the same order
        value = _one_number(call(answer, factor * known + shift, factor * unknown + shift))
        require(
            abs(value - right) < 1e-6,
            f"scores times {factor:g} plus {shift:g}, in the same order, give {value:.4f} instead of {right:.4f}. "
            "Scores may be any numbers, not only those from 0 to 1.",
        )
    high, low = torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0, 2.5])
    for first, second, expected in ((high, low, 1.0), (low, high, 0.0), (high[:1], high[:1], 0.5)):
        value = _one_number(call(answer, first, second))
        require(
            abs(value - expected) < 1e-6,
            f"known {first.tolist()} and strangers {second.tolist()} give {value:.4f}, expected {expected}.",
        )
    return "every pair counted once, equal scores half."


class _Sees(nn.Module):
    """Takes what the networks of the course take, and keeps it. Its answer depends on every pixel."""

    seen = []  # belongs to the class: a copy of the network writes into the same list

    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.BatchNorm2d(3), nn.Linear(3 * 32 * 32, 5)
        with torch.no_grad():
            self.norm.running_mean.uniform_(-1, 1)
            self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        if not x.is_floating_point() or tuple(x.shape[1:]) != (3, 32, 32):
            raise ValueError(f"the network takes float (B, 3, 32, 32), got {x.dtype} {tuple(x.shape)}")
        self.seen.append(x.detach().clone())
        return self.linear(self.norm(x).flatten(1))


def _resized(x, **how):
    return F.interpolate(x, size=(32, 32), **({"mode": "bilinear", "antialias": True} | how))


def _numbers(network: nn.Module, trained: bool = False) -> int:
    """How many numbers belong to it: weights and buffers, or only those weights that are trained."""
    own = [p for p in network.parameters() if p.requires_grad] if trained else network.state_dict().values()
    return sum(value.numel() for value in own)


@check
def takes_pictures(answer) -> str:
    """answer(network, mean, std) -> nn.Module: uint8 (B, 3, H, W) -> logits of `network`."""
    require(not isinstance(answer, nn.Module), "pass the class itself: `checks.takes_pictures(TakesPictures)`.")
    mean, std = torch.tensor([0.2, 0.5, 0.7]), torch.tensor([0.1, 0.3, 0.25])
    m, s = mean.view(3, 1, 1), std.view(3, 1, 1)
    for shape in ((3, 3, 48, 40), (1, 3, 32, 32), (2, 3, 20, 70)):
        network = _Sees().eval()
        reference = copy.deepcopy(network)
        x = torch.randint(0, 256, shape, dtype=torch.uint8)
        module = call(answer, network, mean, std)
        require(isinstance(module, nn.Module), f"it must be an nn.Module, got {type(module).__name__}.")
        module.eval()
        _Sees.seen.clear()
        logits = call(module, x)
        require(len(_Sees.seen) == 1, f"the network must run once for each call; it ran {len(_Sees.seen)} times.")
        (arrived,) = _Sees.seen
        here = f"For uint8 {shape}: "
        require(len(arrived) == shape[0], f"{here}{len(arrived)} images reach the network.")
        small = _resized(x.float()) / 255
        right = (small - m) / s
        if not close(arrived, right):
            _input_fault(arrived, x, small, m, s)
            error = (arrived - right).abs().max()
            raise Wrong(f"{here}what reaches the network is off by up to {error:.3g}.")
        logits = tensor(logits, (shape[0], 5), f"{here}the result").float()
        expected = reference(right).detach()
        require(
            close(logits, expected, 1e-3) or not close(logits, expected.softmax(1), 1e-3),
            "the result is probabilities. Return the network's logits.",
        )
        require(
            close(logits, expected, 1e-3),
            f"{here}the right input reaches the network, but its logits do not come out. Is it still in eval mode?",
        )
        require(
            _numbers(module) - _numbers(network) >= 6,
            "mean and std are no buffers: they are not saved with the module, and stay behind when it moves to a GPU. "
            'Use `self.register_buffer("mean", ...)`.',
        )
        require(
            _numbers(module, trained=True) == _numbers(network, trained=True),
            "mean and std are parameters: training would change them. Use `self.register_buffer`.",
        )
    return "float, resized, normalised, and mean and std travel with the module."


def _input_fault(arrived, x, small, m, s) -> None:
    """Say which mistake gives `arrived`, if it is a known one."""
    pixels = x.float() / 255

    def normal(values):
        return (values - m) / s

    faults = [
        (normal(255 * small), "the pixels are not divided by 255."),
        (normal(small / 255), "the pixels are divided by 255 twice."),
        (normal(255 * small / 256), "the pixels are divided by 256. The brightest is 255, and must become 1."),
        (small, "the pixels are not normalised: subtract the mean, divide by the standard deviation."),
        (255 * small, "the pixels are neither brought to the scale 0 to 1 nor normalised."),
        (small - m, "it is not divided by the standard deviation."),
        (small / s, "the mean is not subtracted."),
        ((small - m) * s, "it is multiplied by the standard deviation. Divide by it."),
        ((small + m) / s, "the mean is added. Subtract it."),
        (small / s - m, "the mean is subtracted after the division. Subtract first, then divide."),
        ((small - s) / m, "mean and std are exchanged."),
        (normal(small.flip(1)), "red and blue are exchanged."),
        (
            normal(_resized(x).float() / 255),
            "whole numbers were resized, which rounds the result. Make the pixels float first.",
        ),
        (
            normal(_resized(pixels, antialias=False)),
            "resized without `antialias=True`: most pixels of a large picture are ignored.",
        ),
        (
            normal(_resized(pixels, antialias=False, align_corners=True)),
            "resized with `align_corners=True` and without `antialias=True`.",
        ),
        (normal(_resized(pixels, align_corners=True)), "resized with `align_corners=True`. Leave it out."),
        (
            normal(_resized(pixels, mode="nearest", antialias=False)),
            'resized by `mode="nearest"`: most pixels are ignored. Take "bilinear" with `antialias=True`.',
        ),
        (normal(_resized(pixels, mode="bicubic")), 'resized by `mode="bicubic"`. Take "bilinear".'),
        (normal(_resized(pixels, mode="area", antialias=False)), 'resized by `mode="area"`. Take "bilinear".'),
        (normal(pixels[..., :32, :32]), "the picture is cut, not resized."),
    ]
    top, left = ((size - 32) // 2 for size in x.shape[2:])
    if top >= 0 and left >= 0:
        faults.append((normal(pixels[..., top : top + 32, left : left + 32]), "the picture is cut, not resized."))
    for fault, words in faults:
        require(fault.shape != arrived.shape or not close(arrived, fault), words)
