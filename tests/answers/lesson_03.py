"""Answers to the exercises of lesson 03."""

import copy
import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks.lesson_03 import Block, Network, block, network

C = (0, 2, 3)  # averaging over these leaves one number a channel


# ---------------------------------------------------------------- batch_norm_train


def norm_loop(x, weight, bias, eps):
    out = torch.empty_like(x)
    for c in range(x.shape[1]):
        numbers = x[:, c]
        out[:, c] = (numbers - numbers.mean()) / torch.sqrt(((numbers - numbers.mean()) ** 2).mean() + eps)
        out[:, c] = out[:, c] * weight[c] + bias[c]
    return out


def norm_python_roots(x, weight, bias, eps):
    def one(z):
        return (z - z.mean()) / math.sqrt(z.var(correction=0).item() + eps)

    return torch.stack([one(x[:, c]) * weight[c] + bias[c] for c in range(x.shape[1])], dim=1)


def norm_rows(x, weight, bias, eps):
    n, c, h, w = x.shape
    rows = x.permute(1, 0, 2, 3).reshape(c, -1)
    rows = (rows - rows.mean(1, keepdim=True)) * torch.rsqrt(rows.var(1, keepdim=True, unbiased=False) + eps)
    return (rows * weight[:, None] + bias[:, None]).reshape(c, n, h, w).permute(1, 0, 2, 3)


def norm_moments(x, weight, bias, eps):
    mean = torch.einsum("nchw->c", x) / (x.numel() / x.shape[1])
    scale = weight / ((x**2).mean(C) - mean**2 + eps) ** 0.5
    return x * scale[:, None, None] + (bias - mean * scale)[:, None, None]


def norm_layer(x, weight, bias, eps):
    layer = nn.BatchNorm2d(x.shape[1], eps=eps)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer(x)


def norm_numpy(x, weight, bias, eps):
    z = x.numpy().astype("float64")
    z = (z - z.mean(C, keepdims=True)) / (z.var(C, keepdims=True) + eps) ** 0.5
    return z * weight.numpy()[None, :, None, None] + bias.numpy()[None, :, None, None]


def norm_counted(count):
    def answer(x, weight, bias, eps):
        mean = x.sum(C, keepdim=True) / count(x)
        variance = (x - mean).square().sum(C, keepdim=True) / count(x)
        return (x - mean) / (variance + eps).sqrt() * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)

    return answer


def norm_in_place(x, weight, bias, eps):
    right = norm_rows(x, weight, bias, eps)
    x -= x.mean(C, keepdim=True)
    return right


running = []


def norm_of_all_calls(x, weight, bias, eps):
    running.append(x.mean(C))
    mean = sum(running[-2:]) / len(running[-2:]) if len({len(m) for m in running[-2:]}) == 1 else running[-1]
    return norm_rows(x, weight, bias, eps) + (running[-1] - mean).view(-1, 1, 1)


# ---------------------------------------------------------------- shortcut and basic_block


class OwnNorm(nn.Module):
    """Batch norm by hand, as the lesson has it."""

    moving = True

    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))

    def forward(self, x):
        mean, var = (self.mean, self.var) if self.moving else (self.mean.clone(), self.var.clone())
        return F.batch_norm(x, mean, var, self.weight, self.bias, training=self.training)


class StillNorm(OwnNorm):
    moving = False


def changes(c_in, c_out, stride):
    return stride != 1 or c_in != c_out


def path(kind=nn.Sequential, norm=nn.BatchNorm2d, first=(), conv=nn.Conv2d, **options):
    """The right shortcut, or one with something changed."""

    def shortcut(c_in, c_out, stride):
        if not changes(c_in, c_out, stride):
            return nn.Identity()
        layer = conv(c_in, c_out, kernel_size=1, **{"stride": stride, "bias": False, **options})
        return kind(*first, layer, norm(c_out))

    return shortcut


