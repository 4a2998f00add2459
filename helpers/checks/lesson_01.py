"""Checks of the exercises of lesson 01."""

import tracemalloc
import weakref

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from helpers.checks.frame import Exercise, as_tensor, call, parts, require, sizes


class OnePass(TorchFunctionMode):
    """Hands out batches one by one, once only, and notes how many bytes are alive whenever the next is asked for."""

    def __init__(self, batches):
        super().__init__()
        self.rest, self.made, self.alive = iter(batches), [], []

    def __torch_function__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        several = result if isinstance(result, list | tuple) else [result]
        self.made += [weakref.ref(value) for value in several if isinstance(value, torch.Tensor | np.ndarray)]
        return result

    def __iter__(self):
        return self

    def __next__(self):
        require(self.rest, "the batches can be walked through only once. Collect count, sum and squares in one loop.")
        values = [value for made in self.made if (value := made()) is not None]
        self.made = [weakref.ref(value) for value in values]
        python = tracemalloc.get_traced_memory()[0]  # NumPy's arrays and lists of numbers
        self.alive.append(python + sum(value.nbytes for value in values))
        for batch in self.rest:
            return batch.clone()
        self.rest = None
        raise StopIteration


def _watch_statistics(answer, batches):
    walk, traced = OnePass(batches), tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        with walk:
            seen = parts(call(answer, walk), "mean", "std")
    finally:
        if not traced:
            tracemalloc.stop()
    growth = walk.alive[-1] - walk.alive[:3][-1] if walk.alive else 0
    kept = len(batches) > 9 and growth > sum(batch.nbytes for batch in batches) / 2
    return {**seen, "the number of batches kept": len(batches) if kept else 0}


def _batches():
    """Channels of different spread, images of different brightness, a smaller last batch, so that shortcuts show."""
    for count, batch in ((58, 25), (58, 5)):
        x = 256 * torch.rand(count, 3, *sizes(2, 20, 30)) * torch.tensor([1, 0.6, 0.2]).view(3, 1, 1)
        yield ((x * torch.linspace(0.2, 1, count).view(-1, 1, 1, 1)).to(torch.uint8).split(batch),)


def _statistics(finish, square=lambda x: (x / 255).square()):
    """finish(mean, variance, each batch's mean, each batch's variance, its share of the images) -> mean, std."""

    def answer(batches):
        rows = [(torch.tensor(len(x)), (x / 255).mean((0, 2, 3)), square(x).mean((0, 2, 3))) for x in batches]
        share, means, squares = (torch.stack(row).double() for row in zip(*rows, strict=True))
        share = (share / share.sum()).view(-1, 1)
        mean = (share * means).sum(0)
        return finish(mean, (share * squares).sum(0) - mean**2, means, squares - means**2, share)

    return answer


def _listed(answer):
    return lambda batches: answer(list(batches))


def _faults(*finishes, **options):
    """The answers with these faults, each also with a list of all batches. None: whatever the deviation is."""
    answers = [_statistics(finish, **options) for finish in finishes]
    return (*answers, *map(_listed, answers))


channel_statistics = Exercise(
    reference=_statistics(lambda mean, var, *_: (mean, var.sqrt())),
    cases=_batches,
    run=_watch_statistics,
    tolerance=2e-4,
    mistakes={
        "the mean is on the scale 0 to 255. Divide the pixels by 255.": _faults(lambda mean, *_: (255 * mean, None)),
        "that is the average of the batches' means. The last batch is smaller, so its images count too much: add up "
        "sums and counts over all batches, and divide once at the end.": _faults(
            lambda _, var, m, *rest: (m.mean(0), None)
        ),
        "that is one batch alone. Add up over all of them, and let `return` stand behind the loop.": _faults(
            lambda _, var, m, *rest: (m[0], None), lambda _, var, m, *rest: (m[-1], None)
        ),
        "the mean is a third of the right one. Divide by the count of one channel: B * H * W, added up.": _faults(
            lambda mean, *_: (mean / 3, None)
        ),
        "that is the variance. Take its square root.": _faults(lambda mean, var, *_: (mean, var)),
        "that comes from the mean of the squares alone. Subtract the square of the mean before the root.": _faults(
            lambda mean, var, *_: (mean, (var + mean**2).sqrt())
        ),
        "the squares are wrong: uint8 has no number above 255. Turn the pixels into floats first.": _faults(
            lambda mean, var, *_: (mean, var.sqrt()),
            lambda mean, var, *_: (mean, var.clamp(min=0).sqrt()),
            square=lambda x: (x * x) / 255**2,
        ),
        "that is the average of each batch's own standard deviation. It leaves out how batches differ: add up "
        "the squares of all pixels instead.": _faults(
            lambda mean, var, m, v, share: (mean, v.sqrt().mean(0)),
            lambda mean, var, m, v, share: (mean, (share * v.sqrt()).sum(0)),
            lambda mean, var, m, v, share: (mean, (share * v).sum(0).sqrt()),
        ),
        "the numbers are right, but you keep all batches, and there may be more than memory holds. Keep only count, "
        "sum and sum of squares.": _listed(_statistics(lambda mean, var, *_: (mean, var.sqrt()))),
    },
    praise="one mean and one standard deviation for each channel, over all pixels, in a single pass.",
)


