"""Wrong answers to the exercises of lesson 06: {check: {what is wrong: (answer, part of what the check must say)}}."""

import torch


def _transposed(true, predicted, classes):
    return torch.bincount(predicted * classes + true, minlength=classes * classes).view(classes, classes)


def _counts(true, predicted, classes):
    return torch.bincount(true * classes + predicted, minlength=classes * classes).view(classes, classes)


def _row_shares(true, predicted, classes):
    counts = _counts(true, predicted, classes)
    return counts / counts.sum(dim=1, keepdim=True)


def _all_shares(true, predicted, classes):
    return _counts(true, predicted, classes) / len(true)


def _written_once(true, predicted, classes):
    matrix = torch.zeros(classes, classes)
    matrix[true, predicted] += 1
    return matrix


def _only_classes_seen(true, predicted, classes):
    classes = int(max(true.max(), predicted.max())) + 1
    return _counts(true, predicted, classes)


def _mistakes_only(true, predicted, classes):
    return _counts(true, predicted, classes).fill_diagonal_(0)


def _sum_as_number(true, predicted, classes):
    return torch.bincount(true + predicted, minlength=classes * classes).view(classes, classes)


def _product_as_number(true, predicted, classes):
    return torch.bincount(true * predicted, minlength=classes * classes).view(classes, classes)


def _bins(confidence, correct, bins):
    """Weights and gaps of the bins, right."""
    which = (confidence * bins).long().clamp(max=bins - 1)
    inside = [which == b for b in range(bins) if (which == b).any()]
    share = torch.stack([i.double().mean() for i in inside])
    gap = torch.stack([confidence[i].double().mean() - correct[i].double().mean() for i in inside])
    return share, gap


def _last_bin_open(confidence, correct, bins):
    total = 0.0
    for b in range(bins):
        inside = (confidence >= b / bins) & (confidence < (b + 1) / bins)
        if inside.any():
            gap = correct[inside].float().mean() - confidence[inside].mean()
            total += inside.float().mean() * gap.abs()
    return total


def _own_bin_for_one(confidence, correct, bins):
    total = 0.0
    which = (confidence * bins).long()
    for b in which.unique():
        inside = which == b
        total += inside.float().mean() * (correct[inside].float().mean() - confidence[inside].mean()).abs()
    return total


def _unweighted(confidence, correct, bins):
    return _bins(confidence, correct, bins)[1].abs().mean()


def _signed(confidence, correct, bins):
    share, gap = _bins(confidence, correct, bins)
    return (share * gap).sum()


def _largest(confidence, correct, bins):
    return _bins(confidence, correct, bins)[1].abs().max()


def _per_cent(confidence, correct, bins):
    share, gap = _bins(confidence, correct, bins)
    return 100 * (share * gap.abs()).sum()


def _always_ten(confidence, correct, bins):
    share, gap = _bins(confidence, correct, 10)
    return (share * gap.abs()).sum()


def _empty_bins(confidence, correct, bins):
    which = (confidence * bins).long().clamp(max=bins - 1)
    total = 0.0
    for b in range(bins):
        inside = which == b
        total += inside.float().mean() * (correct[inside].float().mean() - confidence[inside].mean()).abs()
    return total


def _closed_bins(confidence, correct, bins):
    total = 0.0
    for b in range(bins):
        inside = (confidence >= b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            gap = correct[inside].float().mean() - confidence[inside].mean()
            total += inside.float().mean() * gap.abs()
    return total


def _open_bins(confidence, correct, bins):
    """Only 1.0 is treated on its own; values on inner edges are lost."""
    total = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence < (b + 1) / bins)
        if b == bins - 1:
            inside |= confidence == 1
        if inside.any():
            gap = correct[inside].float().mean() - confidence[inside].mean()
            total += inside.float().mean() * gap.abs()
    return total


def _not_divided(confidence, correct, bins):
    share, gap = _bins(confidence, correct, bins)
    return (share * gap.abs()).sum() * len(confidence)


def _summed(confidence, correct, bins):
    return _bins(confidence, correct, bins)[1].abs().sum()


def _midpoints(confidence, correct, bins):
    which = (confidence * bins).long().clamp(max=bins - 1)
    share, gap = _bins((which + 0.5) / bins, correct, bins)
    return (share * gap.abs()).sum()


def _mistakes(logits, y):
    confidence, said = logits.softmax(dim=1).max(dim=1)
    return confidence, (said != y).nonzero().flatten()


def _upwards(logits, y, count):
    confidence, wrong = _mistakes(logits, y)
    return wrong[confidence[wrong].argsort()][:count]


def _with_hits(logits, y, count):
    return logits.softmax(dim=1).amax(dim=1).argsort(descending=True)[:count]


def _of_true_class(logits, y, count):
    _, wrong = _mistakes(logits, y)
    probability = logits.softmax(dim=1)[torch.arange(len(y)), y]
    return wrong[probability[wrong].argsort(descending=True)][:count]