class PathClass(nn.Module):
    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.bn = OwnNorm(c_out) if changes(c_in, c_out, stride) else None
        if self.bn is not None:
            self.w = nn.Parameter(torch.randn(c_out, c_in, 1, 1))
        self.stride = stride

    def forward(self, x):
        return x if self.bn is None else self.bn(F.conv2d(x, self.w, stride=self.stride))


class PathSubsampled(nn.Module):
    """First every second pixel, then a convolution of stride 1: the same numbers."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.stride, self.same = stride, not changes(c_in, c_out, stride)
        if not self.same:
            self.norm, self.mix = nn.BatchNorm2d(c_out), nn.Conv2d(c_in, c_out, 1, bias=False)

    def forward(self, x):
        return x if self.same else self.norm(self.mix(x[..., :: self.stride, :: self.stride]))


def path_lambda(c_in, c_out, stride):
    return path()(c_in, c_out, stride) if changes(c_in, c_out, stride) else lambda x: x


def path_without_else(c_in, c_out, stride):
    if changes(c_in, c_out, stride):
        return path()(c_in, c_out, stride)


def norm_at_zero(channels):
    norm = nn.BatchNorm2d(channels)
    nn.init.zeros_(norm.weight)
    return norm


class NoNormInEval(nn.Sequential):
    def forward(self, x):
        return super().forward(x) if self.training else self[0](x)


shared_projection = path(conv=functools.lru_cache(nn.Conv2d))


class BlockReversed(nn.Module):
    """Defined from back to front, under other names."""

    def __init__(self, a, b, s=1):
        super().__init__()
        if s != 1 or a != b:
            self.skip_norm = nn.BatchNorm2d(b)
            self.skip = nn.Conv2d(a, b, 1, s, bias=False)
        self.n2, self.c2 = nn.BatchNorm2d(b), nn.Conv2d(b, b, 3, 1, 1, bias=False)
        self.n1, self.c1 = nn.BatchNorm2d(b), nn.Conv2d(a, b, 3, s, 1, bias=False)

    def forward(self, x):
        way = self.skip_norm(self.skip(x)) if hasattr(self, "skip") else x
        return torch.clamp(way + self.n2(self.c2(torch.clamp(self.n1(self.c1(x)), min=0))), min=0)


class BlockSequential(nn.Module):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__()
        self.f = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, padding="same" if stride == 1 else 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            norm_at_zero(channels_out),
        )
        self.g, self.relu = path()(channels_in, channels_out, stride), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.f(x).add_(self.g(x)))


class BlockFunctional(nn.Module):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__()
        self.stride = stride
        self.w1 = nn.Parameter(torch.randn(channels_out, channels_in, 3, 3) * 0.2)
        self.w2 = nn.Parameter(torch.randn(channels_out, channels_out, 3, 3) * 0.2)
        self.norms = nn.ModuleList([OwnNorm(channels_out), OwnNorm(channels_out)])
        self.project = PathClass(channels_in, channels_out, stride)

    def forward(self, x):
        z = F.conv2d(F.pad(x, (1, 1, 1, 1)), self.w1, stride=self.stride)
        z = self.norms[1](F.conv2d(F.relu(self.norms[0](z)), self.w2, padding=1))
        return F.relu(z + self.project(x))


def changed(network, change):
    """The check's own network, changed after it is made."""

    def make(*arguments):
        made = network(*arguments)
        change(made)
        return made

    return make


def no_grad_shortcut(self, x):
    with torch.no_grad():
        shortcut = self.shortcut(x)
    return F.relu(self.branch(x) + shortcut)


def joined_in_place(self, x):
    shortcut = self.shortcut(x)
    shortcut += self.branch(x)
    return F.relu(shortcut)


def conv_made_in_forward(self, x):
    conv = nn.Conv2d(x.shape[1], self.conv2[0].in_channels, 3, self.conv1[0].stride, 1, bias=False)
    return self.norm2(self.conv2(F.relu(self.norm1(conv(x)))))


