"""Every network of the course, from the same few blocks. All take (B, 3, H, W) and return logits (B, classes).

Logits, not probabilities: cross-entropy applies the softmax itself, in a numerically safer way.
Attribute names are torchvision's where torchvision has the network, so that its weights can be loaded.
A block of stride s makes (B, out, H/s, W/s) of (B, in, H, W).
"""

from collections import OrderedDict
from functools import partial

import torch.nn.functional as F
from torch import nn

ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "silu": nn.SiLU, "gelu": nn.GELU}


def conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution that keeps height and width (at stride 1). No bias: batch norm follows and has its own."""
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)


def conv_bn_relu(channels_in: int, channels_out: int, stride: int = 1, pool: int = 1, activation="relu"):
    """conv3x3, max pooling (if pool > 1), batch norm, activation: (B, in, H, W) -> (B, out, H', W').

    H' is H / stride / pool, W' likewise. `activation` is a name in ACTIVATIONS or a class such as nn.Mish.
    """
    kind = activation if isinstance(activation, type) else _option("activation", activation, ACTIVATIONS)
    pooling = [nn.MaxPool2d(pool)] if pool > 1 else []
    after = [nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True) if kind is nn.ReLU else kind()]
    return nn.Sequential(conv3x3(channels_in, channels_out, stride), *pooling, *after)


def projection(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    """Shortcut with weights, option B of He et al. 2015: a 1x1 convolution and a batch norm."""
    conv = nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out))


class Padding(nn.Module):
    """Shortcut without weights, option A: every `stride`-th pixel, and zeros for the channels that x lacks."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.stride, self.extra = stride, channels_out - channels_in

    def forward(self, x):
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


def _shortcut(channels_in: int, channels_out: int, stride: int, option: str) -> nn.Module:
    """x itself where a block keeps its shape; otherwise option "A" pads and "B" projects."""
    make = _option("shortcut", option, {"A": Padding, "B": projection})
    return nn.Identity() if channels_in == channels_out and stride == 1 else make(channels_in, channels_out, stride)


def _option(name: str, value: str, allowed: dict):
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}.")
    return allowed[value]


class Residual(nn.Module):
    """A shortcut and two conv_bn_relu: the activation comes before the addition, none after it."""

    expansion, last_norm = 1, "branch.1.1"

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1, shortcut="B", activation="relu"):
        super().__init__()
        first = conv_bn_relu(channels_in, channels_out, stride, activation=activation)
        self.branch = nn.Sequential(first, conv_bn_relu(channels_out, channels_out, activation=activation))
        self.downsample = _shortcut(channels_in, channels_out, stride, shortcut)

    def forward(self, x):
        return self.downsample(x) + self.branch(x)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, section 3.3). The stride sits on the first convolution.

    `residual=False` leaves the addition out: a plain block, for comparison.
    """

    expansion, last_norm = 1, "bn2"

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1, shortcut="B", residual=True):
        super().__init__()
        self.conv1 = conv3x3(channels_in, channels_out, stride)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(channels_out, channels_out)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample = _shortcut(channels_in, channels_out, stride, shortcut) if residual else None

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out if self.downsample is None else out + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1 down to a quarter of the channels, 3x3, 1x1 up again, and a shortcut (He et al. 2015, section 4.1).

    The stride sits on the 3x3, as in torchvision; the paper has it on the first 1x1.
    """

    expansion, last_norm = 4, "bn3"

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1, shortcut="B"):
        super().__init__()
        width = channels_out // self.expansion
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(channels_in, channels_out, stride, shortcut)

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + self.downsample(x))


def _zero_init(network: nn.Module) -> None:
    """Weight 0 for the last batch norm of each branch: a residual block starts as its shortcut (Goyal et al. 2017).

    ReLU passes no gradient back at exactly 0. Where it sees this 0 and nothing else (in `Residual`, and in the channels
    that `Padding` fills with zeros) the branch would stay 0 for ever: there a bias a hair above 0 lets it learn.
    """
    for block in network.modules():
        if getattr(block, "downsample", None) is not None:
            last = block.get_submodule(block.last_norm)
            nn.init.zeros_(last.weight)
            if isinstance(block, Residual) or isinstance(block.downsample, Padding):
                nn.init.constant_(last.bias, 1e-6)


