"""Wrong answers to the exercises of lesson 03: name of the check -> what is wrong -> (answer, words that must come)."""

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


class _Network(nn.Module):
    """The right network, with one method to replace for each fault."""

    def __init__(self, width=8, classes=10):
        super().__init__()
        self.prep = nn.Conv2d(3, width, 3, padding=1)
        self.branches = self.keep([self.branch(width) for _ in range(2)])
        self.linear = nn.Linear(width, classes)

    def branch(self, width):
        return nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())

    def keep(self, branches):
        return nn.ModuleList(branches)

    def block(self, branch, x):
        return x + branch(x)

    def forward(self, x):
        x = F.relu(self.prep(x))
        for branch in self.branches:
            x = self.block(branch, x)
        return self.last(self.linear(x.mean(dim=(2, 3))))

    def last(self, logits):
        return logits


class _StillAList(_Network):
    def keep(self, branches):
        return branches


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
    def forward(self, x):
        x = self.prep(x)
        for branch in self.branches:
            x = x + branch(x)
        return self.linear(x.mean(dim=(2, 3)))


class _Maximum(_Network):
    def forward(self, x):
        x = F.relu(self.prep(x))
        for branch in self.branches:
            x = x + branch(x)
        return self.linear(x.amax(dim=(2, 3)))


class _Sigmoid(_Network):
    def last(self, logits):
        return logits.sigmoid()


class _Small(_Network):
    def last(self, logits):
        return logits / 10


class _OneNormForBoth(_Network):
    def forward(self, x):
        x = F.relu(self.prep(x))
        for branch in self.branches:
            x = x + F.relu(self.branches[0][1](branch[0](x)))
        return self.linear(x.mean(dim=(2, 3)))


class _NoBranches(_Network):
    def keep(self, branches):
        return nn.ModuleList()


class _ReluAfterAddition(_Network):
    def block(self, branch, x):
        return x + branch[:2](x)


WRONG = {
    "batch_norm_train": {
        "unbiased variance": (_batch_norm_unbiased, "divided by n - 1"),
        "statistics of each image": (_batch_norm_per_image, "each image has statistics of its own"),
        "one mean for all channels": (_batch_norm_all_channels, "one mean serves all channels"),
        "weight and bias forgotten": (_batch_norm_plain, "weight and bias are not used"),
        "eps added to the standard deviation": (_batch_norm_eps_outside, "eps is added to the standard deviation"),
        "divided by the variance": (_batch_norm_by_variance, "divided by the variance"),
        "another shape": (_batch_norm_flat, "must have the shape"),
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
    },
    "repaired_network": {
        "branches still in a list": (_StillAList, "symptom 1"),
        "x still overwritten": (_StillOverwritten, "symptom 2"),
        "nothing added": (_StillNoAddition, "symptom 2"),
        "softmax still there": (_StillSoftmax, "symptom 3"),
        "log-softmax in its place": (_LogSoftmax, "log-probabilities"),
        "x added twice": (_AddedTwice, "each block must give x itself, but x is added twice"),
        "ReLU after prep forgotten": (_NoReluAfterPrep, "the ReLU after prep is gone"),
        "maximum in place of the mean": (_Maximum, "Broken takes its mean"),
        "sigmoid at the end": (_Sigmoid, "or something besides the three faults changed: prep, ReLU, mean over pixels"),
        "logits divided by ten": (_Small, "or something besides the three faults changed: prep, ReLU, mean over"),
        "one batch norm for both branches": (_OneNormForBoth, "branches.1.1.weight and branches.1.1.bias: never used"),
        "branches removed": (_NoBranches, "symptom 1"),
        "ReLU of the branch removed": (_ReluAfterAddition, "something else changed"),
    },
}
