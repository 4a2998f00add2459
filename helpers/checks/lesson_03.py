"""Checks of the exercises of lesson 03."""

import copy
import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks.frame import Exercise, call, gradient, parts, sizes
from helpers.checks.modules import ModuleExercise
from helpers.model import CustomResNet


def _features():
    """Channels and images of different mean and spread, few pixels and a large eps, so that every shortcut shows."""
    for eps in (0.1, 1e-3, 0.3):
        images, channels, height, width = sizes(4, 2, 6)
        spread = torch.linspace(0.5, 3, channels).view(-1, 1, 1)
        x = torch.randn(images, channels, height, width) * spread + torch.arange(images).view(-1, 1, 1, 1) + spread
        yield x, torch.rand(channels) + 0.5, 2 * torch.randn(channels), eps


def _norm(dims=(0, 2, 3), correction=0, root=lambda v, eps: (v + eps).sqrt(), affine=lambda z, w, b: z * w + b):
    def answer(x, weight, bias, eps):
        mean, variance = x.mean(dims, keepdim=True), x.var(dims, keepdim=True, correction=correction)
        return affine((x - mean) / root(variance, eps), weight.view(-1, 1, 1), bias.view(-1, 1, 1))

    return answer


def _normalise_and_learn(answer, x, weight, bias, eps):
    plain, leaf = call(answer, x, weight, bias, eps), x.clone().requires_grad_()
    try:
        value = answer(leaf, weight, bias, eps)
        of_x = gradient(value**3, leaf) if value.requires_grad else None  # cubes: see modules.py
    except Exception:  # numpy knows no gradients, so none are asked for
        of_x = None
    number = _norm(root=lambda v, eps: (v + eps).sqrt().detach())(leaf, weight, bias, eps)  # math.sqrt: fine, too
    alike = of_x is not None and torch.allclose(of_x, gradient(number**3, leaf), atol=1e-4)
    return {"": plain, "the gradient for x": None if alike else of_x}


batch_norm_train = Exercise(
    reference=_norm(),
    cases=_features,
    run=_normalise_and_learn,
    mistakes={
        "each image has statistics of its own. Average over the batch too, not only the pixels.": _norm((2, 3)),
        "one mean serves all channels. Each channel has its own: keep dim 1.": _norm((0, 1, 2, 3)),
        "the statistics run over the channels. They run over images, rows and columns: dims 0, 2 and 3.": _norm((1,)),
        "the variance is divided by n - 1. Batch norm divides by n: `correction=0`.": _norm(correction=1),
        "eps stands in the wrong place, or another eps. Add the one given to the variance before you take the root.": (
            _norm(root=lambda v, eps: v.sqrt() + eps),
            _norm(root=lambda v, eps: (v + 1e-5).sqrt()),
        ),
        "x is divided by the variance. Divide by its square root.": _norm(root=lambda v, eps: v + eps),
        "weight and bias are not used as meant. Multiply by weight, then add bias, channel by channel.": (
            _norm(affine=lambda z, w, b: z),
            _norm(affine=lambda z, w, b: (z + b) * w),
            _norm(affine=lambda z, w, b: z * b + w),
        ),
    },
    praise="each channel by its own mean and variance over the batch, then weight and bias.",
)


def _shapes(*first):
    for channels_in, channels_out, stride in (*first, (6, 6, 2), (4, 6, 2), (4, 4, 1), (6, 4, 1), (4, 4, 3)):
        height, width = (stride * side for side in sizes(2, 2, 5)) if channels_in > 4 or stride == 3 else (8, 8)
        yield channels_in, channels_out, stride, torch.randn(5, channels_in, height, width)


class BatchAlways(nn.BatchNorm2d):
    """Batch norm that goes by the batch in eval mode, too."""

    def forward(self, x):
        return F.batch_norm(x, None, None, self.weight, self.bias, training=True)


def _hide(*layers):
    """As layers in a Python list: they run, and are not found."""
    return lambda x: nn.Sequential(*layers)(x)


