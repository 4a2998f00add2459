"""Answers to the exercises of lesson 03.

WRONG: name of the check -> what is wrong -> (answer, words that must come).
RIGHT: name of the check -> how it is written -> answer.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


def _normalise(x, dims, weight, bias, eps, correction=0):
    mean = x.mean(dim=dims, keepdim=True)
    variance = x.var(dim=dims, correction=correction, keepdim=True)
    return (x - mean) / (variance + eps).sqrt() * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


def _batch_norm_unbiased(x, weight, bias, eps):
    return _normalise(x, (0, 2, 3), weight, bias, eps, correction=1)


def _batch_norm_per_image(x, weight, bias, eps):
    return _normalise(x, (2, 3), weight, bias, eps)


def _batch_norm_all_channels(x, weight, bias, eps):
    return _normalise(x, (0, 1, 2, 3), weight, bias, eps)


def _batch_norm_plain(x, weight, bias, eps):
    return _normalise(x, (0, 2, 3), torch.ones_like(weight), torch.zeros_like(bias), eps)


def _batch_norm_eps_outside(x, weight, bias, eps):
    mean, std = x.mean(dim=(0, 2, 3), keepdim=True), x.std(dim=(0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (std + eps) * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


def _batch_norm_by_variance(x, weight, bias, eps):
    mean, variance = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (variance + eps) * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


def _batch_norm_flat(x, weight, bias, eps):
    return _normalise(x, (0, 2, 3), weight, bias, eps).flatten(2)


def _batch_norm_no_views(x, weight, bias, eps):
    mean, variance = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
    return (x - mean) / (variance + eps).sqrt() * weight + bias


def _batch_norm_two_faults(x, weight, bias, eps):
    mean, std = x.mean(dim=(0, 2, 3), keepdim=True), x.std(dim=(0, 2, 3), keepdim=True)
    return (x - mean) / (std + eps) * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


def _batch_norm_mean_only(x, weight, bias, eps):
    return (x - x.mean(dim=(0, 2, 3), keepdim=True)) * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


def _batch_norm_over_channels(x, weight, bias, eps):
    return _normalise(x, (1,), weight, bias, eps)


def _batch_norm_detached(x, weight, bias, eps):
    mean = x.mean(dim=(0, 2, 3), keepdim=True).detach()
    variance = x.var(dim=(0, 2, 3), correction=0, keepdim=True).detach()
    return (x - mean) / (variance + eps).sqrt() * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


def _batch_norm_forty(x, weight, bias, eps):
    mean = x.sum((0, 2, 3), keepdim=True) / 40
    variance = (x - mean).square().sum((0, 2, 3), keepdim=True) / 40
    return (x - mean) / (variance + eps).sqrt() * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


def _batch_norm_three_channels(x, weight, bias, eps):
    def one(z):
        return (z - z.mean()) / (z.var(correction=0) + eps).sqrt()

    return torch.stack([one(x[:, c]) * weight[c] + bias[c] for c in range(3)], dim=1)


def _batch_norm_over_x(x, weight, bias, eps):
    variance = x.var(dim=(0, 2, 3), correction=0, keepdim=True)
    x -= x.mean(dim=(0, 2, 3), keepdim=True)
    return x / (variance + eps).sqrt() * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


def _batch_norm_over_weight(x, weight, bias, eps):
    result = _normalise(x, (0, 2, 3), weight, bias, eps)
    weight.fill_(1)
    return result


def _batch_norm_exchanged(x, weight, bias, eps):
    return _normalise(x, (0, 2, 3), bias, weight, eps)


def _batch_norm_not_centred(x, weight, bias, eps):
    variance = x.var(dim=(0, 2, 3), correction=0, keepdim=True)
    return x / (variance + eps).sqrt() * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


def _batch_norm_eval(x, weight, bias, eps):
    return F.batch_norm(x, torch.zeros(x.shape[1]), torch.ones(x.shape[1]), weight, bias, False, 0.1, eps)


def _batch_norm_columns(x, weight, bias, eps):
    return _normalise(x, (0, 2), weight, bias, eps)


def _batch_norm_rows(x, weight, bias, eps):
    return _normalise(x, (0, 3), weight, bias, eps)


def _batch_norm_reshaped(x, weight, bias, eps):
    z = x.reshape(x.shape[1], -1)
    z = (z - z.mean(1, keepdim=True)) / (z.var(1, correction=0, keepdim=True) + eps).sqrt()
    return (z * weight[:, None] + bias[:, None]).reshape(x.shape)


def _batch_norm_fixed_eps(x, weight, bias, eps):
    return _normalise(x, (0, 2, 3), weight, bias, 1e-5)


class _Block(nn.Module):
    """The right block, with switches for what may go wrong."""

    bias, second_stride, project, norm, forward_as = False, False, True, True, "right"

    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__()

        def norm():
            return nn.BatchNorm2d(channels_out) if self.norm else nn.Identity()

        after = stride if self.second_stride else 1
        self.first = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=self.bias)
        self.second = nn.Conv2d(channels_out, channels_out, 3, after, padding=1, bias=self.bias)
        self.norm_first, self.norm_second = norm(), norm()
        self.shortcut = nn.Identity()
        if self.project and (stride != 1 or channels_in != channels_out):
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=self.bias), norm())

    def forward(self, x):
        branch = self.norm_second(self.second(F.relu(self.norm_first(self.first(x)))))
        return self.join(branch, self.shortcut(x))

    def join(self, branch, shortcut):
        return F.relu(branch + shortcut)


class _ReluBeforeOnly(_Block):
    def join(self, branch, shortcut):
        return F.relu(branch) + shortcut


class _ReluBeforeAndAfter(_Block):
    def join(self, branch, shortcut):
        return F.relu(F.relu(branch) + shortcut)


class _NoLastRelu(_Block):
    def join(self, branch, shortcut):
        return branch + shortcut


class _NoShortcut(_Block):
    def join(self, branch, shortcut):
        return F.relu(branch)


class _StrideTwice(_Block):
    second_stride = True


class _NoProjection(_Block):
    project = False


class _NoBatchNorm(_Block):
    norm = False


class _Bias(_Block):
    bias = True


class _AlwaysProjection(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        projection = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
        self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels_out))


class _NoMiddleRelu(_Block):
    def forward(self, x):
        return F.relu(self.norm_second(self.second(self.norm_first(self.first(x)))) + self.shortcut(x))


class _NormAfterRelu(_Block):
    def forward(self, x):
        branch = self.norm_second(self.second(self.norm_first(F.relu(self.first(x)))))
        return F.relu(branch + self.shortcut(x))


class _NormAfterReluTwice(_Block):
    def forward(self, x):
        branch = self.norm_second(F.relu(self.second(self.norm_first(F.relu(self.first(x))))))
        return F.relu(branch + self.shortcut(x))


class _NormAfterLastRelu(_Block):
    def forward(self, x):
        branch = self.norm_second(F.relu(self.second(F.relu(self.norm_first(self.first(x))))))
        return F.relu(branch + self.shortcut(x))


class _OneNormTwice(_Block):
    def forward(self, x):
        branch = self.norm_first(self.second(F.relu(self.norm_first(self.first(x)))))
        return F.relu(branch + self.shortcut(x))


class _PlainNorms(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        self.norm_first, self.norm_second = (nn.BatchNorm2d(channels_out, affine=False) for _ in range(2))


class _NoPadding(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        self.first.padding = self.second.padding = (0, 0)


class _ProjectionWithoutStride(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        if isinstance(self.shortcut, nn.Sequential):
            self.shortcut[0].stride = (1, 1)


class _SecondTakesChannelsIn(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        self.second = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)


class _FirstKeepsChannels(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        self.first = nn.Conv2d(channels_in, channels_in, 3, stride, padding=1, bias=False)


class _Overwritten(_Block):
    def forward(self, x):
        x = F.relu(self.norm_first(self.first(x)))
        return F.relu(self.norm_second(self.second(x)) + self.shortcut(x))


class _BranchTwice(_Block):
    def join(self, branch, shortcut):
        return F.relu(branch + branch)


class _LayersInAList(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        self.layers = [self.first, self.second]
        del self.first, self.second

    def forward(self, x):
        branch = self.norm_second(self.layers[1](F.relu(self.norm_first(self.layers[0](x)))))
        return self.join(branch, self.shortcut(x))


class _Detached(_Block):
    def join(self, branch, shortcut):
        return F.relu(branch + shortcut).detach()


class _SharedNeighbours(_Block):
    def forward(self, x):
        def norm(z, layer):
            return F.batch_norm(z, None, None, layer.weight, layer.bias, training=True)

        branch = norm(self.second(F.relu(norm(self.first(x), self.norm_first))), self.norm_second)
        conv = self.shortcut[0] if isinstance(self.shortcut, nn.Sequential) else None
        return F.relu(branch + (x if conv is None else norm(conv(x), self.shortcut[1])))


class _ProjectionThreeByThree(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        if isinstance(self.shortcut, nn.Sequential):
            self.shortcut[0] = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)


class _ReluOnShortcut(_Block):
    def join(self, branch, shortcut):
        return F.relu(branch + F.relu(shortcut))


class _Subtracted(_Block):
    def join(self, branch, shortcut):
        return F.relu(branch - shortcut)


class _DetachedShortcut(_Block):
    def join(self, branch, shortcut):
        return F.relu(branch + shortcut.detach())


class _LeakyRelu(_Block):
    def join(self, branch, shortcut):
        return F.leaky_relu(branch + shortcut)


class _FiveByFive(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        self.first = nn.Conv2d(channels_in, channels_out, 5, stride, padding=2, bias=False)


class _Concatenated(_Block):
    def join(self, branch, shortcut):
        return torch.cat([branch, shortcut], dim=1)


class _StrideOnSecond(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        self.first.stride, self.second.stride = (1, 1), (stride, stride)


class _ProjectionOnlyForStride(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        if stride == 1:
            self.shortcut = nn.Identity()


class _ProjectionWithoutNorm(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        if isinstance(self.shortcut, nn.Sequential):
            self.shortcut = self.shortcut[0]


class _InstanceNorms(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        self.norm_first, self.norm_second = (nn.InstanceNorm2d(channels_out, affine=True) for _ in range(2))


class _NoDefaultStride(_Block):
    def __init__(self, channels_in, channels_out, stride):
        super().__init__(channels_in, channels_out, stride)


class _DefaultStrideTwo(_Block):
    def __init__(self, channels_in, channels_out, stride=2):
        super().__init__(channels_in, channels_out, stride)


class _NoShortcutInEval(_Block):
    def join(self, branch, shortcut):
        return F.relu(branch + shortcut if self.training else branch)


class _NoNormInEval(_Block):
    def forward(self, x):
        if self.training:
            return super().forward(x)
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class _StillNorm(nn.Module):
    """Batch norm whose running averages never move."""

    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        mean, variance = torch.zeros_like(self.weight), torch.ones_like(self.weight)
        return F.batch_norm(x, mean, variance, self.weight, self.bias, self.training)


class _NormByVariance(_StillNorm):
    """Batch norm that divides by the variance in eval mode."""

    def __init__(self, channels):
        super().__init__(channels)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))

    def forward(self, x):
        var = self.var if self.training else self.var**2
        return F.batch_norm(x, self.mean, var, self.weight, self.bias, self.training)


class _NormsThatStay(_Block):
    kind = _StillNorm

    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        self.norm_first, self.norm_second = self.kind(channels_out), self.kind(channels_out)


class _NormsByVariance(_NormsThatStay):
    kind = _NormByVariance


class _NoMomentum(_NormsThatStay):
    @staticmethod
    def kind(channels):
        return nn.BatchNorm2d(channels, momentum=0.0)


class _GrowingProjection(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        if stride == 1 and channels_in > channels_out:
            self.shortcut = nn.Identity()


class _ProjectionForTwo(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        if stride == 3:
            self.shortcut = nn.Identity()


class _EightByEight(_Block):
    def join(self, branch, shortcut):
        side = 8 // self.first.stride[0]
        return F.relu(branch + shortcut).view(-1, branch.shape[1], side, side)


class _AddedInPlace(_Block):
    def join(self, branch, shortcut):
        shortcut += branch
        return F.relu(shortcut)

    def forward(self, x):
        shortcut = self.shortcut(x)
        return self.join(self.norm_second(self.second(F.relu(self.norm_first(self.first(x))))), shortcut)


class _MadeInForward(_Block):
    def forward(self, x):
        first = nn.Conv2d(x.shape[1], self.second.in_channels, 3, self.first.stride, padding=1, bias=False)
        return self.join(self.norm_second(self.second(F.relu(self.norm_first(first(x))))), self.shortcut(x))

    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        self.first = nn.Identity()
        self.first.stride = stride


class _SecondOneByOne(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        self.second = nn.Conv2d(channels_out, channels_out, 1, bias=False)


class _OneNormObject(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        self.norm_second = self.norm_first


class _NoGradShortcut(_Block):
    def forward(self, x):
        with torch.no_grad():
            shortcut = self.shortcut(x)
        return self.join(self.norm_second(self.second(F.relu(self.norm_first(self.first(x))))), shortcut)


class _ProjectionPadded(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        if isinstance(self.shortcut, nn.Sequential):
            self.shortcut[0].padding = (1, 1)


class _FrozenFirst(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        self.first.requires_grad_(False)


# ---------------------------------------------------------------- shortcuts


def _path(kernel=1, stride=True, bias=False, norm=True, end=None, both=True, always=False, padding=0, first=None):
    """A shortcut with one thing changed."""

    def shortcut(channels_in, channels_out, step):
        changes = (step != 1 or channels_in != channels_out) if both else (step != 1 and channels_in != channels_out)
        if not (changes or always):
            return nn.Identity()
        layers = [first(channels_in, step)] if first else []
        used = step if stride else 1
        layers.append(nn.Conv2d(channels_in, channels_out, kernel, used, padding=padding, bias=bias))
        layers += [nn.BatchNorm2d(channels_out)] if norm else []
        return nn.Sequential(*layers, *([end()] if end else []))

    return shortcut


def _path_without_else(channels_in, channels_out, stride):
    if stride != 1 or channels_in != channels_out:
        return _path()(channels_in, channels_out, stride)


def _path_norm_before(channels_in, channels_out, stride):
    if stride == 1 and channels_in == channels_out:
        return nn.Identity()
    conv = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
    return nn.Sequential(nn.BatchNorm2d(channels_in), conv)


def _path_pooled_unweighted(channels_in, channels_out, stride):
    return nn.AvgPool2d(stride)


class _PathPadded(nn.Module):
    def __init__(self, channels_in, channels_out, stride):
        super().__init__()
        self.extra, self.stride = channels_out - channels_in, stride

    def forward(self, x):
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))


class _PathFunctionalNorm(nn.Module):
    def __init__(self, channels_in, channels_out, stride):
        super().__init__()
        self.changes = stride != 1 or channels_in != channels_out
        if self.changes:
            self.conv = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.norm = nn.BatchNorm2d(channels_out)

    def normalise(self, z):
        return F.batch_norm(z, None, None, self.norm.weight, self.norm.bias, training=True)

    def forward(self, x):
        return self.normalise(self.conv(x)) if self.changes else x


class _PathNormForgotten(_PathFunctionalNorm):
    def normalise(self, z):
        return z


def _path_where(changes, norm=nn.BatchNorm2d, kind=nn.Sequential):
    """A projection where `changes` says so."""

    def shortcut(channels_in, channels_out, stride):
        if not changes(channels_in, channels_out, stride):
            return nn.Identity()
        return kind(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), norm(channels_out))

    return shortcut


def _always_where_needed(channels_in, channels_out, stride):
    return stride != 1 or channels_in != channels_out


class _NoNormInEvalPath(nn.Sequential):
    def forward(self, x):
        return super().forward(x) if self.training else self[0](x)


class _ZeroInEvalPath(nn.Sequential):
    def forward(self, x):
        return super().forward(x) * self.training


class _EightByEightPath(nn.Sequential):
    def forward(self, x):
        side = 8 // self[0].stride[0]
        return super().forward(x).view(-1, self[0].out_channels, side, side)


class _ListPath(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = list(layers)

    def forward(self, x):
        return self.layers[1](self.layers[0](x))


# ---------------------------------------------------------------- first losses


def _loss(mode=False, softmax=False, reduction="mean", log=math.log, classes=None, give_back=True, sign=1):
    """first_loss with one thing changed."""

    def first_loss(network, x, y):
        was = network.training
        network.train(was if mode is None else mode)
        with torch.no_grad():
            logits = network(x)
        if give_back:
            network.train(was)
        put = logits.softmax(dim=1) if softmax else logits
        number = classes(y) if callable(classes) else classes or logits.shape[1]
        return F.cross_entropy(put, y, reduction=reduction).item(), sign * log(number)

    return first_loss


def _loss_alone(network, x, y):
    return _loss()(network, x, y)[0]


def _loss_nll(network, x, y):
    right = _loss()(network, x, y)
    return -right[0], right[1]


def _loss_theory(network, x, y):
    right = _loss()(network, x, y)
    return right[1], right[1]


def _loss_twice(network, x, y):
    right = _loss()(network, x, y)
    return right[0], right[0]


def _loss_always_train(network, x, y):
    right = _loss()(network, x, y)
    network.train()
    return right


def _loss_step(network, x, y):
    was = network.training
    network.eval()
    loss = F.cross_entropy(network(x), y)
    loss.backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    network.train(was)
    return loss.item(), math.log(network(x[:2]).shape[1])


def _loss_accuracy(network, x, y):
    was = network.training
    hits = (network.eval()(x).argmax(1) == y).float().mean()
    network.train(was)
    return hits, _loss()(network, x, y)[1]


def _loss_gradients_off(network, x, y):
    torch.set_grad_enabled(False)
    return _loss()(network, x, y)


def _loss_backward(network, x, y):
    was = network.training
    logits = network.eval()(x)
    network.train(was)
    loss = F.cross_entropy(logits, y)
    loss.backward()
    return loss.item(), math.log(logits.shape[1])


def _loss_frozen(network, x, y):
    network.requires_grad_(False)
    return _loss()(network, x, y)


def _loss_by_twenty(network, x, y):
    return _loss(reduction="sum")(network, x, y)[0] / 20, _loss()(network, x, y)[1]


def _loss_last_parameter(network, x, y):
    return _loss()(network, x, y)[0], math.log(list(network.parameters())[-1].numel())


def _loss_last_linear(network, x, y):
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    return _loss()(network, x, y)[0], math.log(layers[-1].out_features)


def _loss_largest_label(network, x, y):
    return _loss()(network, x, y)[0], math.log(y.max().item() + 1)


# ---------------------------------------------------------------- five faults


class _Network(nn.Module):
    """The right network, with one method to replace for each fault."""

    def __init__(self, width=8, classes=10):
        super().__init__()
        self.prep = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.branches = self.keep([self.branch(width) for _ in range(2)])
        self.linear = nn.Linear(width, classes)

    def branch(self, width):
        return nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())

    def keep(self, branches):
        return nn.ModuleList(branches)

    def first(self, x):
        return F.relu(self.norm(self.prep(x)))

    def block(self, branch, x):
        return x + branch(x)

    def forward(self, x):
        x = self.first(x)
        for branch in self.branches:
            x = self.block(branch, x)
        return self.last(self.linear(self.pool(x)))

    def pool(self, x):
        return x.mean(dim=(2, 3))

    def last(self, logits):
        return logits


class _StillAList(_Network):
    def keep(self, branches):
        return branches


class _StillNoGrad(_Network):
    def first(self, x):
        with torch.no_grad():
            x = self.prep(x)
        return F.relu(self.norm(x))


class _StillDetached(_Network):
    def first(self, x):
        return F.relu(self.norm(self.prep(x).detach()))


class _StillNeighbours(_Network):
    def first(self, x):
        return F.relu(F.batch_norm(self.prep(x), None, None, self.norm.weight, self.norm.bias, training=True))


class _StillOverwritten(_Network):
    def block(self, branch, x):
        x = branch(x)
        return x + x


class _StillNoAddition(_Network):
    def block(self, branch, x):
        return branch(x)


class _StillSoftmax(_Network):
    def last(self, logits):
        return logits.softmax(dim=1)


class _LogSoftmax(_Network):
    def last(self, logits):
        return logits.log_softmax(dim=1)


class _AddedTwice(_Network):
    def block(self, branch, x):
        return x + x + branch(x)


class _NoReluAfterPrep(_Network):
    def first(self, x):
        return self.norm(self.prep(x))


class _NoNormAfterPrep(_Network):
    def first(self, x):
        return F.relu(self.prep(x))


class _ReluBeforeNorm(_Network):
    def first(self, x):
        return self.norm(F.relu(self.prep(x)))


class _ShortcutDetached(_Network):
    def block(self, branch, x):
        return x.detach() + branch(x)


class _PrepBias(_Network):
    def __init__(self, width=8, classes=10):
        super().__init__(width, classes)
        self.prep = nn.Conv2d(3, width, 3, padding=1)


class _Maximum(_Network):
    def pool(self, x):
        return x.amax(dim=(2, 3))


class _Sigmoid(_Network):
    def last(self, logits):
        return logits.sigmoid()


class _Small(_Network):
    def last(self, logits):
        return logits / 10


class _OneNormForBoth(_Network):
    def block(self, branch, x):
        return x + F.relu(self.branches[0][1](branch[0](x)))


class _NoBranches(_Network):
    def keep(self, branches):
        return nn.ModuleList()


class _ReluAfterAddition(_Network):
    def block(self, branch, x):
        return x + branch[:2](x)


class _NoDefaults(_Network):
    def __init__(self, width, classes):
        super().__init__(width, classes)


class _SoftmaxInEval(_Network):
    def last(self, logits):
        return logits if self.training else logits.softmax(dim=1)


class _ArgmaxInEval(_Network):
    def last(self, logits):
        return logits if self.training else logits.argmax(dim=1)


class _NormOnlyInTrain(_Network):
    def first(self, x):
        x = self.prep(x)
        return F.relu(self.norm(x) if self.training else x)


class _NormThatStays(_Network):
    def __init__(self, width=8, classes=10):
        super().__init__(width, classes)
        self.norm = _StillNorm(width)


class _NetworkNoMomentum(_Network):
    def __init__(self, width=8, classes=10):
        super().__init__(width, classes)
        self.norm.momentum = 0.0


class _PoolTwelve(_Network):
    def pool(self, x):
        return F.avg_pool2d(x, 12).flatten(1)


class _NetworkInPlace(_Network):
    def block(self, branch, x):
        x += branch(x)
        return x


class _PrepFrozen(_Network):
    def __init__(self, width=8, classes=10):
        super().__init__(width, classes)
        self.prep.requires_grad_(False)


class _SameBranchTwice(_Network):
    def keep(self, branches):
        return nn.ModuleList([branches[0]] * 2)


WRONG = {
    "batch_norm_train": {
        "mean and variance detached": (_batch_norm_detached, "not the gradient"),
        "forty numbers a channel": (_batch_norm_forty, "the values are wrong"),
        "three channels": (_batch_norm_three_channels, "must have the shape (2, 6, 3, 3), got (2, 3, 3, 3)"),
        "x overwritten": (_batch_norm_over_x, "x itself was changed"),
        "weight overwritten": (_batch_norm_over_weight, "weight itself was changed"),
        "weight and bias exchanged": (_batch_norm_exchanged, "weight and bias are exchanged"),
        "mean forgotten": (_batch_norm_not_centred, "the mean is not subtracted"),
        "statistics of eval mode": (_batch_norm_eval, "as in eval mode"),
        "columns apart": (_batch_norm_columns, "each column has its own"),
        "rows apart": (_batch_norm_rows, "each row has its own"),
        "reshaped without a transpose": (_batch_norm_reshaped, "move the channels to the front first"),
        "an eps of its own": (_batch_norm_fixed_eps, "eps is not used as passed"),
        "unbiased variance": (_batch_norm_unbiased, "divided by n - 1"),
        "statistics of each image": (_batch_norm_per_image, "each image has statistics of its own"),
        "one mean for all channels": (_batch_norm_all_channels, "one mean serves all channels"),
        "weight and bias forgotten": (_batch_norm_plain, "weight and bias are not used"),
        "eps added to the standard deviation": (_batch_norm_eps_outside, "eps is added to the standard deviation"),
        "divided by the variance": (_batch_norm_by_variance, "divided by the variance"),
        "another shape": (_batch_norm_flat, "must have the shape"),
        "std of n - 1 plus eps": (
            _batch_norm_two_faults,
            "divided by n - 1. Batch norm divides by n: `correction=0`. And:",
        ),
        "variance forgotten": (_batch_norm_mean_only, "not divided by the root"),
        "layer norm's dimension": (_batch_norm_over_channels, "run over the channels"),
        "statistics without the dimensions of x": (_batch_norm_no_views, "RuntimeError"),
    },
    "basic_block": {
        "ReLU before the addition only": (_ReluBeforeOnly, "Add first, then apply it"),
        "ReLU before and after the addition": (_ReluBeforeAndAfter, "ends in a ReLU before the addition"),
        "no ReLU after the addition": (_NoLastRelu, "no ReLU after the addition"),
        "shortcut not added": (_NoShortcut, "the shortcut is not added"),
        "stride on both convolutions": (_StrideTwice, "on both 3x3 convolutions"),
        "no projection": (_NoProjection, "needs a 1x1 projection"),
        "projection where none is needed": (_AlwaysProjection, "no projection, the shortcut is x itself"),
        "batch norm forgotten": (_NoBatchNorm, "0 batch norms"),
        "bias left on": (_Bias, "has a bias"),
        "no ReLU in the middle": (_NoMiddleRelu, "no ReLU between"),
        "batch norm after the ReLU": (_NormAfterRelu, "the ReLU comes before the batch norm"),
        "batch norm after both ReLUs": (_NormAfterReluTwice, "the ReLU comes before the batch norm"),
        "a ReLU before the last batch norm": (_NormAfterLastRelu, "the ReLU comes before the batch norm"),
        "the first batch norm used twice": (_OneNormTwice, "norm_second.weight and norm_second.bias: never used"),
        "batch norms without weight and bias": (_PlainNorms, "Leave `affine` at True"),
        "padding forgotten": (_NoPadding, "lacks `padding=1`"),
        "the case is told with an error": (_NoPadding, "With 4 channels in, 4 out and stride 1: your code raised"),
        "projection without the stride": (_ProjectionWithoutStride, "The projection must have the stride"),
        "second convolution takes channels_in": (
            _SecondTakesChannelsIn,
            "the second 3x3 takes 4 channels, must take 6 (= channels_out)",
        ),
        "first convolution keeps the channels": (
            _FirstKeepsChannels,
            "the first 3x3 gives 4 channels, must give 6 (= channels_out)",
        ),
        "x overwritten": (_Overwritten, "x is overwritten before the addition"),
        "branch + branch": (_BranchTwice, "the branch is added to itself"),
        "layers in a list": (_LayersInAList, "registered in an nn.ModuleList, not in a Python list"),
        "detached": (_Detached, "the output has no gradient"),
        "an instance": (_Block(4, 4), "pass the class itself"),
        "neighbours in eval mode": (_SharedNeighbours, "depends on its neighbours"),
        "a 3x3 projection": (_ProjectionThreeByThree, "On the shortcut it is a 1x1"),
        "ReLU on the shortcut": (_ReluOnShortcut, "It must be x itself"),
        "shortcut subtracted": (_Subtracted, "the shortcut is subtracted"),
        "shortcut concatenated": (_Concatenated, "must have the shape (5, 4, 8, 8), got (5, 8, 8, 8)"),
        "stride on the second convolution": (_StrideOnSecond, "the stride is on the second"),
        "projection only where the stride is not 1": (_ProjectionOnlyForStride, "needs a 1x1 projection"),
        "projection without batch norm": (_ProjectionWithoutNorm, "3 convolutions but 2 batch norms"),
        "instance norm": (_InstanceNorms, "InstanceNorm2d: only nn.BatchNorm2d belongs here"),
        "shortcut detached": (_DetachedShortcut, "not the gradient that comes back"),
        "leaky ReLU": (_LeakyRelu, "Its last step must be a ReLU"),
        "5x5 in place of 3x3": (_FiveByFive, "There is also a 5x5"),
        "no default stride": (_NoDefaultStride, "BasicBlock(4, 4), without a stride: your code raised TypeError"),
        "default stride 2": (_DefaultStrideTwo, "got (5, 4, 4, 4). Write `stride=1` in `__init__`"),
        "no shortcut in eval mode": (_NoShortcutInEval, "the same in both modes"),
        "no batch norm in eval mode": (_NoNormInEval, "the same in both modes"),
        "running averages that stay": (_NormsThatStay, "Do the running averages follow"),
        "divided by the variance in eval mode": (_NormsByVariance, "after 100 passes"),
        "momentum 0": (_NoMomentum, "momentum 0.0. Leave it at 0.1"),
        "projection only to more channels": (_GrowingProjection, "With 6 channels in, 4 out and stride 1"),
        "projection not for stride 3": (_ProjectionForTwo, "With 4 channels in, 4 out and stride 3"),
        "only 8 x 8": (_EightByEight, "With 6 channels in, 4 out and stride 1: your code raised RuntimeError"),
        "added in place": (_AddedInPlace, "Write `x = x + ...`"),
        "a layer made in forward": (_MadeInForward, "nor made in `forward`"),
        "second convolution 1x1": (_SecondOneByOne, "found 1. There is also a 1x1"),
        "one batch norm under two names": (_OneNormObject, "one object under two names counts once"),
        "shortcut under no_grad": (_NoGradShortcut, "run under torch.no_grad()"),
        "a padded projection": (_ProjectionPadded, "a 1x1 window needs none"),
        "first convolution frozen": (_FrozenFirst, "first.weight: requires_grad is False"),
    },
    "shortcut": {
        "no stride": (_path(stride=False), "must have the shape (5, 6, 4, 4), got (5, 6, 8, 8)"),
        "bias left on": (_path(bias=True), "has a bias"),
        "batch norm forgotten": (_path(norm=False), "1 convolution but 0 batch norms"),
        "3x3 in place of 1x1": (_path(kernel=3, padding=1), "one 1x1 convolution is needed, found: 3x3"),
        "padding": (_path(padding=1), "got (5, 6, 5, 5)"),
        "ReLU at the end": (_path(end=nn.ReLU), "None belongs on the shortcut"),
        "only if both change": (_path(both=False), "With 4 channels in, 6 out and stride 1"),
        "always": (_path(always=True), "return nn.Identity()"),
        "pooling in place of the stride": (_path(stride=False, first=lambda c, s: nn.AvgPool2d(s)), "pooling"),
        "two convolutions": (_path(first=lambda c, s: nn.Conv2d(c, c, 1, bias=False)), "found: 1x1 and 1x1"),
        "None where the shape stays": (_path_without_else, "Return nn.Identity() here"),
        "batch norm first": (_path_norm_before, "the batch norm comes first"),
        "pooling without a convolution": (_path_pooled_unweighted, "x needs a projection"),
        "padded with zeros": (_PathPadded, "x needs a projection"),
        "neighbours in eval mode": (_PathFunctionalNorm, "depends on its neighbours"),
        "batch norm not applied": (_PathNormForgotten, "made but not applied"),
        "an identity always": (lambda channels_in, channels_out, stride: nn.Identity(), "x needs a projection"),
        "a tensor": (lambda channels_in, channels_out, stride: torch.zeros(5, 6, 4, 4), "must give an nn.Module"),
        "only to more channels": (_path_where(lambda a, b, s: a < b or s != 1), "With 6 channels in, 4 out"),
        "only for stride 2": (_path_where(lambda a, b, s: a != b or s == 2), "4 out and stride 3"),
        "only 8 x 8": (_path_where(_always_where_needed, kind=_EightByEightPath), "your code raised RuntimeError"),
        "no batch norm in eval mode": (_path_where(_always_where_needed, kind=_NoNormInEvalPath), "in both modes"),
        "zeros in eval mode": (_path_where(_always_where_needed, kind=_ZeroInEvalPath), "in both modes"),
        "running averages that stay": (_path_where(_always_where_needed, _StillNorm), "running averages follow"),
        "momentum 0": (
            _path_where(_always_where_needed, lambda channels: nn.BatchNorm2d(channels, momentum=0)),
            "momentum 0. Leave it",
        ),
        "layers in a list": (_path_where(_always_where_needed, kind=_ListPath), "not in a Python list"),
    },
    "first_loss": {
        "in train mode": (_loss(mode=True), "running averages moved"),
        "in the mode in which it came": (_loss(mode=None), "running averages moved"),
        "mode not given back": (_loss(give_back=False), "comes back in eval mode"),
        "always back in train mode": (_loss_always_train, "comes back in train mode"),
        "softmax first": (_loss(softmax=True), "softmax is applied twice"),
        "sum": (_loss(reduction="sum"), "the sum over the images"),
        "base 10": (_loss(log=math.log10), "to base 10"),
        "base 2": (_loss(log=math.log2), "to base 2"),
        "always ten classes": (_loss(classes=10), "not always ten"),
        "number of images": (_loss(classes=len), "the number of images"),
        "the probability": (_loss(log=lambda count: 1 / count), "that is the probability"),
        "sign of the second": (_loss(sign=-1), "the sign is wrong"),
        "sign of the first": (_loss_nll, "the sign of the loss is wrong"),
        "one number": (_loss_alone, "return two numbers"),
        "not measured": (_loss_theory, "must be measured"),
        "measured twice": (_loss_twice, "the measured loss again"),
        "a training step": (_loss_step, "no training step"),
        "accuracy": (_loss_accuracy, "the mean cross-entropy in eval mode"),
        "gradients left off": (_loss_gradients_off, "Use `with torch.no_grad():`"),
        "gradients left behind": (_loss_backward, "comes back with gradients"),
        "parameters left frozen": (_loss_frozen, "comes back with requires_grad=False"),
        "sum by twenty": (_loss_by_twenty, "the mean cross-entropy in eval mode"),
        "size of the last parameter": (_loss_last_parameter, "the natural logarithm of the classes"),
        "the linear layer defined last": (_loss_last_linear, "the natural logarithm of the classes"),
        "the largest label": (_loss_largest_label, "not the labels that occur"),
    },
    "repaired_network": {
        "branches still in a list": (_StillAList, "symptom 1"),
        "no_grad still there": (_StillNoGrad, "symptom 2"),
        "detached in its place": (_StillDetached, "symptom 2"),
        "functional batch norm still there": (_StillNeighbours, "symptom 3"),
        "softmax still there": (_StillSoftmax, "symptom 4"),
        "log-softmax in its place": (_LogSoftmax, "log-probabilities"),
        "x still overwritten": (_StillOverwritten, "symptom 5"),
        "nothing added": (_StillNoAddition, "symptom 5"),
        "x added twice": (_AddedTwice, "each block must give x itself, but x is added twice"),
        "ReLU after prep forgotten": (_NoReluAfterPrep, "the ReLU after the first batch norm is gone"),
        "batch norm after prep forgotten": (_NoNormAfterPrep, "norm"),
        "ReLU before the first batch norm": (_ReluBeforeNorm, "the first ReLU comes before the batch norm"),
        "shortcut detached": (_ShortcutDetached, "not the gradient that comes back"),
        "a bias in prep": (_PrepBias, "must have 881 parameters, got 887"),
        "maximum in place of the mean": (_Maximum, "Broken takes its mean"),
        "sigmoid at the end": (_Sigmoid, "or something besides the five faults changed: prep, batch norm, ReLU, mean"),
        "logits divided by ten": (_Small, "or something besides the five faults changed: prep, batch norm, ReLU, mean"),
        "one batch norm for both branches": (_OneNormForBoth, "branches.1.1.weight and branches.1.1.bias: never used"),
        "branches removed": (_NoBranches, "symptom 1"),
        "ReLU of the branch removed": (_ReluAfterAddition, "something else changed"),
        "no defaults": (_NoDefaults, "Repaired(), with the defaults of Broken"),
        "softmax in eval mode": (_SoftmaxInEval, "the same in both modes"),
        "argmax in eval mode": (_ArgmaxInEval, "the same in both modes"),
        "batch norm only in train mode": (_NormOnlyInTrain, "the same in both modes"),
        "running averages that stay": (_NormThatStays, "Do the running averages follow"),
        "momentum 0": (_NetworkNoMomentum, "momentum 0.0. Leave it at 0.1"),
        "pooling of 12 x 12": (_PoolTwelve, "your code raised RuntimeError"),
        "added in place": (_NetworkInPlace, "Write `x = x + ...`"),
        "prep frozen": (
            _PrepFrozen,
            "symptom 2 is still there: the first convolution's weight has requires_grad=False",
        ),
        "one branch twice": (_SameBranchTwice, "Is one branch used twice?"),
    },
}


# ---------------------------------------------------------------- right answers, written in other ways


def _norm_loop(x, weight, bias, eps):
    out = torch.empty_like(x)
    for c in range(x.shape[1]):
        numbers = x[:, c]
        out[:, c] = (numbers - numbers.mean()) / torch.sqrt(((numbers - numbers.mean()) ** 2).mean() + eps)
        out[:, c] = out[:, c] * weight[c] + bias[c]
    return out


def _norm_flat(x, weight, bias, eps):
    n, c, h, w = x.shape
    rows = x.permute(1, 0, 2, 3).reshape(c, -1)
    rows = (rows - rows.mean(1, keepdim=True)) * torch.rsqrt(rows.var(1, keepdim=True, unbiased=False) + eps)
    return (rows * weight[:, None] + bias[:, None]).reshape(c, n, h, w).permute(1, 0, 2, 3)


def _norm_moments(x, weight, bias, eps):
    mean = torch.einsum("nchw->c", x) / (x.numel() / x.shape[1])
    variance = (x**2).mean((0, 2, 3)) - mean**2
    scale = weight / (variance + eps) ** 0.5
    return x * scale[:, None, None] + (bias - mean * scale)[:, None, None]


def _norm_module(x, weight, bias, eps):
    layer = nn.BatchNorm2d(x.shape[1], eps=eps)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer(x)


def _norm_numpy(x, weight, bias, eps):
    z = x.numpy().astype("float64")
    z = (z - z.mean((0, 2, 3), keepdims=True)) / (z.var((0, 2, 3), keepdims=True) + eps) ** 0.5
    return torch.from_numpy(z * weight.numpy()[None, :, None, None] + bias.numpy()[None, :, None, None])


class OwnNorm(nn.Module):
    """Batch norm by hand, as the lesson has it."""

    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("var", torch.ones(channels))

    def forward(self, x):
        return F.batch_norm(x, self.mean, self.var, self.weight, self.bias, training=self.training)


class _PathClass(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.bn = OwnNorm(cout) if stride > 1 or cin != cout else None
        if self.bn is not None:
            self.w = nn.Parameter(torch.randn(cout, cin, 1, 1))
        self.stride = stride

    def forward(self, x):
        return x if self.bn is None else self.bn(F.conv2d(x, self.w, stride=self.stride))


def _path_lambda(cin, cout, s):
    if (cin, s) == (cout, 1):
        return lambda x: x
    return nn.Sequential(nn.Conv2d(cin, cout, (1, 1), (s, s), bias=False), nn.BatchNorm2d(cout))


def _path_list(cin, cout, s):
    layers = []
    if s != 1 or cin != cout:
        layers += [nn.Conv2d(cin, cout, kernel_size=1, stride=s, padding="valid" if s == 1 else 0, bias=False)]
        layers += [nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers)


class _PathThinned(nn.Module):
    """First every second pixel, then a convolution of stride 1: the same numbers."""

    def __init__(self, cin, cout, s):
        super().__init__()
        self.s, self.same = s, s == 1 and cin == cout
        if not self.same:
            self.norm, self.mix = nn.BatchNorm2d(cout), nn.Conv2d(cin, cout, 1, bias=False)

    def forward(self, x):
        return x if self.same else self.norm(self.mix(x[..., :: self.s, :: self.s]))


class _PathZero(nn.Sequential):
    def __init__(self, cin, cout, s):
        super().__init__()
        if s != 1 or cin != cout:
            self.add_module("project", nn.Conv2d(cin, cout, 1, s, bias=False))
            self.add_module("norm", nn.BatchNorm2d(cout))
            nn.init.zeros_(self.norm.weight)


class _BlockReversed(nn.Module):
    """Defined from back to front, under other names."""

    def __init__(self, a, b, s=1):
        super().__init__()
        if s != 1 or a != b:
            self.skip_norm = nn.BatchNorm2d(b)
            self.skip = nn.Conv2d(a, b, 1, s, bias=False)
        self.n2 = nn.BatchNorm2d(b)
        self.c2 = nn.Conv2d(b, b, 3, 1, 1, bias=False)
        self.n1 = nn.BatchNorm2d(b)
        self.c1 = nn.Conv2d(a, b, 3, s, 1, bias=False)

    def forward(self, x):
        way = self.skip_norm(self.skip(x)) if hasattr(self, "skip") else x
        return torch.clamp(way + self.n2(self.c2(torch.clamp(self.n1(self.c1(x)), min=0))), min=0)


class _BlockSequential(nn.Module):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__()
        self.f = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, padding="same" if stride == 1 else 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.g = _path()(channels_in, channels_out, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.f(x).add_(self.g(x)))


class _BlockFunctional(nn.Module):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__()
        self.stride = stride
        self.w1 = nn.Parameter(torch.randn(channels_out, channels_in, 3, 3) * 0.2)
        self.w2 = nn.Parameter(torch.randn(channels_out, channels_out, 3, 3) * 0.2)
        self.norms = nn.ModuleList([OwnNorm(channels_out), OwnNorm(channels_out)])
        self.project = _PathClass(channels_in, channels_out, stride)

    def forward(self, x):
        z = F.conv2d(x, self.w1, stride=self.stride, padding=1)
        z = self.norms[1](F.conv2d(F.relu(self.norms[0](z)), self.w2, padding=1))
        return F.relu(z + self.project(x))


class _BlockZeroInit(_Block):
    def __init__(self, channels_in, channels_out, stride=1):
        super().__init__(channels_in, channels_out, stride)
        nn.init.zeros_(self.norm_second.weight)


class _BlockPadded(_Block):
    """The border is put round the image by hand."""

    def forward(self, x):
        z = F.conv2d(F.pad(x, (1, 1, 1, 1)), self.first.weight, stride=self.first.stride)
        z = self.second(F.relu(self.norm_first(z)))
        return self.join(self.norm_second(z), self.shortcut(x))


def _block_function(channels_in, channels_out, stride=1):
    return _Block(channels_in, channels_out, stride)


def _loss_tensors(network, x, y):
    was = network.training
    logits = network.eval()(x)
    network.train(was)
    return [nn.CrossEntropyLoss()(logits, y), torch.tensor(float(logits.size(-1))).log()]


def _loss_by_hand(network, x, y):
    was = network.training
    network.train(False)
    with torch.inference_mode():
        p = network(x).softmax(1)
    network.train(was)
    return -sum(math.log(p[i, c]) for i, c in enumerate(y.tolist())) / len(y), -math.log(1 / p.shape[1])


def _loss_copy(network, x, y):
    import copy

    logits = copy.deepcopy(network).eval()(x).detach()
    loss = (torch.logsumexp(logits, 1) - logits[torch.arange(len(y)), y]).mean()
    return torch.stack([loss, torch.tensor(math.log(logits.shape[1]))])


def _loss_numpy(network, x, y):
    logits = _logits_of_a_copy(network, x).numpy()
    import numpy as np

    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return np.float64(-log_p[np.arange(len(y)), y.numpy()].mean()), np.log(logits.shape[1])


def _logits_of_a_copy(network, x):
    was = network.training
    try:
        with torch.no_grad():
            return network.eval()(x)
    finally:
        network.train(was)


def _loss_uniform(network, x, y):
    logits = _logits_of_a_copy(network, x)
    return F.nll_loss(logits.log_softmax(-1), y), F.cross_entropy(torch.zeros_like(logits), y)


class _NetworkSequential(nn.Module):
    def __init__(self, width=8, classes=10):
        super().__init__()
        self.head = nn.Linear(width, classes)

        def layer(channels):
            conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))

        self.second, self.first, self.stem = layer(width), layer(width), layer(3)

    def forward(self, x):
        x = self.stem(x)
        x = self.first(x) + x
        x = torch.add(x, self.second(x))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class _NetworkBlocks(nn.Module):
    """The shortcut as a module of its own."""

    class Add(nn.Module):
        def __init__(self, f):
            super().__init__()
            self.f = f

        def forward(self, x):
            return x + self.f(x)

    def __init__(self, width=8, classes=10):
        super().__init__()
        branch = _Network.branch
        stem = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        blocks = [self.Add(branch(self, width)) for _ in range(2)]
        end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]
        self.all = nn.Sequential(*stem, *blocks, *end)

    def forward(self, x):
        return self.all(x)


class _NetworkRegistered(_Network):
    def __init__(self, width=8, classes=10):
        nn.Module.__init__(self)
        self.prep = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.branches = [self.branch(width) for _ in range(2)]
        for i, branch in enumerate(self.branches):
            self.add_module(f"branch{i}", branch)
        self.linear = nn.Linear(width, classes)


class _NetworkFunctionalNorm(_Network):
    def first(self, x):
        n = self.norm
        z = F.batch_norm(self.prep(x), n.running_mean, n.running_var, n.weight, n.bias, training=self.training)
        return z.relu()


class _NetworkKept(_Network):
    def block(self, branch, x):
        kept = x
        x = branch(x)
        return x + kept


def _loss_array(network, x, y):
    import numpy as np

    return np.array(_loss()(network, x, y))


RIGHT = {
    "batch_norm_train": {
        "a loop over channels": _norm_loop,
        "rows of numbers": _norm_flat,
        "mean of squares minus square of mean": _norm_moments,
        "the layer of PyTorch": _norm_module,
        "F.batch_norm": lambda x, weight, bias, eps: F.batch_norm(x, None, None, weight, bias, True, 0.1, eps),
        "numpy, in double precision": _norm_numpy,
    },
    "shortcut": {
        "a class with functional calls": _PathClass,
        "a lambda where the shape stays": _path_lambda,
        "a list of layers, empty where the shape stays": _path_list,
        "every second pixel first": _PathThinned,
        "a subclass of Sequential, weight 0 at the start": _PathZero,
    },
    "basic_block": {
        "from back to front, other names, clamp": _BlockReversed,
        "one Sequential, in place": _BlockSequential,
        "bare parameters and functional calls": _BlockFunctional,
        "last batch norm at 0": _BlockZeroInit,
        "padding by hand": _BlockPadded,
        "a function that gives the block": _block_function,
        "the first form": _Block,
    },
    "first_loss": {
        "a list of tensors": _loss_tensors,
        "by hand": _loss_by_hand,
        "a copy of the network, one tensor": _loss_copy,
        "numpy": _loss_numpy,
        "one array": _loss_array,
        "loss of equal logits": _loss_uniform,
    },
    "repaired_network": {
        "other names, another order": _NetworkSequential,
        "one Sequential with blocks": _NetworkBlocks,
        "registered by add_module": _NetworkRegistered,
        "functional batch norm with running averages": _NetworkFunctionalNorm,
        "x kept under another name": _NetworkKept,
        "the first form": _Network,
    },
}