def _least_of_true_class(logits, y, count):
    _, wrong = _mistakes(logits, y)
    probability = logits.softmax(dim=1)[torch.arange(len(y)), y]
    return wrong[probability[wrong].argsort()][:count]


def _among_mistakes(logits, y, count):
    confidence, wrong = _mistakes(logits, y)
    return confidence[wrong].argsort(descending=True)[:count]


def _by_logit(logits, y, count):
    _, wrong = _mistakes(logits, y)
    return wrong[logits.amax(dim=1)[wrong].argsort(descending=True)][:count]


def _unsorted(logits, y, count):
    return _mistakes(logits, y)[1][:count]


def _hits_set_to_zero(logits, y, count):
    """Right for a small count; hits follow when count exceeds the number of mistakes."""
    confidence, said = logits.softmax(dim=1).max(dim=1)
    return (confidence * (said != y)).argsort(descending=True)[:count]


def _confidences(logits, y, count):
    confidence, wrong = _mistakes(logits, y)
    return confidence[wrong].sort(descending=True).values[:count]


def _classes(logits, y, count):
    confidence, wrong = _mistakes(logits, y)
    return logits.argmax(dim=1)[wrong[confidence[wrong].argsort(descending=True)]][:count]


def _only_hits(logits, y, count):
    confidence, said = logits.softmax(dim=1).max(dim=1)
    hits = (said == y).nonzero().flatten()
    return hits[confidence[hits].argsort(descending=True)][:count]


def _not_flat(logits, y, count):
    confidence, said = logits.softmax(dim=1).max(dim=1)
    wrong = (said != y).nonzero()
    return wrong[confidence[wrong].argsort(descending=True)][:count]


def _not_flat_but_sorted(logits, y, count):
    confidence, said = logits.softmax(dim=1).max(dim=1)
    wrong = (said != y).nonzero()
    return wrong[confidence[wrong.flatten()].argsort(descending=True)][:count]


def _topk(logits, y, count):
    confidence, wrong = _mistakes(logits, y)
    return wrong[confidence[wrong].topk(count).indices]


def _softmax_over_images(logits, y, count):
    confidence, said = logits.softmax(dim=0).max(dim=1)
    wrong = (said != y).nonzero().flatten()
    return wrong[confidence[wrong].argsort(descending=True)][:count]


def _cut_first(logits, y, count):
    confidence, wrong = _mistakes(logits, y)
    wrong = wrong[:count]
    return wrong[confidence[wrong].argsort(descending=True)].tolist()


WRONG = {
    "confusion_matrix": {
        "transposed": (_transposed, "swapped"),
        "shares of each row": (_row_shares, "shares"),
        "shares of all images": (_all_shares, "shares"),
        "indexed assignment, each cell written once": (_written_once, "counted once"),
        "only as many classes as occur": (_only_classes_seen, "shape (5, 5)"),
        "hits left out": (_mistakes_only, "hits are missing"),
        "sum as the pair's number": (_sum_as_number, "share a number"),
        "product as the pair's number": (_product_as_number, "share a number"),
    },
    "calibration_error": {
        "last bin without 1.0": (_last_bin_open, "includes 1.0"),
        "a bin of its own for 1.0": (_own_bin_for_one, "bin of its own"),
        "bins unweighted": (_unweighted, "weigh the same"),
        "no absolute value": (_signed, "cancel"),
        "largest gap": (_largest, "largest gap"),
        "per cent": (_per_cent, "per cent"),
        "always ten bins": (_always_ten, "with 5 bins"),
        "empty bins give nan": (_empty_bins, "nan"),
        "inner edges counted twice": (_closed_bins, "counted twice"),
        "inner edges lost": (_open_bins, "exactly one"),
        "not divided by N": (_not_divided, "Divide by N"),
        "gaps summed": (_summed, "weigh the same"),
        "middle of the bin as confidence": (_midpoints, "mean confidence"),
    },
    "confident_mistakes": {
        "least confident first": (_upwards, "other way round"),
        "hits included": (_with_hits, "hits among them"),
        "confidence of the true class": (_of_true_class, "true class"),
        "lowest confidence in the true class": (_least_of_true_class, "true class"),
        "positions among the mistakes": (_among_mistakes, "among all images"),
        "raw logits": (_by_logit, "softmax"),
        "not sorted": (_unsorted, "Sort them by confidence"),
        "hits after the mistakes": (_hits_set_to_zero, "not a mistake"),
        "confidences": (_confidences, "not their confidences"),
        "predicted classes": (_classes, "classes, not images"),
        "hits only": (_only_hits, "these are the hits"),
        "column of positions": (_not_flat_but_sorted, "flatten"),
        "column sorted along the wrong axis": (_not_flat, "flatten"),
        "topk of more than there are": (_topk, "fewer mistakes"),
        "softmax over the images": (_softmax_over_images, "dim=1"),
        "cut before sorting": (_cut_first, "then cut"),
    },
}
