"""Checks of the exercises of lesson 06."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks.frame import Wrong, call, check, close, require, tensor


@check
def confusion_matrix(answer) -> str:
    """answer(true, predicted, classes) -> (classes, classes) counts: row = true class, column = predicted class."""
    # The last class never occurs, and mistakes lean to one side, so that the matrix is not symmetric.
    true = torch.randint(0, 4, (300,))
    predicted = torch.where(torch.rand(300) < 0.6, true, true * torch.randint(0, 2, (300,)))
    expected = torch.zeros(5, 5, dtype=torch.float64)
    for t, p in zip(true.tolist(), predicted.tolist(), strict=True):
        expected[t, p] += 1
    matrix = tensor(call(answer, true, predicted, 5), (5, 5), "the matrix (for 5 classes, one of which never occurs)")
    require(
        not torch.equal(matrix, expected.T),
        "rows and columns are swapped: the row is the true class, the column the predicted one.",
    )
    shares = [expected / total.clamp(min=1) for total in (expected.sum(), expected.sum(1, True), expected.sum(0, True))]
    require(
        not any(close(matrix.nan_to_num(), share) for share in shares),
        "these are shares. Return counts: whole numbers whose sum is the number of images.",
    )
    require(
        not torch.equal(matrix, expected.clamp(max=1)),
        "each pair is counted once, however often it occurs: `matrix[true, predicted] += 1` writes a cell only once.",
    )
    require(
        not torch.equal(matrix, expected - expected.diag().diag()), "the hits are missing: they are on the diagonal."
    )
    for numbers in (true + predicted, true * predicted, true * 4 + predicted):
        require(
            not torch.equal(matrix, torch.bincount(numbers, minlength=25).double().view(5, 5)),
            "two different pairs share a number. With `row * classes + column` each has its own.",
        )
    require(
        matrix.sum() == 300, f"the entries sum to {matrix.sum().item():g}, but there are 300 images: each counts once."
    )
    require(torch.equal(matrix, expected), "some entries are wrong, though each image is counted once.")
    return "one count an image, true classes in rows, predicted classes in columns."


def _gaps(confidence, hits, bin_of):
    """Mean confidence minus share of hits, and number of images, of each bin that is not empty."""
    groups = [bin_of == b for b in bin_of.unique()]
    gap = torch.stack([confidence[g].mean() - hits[g].mean() for g in groups])
    return gap, torch.stack([g.sum() for g in groups]).double()


def _one_number(value) -> float:
    value = value.item() if hasattr(value, "item") and torch.as_tensor(value).numel() == 1 else value
    several = f" of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else ""
    require(isinstance(value, int | float), f"return one number, got {type(value).__name__}{several}.")
    require(value == value, "the result is nan: a bin without images has no mean (0/0). Leave it out.")
    return value


@check
def calibration_error(answer) -> str:
    """answer(confidence, correct, bins) -> expected calibration error; the last bin includes 1.0."""
    # In tenths: three bins are empty, the others filled unevenly, with gaps of both signs. No value is on an inner
    # edge here: those come after.
    tenth = torch.multinomial(torch.tensor([0, 0, 0, 1.0, 3, 2, 6, 4, 9, 20]), 400, replacement=True)
    confidence = (tenth + 0.1 + 0.8 * torch.rand(400)) / 10
    confidence[:60] = 1.0
    chance = torch.tensor([0.5, 0.5, 0.5, 0.9, 0.1, 0.9, 0.2, 0.95, 0.5, 1.0])[tenth]
    chance[:60] = 0.6
    correct = torch.rand(400) < chance
    c, h = confidence.double(), correct.double()
    for bins in (10, 5):
        value = _one_number(call(answer, confidence, correct, bins))
        own = (c * bins).long()  # 1.0 gets a bin of its own
        bin_of = own.clamp(max=bins - 1)
        gap, size = _gaps(c, h, bin_of)
        sums = (gap.abs() * size).sum()
        expected = sums / 400
        if abs(value - expected) < 1e-4:
            continue
        part_gap, part_size = _gaps(c[c < 1], h[c < 1], bin_of[c < 1])
        part = (part_gap.abs() * part_size).sum()
        own_gap, own_size = _gaps(c, h, own)
        middle, _ = _gaps((bin_of + 0.5) / bins, h, bin_of)
        few_gap, few_size = _gaps(c, h, (c * (bins - 1)).long().clamp(max=bins - 2))
        round_gap, round_size = _gaps(c, h, (c * bins).round())
        lost = "images of confidence 1.0 are lost: the last bin includes 1.0."
        equal = "all bins weigh the same: weight each by its share of images."
        cancel = "gaps of both signs cancel: take each bin's `abs`."
        for fault, words in (
            (part / 400, lost),
            (part / part_size.sum(), lost),
            ((own_gap.abs() * own_size).sum() / 400, "confidence 1.0 has a bin of its own: put it into the last bin."),
            (gap.abs().mean(), equal),
            (gap.abs().sum() / bins, equal),
            (gap.abs().sum(), equal),
            (sums, "each gap is weighted by a number of images. Divide by N: the weights are shares."),
            (
                (middle.abs() * size).sum() / 400,
                "the middle of a bin stands for its images. Take their mean confidence.",
            ),
            ((gap * size).sum() / 400, cancel),
            (-(gap * size).sum() / 400, cancel),
            (gap.abs().max(), "that is the largest gap: take the weighted mean of all."),
            (100 * expected, "that is in per cent: return it on the scale 0 to 1."),
            ((gap.square() * size).sum() / 400, "the gaps are squared: take their absolute value."),
            (
                (few_gap.abs() * few_size).sum() / 400,
                f"there are {bins - 1} bins in place of {bins}: n bins have n + 1 edges, `linspace(0, 1, bins + 1)`.",
            ),
            (
                (round_gap.abs() * round_size).sum() / 400,
                "`round` moves the edges to the middle of the bins. Round down, as `.long()` does.",
            ),
            ((c - h).abs().mean(), "the gap is taken image by image. Take means in each bin first, then their gap."),
        ):
            require(abs(value - fault) > 1e-4, words)
        raise Wrong(f"with {bins} bins the result is {value:.4f}, expected {expected:.4f}.")
    # Quarters are exact in binary, so 0.25, 0.5 and 0.75 are on an edge for every way to compute edges.
    confidence = torch.tensor([0.25] * 4 + [0.375] * 5 + [0.5] * 6 + [0.75] * 3 + [0.875] * 2)
    correct = torch.tensor([1, 1, 1, 0] + [0] * 5 + [1] * 5 + [0] + [1, 0, 0] + [1, 1]).bool()
    value = _one_number(call(answer, confidence, correct, 4))
    c, h = confidence.double(), correct.double()
    above, below = (c * 4).long(), (c * 4).ceil().long() - 1  # the bin that an edge opens, and the one that it closes
    on_edge = above != below
    twice = [torch.cat(pair) for pair in ((c, c[on_edge]), (h, h[on_edge]), (above, below[on_edge]))]
    right, right_too, double = (
        ((gap.abs() * size).sum() / 20).item() for gap, size in (_gaps(c, h, above), _gaps(c, h, below), _gaps(*twice))
    )
    require(
        abs(value - double) > 1e-4,
        "a confidence on the edge of two bins, such as 0.5 of 4 bins, is counted twice: use `>=` on one side, `<` on "
        "the other, and treat only 1.0 on its own.",
    )
    require(
        min(abs(value - right), abs(value - right_too)) < 1e-4,
        f"a confidence on the edge of two bins must count in exactly one of them: got {value:.4f}, "
        f"expected {right:.4f} (or {right_too:.4f}, if an edge belongs to the bin below).",
    )
    return "the gap of each bin, weighted by its images, with 1.0 in the last bin."


def _loss(logits, y, temperature) -> float:
    return F.cross_entropy(logits.double() / temperature, y).item()


def _best(logits, y) -> float:
    """The temperature of the smallest loss. The loss has one valley, so three parts of a range tell where it lies."""
    low, high = -4.0, 4.0  # of the logarithm
    for _ in range(100):
        left, right = (2 * low + high) / 3, (low + 2 * high) / 3
        if _loss(logits, y, math.exp(left)) < _loss(logits, y, math.exp(right)):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def _drawn(count, sharpness):
    """Logits of a calibrated network, multiplied by `sharpness`, and labels: the best temperature is near that."""
    logits = 2 * torch.randn(count, 6)
    y = torch.distributions.Categorical(logits=logits).sample()
    return sharpness * logits, y


@check
def temperature_scaling(answer) -> str:
    """answer(valid_logits, valid_y, test_logits, test_y) -> (temperature fitted on valid, loss of test at it)."""
    # A network that is too sure, then one that is not sure enough. Test and validation images want other temperatures.
    for sharpness, what in ((2.5, "surer than it is right"), (0.4, "less sure than it is right")):
        valid, test = _drawn(500, sharpness), _drawn(300, 1.4 * sharpness)
        result = call(answer, *valid, *test)
        require(
            isinstance(result, tuple | list) and len(result) == 2,
            f"return two numbers, (temperature, loss of the test images), got {type(result).__name__}.",
        )
        temperature, loss = _number(result[0], "the temperature"), _number(result[1], "the loss")
        best, on_test = _best(*valid), _best(*test)

        def near(value, expected):
            return abs(value / expected - 1) < 0.02

        here = f"For a network that is {what} "
        if not near(temperature, best):
            require(not near(loss, best), "the two numbers are swapped: the temperature first, then the loss.")
            both = _best(torch.cat([valid[0], test[0]]), torch.cat([valid[1], test[1]]))
            require(
                temperature > 0, f"a temperature is above 0, got {temperature:.4g}: fit its logarithm, or start at 1."
            )
            for fault, words in (
                (
                    on_test,
                    "the temperature is fitted on the test images. They only measure: fit on the validation images.",
                ),
                (both, "validation and test images are fitted together. The test images only measure."),
                (1 / best, "you return the factor, 1/T. The temperature divides the logits."),
                (math.log(best), "that is the logarithm of the temperature: return its `exp`."),
                (
                    _best(valid[0].softmax(1), valid[1]),
                    "a softmax comes before `cross_entropy`, which applies its own.",
                ),
                (1.0, "the temperature is still 1: nothing was fitted. (Accuracy cannot guide it: it never changes.)"),
            ):
                require(not near(temperature, fault), words)
            loss_there, loss_best = _loss(*valid, temperature), _loss(*valid, best)
            raise Wrong(
                f"{here}you return T = {temperature:.3f}, where the validation loss is {loss_there:.4f}; at "
                f"{best:.3f} it is {loss_best:.4f}. Did you make `cross_entropy` with `valid_y` small? "
                "More steps, or a finer or wider grid (below 1, too), may be needed."
            )
        expected = _loss(*test, temperature)
        for fault, words in (
            (_loss(*valid, temperature), "the loss is that of the validation images. Report that of the test images."),
            (
                _loss(*test, 1.0),
                "the loss is that of the test images without the temperature. Divide their logits by it.",
            ),
            (_loss(*test, 1 / temperature), "the test logits are multiplied by the temperature. It divides them."),
            (_loss(*test, on_test), "the loss is that at the best temperature of the test images. Use the same T."),
            (expected * 300, "the loss is a sum over the images. Take the mean, as `cross_entropy` does."),
            (
                _loss((test[0].double() / temperature).softmax(1), test[1], 1.0),
                "a softmax comes before `cross_entropy`, which applies its own.",
            ),
        ):
            require(abs(loss - expected) < 1e-3 or abs(loss - fault) > 1e-3, words)
        require(abs(loss - expected) < 1e-3, f"{here}the test loss is {loss:.4f}, expected {expected:.4f} at your T.")
    return "fitted on validation images, measured on test images."


def _number(value, what: str) -> float:
    try:
        value = float(value.detach() if isinstance(value, torch.Tensor) else value)
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"{what} must be one number, got {type(value).__name__}.") from None
    require(math.isfinite(value), f"{what} is {value}: it must be a finite number.")
    return value


class _Small(nn.Module):
    """(B, 3, 8, 6) -> logits (B, 5). The layer to look at gives (B, 4, 4, 3): higher than wide, more than one pixel."""

    def __init__(self):
        super().__init__()
        self.prep = nn.Conv2d(3, 4, 3, padding=1)
        self.first = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.second = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.linear = nn.Linear(6, 5)

    def forward(self, x):
        return self.linear(self.second(self.first(self.prep(x))))


def _stretched(maps: torch.Tensor) -> torch.Tensor:
    """Each map from 0 to 1, so that maps that differ by a factor or a shift only become the same."""
    maps = maps.double() - maps.double().amin((1, 2), keepdim=True)
    return maps / maps.amax((1, 2), keepdim=True).clamp(min=1e-12)


def _hooks(model) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


@check
def grad_cam(answer) -> str:
    """answer(model, layer, x, target) -> (B, h, w): relu of the channels' sum, each weighted by its mean gradient."""
    model = _Small().eval()
    with torch.no_grad():  # channels of both signs, so that the last ReLU has something to do
        model.linear.weight.mul_(4)
    x = torch.randn(6, 3, 8, 6)
    logits, stage = model(x), model.first(model.prep(x)).detach()
    target = (logits.argmax(1) + 1 + torch.arange(6) % 3) % 5  # never the class that the network says

    def gradient(score):
        (found,) = torch.autograd.grad(score(model.linear(model.second(leaf))), leaf)
        return found

    leaf = stage.clone().requires_grad_()
    rows = torch.arange(6)
    right = gradient(lambda z: z[rows, target].sum())

    def weighted(g, a=stage):
        return (g.mean((2, 3), keepdim=True) * a).sum(1)

    leaf_in = model.prep(x).detach().requires_grad_()
    (into,) = torch.autograd.grad(model.linear(model.second(model.first(leaf_in)))[rows, target].sum(), leaf_in)
    expected = weighted(right).relu()
    result = call(answer, model, model.first, x, target)
    require(isinstance(result, torch.Tensor), f"the maps must be a tensor, got {type(result).__name__}.")
    require(tuple(result.shape) != (6, 1, 4, 3), "the maps still have a channel side of 1: sum without `keepdim`.")
    require(tuple(result.shape) != (6, 4, 4, 3), "there is one map a channel: weigh the channels and sum over them.")
    require(tuple(result.shape) != (6, 8, 6), "the maps are as large as the images. Return them in the layer's size.")
    require(tuple(result.shape) != (4, 3), "there is one map for the whole batch. Each image has its own.")
    found = tensor(result, (6, 4, 3), "the maps (for 6 images and a layer of 4 x 3 pixels)").float()
    require(found.isfinite().all(), "some values are nan or infinite: a map of zeros cannot be divided by its largest.")
    require(
        not any(m.training for m in model.modules()),
        "the network came in eval mode and is left in train mode. In train mode batch norm also gives other maps.",
    )
    names = {
        "the gradient of the predicted class. Take that of `target`": gradient(lambda z: z.amax(1).sum()),
        "the gradient of all logits together. Take the one of `target` in each row": gradient(lambda z: z.sum()),
        "the gradient of the loss. Take that of the logit of `target`": gradient(lambda z: F.cross_entropy(z, target)),
        "the gradient of the summed loss. Take that of the logit of `target`": gradient(
            lambda z: F.cross_entropy(z, target, reduction="sum")
        ),
        "the gradient of a probability. Take that of the logit, before the softmax": gradient(
            lambda z: z.softmax(1)[rows, target].sum()
        ),
        "the gradient of the mean over the images. Sum the logits of `target` over the images: each image's gradient "
        "is then its own": right / 6,
        "the gradient of the first image's target for all": gradient(lambda z: z[:, target[0]].sum()),
        "the gradient of all images' targets in each row: `logits[:, target]` takes a whole table. Take "
        "`logits[torch.arange(len(x)), target]`": gradient(lambda z: z[:, target].sum()),
        "the gradient of the log-probability. Take that of the logit, before the softmax": gradient(
            lambda z: z.log_softmax(1)[rows, target].sum()
        ),
        "weighted by `grad_inputs`, the gradient with respect to the layer's input. Take `grad_outputs[0]`": into,
        "the mean gradient of all images as weight. Each image has weights of its own": right.mean(0, True).expand_as(
            right
        ),
    }
    for words, g in names.items():
        for map_ in (weighted(g).relu(), weighted(g)):
            require(close(found, expected) or not close(found, map_), f"this is {words}.")
    area = stage.shape[2] * stage.shape[3]
    for words, map_ in {
        "negative parts are left: end with a ReLU.": weighted(right),
        "negative parts are made positive: end with a ReLU, not with `abs`.": weighted(right).abs(),
        "each pixel has its own weight. Average the gradient over rows and columns first: one weight a channel.": (
            (right * stage).sum(1).relu()
        ),
        "the ReLU comes before the channels are added. Add first: channels may speak against the class.": (
            (right.mean((2, 3), keepdim=True) * stage).relu().sum(1)
        ),
        "the weights are sums of the gradient over the pixels. Take the mean.": area * expected,
        "the channels are averaged. Add them up.": expected / stage.shape[1],
        "this is the gradient alone. It weighs the layer's outputs.": right.mean(1).relu(),
        "these are the layer's outputs alone. The mean gradient weighs them.": stage.sum(1),
    }.items():
        require(close(found, expected) or not close(found, map_), words)
    require(
        close(found, expected) or not close(_stretched(found), _stretched(expected)),
        "the maps are scaled (or shifted): only their size is wrong. Return them as they come out of the ReLU.",
    )
    require(close(found, expected), "the maps have the right shape, but other values.")
    require(
        _hooks(model) == 0,
        f"{_hooks(model)} hook(s) are left on the network, and run at each later call: keep what `register_...` "
        "returns and call `.remove()` on it.",
    )
    require(
        not any(p.grad is not None and p.grad.any() for p in model.parameters()),
        "gradients are left in the network's parameters: a later `backward` would add to them. Call "
        "`model.zero_grad()` at the end, or use `torch.autograd.grad`.",
    )
    require(all(p.requires_grad for p in model.parameters()), "some parameters are left frozen (`requires_grad`).")
    return "the target's mean gradient weighs the channels, a ReLU ends it, and the network is left as it was."