def _none(*_):
    return nn.Identity()


def _project(where=lambda i, o, s: s != 1 or i != o, norm=nn.BatchNorm2d, kind=nn.Sequential, end=(), **options):
    """The right shortcut, or one with another condition, norm, end or options of its convolution."""

    @staticmethod  # so that it can be a part of a class, too
    def answer(channels_in, channels_out, stride):
        if not where(channels_in, channels_out, stride):
            return nn.Identity()
        options_of = {"kernel_size": 1, "stride": stride, "bias": False, **options}
        return kind(nn.Conv2d(channels_in, channels_out, **options_of), norm(channels_out), *end)

    return answer


_TOO_SELDOM = [
    _project(where=where)
    for where in (
        lambda i, o, s: False,
        lambda i, o, s: s != 1,
        lambda i, o, s: i != o,
        lambda i, o, s: s != 1 and i != o,
        lambda i, o, s: s != 1 or i < o,
        lambda i, o, s: s == 2 or i != o,
    )
]
_NEEDED = "the shortcut needs a 1x1 projection where the shape changes: `stride != 1 or channels_in != channels_out`."
_NOT_NEEDED = "no projection where the shape stays: the shortcut is x itself, `nn.Identity()`."
_BIAS = "a convolution has a bias. Batch norm has its own: `bias=False`."
_NO_NORM = "batch norm is missing. One follows each convolution, that of the projection too."
_NEIGHBOURS = (
    "in eval mode an image's output depends on its neighbours. Batch norm must use its running averages there."
)
_REGISTER = (
    "parameters() does not find convolutions and batch norms. Make each in `__init__`, and keep it as an attribute "
    "(`self.conv1 = ...`) or in an nn.ModuleList or nn.Sequential, not in a Python list."
)

shortcut = ModuleExercise(
    reference=_project(),
    cases=lambda: _shapes((4, 6, 2)),
    mistakes={
        _NEEDED: tuple(_TOO_SELDOM),
        _NOT_NEEDED: _project(where=lambda i, o, s: True),
        _BIAS: _project(bias=True),
        _NO_NORM: _project(norm=_none),
        "the projection is a 1x1 convolution, not a 3x3.": _project(kernel_size=3, padding=1),
        "a ReLU stands at the end. None belongs on the shortcut.": _project(end=[nn.ReLU()]),
        _NEIGHBOURS: _project(norm=BatchAlways),
        _REGISTER: _project(kind=_hide),
    },
    praise="a 1x1 convolution with the stride and a batch norm where the shape changes, x itself elsewhere.",
)


class Block(nn.Module):
    """The right block. A mistake replaces one of its parts."""

    norm, project, bias, padding = nn.BatchNorm2d, _project(), False, 1
    strides = staticmethod(lambda stride: (stride, 1))
    keep_conv, keep_norm = nn.Sequential, nn.Sequential

    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__()
        first, second = self.strides(stride)
        self.conv1 = self.keep_conv(nn.Conv2d(channels_in, channels_out, 3, first, self.padding, bias=self.bias))
        self.conv2 = self.keep_conv(nn.Conv2d(channels_out, channels_out, 3, second, self.padding, bias=self.bias))
        self.norm1, self.norm2 = (self.keep_norm(self.norm(channels_out)) for _ in range(2))
        self.shortcut = self.project(channels_in, channels_out, stride)

    def branch(self, x):
        return self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))

    def forward(self, x):
        return F.relu(self.branch(x) + self.shortcut(x))


def _overwrite(self, x):
    x = F.relu(self.norm1(self.conv1(x)))
    return F.relu(self.norm2(self.conv2(x)) + self.shortcut(x))


def block(**parts) -> type:
    return type("Block", (Block,), parts)


