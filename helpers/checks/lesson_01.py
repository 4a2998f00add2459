"""Checks of the exercises of lesson 01."""

import math
import weakref

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from helpers.checks.frame import Wrong, call, check, close, require, tensor


@check
def channel_statistics(answer) -> str:
    """answer(batches): uint8 (B, 3, H, W) each -> (mean, std), each (3,), of all pixels on the scale 0 to 1."""
    # Channels of different spread, images of different brightness, a smaller last batch, so that shortcuts show.
    x = torch.randint(0, 256, (58, 3, 8, 8)) * torch.tensor([1.0, 0.6, 0.2]).view(1, 3, 1, 1)
    brightness = torch.linspace(0.2, 1, 58) * torch.tensor([1, 0.4]).repeat(29)
    x = (x * brightness.view(58, 1, 1, 1)).to(torch.uint8)
    batches = x.split(5)
    with _Watch() as watch:
        try:
            _judge_statistics(call(answer, watch.one_by_one(batches)), batches)
        except Wrong as wrong:
            watch.off()
            try:
                _judge_statistics(call(answer, [batch.clone() for batch in batches]), batches)
            except Wrong:
                raise wrong from None
            raise Wrong(
                "right for a list of batches. But these can be walked through only once: your code walks twice, or "
                f"needs their number or one by its place ({wrong}). Collect count, sum and sum of squares in one loop."
            ) from None
    require(
        watch.growth() < x.numel() / 2,
        "the numbers are right, but you keep all batches, and there may be more than the memory holds. Keep only "
        "count, sum and sum of squares.",
    )
    return "one mean and one standard deviation for each channel, over all pixels, in a single pass."


class _Watch(TorchFunctionMode):
    """Hands out batches one by one, and counts how many numbers the answer holds whenever it asks for the next."""

    def __init__(self):
        super().__init__()
        self.made, self.held, self.on = [], [], True

    def __torch_function__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        if self.on and isinstance(result, torch.Tensor | np.ndarray):
            self.made.append(weakref.ref(result))
        return result

    def one_by_one(self, batches):
        for batch in batches:
            self.held.append(sum(math.prod(value.shape) for made in self.made if (value := made()) is not None))
            value = None  # the last one must not stay alive because of this line
            yield batch.clone()

    def growth(self) -> int:
        return self.held[-1] - self.held[1]

    def off(self) -> None:
        self.on = False


def _judge_statistics(result, batches) -> None:
    mean, std = _mean_and_std(result)
    parts = [batch.double() / 255 for batch in batches]
    scaled = torch.cat(parts)
    share = torch.tensor([len(part) / len(scaled) for part in parts]).double().view(-1, 1)
    true_mean, true_std = scaled.mean(dim=(0, 2, 3)), scaled.std(dim=(0, 2, 3), correction=0)
    batch_means = torch.stack([part.mean(dim=(0, 2, 3)) for part in parts])
    require(not close(mean, 255 * true_mean, 1e-2), "the mean is on the scale 0 to 255. Divide the pixels by 255.")
    require(not close(mean, true_std, 1e-3), "the two are swapped: return the mean first.")
    require(
        not close(mean, batch_means.mean(dim=0)),
        "that is the average of the batches' means. The last batch is smaller, so its images count too much: "
        "add up sums and counts over all batches, and divide once at the end.",
    )
    require(not close(mean, batch_means[-1]), "that is the mean of the last batch alone. Add up over all batches.")
    require(
        not close(mean, batch_means[0]),
        "that is the mean of the first batch alone: does `return` stand inside the loop?",
    )
    factor = (mean / true_mean).mean()
    require(
        not close(mean, factor * true_mean) or abs(factor - 1) < 0.01,
        f"the mean is {factor:.4g} times as large as it should be, in every channel. Divide the sum by the number of "
        "values of one channel: B * H * W, added up over the batches.",
    )
    require(close(mean, true_mean), f"the mean is {_list(mean)}, expected {_list(true_mean)}: full brightness is 255.")
    _judge_std(std, true_std, true_mean, parts, share, batch_means)