@check
def suspected_labels(answer) -> str:
    """answer(logits, y, count) -> positions of the `count` images whose given label gets the least probability."""
    # Each image's logits are shifted by a number of their own: probabilities do not notice, raw logits do.
    true = torch.randint(0, 5, (80,))
    logits = torch.randn(80, 5) + 3 * F.one_hot(true, 5) + 3 * torch.randn(80, 1)
    planted = torch.rand(80) < 0.15
    y = torch.where(planted, (true + torch.randint(1, 5, (80,))) % 5, true)
    probability = logits.softmax(1)
    given, (confidence, said) = probability[range(80), y], probability.max(1)
    others = logits.masked_fill(F.one_hot(y, 5).bool(), -math.inf).amax(1)

    def ranked(score, among=None):
        among = torch.arange(80) if among is None else among
        return among[score[among].argsort(stable=True)].tolist()

    mistakes = (said != y).nonzero().flatten()
    expected = ranked(given)
    for count in (7, 25):
        found = _positions(answer, logits, y, count)
        if found == expected[:count]:
            continue
        for fault, words in (
            (expected[::-1][:count], "the label that is believed most comes first. Sort the other way round."),
            (expected[:count][::-1], "the most suspicious one comes last. Sort the other way round."),
            (
                sorted(expected[:count]),
                "the right images, but in the order of the positions. The most suspicious first.",
            ),
            (ranked(confidence)[:count], "these are the unsure answers: the label that was given plays no part in it."),
            (
                ranked(-confidence, mistakes)[:count],
                "sorted by the probability of the predicted class. Take the label's.",
            ),
            (
                ranked((probability * logits.log_softmax(1)).sum(1))[:count],
                "these are the unsure answers: the label that was given plays no part in it.",
            ),
            (
                ranked(given - confidence)[:count],
                "sorted by how far the label lies behind the answer. Take the label's probability alone.",
            ),
            (ranked(logits[range(80), y])[:count], "sorted by the label's logit. Apply the softmax first."),
            (
                ranked(logits.softmax(0)[range(80), y])[:count],
                "the softmax runs over the images. Each image's probabilities must sum to 1: take `dim=1`.",
            ),
            (
                ranked(logits[range(80), y] - others)[:count],
                "this is the gap between two logits. Sort by the probability of the given label.",
            ),
            (y[expected].tolist()[:count], "these are classes, not images. Return the positions of the images."),
            (said[expected].tolist()[:count], "these are classes, not images. Return the positions of the images."),
            (
                ranked(given[mistakes], torch.arange(len(mistakes)))[:count],
                "these positions count among the mistakes only. Return positions among all images.",
            ),
            (
                mistakes.tolist()[:count],
                "these are mistakes in the order of the images. Sort by the label's probability.",
            ),
        ):
            require(found != fault, words)
        require(
            len(found) == count,
            f"for count={count} there must be {count} positions, got {len(found)}. (Images that the network gets "
            "right count, too: they come last.)",
        )
        raise Wrong(f"for count={count}: got {found[:7]}, expected {expected[:7]}.")
    return "the least probable labels first, as positions among all images."


def _positions(answer, logits, y, count) -> list:
    """What `answer` returns (a tensor, an array, a list or a tuple) as a list of whole numbers, or words."""
    result = call(answer, logits, y, count)
    try:
        result = torch.as_tensor(result).detach()
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"return the positions as a tensor or a list, got {type(result).__name__}.") from None
    require(result.dtype != torch.bool, "return positions (whole numbers), not a mask of True and False.")
    require(
        not result.is_floating_point() or torch.equal(result, result.round()),
        "these are no whole numbers. Return the positions of the images, not their probabilities.",
    )
    require(
        result.ndim != 2 or 1 in result.shape,
        f"this is a table of shape {tuple(result.shape)}: `probabilities[:, y]` takes all columns `y` for every row. "
        "One column for each row: `probabilities[torch.arange(len(y)), y]`.",
    )
    require(
        result.ndim == 1,
        f"return the positions in one row; your shape is {tuple(result.shape)}. `.flatten()` makes one row.",
    )
    return result.tolist()