basic_block = ModuleExercise(
    reference=Block,
    cases=lambda: _shapes((4, 4, 1), (4, 6, 1), (4, 4, None)),
    mistakes={
        "the shortcut is not added.": block(forward=lambda self, x: F.relu(self.branch(x))),
        "the last ReLU comes before the addition. Add first, then apply it.": (
            block(forward=lambda self, x: F.relu(self.branch(x)) + self.shortcut(x)),
            block(forward=lambda self, x: F.relu(F.relu(self.branch(x)) + self.shortcut(x))),
        ),
        "there is no ReLU after the addition.": block(forward=lambda self, x: self.branch(x) + self.shortcut(x)),
        "there is no ReLU between the two convolutions.": (
            block(branch=lambda self, x: self.norm2(self.conv2(self.norm1(self.conv1(x)))))
        ),
        "the ReLU comes before the batch norm. The order is convolution, batch norm, ReLU.": (
            block(branch=lambda self, x: self.norm2(self.conv2(self.norm1(F.relu(self.conv1(x))))))
        ),
        "x is overwritten before the addition. Give the branch a name of its own.": block(forward=_overwrite),
        _NEEDED: tuple(block(project=project) for project in _TOO_SELDOM),
        _NOT_NEEDED: block(project=_project(where=lambda i, o, s: True)),
        "a 3x3 convolution lacks `padding=1`: it shrinks the image.": block(padding=0),
        "the stride belongs on the first 3x3 convolution, and on it alone.": (
            block(strides=staticmethod(lambda stride: (stride, stride))),
            block(strides=staticmethod(lambda stride: (1, stride))),
        ),
        _BIAS: (block(bias=True), block(project=_project(bias=True), bias=True)),
        _NO_NORM: (block(project=_project(norm=_none), norm=_none), block(project=_project(norm=_none))),
        _NEIGHBOURS: block(project=_project(norm=BatchAlways), norm=BatchAlways),
        _REGISTER: (
            block(keep_conv=staticmethod(_hide)),
            block(keep_conv=staticmethod(_hide), keep_norm=staticmethod(_hide)),
        ),
    },
    praise="two convolutions, the shortcut added, ReLU last; a projection only where the shape changes.",
)


class Probe(nn.Module):
    """Shows modes and passes. Its last layer is not its last attribute, one parameter stands bare."""

    def __init__(self, classes: int):
        super().__init__()
        self.head, self.body = nn.Linear(12, classes), nn.Sequential(nn.Linear(12, 12), nn.Dropout(0.5))
        self.norm, self.scale = nn.BatchNorm1d(12), nn.Parameter(torch.full((12,), 3.0))

    def forward(self, x):
        return self.head(self.norm(self.body(x.flatten(1))) * self.scale)


def _networks():
    """Both modes, few images and one, labels among which the last class is missing, logits small and large."""
    for training, classes, images, size in ((True, 7, 20, 1), (False, 3, 1, 1), (True, 12, 9, 8)):
        network = Probe(classes).train(training)
        network.norm.running_mean.uniform_(-1, 1)
        network.scale.data *= size
        yield network, 3 * torch.randn(images, 3, 2, 2) + 1, torch.randint(classes - 1, (images,))
    yield CustomResNet(width=2, classes=5).train(), torch.randn(6, 3, 32, 32), torch.randint(4, (6,))


def _loss(loss=F.cross_entropy, expected=lambda logits, y: math.log(logits.shape[1]), training=False, copied=True):
    def answer(network, x, y):
        was_training, network = network.training, copy.deepcopy(network) if copied else network
        logits = network.train(training)(x).detach()
        network.train(was_training)
        return loss(logits, y), expected(logits, y)

    return answer


