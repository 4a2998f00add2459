"""Checks of the exercises of lesson 06."""

import torch

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
    require(isinstance(value, int | float), f"return one number, got {type(value).__name__}.")
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


@check
def confident_mistakes(answer) -> str:
    """answer(logits, y, count) -> positions of the (up to `count`) most confident mistakes, most confident first."""
    # Each image's logits are shifted by a number of their own: probabilities do not notice, raw logits do.
    logits = 2 * torch.randn(80, 5) + 3 * torch.randn(80, 1)
    said = logits.argmax(1)
    y = torch.where(torch.rand(80) < 0.6, said, torch.randint(0, 5, (80,)))
    confidence, true_class = logits.softmax(1).amax(1), logits.softmax(1)[range(80), y]
    over_images, said_there = logits.softmax(0).max(1)
    wrong, hit, wrong_there = (m.nonzero().flatten() for m in (said != y, said == y, said_there != y))

    def ranked(score, among=wrong):
        return among[score[among].argsort(descending=True)].tolist()

    expected = ranked(confidence)
    of_true = "sorted by the probability of the true class. Take that of the predicted class."
    upwards = "the least confident mistake comes first. Sort the other way round."
    dim = "the softmax runs over the images. Each image's probabilities must sum to 1: take `dim=1`."
    classes = "these are classes, not images. Return the positions of the images."
    for count in (7, 80):
        found = _positions(answer, logits, y, count)
        if found == expected[:count]:
            continue
        for fault, words in (
            (
                confidence[wrong].argsort(descending=True).tolist(),
                "these positions count among the mistakes only. Return positions among all images.",
            ),
            (ranked(confidence, torch.arange(80)), "there are hits among them. Keep only the mistakes."),
            (ranked(confidence, hit), "these are the hits. Keep the images whose predicted class is not the true one."),
            (said[expected].tolist(), classes),
            (y[expected].tolist(), classes),
            (expected[::-1], upwards),
            (expected[:count][::-1], upwards),
            (ranked(confidence, wrong[:count]), "cut to `count` before sorting. Sort all mistakes, then cut."),
            (ranked(over_images, wrong_there), dim),
            (ranked(over_images), dim),
            (ranked(true_class), of_true),
            (ranked(-true_class), of_true),
            (ranked(logits.amax(1)), "sorted by the logit. Confidence is a probability: apply the softmax first."),
            (wrong.tolist(), "these are mistakes, in the order of the images. Sort them by confidence."),
        ):
            require(found != fault[:count], words)
        hits = [i for i in found if i not in expected]
        require(not hits, f"image {hits[:1]} is not a mistake. If fewer than `count` exist, return fewer.")
        number = min(count, len(expected))
        require(len(found) == number, f"for count={count} there must be {number} positions, got {len(found)}.")
        raise Wrong(f"for count={count}: got {found[:7]}, expected {expected[:number][:7]}.")
    return "mistakes only, most confident first, as positions among all images."


def _positions(answer, logits, y, count) -> list:
    """What `answer` returns (a tensor, an array, a list or a tuple) as a list of whole numbers, or words."""
    try:
        result = call(answer, logits, y, count)
    except Wrong as wrong:
        if "selected index k out of range" not in str(wrong):
            raise
        raise Wrong(f"for count={count} there are fewer mistakes than that: `topk` must not ask for more.") from None
    try:
        result = torch.as_tensor(result).detach()
    except (TypeError, ValueError, RuntimeError):
        raise Wrong(f"return the positions as a tensor or a list, got {type(result).__name__}.") from None
    require(result.dtype != torch.bool, "return positions (whole numbers), not a mask of True and False.")
    require(
        not result.is_floating_point() or torch.equal(result, result.round()),
        "these are no whole numbers. Return the positions of the images, not their confidences.",
    )
    require(
        result.ndim == 1,
        f"return the positions in one row; your shape is {tuple(result.shape)}. `nonzero()` makes a column of them: "
        "apply `.flatten()` to it.",
    )
    return result.tolist()