# ---------------------------------------------------------------- first_loss


def logits_of(network, x, mode=False):
    was = network.training
    with torch.no_grad():
        logits = network.train(mode)(x)
    network.train(was)
    return logits


def loss_of(loss=F.cross_entropy, classes=lambda network, logits, y: logits.shape[1]):
    def first_loss(network, x, y):
        logits = logits_of(network, x)
        return loss(logits, y), math.log(classes(network, logits, y))

    return first_loss


def loss_with_gradient(network, x, y):
    was = network.training
    logits = network.eval()(x)
    network.train(was)
    return [nn.CrossEntropyLoss()(logits, y), torch.tensor(float(logits.size(-1))).log()]


def by_hand(logits, y):
    return -sum(math.log(p[c]) for p, c in zip(logits.softmax(1).tolist(), y.tolist(), strict=True)) / len(y)


def loss_of_a_copy(network, x, y):
    logits = copy.deepcopy(network).eval()(x).detach()
    loss = (torch.logsumexp(logits, 1) - logits[torch.arange(len(y)), y]).mean()
    return torch.stack([loss, torch.tensor(math.log(logits.shape[1]))])


def with_numpy(network, x, y):
    logits = logits_of(network, x).numpy()
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return np.array([-log_p[np.arange(len(y)), y.numpy()].mean(), np.log(logits.shape[1])])


def loss_step(network, x, y):
    was = network.training
    loss = F.cross_entropy(network.eval()(x), y)
    loss.backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    network.train(was)
    return loss.item(), loss_of()(network, x, y)[1]


def loss_backward(network, x, y):
    was = network.training
    logits = network.eval()(x)
    network.train(was)
    F.cross_entropy(logits, y).backward()
    return F.cross_entropy(logits, y).item(), math.log(logits.shape[1])


def flag_only(network, x, y):
    was = network.training
    logits = network.eval()(x)
    network.training = was
    return F.cross_entropy(logits, y).item(), math.log(logits.shape[1])


def always_train(network, x, y):
    logits = network.eval()(x)
    network.train()
    return F.cross_entropy(logits, y).item(), math.log(logits.shape[1])


def gradients_off(network, x, y):
    torch.set_grad_enabled(False)
    return loss_of()(network, x, y)


def frozen(network, x, y):
    network.requires_grad_(False)
    return loss_of()(network, x, y)


def hooked(network, x, y):
    network.register_forward_hook(lambda *_: None)
    return loss_of()(network, x, y)


def remembered(network, x, y):
    network.first_loss = loss_of()(network, x, y)
    return network.first_loss


# ---------------------------------------------------------------- repaired_network


def conv_norm_relu(channels, width):
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


class NetworkReversed(nn.Module):
    def __init__(self, width=8, classes=10):
        super().__init__()
        self.head = nn.Linear(width, classes)
        self.second, self.one, self.stem = (conv_norm_relu(channels, width) for channels in (width, width, 3))

    def forward(self, x):
        x = self.stem(x)
        x = self.one(x) + x
        x = torch.add(x, self.second(x))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Add(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return x + self.f(x)


class NetworkOfBlocks(nn.Sequential):
    def __init__(self, width=8, classes=10):
        blocks = [Add(conv_norm_relu(width, width)) for _ in range(2)]
        end = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)
        super().__init__(conv_norm_relu(3, width), *blocks, *end)


class RegisteredBesideAList(network(keep=list)):
    def __init__(self, width=8, classes=10):
        super().__init__(width, classes)
        for i, branch in enumerate(self.branches):
            self.add_module(f"branch{i}", branch)


def functional_norm(net, x):
    n = net.norm
    return F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, training=net.training)


def added_in_place(branch, x):
    x += branch(x)
    return x


def under_no_grad(net, x):
    with torch.no_grad():
        return net.prep(x)