first_loss = Exercise(
    reference=_loss(),
    cases=_networks,
    run=lambda answer, network, x, y: parts(call(answer, network, x, y), "loss", "chance"),
    mistakes={
        "measured in train mode. Call network.eval() before the forward pass, and give the mode back.": (
            _loss(training=True),
            _loss(training=True, copied=False),
            lambda network, x, y: (F.cross_entropy(logits := network(x), y), math.log(logits.shape[1])),
        ),
        "a softmax is applied twice: F.cross_entropy takes logits.": (
            _loss(lambda logits, y: F.cross_entropy(logits.softmax(1), y))
        ),
        "the loss is the sum over the images. Take their mean.": (
            _loss(lambda logits, y: F.cross_entropy(logits, y, reduction="sum"))
        ),
        "the second number must be the natural logarithm of the classes: math.log.": tuple(
            _loss(expected=lambda logits, y, what=what: what(logits.shape[1]))
            for what in (math.log10, math.log2, lambda classes: -math.log(classes), lambda classes: 1 / classes)
        ),
        "the number of classes is the last side of the logits: not always ten, nor the labels that occur.": tuple(
            _loss(expected=lambda logits, y, count=count: math.log(count(y)))
            for count in (lambda y: 10, lambda y: len(y.unique()), lambda y: y.max() + 1, len)
        ),
    },
    praise="the loss in eval mode and log(classes), and the network is as it was.",
)


class Network(nn.Module):
    """`Broken` of lesson 03 without its faults. A mistake replaces one of its parts."""

    parts = {
        "keep": nn.ModuleList,
        "start": lambda net, x: net.prep(x),
        "normalise": lambda net, x: net.norm(x),
        "block": lambda branch, x: x + branch(x),
        "end": lambda logits: logits,
    }

    def __init__(self, width=8, classes=10):
        super().__init__()
        convs = [nn.Conv2d(channels, width, 3, padding=1, bias=False) for channels in (3, width, width)]
        self.prep, self.norm, self.linear = convs[0], nn.BatchNorm2d(width), nn.Linear(width, classes)
        branches = [nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU()) for conv in convs[1:]]
        self.branches = self.parts["keep"](branches)

    def forward(self, x):
        x = F.relu(self.parts["normalise"](self, self.parts["start"](self, x)))
        for branch in self.branches:
            x = self.parts["block"](branch, x)
        return self.parts["end"](self.linear(x.mean(dim=(2, 3))))


def network(**parts) -> type:
    return type("Network", (Network,), {"parts": Network.parts | parts})


_SYMPTOMS = {
    "symptom 1 is still there: parameters() does not find the branches. nn.Module looks into its attributes, an "
    "nn.ModuleList or nn.Sequential, not into a Python list.": {"keep": list},
    "symptom 2 is still there: no gradient reaches the first convolution. Run it outside torch.no_grad().": {
        "start": lambda net, x: net.prep(x).detach()
    },
    f"symptom 3 is still there: {_NEIGHBOURS}": {"normalise": lambda net, x: BatchAlways.forward(net.norm, x)},
    "symptom 4 is still there: the outputs are probabilities. Return logits.": {
        "end": lambda logits: logits.softmax(1)
    },
    "symptom 5 is still there: each block must give x + branch(x). In `x = branch(x)` the old x is gone.": {
        "block": lambda branch, x: 2 * branch(x)
    },
}


def _still(words: str) -> tuple:
    """The networks that have this symptom, and any of those after it."""
    later = [part for other, part in _SYMPTOMS.items() if list(_SYMPTOMS).index(other) > list(_SYMPTOMS).index(words)]
    subsets = itertools.chain(*(itertools.combinations(later, count) for count in range(len(later) + 1)))
    return tuple(
        network(**_SYMPTOMS[words], **dict(part for more in subset for part in more.items())) for subset in subsets
    )


repaired_network = ModuleExercise(
    reference=Network,
    cases=lambda: [(6, 5, torch.rand(8, 3, 12, 10)), (None, None, torch.rand(2, 3, *sizes(2, 5, 9)))],
    mistakes={
        **{words: _still(words) for words in _SYMPTOMS},
        "x must come through each block, once: x + branch(x).": (
            network(block=lambda branch, x: branch(x)),
            network(block=lambda branch, x: x + x + branch(x)),
        ),
        "the outputs are log-probabilities. Return logits.": network(end=lambda logits: logits.log_softmax(1)),
    },
    praise="all five are gone: registered layers, gradients, both modes, logits, and x on the shortcut.",
)
