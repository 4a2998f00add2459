"""Every network of the course, from the same few blocks. All take (B, 3, H, W) and return logits (B, classes).

Logits, not probabilities: cross-entropy applies the softmax itself, in a numerically safer way.
Attribute names are torchvision's where torchvision has the network, so that its weights can be loaded.
"""

import torch
import torch.nn.functional as F
from torch import nn

# ---------------------------------------------------------------- one clear error for bad input


def _image_batch(x: torch.Tensor, smallest: int, network: str, largest: int | None = None) -> None:
    """Refuse early what would fail deep inside the network with a message about something else."""
    if not isinstance(x, torch.Tensor):
        raise ValueError(f"{network}: input must be a tensor (B, 3, H, W), got {type(x).__name__}.")
    if x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < smallest:
        raise ValueError(
            f"{network}: input must be (B, 3, H, W) with H and W at least {smallest}, got {tuple(x.shape)}. "
            "A single image needs a batch dimension (x.unsqueeze(0)); a grey one needs three channels."
        )
    if largest and max(x.shape[2:]) > largest:
        raise ValueError(f"{network}: made for {largest}x{largest} images, got {tuple(x.shape)}. Scale them down.")
    if not x.is_floating_point():
        raise ValueError(f"{network}: input must be floating point, got {x.dtype}. Divide pixels by 255, normalise.")


def _whole(**values: int) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")


def _one_of(*allowed, **values) -> None:
    for name, value in values.items():
        if type(value) not in map(type, allowed) or value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}.")


# ---------------------------------------------------------------- blocks


def conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution that keeps height and width (at stride 1). No bias: batch norm follows and has its own."""
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)


def conv1x1(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """1x1 convolution: mixes channels, and thins out pixels at stride 2."""
    return nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False)


ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "silu": nn.SiLU, "gelu": nn.GELU}


def _activation(which: str | type[nn.Module]) -> nn.Module:
    if isinstance(which, type) and issubclass(which, nn.Module):
        return which()
    _one_of(*ACTIVATIONS, activation=which)
    return nn.ReLU(inplace=True) if which == "relu" else ACTIVATIONS[which]()


def conv_bn_relu(channels_in: int, channels_out: int, pool: int = 1, activation="relu") -> nn.Sequential:
    """conv3x3, max pooling (if pool > 1), batch norm, ReLU: (B, in, H, W) -> (B, out, H/pool, W/pool)."""
    pooling = [nn.MaxPool2d(pool)] if pool > 1 else []
    return nn.Sequential(
        conv3x3(channels_in, channels_out), *pooling, nn.BatchNorm2d(channels_out), _activation(activation)
    )


class Residual(nn.Module):
    """x + f(x) with f = two conv-BN-ReLU of the same width: the ReLU comes before the addition, none after it."""

    last_norm = "branch.1.1"

    def __init__(self, channels: int, activation="relu"):
        super().__init__()
        self.branch = nn.Sequential(*(conv_bn_relu(channels, channels, activation=activation) for _ in range(2)))

    def forward(self, x):
        return x + self.branch(x)


def projection(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    """Shortcut with weights where the shape changes, option B: a 1x1 convolution and a batch norm."""
    return nn.Sequential(conv1x1(channels_in, channels_out, stride), nn.BatchNorm2d(channels_out))


class Padding(nn.Module):
    """Shortcut without weights, option A: every `stride`-th pixel, and zeros for the channels that x lacks."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.stride, self.extra = stride, channels_out - channels_in

    def forward(self, x):
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, section 3.3). The stride sits on the first convolution.

    `shortcut` (a `projection` or `Padding`) maps x to the shape of the branch's output; None leaves x as it is.
    `residual=False` leaves the addition out altogether: a plain block, for comparison.
    """

    expansion, last_norm = 1, "bn2"

    def __init__(self, channels_in, width, stride=1, shortcut=None, residual=True):
        super().__init__()
        self.conv1 = conv3x3(channels_in, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut
        self.residual = residual

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.residual:
            out = out + (x if self.downsample is None else self.downsample(x))
        return self.relu(out)


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the width (He et al. 2015, section 4.1).

    The stride sits on the 3x3, as in torchvision; the paper has it on the first 1x1.
    """

    expansion, last_norm = 4, "bn3"

    def __init__(self, channels_in, width, stride=1, shortcut=None):
        super().__init__()
        self.conv1 = conv1x1(channels_in, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, width * self.expansion)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