def _pictures():
    """Some pictures, one of them twice in other brightness, of weak contrast; and two pale ones that seem alike."""
    for change in (0.5, 1.4, 0.7, 0.6):
        count, height, width = sizes(3, 7, 17)
        x = 40 + 175 * F.interpolate(torch.rand(count, 3, 4, 4), size=(height, width))
        first, copy, pale, other = torch.randperm(count)[:4].tolist()
        x[[pale, other]] = 200 + 4 * torch.randn(2, 3, height, width)
        x[first] = 90 + 0.35 * (x[first] - 127)  # strong ones win where nobody divides by the length
        x[copy] = change * x[first] + 20
        yield ((x + 2 * torch.randn(x.shape)).clamp(0, 255).to(torch.uint8),)


def _two_positions(answer, x):
    pair = as_tensor(list(parts(call(answer, x), "i", "j").values()), "each position")
    seen = {"the number of images": len(pair.unique())}
    return seen if len(pair.unique()) == 1 else {**seen, "the positions, in rising order,": pair.sort(dim=0).values}


def _closest(x, centre=True, divide=F.normalize, diagonal=-torch.inf):
    """The two images whose rows have the largest product."""
    rows = x.flatten(1).double()
    rows = divide(rows - rows.mean(1, keepdim=True) if centre else rows)
    return divmod(int((rows @ rows.T).fill_diagonal_(diagonal).argmax()), len(rows))


def _nearest(rows):
    return divmod(int(torch.cdist(rows, rows).fill_diagonal_(torch.inf).argmin()), len(rows))


find_duplicate = Exercise(
    reference=_closest,
    cases=_pictures,
    run=_two_positions,
    mistakes={
        "that is one image twice: each image is most like itself. Leave out the diagonal of the table.": (
            lambda x: _closest(x, diagonal=torch.inf)
        ),
        "those are two pale surfaces. Their pixel values are close because both are pale; the copy has another "
        "brightness. Subtract from each image its own mean, divide by its own length.": (
            lambda x: _closest(x, centre=False),
            lambda x: _nearest(x.flatten(1).double()),
            lambda x: _nearest(x.double().mean((1, 2, 3)).view(-1, 1)),
        ),
        "those are different pictures of strong contrast. Divide each row by its own length, dim=1, before you "
        "compare.": (
            lambda x: _closest(x, divide=lambda rows: rows),
            lambda x: _closest(x, divide=lambda rows: F.normalize(rows, dim=0)),
        ),
    },
    praise="the pair that shows the same picture, whatever its brightness.",
)


def _labels():
    """Few classes and many, labels that do not occur, products of floats just above and below a whole number."""
    for labels, counts, fraction in (
        (range(4), (40, 20, 60, 80), 0.25),
        (torch.randperm(40)[:20].tolist(), (100, 200) * 10, 0.07),
        ((0, 5, 2), (100, 200, 100), 0.29),
    ):
        y = torch.cat([torch.full((count,), label) for label, count in zip(labels, counts, strict=True)])
        yield y[torch.randperm(len(y))], fraction


