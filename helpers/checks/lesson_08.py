"""Checks of the exercises of lesson 08."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks.frame import Exercise, call, require, sizes
from helpers.model import CustomResNet

CLASSES = 4  # of the networks that get a new head


class _Small(nn.Module):
    """A body with a bare parameter and a nested layer, a head with the name `linear`."""

    def __init__(self, features):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(features, 1, 1))
        self.body = nn.Sequential(nn.Conv2d(3, features, 3), nn.Sequential(nn.BatchNorm2d(features)))
        self.linear = nn.Linear(features, CLASSES)

    def forward(self, x):
        return self.linear((self.scale * self.body(x)).relu().mean(dim=(2, 3)))


class _Course(CustomResNet):
    def __init__(self, features):
        super().__init__(width=features // 8, classes=CLASSES)


def _trained(model):
    """Batch norm as after some training, so that losing its statistics shows."""
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_mean, -1, 1)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return model


def _with_new_head(answer, model, classes, x):
    """What the new network is made of, what can learn, and what its head gets and gives."""
    old = model.linear.weight.detach().clone()
    network = call(answer, model, classes)
    require(isinstance(network, nn.Module), f"return the network, got {type(network).__name__}.")
    head, features = getattr(network, "linear", None), []
    named = f"the network's head must be an nn.Linear with the name `linear`, got {type(head).__name__}."
    require(isinstance(head, nn.Linear), named)
    modes = {module: module.training for module in network.modules()}
    hook = head.register_forward_hook(lambda module, inputs, output: features.append(inputs[0]))
    logits = call(network.eval(), x)
    hook.remove()
    for module, mode in modes.items():
        module.training = mode
    body = [p for name, p in network.named_parameters() if not name.startswith("linear.")]
    values = [v.flatten().float() for name, v in network.state_dict().items() if not name.startswith("linear.")]
    ours, given = ({p.data_ptr() for p in m.parameters()} for m in (network, model))
    return {
        "the number of outputs": logits.shape[1],
        "the array of the body's weights and statistics": torch.cat(values),
        "the number of tensors that are the given network's own": len(ours & given),
        "the number of weights in the body that can learn": sum(p.numel() for p in body if p.requires_grad),
        "whether all of the head can learn": min(p.requires_grad for p in head.parameters()),
        "the number of rows that the head has from the old one": (
            (head.weight[:CLASSES] == old[: len(head.weight)]).all(1).sum()
        ),
        "the array of features that reach the head": features[-1],
        "the difference between the logits and the head's": logits - F.linear(features[-1], head.weight, head.bias),
    }


def _head(new=lambda old, classes: nn.Linear(old.in_features, classes), body_learns=False, head_learns=True):
    def answer(model, classes):
        network = copy.deepcopy(model).requires_grad_(body_learns)
        network.linear = new(network.linear, classes).requires_grad_(head_learns)
        return network

    return answer


def _printed_number_only(old, classes):
    old.out_features = classes
    return old


def _kept_if_equal(old, classes):
    return old if classes == old.out_features else nn.Linear(old.in_features, classes)


new_head = Exercise(
    reference=_head(),
    cases=lambda: [
        (_trained(_Small(6)).eval(), 7, torch.randn(5, 3, 8, 8)),
        (_trained(_Small(9)).train(), 3, torch.randn(2, 3, 8, 8)),
        (_trained(_Course(16)).eval(), CLASSES, torch.randn(3, 3, 32, 32)),
    ],
    run=_with_new_head,
    mistakes={
        "there are still as many outputs as before: put a new nn.Linear in the place of `network.linear`.": (
            _head(_printed_number_only)
        ),
        "the head is frozen, too, so nothing can learn: freeze first, then make the new head.": (
            _head(head_learns=False)
        ),
        "the body can still learn. Set `requires_grad` to False there: `eval()` does not.": _head(body_learns=True),
        "the old head is kept. It belongs to the old classes: make a new nn.Linear.": _head(_kept_if_equal),
    },
    praise="a copy, the same body, frozen, and a new head that can learn.",
)


def _weights(of_counts, missing=0):
    """A weight for each class from the counts (classes,); `missing` where there is no image."""

    def answer(y, classes):
        n = torch.bincount(y, minlength=classes).double()
        return torch.where(n > 0, of_counts(n), missing)

    return answer


def _right_weights(n):
    return n.sum() / ((n > 0).sum() * n)


def _as_the_loss_takes_them(answer, y, classes):
    weights = call(answer, y, classes)
    require(isinstance(weights, torch.Tensor), f"the weights must be a tensor, got {type(weights).__name__}.")
    return weights


def _labels():
    for n in ([60, 6, 25, 1, 0], [8, 2, 20], [0, 3, 0, 17, *sizes(3)], [*sizes(2), 0, 0], [0, 0, 5], [3, *[0, 9] * 20]):
        y = torch.repeat_interleave(torch.arange(len(n)), torch.tensor(n))
        yield y[torch.randperm(len(y))], len(n)


class_weights = Exercise(
    reference=_weights(_right_weights),
    cases=_labels,
    run=_as_the_loss_takes_them,
    mistakes={
        "classes at the end that have no image get no weight: `torch.bincount(y, minlength=classes)`.": (
            lambda y, classes: class_weights.reference(y, int(y.max()) + 1),
            lambda y, classes: len(y) / (len(y.unique()) * torch.bincount(y)),
        ),
        "a class without images must get the weight 0. (Is it divided by 0?)": (
            _weights(_right_weights, torch.inf),
            lambda y, classes: len(y) / len(y.unique()) / torch.bincount(y, minlength=classes).clamp(min=1),
        ),
        "these are the shares of the classes: the frequent ones count most. Divide by the counts.": (
            _weights(lambda n: n / n.sum())
        ),
        "the weights of all images must add up to N: of P classes with images, each has N / P to spend.": (
            _weights(lambda n: 1 / n),
            _weights(lambda n: n.sum() / n),
            _weights(lambda n: 1 / n / (1 / n[n > 0]).sum()),
            _weights(lambda n: len(n) / n / (1 / n[n > 0]).sum()),
        ),
        "P counts the classes that have images, not all.": _weights(lambda n: n.sum() / (len(n) * n)),
    },
    praise="every class with images has the same total, and the images' weights have the mean 1.",
)


def _pairs(equal, known_first=True):
    """Share of pairs in which the known score is higher; a pair of equal ones counts `equal`."""

    def answer(known, unknown):
        k, u = (known, unknown) if known_first else (unknown, known)
        return ((k[:, None] > u).double() + equal * (k[:, None] == u).double()).mean()

    return answer


def _scores():
    """In tenths, so that many are equal; the same on other scales; few."""
    known, unknown = ((k + torch.randint(9, (n,))) / 10 for k, n in zip((2, 0), sizes(2, 30, 60), strict=True))
    for factor, shift in ((1, 0), (30, -12), (1e-3, 5), (1, -100)):
        yield factor * known + shift, factor * unknown + shift
    high, low = torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0, 2.5])
    yield from ((high, low), (low, high), (high[:1], high[:1]), (torch.randint(5, (3,)) - 1.0, low))


auroc = Exercise(
    reference=_pairs(equal=0.5),
    cases=_scores,
    mistakes={
        "a pair of equal scores counts half.": (_pairs(equal=0), _pairs(equal=1)),
        "the two are swapped: count the pairs in which the *known* one is higher.": (
            _pairs(equal=0.5, known_first=False),
            _pairs(equal=0, known_first=False),
        ),
        "that is the number of pairs. Divide by the number of all pairs, N times M.": (
            lambda known, unknown: auroc.reference(known, unknown) * len(known) * len(unknown)
        ),
    },
    praise="every pair counted once, equal scores half.",
)


class _Sees(nn.Module):
    """Takes what the networks of the course take. Its logits depend on every pixel."""

    def __init__(self):
        super().__init__()
        self.norm, self.linear = nn.BatchNorm2d(3), nn.Linear(3 * 32 * 32, 5)

    def forward(self, x):
        if not x.is_floating_point() or tuple(x.shape[1:]) != (3, 32, 32):
            raise ValueError(f"the network takes float (B, 3, 32, 32), got {x.dtype} {tuple(x.shape)}")
        return self.linear(self.norm(x).flatten(1))


def _small(x, antialias=True):
    return F.interpolate(x, size=(32, 32), mode="bilinear", antialias=antialias)


def _taker(prepare=lambda x, m, s: (_small(x / 255) - m) / s, keep=nn.Module.register_buffer):
    class TakesPictures(nn.Module):
        def __init__(self, network, mean, std):
            super().__init__()
            self.network = network
            keep(self, "mean", mean.view(3, 1, 1))
            keep(self, "std", std.view(3, 1, 1))

        def forward(self, x):
            return self.network(prepare(x, self.mean, self.std))

    return TakesPictures


def _taken(answer, network, mean, std, x):
    """Logits of x, and of another module that loads the first one's state; the first has met another size before."""
    require(not isinstance(answer, nn.Module), "pass the class itself: `checks.takes_pictures(TakesPictures)`.")
    other = copy.deepcopy(network)
    module = call(answer, network, mean, std)
    require(isinstance(module, nn.Module), f"it must be an nn.Module, got {type(module).__name__}.")
    call(module.eval(), x[:, :, :9, :5])
    loaded = call(answer, other, mean + 1, 2 * std).eval().double().float()  # new tensors, as on another device
    loaded.load_state_dict(module.state_dict())
    trained = [sum(p.numel() for p in m.parameters() if p.requires_grad) for m in (module, network)]
    return {
        "the logits": call(module, x),
        "the logits of a copy that has loaded the state_dict": call(loaded, x),
        "the number of weights to train beside the network's": trained[0] - trained[1],
    }