def _judge_std(std, true_std, true_mean, parts, share, batch_means) -> None:
    scaled = torch.cat(parts)
    require(
        not std.isnan().any(),
        "the standard deviation is not a number: the root of something negative. Square the pixels as floats (uint8 "
        "has no number above 255), and divide by the same count as for the mean.",
    )
    require(not close(std, 255 * true_std, 1e-2), "the standard deviation is on the scale 0 to 255.")
    pixels = (255 * scaled).round().to(torch.uint8)
    wrapped = (pixels.square().double() / 255**2).mean(dim=(0, 2, 3)) - true_mean.square()
    require(
        not close(std, wrapped.clamp(min=0).sqrt(), 1e-3),
        "the squares are wrong: uint8 has no number above 255. Turn the pixels into floats before you square them.",
    )
    squares = scaled.square().mean(dim=(0, 2, 3))
    require(
        not close(std, squares.sqrt(), 1e-3) and not close(std, squares, 1e-3),
        "that comes from the mean of the squares alone. Subtract the square of the mean before you take the root.",
    )
    of_means = [(share * batch_means.square()).sum(dim=0), batch_means.square().mean(dim=0)]
    between = [(squares - true_mean.square()).clamp(min=0).sqrt() for squares in of_means]
    require(
        not any(close(std, own, 1e-3) for own in [*between, batch_means.std(dim=0)]),
        "that is the spread of the batches' means. Square each pixel first, then add up: the square of a mean or of a "
        "sum is something else.",
    )
    for groups, weight, one in ((parts, share, "batch"), (scaled.split(1), 1 / len(scaled), "image")):
        for correction in (0, 1):
            own = torch.stack([group.std(dim=(0, 2, 3), correction=correction) for group in groups])
            averages = own.mean(dim=0), (weight * own).sum(dim=0), (weight * own.square()).sum(dim=0).sqrt()
            require(
                not any(close(std, average, 1e-3) for average in [*averages, own.square().mean(dim=0).sqrt()]),
                f"that is the average of each {one}'s own standard deviation or variance. It leaves out how one {one} "
                "differs from the next: add up the squares of all pixels instead.",
            )
    require(not close(std, true_std.square(), 1e-3), "that is the variance. Take its square root.")
    require(close(std, true_std, 3e-3), f"the standard deviation is {_list(std)}, expected {_list(true_std)}.")


def _mean_and_std(result) -> tuple[torch.Tensor, torch.Tensor]:
    require(isinstance(result, tuple | list) and len(result) == 2, "return two tensors: `return mean, std`.")
    if isinstance(result[0], torch.Tensor) and result[0].numel() == 1:
        raise Wrong("the mean is one number for all channels. Average over images, rows and columns, not channels.")
    return tensor(result[0], (3,), "mean"), tensor(result[1], (3,), "std")


@check
def find_duplicate(answer) -> str:
    """answer(x): x uint8 (N, 3, H, W) -> positions (i, j) of an image and its copy of another brightness, any order."""
    for _ in range(4):
        x, copies, pale = _with_a_copy()
        pair = _two_positions(call(answer, x), len(x), copies)
        rows = x.flatten(1).double()
        alike = torch.corrcoef(rows)
        rows = rows - rows.mean(dim=1, keepdim=True)
        require(
            pair != pale,
            f"images {_and(pair)} are two different pale surfaces. Their pixel values are close because both are pale; "
            "the copy has another brightness. Subtract from each image its own mean, divide by its own length.",
        )
        least = set(divmod(int(alike.argmin()), len(x)))
        require(pair != least, f"images {_and(pair)} are the two that are least alike. Take the largest correlation.")
        for undivided in (rows, F.normalize(rows, dim=0)):
            largest = set(divmod(int((undivided @ undivided.T).fill_diagonal_(-torch.inf).argmax()), len(x)))
            require(
                pair == copies or pair != largest,
                f"images {_and(pair)} are different pictures, both of strong contrast. Divide each row by its own "
                "length, dim=1, before you compare.",
            )
        require(
            pair == copies,
            f"images {_and(pair)} are different pictures. Images {_and(copies)} show the same one: same pattern, other "
            "brightness and contrast.",
        )
    return "the pair that shows the same picture, whatever its brightness."


def _with_a_copy() -> tuple[torch.Tensor, set, set]:
    """12 pictures; the positions of a picture and its darker copy, and of two pale ones that only seem alike."""
    x = 40 + 175 * F.interpolate(torch.rand(12, 3, 4, 4), size=(16, 16))
    place = torch.randperm(12).tolist()
    first, copy, pale, other = place[:4]
    x[[pale, other]] = 200 + 6 * torch.randn(2, 3, 16, 16)
    x[first] = 90 + 0.35 * (x[first] - 127)  # of weak contrast: strong ones win where nobody divides by the length
    x[copy] = 0.5 * x[first] + 20
    x = (x + 2 * torch.randn(x.shape)).clamp(0, 255).to(torch.uint8)
    return x, {first, copy}, {pale, other}


def _two_positions(result, count: int, copies: set) -> set:
    try:
        values = list(result)
        pair = [int(position) for position in values]
    except (TypeError, ValueError, RuntimeError):
        raise Wrong("return two positions: `return i, j`.") from None
    require(len(pair) == 2, f"return two positions, `return i, j`. Got {len(pair)} values.")
    whole = all(not isinstance(value, str) and value == position for value, position in zip(values, pair, strict=True))
    require(whole, f"positions are whole numbers, got {values[0]!r} and {values[1]!r}.")
    require({place - 1 for place in pair} != copies, "the right images, counted from 1. Count from 0.")
    require(
        all(0 <= position < count for position in pair),
        f"positions run from 0 to {count - 1}, got {pair[0]} and {pair[1]}. `argmax()` of a table counts through all "
        "of its entries: divmod(place, N) gives row and column.",
    )
    require(
        pair[0] != pair[1],
        "that is one image twice: each image is most like itself. Leave out the diagonal of the table.",
    )
    return set(pair)


def _and(pair: set) -> str:
    return " and ".join(map(str, sorted(pair)))