def one_norm_for_both(net):
    net.branches[1].forward = lambda x: F.relu(net.branches[0][1](net.branches[1][0](x)))


def softmax_in_eval_mode(net):
    net.linear.register_forward_hook(lambda layer, x, logits: logits if layer.training else logits.softmax(1))


def share_branches(net):
    net.branches = shared_branches(net.prep.out_channels)


shared_branches = functools.lru_cache(lambda width: nn.ModuleList(conv_norm_relu(width, width) for _ in range(2)))

RIGHT = {
    "batch_norm_train": {
        "a loop over channels": norm_loop,
        "Python's square root": norm_python_roots,
        "rows of numbers": norm_rows,
        "mean of squares minus square of mean": norm_moments,
        "the layer of PyTorch": norm_layer,
        "F.batch_norm": lambda x, weight, bias, eps: F.batch_norm(x, None, None, weight, bias, True, 0.1, eps),
        "numpy, in double precision": norm_numpy,
    },
    "shortcut": {
        "a class with functional calls": PathClass,
        "a lambda where the shape stays": path_lambda,
        "every second pixel first": PathSubsampled,
        "weight 0 at the start": path(norm=norm_at_zero),
    },
    "basic_block": {
        "from back to front, other names, clamp": BlockReversed,
        "one Sequential, in place, last batch norm at 0": BlockSequential,
        "bare parameters, functional calls, padding by hand": BlockFunctional,
        "a function that gives the block": lambda channels_in, channels_out, s=1: Block(channels_in, channels_out, s),
    },
    "first_loss": {
        "gradients left on": loss_with_gradient,
        "by hand": loss_of(by_hand),
        "a copy of the network, one tensor": loss_of_a_copy,
        "numpy, one array": with_numpy,
        "np.float32": lambda *given: [np.float32(number) for number in loss_of()(*given)],
    },
    "repaired_network": {
        "other names, another order": NetworkReversed,
        "one Sequential with blocks": NetworkOfBlocks,
        "registered by add_module": RegisteredBesideAList,
        "functional batch norm with running averages": network(normalise=functional_norm),
        "x on the right": network(block=lambda branch, x: branch(x) + x),
    },
}