def _stage(block, channels_in, width, count, stride, shortcut=projection, **options) -> nn.Sequential:
    """`count` blocks; the first one takes the stride, and a shortcut of its own where the shape changes."""
    channels = width * block.expansion
    changes = stride != 1 or channels_in != channels
    first = block(channels_in, width, stride, shortcut(channels_in, channels, stride) if changes else None, **options)
    return nn.Sequential(first, *(block(channels, width, **options) for _ in range(count - 1)))


def _initialise(network: nn.Module) -> None:
    """He et al. 2015 ("Delving deep into rectifiers"): keeps the variance of activations through ReLU layers."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _silence(network: nn.Module) -> None:
    """Weight 0 for the last batch norm of each branch: every block starts as its shortcut (Goyal et al. 2017).

    ReLU passes no gradient back at exactly 0. In `Residual`, and in the channels that `Padding` fills with zeros, a
    branch of exactly 0 would therefore stay silent for ever; a bias a hair above 0 lets it learn.
    tests/benchmarks/zero_init.py measures what this is worth.
    """
    for block in network.modules():
        if isinstance(block, Residual | BasicBlock | Bottleneck):
            last = block.get_submodule(block.last_norm)
            nn.init.zeros_(last.weight)
            nn.init.constant_(last.bias, 1e-6)


# ---------------------------------------------------------------- the network that the course trains


class CustomResNet(nn.Module):
    """The course's network for 32x32 images: 6,573,130 parameters at width 64 and 10 classes.

    (B, 3, 32, 32) -> prep (B, w, 32, 32) -> layer1 (B, 2w, 16, 16) -> layer2 (B, 4w, 8, 8) -> layer3 (B, 8w, 4, 4)
    -> max pooling (B, 8w) -> logits (B, classes). Layers 1 and 3 end in a residual branch.
    `activation` is a name in ACTIVATIONS or a class such as nn.Mish; `zero_init_residual` starts with silent branches.
    """

    def __init__(self, width: int = 64, classes: int = 10, activation="relu", zero_init_residual=False):
        super().__init__()
        _whole(width=width, classes=classes)
        _one_of(True, False, zero_init_residual=zero_init_residual)
        w, bend = width, activation
        self.prep = conv_bn_relu(3, w, activation=bend)
        self.layer1 = nn.Sequential(conv_bn_relu(w, 2 * w, 2, bend), Residual(2 * w, bend))
        self.layer2 = conv_bn_relu(2 * w, 4 * w, 2, bend)
        self.layer3 = nn.Sequential(conv_bn_relu(4 * w, 8 * w, 2, bend), Residual(8 * w, bend))
        self.pool = nn.MaxPool2d(4)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(8 * w, classes)
        if zero_init_residual:
            _silence(self)

    def forward(self, x):
        _image_batch(x, 32, "CustomResNet", largest=32)
        x = self.layer3(self.layer2(self.layer1(self.prep(x))))
        return self.linear(self.flatten(self.pool(x)))


# ---------------------------------------------------------------- ResNets of He et al. 2015


class ResNet(nn.Module):
    """ResNet for ImageNet (He et al. 2015, table 1). Use `resnet18()` to `resnet152()`.

    stem "imagenet": 7x7 convolution of stride 2 and max pooling, a 224x224 image enters layer1 as 56x56; parameter
    names and shapes are torchvision's. stem "small": one 3x3 convolution of stride 1, for 32x32 images.
    """

    def __init__(self, block, counts, classes: int = 1000, stem: str = "imagenet", zero_init_residual=False):
        super().__init__()
        _whole(classes=classes)
        _one_of("imagenet", "small", stem=stem)
        _one_of(True, False, zero_init_residual=zero_init_residual)
        self.stem = stem
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False) if stem == "imagenet" else conv3x3(3, 64)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "imagenet" else nn.Identity()
        widths = (64, 128, 256, 512)
        channels = [64, *(width * block.expansion for width in widths)]
        for i in range(4):
            stage = _stage(block, channels[i], widths[i], counts[i], stride=1 if i == 0 else 2)
            setattr(self, f"layer{i + 1}", stage)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels[-1], classes)
        _initialise(self)
        if zero_init_residual:
            _silence(self)

    def forward(self, x):
        _image_batch(x, 32 if self.stem == "imagenet" else 8, "ResNet")
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet18(**options) -> ResNet:
    return ResNet(BasicBlock, (2, 2, 2, 2), **options)


def resnet34(**options) -> ResNet:
    return ResNet(BasicBlock, (3, 4, 6, 3), **options)


def resnet50(**options) -> ResNet:
    return ResNet(Bottleneck, (3, 4, 6, 3), **options)


def resnet101(**options) -> ResNet:
    return ResNet(Bottleneck, (3, 4, 23, 3), **options)


def resnet152(**options) -> ResNet:
    return ResNet(Bottleneck, (3, 8, 36, 3), **options)


class CifarResNet(nn.Module):
    """ResNet for CIFAR-10 (He et al. 2015, section 4.2): three stages of n blocks at widths 16, 32 and 64.

    (B, 3, 32, 32) -> (B, 16, 32, 32) -> (B, 32, 16, 16) -> (B, 64, 8, 8) -> mean (B, 64) -> logits. Where the shape
    changes, shortcut "A" pads and "B" projects; `residual=False` leaves shortcuts out: the paper's plain network.
    """

    def __init__(
        self, depth: int, residual: bool = True, classes: int = 10, shortcut: str = "A", zero_init_residual=False
    ):
        super().__init__()
        _whole(depth=depth, classes=classes)
        _one_of(True, False, residual=residual, zero_init_residual=zero_init_residual)
        _one_of("A", "B", shortcut=shortcut)
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth must be 6n + 2 (8, 14, 20, 32, 44, 56, 110, ...), got {depth}.")
        if zero_init_residual and not residual:
            raise ValueError("zero_init_residual must be False in a plain network: its blocks would give only 0.")
        self.conv1 = conv3x3(3, 16)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        make = {"A": Padding, "B": projection}[shortcut] if residual else lambda *shape: None
        for i, (channels_in, width) in enumerate([(16, 16), (16, 32), (32, 64)]):
            stage = _stage(BasicBlock, channels_in, width, (depth - 2) // 6, 2 if i else 1, make, residual=residual)
            setattr(self, f"layer{i + 1}", stage)
        self.fc = nn.Linear(64, classes)
        _initialise(self)
        if zero_init_residual:
            _silence(self)

    def forward(self, x):
        _image_batch(x, 4, "CifarResNet")
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean(dim=(2, 3)))


def cifar_resnet(depth: int, residual: bool = True, classes: int = 10, **options) -> CifarResNet:
    return CifarResNet(depth, residual, classes, **options)


# ---------------------------------------------------------------- VGG of Simonyan & Zisserman 2014

# Convolutions in each of the five stages, whose widths are 64, 128, 256, 512, 512 (their table 1).
_VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(nn.Module):
    """VGG (Simonyan & Zisserman 2014, table 1). Use `vgg11()` to `vgg19_bn()`.

    head "imagenet": three linear layers of 4096, 4096 and `classes`, as torchvision has them. head "small": the mean
    over the last feature map and one linear layer, for 32x32 images (they reach the head as 1x1).
    """

    def __init__(self, depth: int, batch_norm: bool = False, classes: int = 1000, head: str = "imagenet"):
        super().__init__()
        _whole(classes=classes)
        _one_of(*_VGG, depth=depth)
        _one_of(True, False, batch_norm=batch_norm)
        _one_of("imagenet", "small", head=head)
        layers, channels = [], 3
        for width, count in zip((64, 128, 256, 512, 512), _VGG[depth], strict=True):
            for _ in range(count):
                layers.append(nn.Conv2d(channels, width, 3, padding=1))
                layers += [nn.BatchNorm2d(width)] if batch_norm else []
                layers.append(nn.ReLU(inplace=True))
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7 if head == "imagenet" else 1)
        if head == "imagenet":
            self.classifier = nn.Sequential(
                nn.Linear(512 * 7 * 7, 4096), nn.ReLU(inplace=True), nn.Dropout(),
                nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(),
                nn.Linear(4096, classes),
            )  # fmt: skip
        else:
            self.classifier = nn.Linear(512, classes)
        _initialise(self)

    def forward(self, x):
        _image_batch(x, 32, "VGG")
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def vgg11(**options) -> VGG:
    return VGG(11, **options)


def vgg13(**options) -> VGG:
    return VGG(13, **options)


def vgg16(**options) -> VGG:
    return VGG(16, **options)


def vgg19(**options) -> VGG:
    return VGG(19, **options)


def vgg11_bn(**options) -> VGG:
    return VGG(11, batch_norm=True, **options)


def vgg13_bn(**options) -> VGG:
    return VGG(13, batch_norm=True, **options)


def vgg16_bn(**options) -> VGG:
    return VGG(16, batch_norm=True, **options)


def vgg19_bn(**options) -> VGG:
    return VGG(19, batch_norm=True, **options)