@check
def stratified_split(answer) -> str:
    """answer(y, fraction): y int64 (N,) -> (rest, part), positions; `part` holds `fraction` of each class."""
    sizes = (40, 20, 60, 80)
    y = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    y = y[torch.randperm(len(y))]
    part = _judge_split(call(answer, y, 0.25), y, sizes, 0.25)
    steps = []  # from one chosen image of a class to the next, counted in images of that class
    for label in range(4):
        taken = torch.isin((y == label).nonzero().flatten(), part)
        steps += taken.nonzero().flatten().diff().tolist()
    require(
        len(set(steps)) > 1,
        "the choice is not random: it takes a class's images in their order. Shuffle each class's positions first.",
    )
    try:
        _judge_split(call(answer, y, 0.1), y, sizes, 0.1)
    except Wrong as wrong:
        raise Wrong(f"right for the fraction 0.25, but not for 0.1. Does your code use `fraction`? {wrong}") from None
    return "the same share of each class, chosen at random, and no image in both parts."


def _judge_split(result, y, sizes: tuple, fraction: float) -> torch.Tensor:
    require(isinstance(result, tuple | list) and len(result) == 2, "return two tensors: `return rest, part`.")
    for name, positions in zip(("rest", "part"), result, strict=True):
        require(
            isinstance(positions, torch.Tensor),
            f"`{name}` must be a tensor, got {(kind := type(positions).__name__)}. {_AS_TENSOR.get(kind, '')}",
        )
        require(
            not positions.is_floating_point(),
            f"`{name}` holds floats, and positions are whole numbers. `torch.tensor([])` is float, and so is all that "
            "is joined to it: collect the pieces in a list and call `torch.cat` once.",
        )
        require(
            positions.dtype in (torch.int64, torch.int32) and positions.ndim == 1,
            f"`{name}` must hold positions, int64 in one dimension; got {positions.dtype} {tuple(positions.shape)}. "
            "`mask.nonzero().flatten()` turns true and false into positions.",
        )
    rest, part = result[0].long(), result[1].long()
    both = torch.cat([rest, part])
    require(
        len(both) != len(y) or both.max() >= max(sizes),
        "these are labels, or positions inside each class. Index `members`, the class's positions in y, with them.",
    )
    require(len(both.unique()) == len(both), "a position occurs twice. No image may be in both parts, or twice in one.")
    require(len(both) == len(y), f"the two parts hold {len(both)} positions together, but there are {len(y)} images.")
    require(both.min() >= 0 and both.max() < len(y), "return positions in y, counted from 0.")
    expected = [round(size * fraction) for size in sizes]
    require(
        len(part) != len(y) - sum(expected),
        "the parts are swapped: return the rest first, then the part of the size `fraction`.",
    )
    counts = torch.bincount(y[part], minlength=4).tolist()
    require(
        counts == expected,
        f"`part` holds {counts} images of the four classes, expected {expected}: the share {fraction} of each.",
    )
    return part


_AS_TENSOR = {
    "list": "`torch.cat` joins a list of tensors, `torch.tensor` takes a list of numbers.",
    "tuple": "`torch.where(mask)` gives a tuple: take `torch.where(mask)[0]`.",
    "ndarray": "`torch.from_numpy` turns an array into one.",
}


@check
def crop_batch(answer) -> str:
    """answer(x, top, left, padding): x (B, C, H, W) -> (B, C, H, W), each image cropped at its own place."""
    x = torch.randint(1, 256, (6, 3, 10, 12), dtype=torch.uint8)  # whole numbers, as images have; 0 is the border alone
    top, left = torch.tensor([0, 1, 6, 2, 3, 4]), torch.tensor([6, 0, 2, 1, 4, 0])
    result = tensor(call(answer, x, top, left, 3), x.shape, "the result")
    padded = F.pad(x, [3] * 4)

    def cut(rows, columns):
        return torch.stack([padded[i, :, rows[i] : rows[i] + 10, columns[i] : columns[i] + 12] for i in range(6)])

    swapped, first = cut(left, top), cut(top[:1].expand(6), left[:1].expand(6))
    backwards = cut(6 - top, 6 - left)
    around = torch.stack([x[i].roll((3 - int(top[i]), 3 - int(left[i])), (1, 2)) for i in range(6)])
    require(not close(result, swapped), "rows and columns are swapped: `top` counts rows, dimension 2 of x.")
    require(not close(result, first), "all images are cropped at the first one's place. Use `top[i]` and `left[i]`.")
    require(
        not close(result, backwards),
        "the images are moved the wrong way: the window begins at `top[i]`, so a larger one moves the picture up.",
    )
    require(not close(result, around), "what leaves on one side comes back on the other. It must be black there: pad.")
    require(not close(result, x), "the images are unchanged. Cut at `top[i]` and `left[i]`.")
    for i, expected in enumerate(cut(top, left)):
        require(
            close(result[i], expected),
            f"image {i} is not the window at row {top[i]}, column {left[i]} of the image padded with zeros.",
        )
    return "each image is cut at its own place."


def _list(values: torch.Tensor) -> str:
    return ", ".join(f"{value:.4f}" for value in values.tolist())
