"""Checks of the exercises of lesson 06."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import nn

from helpers.checks.frame import Exercise, call, parts, sizes
from helpers.model import CustomResNet


def _matrix(true, predicted, classes):
    return torch.bincount(true * classes + predicted, minlength=classes**2).view(classes, classes)


def _images_to_count():
    for count, classes, seen in ((300, 5, 4), (1, 3, 3), (5_000, 2, 2), *((20 * n, n, n) for n in sizes(1, 9, 30))):
        true, predicted = torch.randint(seen, (2, count))
        predicted = torch.where(torch.rand(count) < 0.5, true, predicted)
        yield *torch.stack([true, predicted], dim=1).unbind(dim=1), classes  # columns of a table


confusion_matrix = Exercise(
    reference=_matrix,
    cases=_images_to_count,
    mistakes={
        "rows and columns are swapped: the row is the true class.": lambda t, p, k: _matrix(p, t, k),
        "each pair is counted once, however often it occurs: `matrix[true, predicted] += 1` writes a cell only once.": (
            lambda t, p, k: _matrix(t, p, k).clamp(max=1)
        ),
        "these are shares. Return counts: whole numbers whose sum is the number of images.": (
            lambda t, p, k: _matrix(t, p, k) / len(t)
        ),
    },
    praise="one count an image, true classes in rows, predicted classes in columns.",
)


def _error(confidence, correct, bins, of=lambda gap, share: (gap.abs() * share).sum()):
    c, h = confidence.double(), correct.double()
    which = (c * bins).long().clamp(max=bins - 1)
    inside = [which == b for b in which.unique()]
    gap = torch.stack([c[i].mean() - h[i].mean() for i in inside])
    return of(gap, torch.stack([i.double().mean() for i in inside]))


def _confidences():
    for count, bins in zip([*sizes(4, 50, 400), 1], [10, *sizes(3, 3, 19), 5], strict=True):  # some bins are empty
        c = 1 - 0.7 * torch.rand(count) ** 2
        c[: count // 6] = 1.0  # all of them wrong, those above 0.9 right, the rest now and then
        yield c, torch.rand(count) < (0.5 + 0.5 * (9 * c).sin()).where(c < 0.9, (c < 1).float()), bins
    for bins in (3, *sizes(2, 4, 15)):  # close to the edges: right below, wrong above
        edges = torch.arange(1, bins) / bins
        yield torch.cat([edges - 1e-3, edges + 1e-3]), torch.arange(2 * bins - 2) < bins - 1, bins
    for bins in (4, 8):  # on the edges: all are wrong, so it does not matter to which of its two bins an edge belongs
        edges = torch.arange(1, bins + 1) / bins
        yield torch.cat([edges, edges - 0.5 / bins]), torch.zeros(2 * bins, dtype=torch.bool), bins


calibration_error = Exercise(
    reference=_error,
    cases=_confidences,
    mistakes={
        "images of confidence 1.0 belong into the last bin. Here they are lost.": (
            lambda c, h, bins: _error(c[c < 1], h[c < 1], bins) * (c < 1).double().mean()
        ),
        "all bins weigh the same: weight each by its share of images.": (
            partial(_error, of=lambda gap, share: gap.abs().mean()),
            lambda c, h, bins: _error(c, h, bins, of=lambda gap, share: gap.abs().sum() / bins),
        ),
        "gaps of both signs cancel: take each bin's `abs`.": (
            partial(_error, of=lambda gap, share: (gap * share).sum()),
            partial(_error, of=lambda gap, share: -(gap * share).sum()),
        ),
    },
    praise="the gap of each bin, weighted by its images, with 1.0 in the last bin.",
)


def _fitted(logits, y):
    found = minimize_scalar(
        lambda log: F.cross_entropy(logits.double() / math.exp(log), y).item(), bounds=(-3, 3), method="bounded"
    )
    return math.exp(found.x)


def _scaled(valid_logits, valid_y, test_logits, test_y):
    temperature = _fitted(valid_logits, valid_y)
    return temperature, F.cross_entropy(test_logits / temperature, test_y)


def _given_logits():
    for sharpness, classes in zip((2.5, 0.75, 1.5), sizes(3, 5, 10), strict=True):  # too sure, not enough, a little
        given = []
        for factor, count in zip((1, 2), sizes(2, 300, 600), strict=True):  # test images want another temperature
            logits = 2 * torch.randn(count, classes)
            given += factor * sharpness * logits, torch.distributions.Categorical(logits=logits).sample()
        yield tuple(given)


temperature_scaling = Exercise(
    reference=_scaled,
    cases=_given_logits,
    run=lambda answer, *given: parts(call(answer, *given), "temperature", "loss"),
    mistakes={
        "the temperature is fitted on the test images. They only measure: fit on the validation images.": (
            lambda v, vy, t, ty: _scaled(t, ty, t, ty)
        ),
        "you return the factor, 1/T. The temperature divides the logits.": (
            lambda v, vy, t, ty: (1 / _fitted(v, vy), _scaled(v, vy, t, ty)[1])
        ),
        "the loss must be that of the test images, at your temperature. It is that of other images, or at T = 1.": (
            lambda v, vy, t, ty: _scaled(v, vy, v, vy),
            lambda v, vy, t, ty: (_fitted(v, vy), F.cross_entropy(t, ty)),
        ),
    },
    praise="fitted on validation images, measured on test images.",
    tolerance={"temperature": 1.5e-2, "loss": 3e-3},
)


def _cam(
    model,
    layer,
    x,
    target,
    score=lambda logits, target: logits.gather(1, target[:, None]),
    combine=lambda a, gradient: (gradient.mean((2, 3), keepdim=True) * a).sum(1).relu(),
):
    outputs = []
    hook = layer.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    logits = model(x)
    hook.remove()
    return combine(outputs[0].detach(), *torch.autograd.grad(score(logits, target).sum(), outputs))


def _networks_to_explain():
    small = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Sequential(nn.MaxPool2d(2))),
        *(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)),
    )
    course, (batch,) = CustomResNet(width=2, classes=7), sizes(1)
    for last in (small[-1], course.linear):
        last.weight.data *= 50  # logits far from each other
    for model, layer, height, width in (
        *[(small, small[1], 8, 6)] * 2,  # nothing of the first may be left in the second
        (small, small[2], 6, 10),
        (course, course.layer2, 32, 32),
    ):
        x = torch.randn(batch, 3, height, width)
        logits = model.eval()(x)
        yield model, layer, x, (logits.argmax(1) + 1 + torch.arange(batch) % 3) % logits.shape[1]  # not the predicted


grad_cam = Exercise(
    reference=_cam,
    cases=_networks_to_explain,
    mistakes={
        "take the gradient of one logit an image, that of `target`: `logits[torch.arange(len(x)), target]`.": (
            partial(_cam, score=lambda logits, target: logits.amax(1)),
            partial(_cam, score=lambda logits, target: logits[:, target]),
            partial(_cam, score=F.cross_entropy),
            partial(_cam, score=lambda logits, target: logits.softmax(1).gather(1, target[:, None])),
        ),
        "add the channels first (they may speak against the class), then end with a ReLU.": (
            partial(_cam, combine=lambda a, gradient: (gradient.mean((2, 3), keepdim=True) * a).sum(1)),
            partial(_cam, combine=lambda a, gradient: (gradient.mean((2, 3), keepdim=True) * a).relu().sum(1)),
        ),
        "each pixel has its own weight. Average the gradient first: one weight a channel.": (
            partial(_cam, combine=lambda a, gradient: (gradient * a).sum(1).relu())
        ),
        "the maps are scaled. Return them as they come out of the ReLU.": (
            lambda *given: (m := _cam(*given)) / m.amax((1, 2), keepdim=True).clamp(min=1e-9)
        ),
    },
    praise="the target's mean gradient weighs the channels, a ReLU ends it, and the network is left as it was.",
    tolerance=1e-5,
)


def _suspects(logits, y, count):
    return logits.softmax(1).gather(1, y[:, None])[:, 0].argsort()[:count]


def _labels_to_suspect():
    some, classes = sizes(2, 3, 30)
    for n, k, count in ((80, 5, 7), (5_000, 10, 1_000), (10 * some, classes, 10 * some)):
        y, logits = torch.randint(k, (n,)), torch.randn(n, k)
        # log-odds of the labels in equal steps: no two probabilities are so close that rounding could exchange them
        odds = torch.linspace(-6, 6, n)[torch.randperm(n)]
        logits[torch.arange(n), y] = odds + logits.scatter(1, y[:, None], -math.inf).logsumexp(1)
        yield logits + 3 * torch.randn(n, 1), y, count  # a shift of each row, which probabilities do not notice


suspected_labels = Exercise(
    reference=_suspects,
    cases=_labels_to_suspect,
    mistakes={
        "sort the other way round: the least probable label comes first.": (
            lambda logits, y, count: _suspects(logits, y, len(y)).flip(0)[:count]
        ),
        "these are the unsure answers: the label that was given plays no part in it.": (
            lambda logits, y, count: logits.softmax(1).amax(1).argsort()[:count]
        ),
        "sorted by the label's logit. Apply the softmax first.": (
            lambda logits, y, count: logits[range(len(y)), y].argsort()[:count]
        ),
        "these positions count among the mistakes only. Return positions among all images.": (
            lambda logits, y, count: _suspects(logits[(w := logits.argmax(1) != y)], y[w], count)
        ),
    },
    praise="the least probable labels first, as positions among all images.",
)
