"""Wrong answers that the checks of lesson 01 must refuse, with a part of the words that they must say."""

import torch
import torch.nn.functional as F


def _statistics(mean, std):
    return lambda x: (mean(x.float() / 255), std(x.float() / 255))


def _mean(x):
    return x.mean(dim=(0, 2, 3))


def _std(x):
    return x.std(dim=(0, 2, 3))


def _by_class(y, fraction, order=lambda members: members[torch.randperm(len(members))], swap=False):
    rest, part = [], []
    for label in y.unique():
        members = order((y == label).nonzero().flatten())
        count = round(fraction * len(members))
        part.append(members[:count])
        rest.append(members[count:])
    return (torch.cat(part), torch.cat(rest)) if swap else (torch.cat(rest), torch.cat(part))


def _not_stratified(y, fraction):
    order = torch.randperm(len(y))
    return order[len(y) // 4 :], order[: len(y) // 4]


def _overlapping(y, fraction):
    return torch.arange(len(y)), _by_class(y, fraction)[1]


def _loop(x, top, left, padding):
    height, width = x.shape[2:]
    padded = F.pad(x, [padding] * 4)
    places = zip(range(len(x)), top, left, strict=True)
    return torch.stack([padded[i, :, t : t + height, n : n + width] for i, t, n in places])


WRONG = {
    "channel_statistics": {
        "not scaled to 0..1": (lambda x: (_mean(x.float()), _std(x.float())), "scale 0 to 255"),
        "one number for all channels": (_statistics(torch.mean, torch.std), "one number for all channels"),
        "mean of each image's deviation": (
            _statistics(_mean, lambda x: x.std(dim=(2, 3)).mean(dim=0)),
            "how images differ",
        ),
        "variance": (_statistics(_mean, lambda x: x.var(dim=(0, 2, 3))), "square root"),
        "whole numbers averaged": (lambda x: (x.mean(dim=(0, 2, 3)), None), "could not infer"),
        "the usual constants": (lambda x: (torch.full((3,), 0.5), torch.full((3,), 0.5)), "expected"),
    },
    "stratified_split": {
        "not stratified": (_not_stratified, "a quarter of each"),
        "overlap": (_overlapping, "occurs twice"),
        "not random": (lambda y, f: _by_class(y, f, order=lambda members: members), "not random"),
        "swapped": (lambda y, f: _by_class(y, f, swap=True), "swapped"),
        "images lost": (lambda y, f: (_by_class(y, f)[0][:-3], _by_class(y, f)[1][:0]), "positions together"),
    },
    "crop_batch": {
        "rows and columns swapped": (lambda x, top, left, p: _loop(x, left, top, p), "swapped"),
        "one place for all": (
            lambda x, top, left, p: _loop(x, top[:1].expand(len(x)), left[:1].expand(len(x)), p),
            "first one's place",
        ),
        "unchanged": (lambda x, top, left, p: x, "unchanged"),
        "no padding": (lambda x, top, left, p: _loop(x, top * 0, left * 0, p), "is not the window"),
        "all pairs": (
            lambda x, top, left, p: F.pad(x, [p] * 4).unfold(2, 10, 1).unfold(3, 12, 1)[:, :, top, left],
            "must have the shape",
        ),
    },
}
WRONG["channel_statistics"] |= {
    "divided by 256": (lambda x: (_mean(x.float() / 256), _std(x.float() / 256)), "expected"),
    "swapped": (_statistics(_std, _mean), "swapped"),
    "deviation not scaled": (lambda x: (_mean(x.float() / 255), _std(x.float())), "scale 0 to 255"),
}
WRONG["stratified_split"] |= {
    "positions inside the class": (
        lambda y, f: _by_class(y, f, order=lambda members: torch.randperm(len(members))),
        "inside each class",
    ),
    "lists": (lambda y, f: tuple(part.tolist() for part in _by_class(y, f)), "got list"),
}
WRONG["crop_batch"]["padding always 2"] = (lambda x, top, left, p: _loop(x, top, left, 2), "raised RuntimeError")