WRONG = {
    "batch_norm_train": {
        "variance by n - 1": lambda x, w, b, eps: (
            (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), keepdim=True) + eps).sqrt() * w.view(1, -1, 1, 1)
            + b.view(1, -1, 1, 1)
        ),
        "forty numbers a channel": norm_counted(lambda x: 40),
        "square images only": norm_counted(lambda x: len(x) * x.shape[2] ** 2),
        "x overwritten": norm_in_place,
        "means kept between calls": norm_of_all_calls,
    },
    "shortcut": {
        "None where the shape stays": path_without_else,
        "one convolution for all blocks": shared_projection,
        "one module for all blocks": functools.lru_cache(path()),
        "no batch norm in eval mode": path(NoNormInEval),
        "running averages that stay": path(norm=StillNorm),
        "momentum 0": path(norm=lambda channels: nn.BatchNorm2d(channels, momentum=0)),
        "dropout": path(first=[nn.Dropout(0.1)]),
        "x changed in place": path(first=[nn.ReLU(inplace=True)]),
        "frozen": path(norm=lambda channels: nn.BatchNorm2d(channels).requires_grad_(False)),
        "zeros in place of a projection": lambda c_in, c_out, s: (
            lambda x: F.pad(x[..., ::s, ::s], (0,) * 5 + (c_out - c_in,))
        ),
        "a tensor": lambda c_in, c_out, stride: torch.zeros(5, c_out, 4, 4),
    },
    "basic_block": {
        "an object": Block(4, 4),
        "shortcut detached": block(forward=lambda self, x: F.relu(self.branch(x) + self.shortcut(x).detach())),
        "detached": block(forward=lambda self, x: F.relu(self.branch(x) + self.shortcut(x)).detach()),
        "no shortcut in eval mode": block(
            forward=lambda self, x: F.relu(self.branch(x) + self.shortcut(x) * self.training)
        ),
        "a layer made in forward": block(branch=conv_made_in_forward),
        "shortcut under no_grad": block(forward=no_grad_shortcut),
        "added in place": block(forward=joined_in_place),
        "one batch norm under two names": changed(Block, lambda block: setattr(block, "norm2", block.norm1)),
        "first batch norm used twice": block(
            branch=lambda self, x: self.norm1(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        ),
        "first convolution frozen": changed(Block, lambda block: block.conv1.requires_grad_(False)),
        "running averages that stay": block(norm=StillNorm),
        "projection without the stride": block(project=staticmethod(path(stride=1))),
        "one projection for all blocks": block(project=staticmethod(shared_projection)),
        "no default stride": lambda channels_in, channels_out, stride: Block(channels_in, channels_out, stride),
    },
    "first_loss": {
        "the flag given back, not the mode": flag_only,
        "always back in train mode": always_train,
        "a training step": loss_step,
        "gradients left behind": loss_backward,
        "gradients left off": gradients_off,
        "parameters left frozen": frozen,
        "a hook left behind": hooked,
        "an attribute left behind": remembered,
        "fragile logarithm": loss_of(lambda logits, y: F.nll_loss((logits.softmax(1) + 1e-8).log(), y)),
        "clamped probabilities": loss_of(lambda logits, y: F.nll_loss(logits.softmax(1).clamp(1e-7).log(), y)),
        "sum by twenty": loss_of(lambda logits, y: F.cross_entropy(logits, y, reduction="sum") / 20),
        "size of the last parameter": loss_of(classes=lambda network, *_: list(network.parameters())[-1].numel()),
        "the last linear layer": loss_of(
            classes=lambda network, *_: [m for m in network.modules() if isinstance(m, nn.Linear)][-1].out_features
        ),
        "one number": lambda *given: loss_of()(*given)[0],
    },
    "repaired_network": {
        "two faults left": network(start=under_no_grad, end=lambda logits: logits.softmax(1)),
        "no batch norm in eval mode": network(normalise=lambda net, x: net.norm(x) if net.training else x),
        "shortcut detached": network(block=lambda branch, x: x.detach() + branch(x)),
        "added in place": network(block=added_in_place),
        "one batch norm for both": changed(Network, one_norm_for_both),
        "breaks with one image": network(end=lambda logits: logits.squeeze()),
        "softmax in eval mode": changed(Network, softmax_in_eval_mode),
        "momentum 0": changed(Network, lambda net: setattr(net.norm, "momentum", 0)),
        "prep frozen": changed(Network, lambda net: net.prep.requires_grad_(False)),
        "one branch twice": network(keep=lambda branches: nn.ModuleList(branches[:1] * 2)),
        "branches shared by all networks": changed(Network, share_branches),
        "no defaults": lambda width, classes: Network(width, classes),
        "an object": Network(),
    },
}

WORDS = {
    "batch_norm_train": {"variance by n - 1": "the variance is divided by n - 1"},
    "shortcut": {
        "None where the shape stays": "the function returns nothing yet",
        "one module for all blocks": "two of them share their layers",
        "x changed in place": "it changes `x`",
        "a tensor": "it must give an nn.Module",
    },
    "basic_block": {
        "an object": "pass the class itself",
        "added in place": "Write `x = x + ...`",
        "first convolution frozen": "the number of parameters that no gradient reaches is 1, expected 0",
        "no default stride": "missing 1 required positional argument: 'stride'",
    },
    "first_loss": {
        "always back in train mode": "it changes the mode (train or eval) of `network`",
        "a training step": "it changes the weights of `network`",
        "a hook left behind": "it changes the hooks of `network`",
        "gradients left off": "`with torch.no_grad():` switches them on again",
    },
    "repaired_network": {"two faults left": "symptom 2 is still there"},
}