def _watch_split(answer, y, fraction):
    found = parts(call(answer, y, fraction), "rest", "part")
    rest, part = (as_tensor(value, f"`{name}`") for name, value in found.items())
    kinds = [torch.as_tensor(value).dtype for value in found.values()]
    ways = "`mask.nonzero().flatten()` gives them for a mask, and `torch.tensor([])` is float"
    whole = rest.ndim == part.ndim == 1 and not {torch.bool, torch.float32, torch.float64} & {*kinds}
    require(whole, f"each part must hold positions: whole numbers in one dimension. {ways}.")
    both = torch.cat([rest, part])
    seen = {"the number of positions": len(both), "the number of different positions": len(both.unique())}
    if set(seen.values()) != {len(y)}:
        return seen
    require(both.min() == 0 and both.max() == len(y) - 1, "return positions in y, counted from 0.")
    taken = [torch.isin((y == label).nonzero(), part).flatten() for label in y.unique()]
    steps = torch.cat([each.nonzero().flatten().diff() for each in taken])  # counted in images of that class
    seen["the number of images of each class in `part`"] = [each.sum() for each in taken]
    return {**seen, "1 if each class is taken in order, not at random,": len(steps.unique()) == 1}


def _split(classes=torch.unique, order=lambda members: members[torch.randperm(len(members))], whole=round):
    def answer(y, fraction):
        pieces = [order((y == label).nonzero().flatten()) for label in classes(y)]
        cut = [members.tensor_split([whole(fraction * len(members))]) for members in pieces]
        return torch.cat([rest for _, rest in cut]), torch.cat([part for part, _ in cut])

    return answer


stratified_split = Exercise(
    reference=_split(),
    cases=_labels,
    run=_watch_split,
    mistakes={
        "these are labels, or positions inside each class. Index `members`, the class's positions in y, with them.": (
            _split(order=lambda members: torch.randperm(len(members))),
            lambda y, fraction: [y[positions] for positions in _split()(y, fraction)],
        ),
        "images are lost: not every class is among those that you walk through. Walk through `y.unique()`.": (
            _split(classes=lambda y: range(10)),
            _split(classes=lambda y: range(len(y.unique()))),
        ),
        "the parts are swapped: return the rest first, then the part of the size `fraction`.": (
            lambda y, fraction: _split()(y, fraction)[::-1]
        ),
        "`int` cuts off: fraction * 100 is 28.999999999999996 for 0.29. Use `round`.": _split(whole=int),
        "the choice is not random: it takes a class's images in their order. Shuffle each class's positions first.": (
            _split(order=lambda members: members)
        ),
    },
    praise="the same share of each class, chosen at random, and no image in both parts.",
)


def _images():
    for count, padding in ((6, 3), (5, 1), (1, 4)):
        x = torch.randint(1, 256, (count, *sizes(3, 5, 12)), dtype=torch.uint8)  # 0 is the border alone
        top, left = torch.randint(2 * padding + 1, (2, count))
        top[0], left[0] = 0, 2 * padding
        yield (x.float() if padding == 1 else x), top, left, padding


def _cut(place=lambda top, left, i, padding: (top[i], left[i]), mode="constant"):
    def answer(x, top, left, padding):
        (height, width), padded = x.shape[2:], F.pad(x.float(), [padding] * 4, mode=mode)
        corners = [place(top, left, i, padding) for i in range(len(x))]
        return torch.stack([padded[i, :, t : t + height, n : n + width] for i, (t, n) in enumerate(corners)])

    return answer


crop_batch = Exercise(
    reference=_cut(),
    cases=_images,
    mistakes={
        "rows and columns are swapped: `top` counts rows, dimension 2 of x.": (
            _cut(lambda top, left, i, padding: (left[i], top[i]))
        ),
        "all images are cropped at the first one's place. Use `top[i]` and `left[i]`.": (
            _cut(lambda top, left, i, padding: (top[0], left[0]))
        ),
        "the images are moved the wrong way: the window begins at `top[i]`, so a larger one moves the picture up.": (
            _cut(lambda top, left, i, padding: (2 * padding - top[i], 2 * padding - left[i]))
        ),
        "what leaves on one side comes back on the other. It must be black there: pad with zeros.": (
            _cut(mode="circular")
        ),
        "the border is not black. Pad with zeros.": (_cut(mode="replicate"), _cut(mode="reflect")),
        "the images are unchanged. Cut at `top[i]` and `left[i]`.": lambda x, top, left, padding: x,
    },
    praise="each image is cut at its own place.",
)