class CustomResNet(nn.Module):
    """The course's network for 32x32 images: 6,573,130 parameters at width 64 and 10 classes.

    (B, 3, 32, 32) -> prep (B, w, 32, 32) -> layer1 (B, 2w, 16, 16) -> layer2 (B, 4w, 8, 8) -> layer3 (B, 8w, 4, 4)
    -> max pooling (B, 8w) -> logits (B, classes). Layers 1 and 3 end in a residual block. `activation` as in
    `conv_bn_relu`; with `zero_init_residual` the residual blocks start as the identity.
    """

    def __init__(self, width: int = 64, classes: int = 10, activation="relu", zero_init_residual=False):
        super().__init__()
        w, options = width, {"activation": activation}
        self.prep = conv_bn_relu(3, w, **options)
        self.layer1 = nn.Sequential(conv_bn_relu(w, 2 * w, pool=2, **options), Residual(2 * w, 2 * w, **options))
        self.layer2 = conv_bn_relu(2 * w, 4 * w, pool=2, **options)
        self.layer3 = nn.Sequential(conv_bn_relu(4 * w, 8 * w, pool=2, **options), Residual(8 * w, 8 * w, **options))
        self.pool = nn.MaxPool2d(4)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(8 * w, classes)
        if zero_init_residual:
            _zero_init(self)

    def forward(self, x):
        if x.shape[1:] != (3, 32, 32):
            raise ValueError(f"CustomResNet takes (B, 3, 32, 32), got {tuple(x.shape)}. One image: x.unsqueeze(0).")
        x = self.layer3(self.layer2(self.layer1(self.prep(x))))
        return self.linear(self.flatten(self.pool(x)))


class ResNet(nn.Sequential):
    """ResNet (He et al. 2015, table 1): a stem, stages of `counts` blocks, the mean over all pixels, one linear layer.

    stem "imagenet": 7x7 convolution of stride 2 and max pooling, a 224x224 image enters layer1 as 56x56; parameter
    names and shapes are torchvision's. stem "small": one 3x3 convolution, for 32x32 images. Each stage but the first
    halves the side. A stage of width w has w * block.expansion channels; `options` go to each block.
    """

    def __init__(self, block, counts, classes=1000, stem="imagenet", zero_init_residual=False, widths=None, **options):
        widths = widths or (64, 128, 256, 512)
        channels, large = widths[0], _option("stem", stem, {"imagenet": True, "small": False})
        layers = OrderedDict(
            conv1=nn.Conv2d(3, channels, 7, 2, padding=3, bias=False) if large else conv3x3(3, channels),
            bn1=nn.BatchNorm2d(channels),
            relu=nn.ReLU(inplace=True),
            maxpool=nn.MaxPool2d(3, 2, padding=1) if large else nn.Identity(),
        )
        for i, (count, width) in enumerate(zip(counts, widths, strict=True)):
            channels_in, channels = channels, width * block.expansion
            first = block(channels_in, channels, stride=2 if i else 1, **options)
            rest = (block(channels, channels, **options) for _ in range(count - 1))
            layers[f"layer{i + 1}"] = nn.Sequential(first, *rest)
        super().__init__(layers | {"avgpool": nn.AdaptiveAvgPool2d(1), "fc": nn.Linear(channels, classes)})
        for module in self.modules():  # keeps the variance through ReLU layers (He et al., "Delving deep", 2015)
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if zero_init_residual:
            _zero_init(self)

    def forward(self, x):
        for layer in self:
            x = layer(x.flatten(1) if layer is self.fc else x)
        return x


resnet18 = partial(ResNet, BasicBlock, (2, 2, 2, 2))
resnet34 = partial(ResNet, BasicBlock, (3, 4, 6, 3))
resnet50 = partial(ResNet, Bottleneck, (3, 4, 6, 3))


class CifarResNet(ResNet):
    """ResNet for CIFAR-10 (He et al. 2015, section 4.2): three stages of n blocks at widths 16, 32 and 64.

    (B, 3, 32, 32) -> (B, 16, 32, 32) -> (B, 32, 16, 16) -> (B, 64, 8, 8) -> mean (B, 64) -> logits. Where the shape
    changes, shortcut "A" pads and "B" projects; `residual=False` leaves shortcuts out: the paper's plain network.
    """

    def __init__(self, depth: int, residual=True, classes: int = 10, shortcut="A", zero_init_residual=False):
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth must be 6n + 2 (8, 14, 20, 32, 44, 56, 110, ...), got {depth}.")
        options = {"widths": (16, 32, 64), "shortcut": shortcut, "residual": residual}
        super().__init__(BasicBlock, 3 * (depth // 6,), classes, "small", zero_init_residual, **options)