def _pictures():
    """Larger and smaller ones, one side right, dark ones, a batch of one; stored row by row, as files are."""
    network = _trained(_Sees()).eval()
    for shape in ((3, 48, 40), (1, 32, 32), (2, 20, 70), (2, 50, 32), (2, 32, 45), (4, 11, 13)):
        x = torch.randint(90 if shape[2] == 45 else 256, (*shape, 3), dtype=torch.uint8)
        yield network, torch.rand(3), 0.1 + torch.rand(3) / 4, x.permute(0, 3, 1, 2)


takes_pictures = Exercise(
    reference=_taker(),
    cases=_pictures,
    run=_taken,
    mistakes={
        "the pixels are not divided by 255.": _taker(lambda x, m, s: (_small(x.float()) - m) / s),
        "the pixels are not normalised: subtract the mean, divide by the standard deviation.": (
            _taker(lambda x, m, s: _small(x / 255))
        ),
        "whole numbers were resized, which rounds the result. Make the pixels float first.": (
            _taker(lambda x, m, s: (_small(x) / 255 - m) / s)
        ),
        "resized without `antialias=True`: most pixels of a large picture are ignored.": (
            _taker(lambda x, m, s: (_small(x / 255, antialias=False) - m) / s)
        ),
        "mean and std are no buffers: they are not saved with the module, and stay behind when it moves to a GPU. "
        'Use `self.register_buffer("mean", ...)`.': _taker(keep=setattr),
    },
    praise="float, resized, normalised, and mean and std travel with the module.",
)
