"""Checks of the exercises of lesson 01."""

import torch
import torch.nn.functional as F

from helpers.checks.frame import Wrong, call, check, close, require, tensor


@check
def channel_statistics(answer) -> str:
    """answer(batches): uint8 (B, 3, H, W) each -> (mean, std), each (3,), of all pixels on the scale 0 to 1."""
    # Channels of different spread, images of different brightness, batches of different size, so that shortcuts show.
    x = torch.randint(0, 256, (12, 3, 8, 8)) * torch.tensor([1.0, 0.6, 0.2]).view(1, 3, 1, 1)
    x = (x * torch.linspace(0.1, 1, 12).view(12, 1, 1, 1)).to(torch.uint8)
    batches = x.split([5, 5, 2])
    mean, std = _mean_and_std(call(answer, [batch.clone() for batch in batches]))

    scaled, parts = x.double() / 255, [batch.double() / 255 for batch in batches]
    true_mean, true_std = scaled.mean(dim=(0, 2, 3)), scaled.std(dim=(0, 2, 3), correction=0)
    batch_means = torch.stack([part.mean(dim=(0, 2, 3)) for part in parts])
    require(not close(mean, 255 * true_mean, 1e-2), "the mean is on the scale 0 to 255. Divide the pixels by 255.")
    require(not close(mean, true_std, 1e-3), "the two are swapped: return the mean first.")
    require(
        not close(mean, batch_means.mean(dim=0), 1e-3),
        "that is the average of the batches' means. The last batch is smaller, so its images count too much: "
        "add up sums and counts over all batches, and divide once at the end.",
    )
    require(
        not close(mean, batch_means[-1], 1e-3), "that is the mean of the last batch alone. Add up over all batches."
    )
    require(close(mean, true_mean), f"the mean is {_list(mean)}, expected {_list(true_mean)}: full brightness is 255.")
    require(
        not std.isnan().any(),
        "the standard deviation is not a number: the root of something negative. Square the pixels as floats (uint8 "
        "has no number above 255), and divide by the same count as for the mean.",
    )
    require(not close(std, 255 * true_std, 1e-2), "the standard deviation is on the scale 0 to 255.")
    wrapped = (x.square().double() / 255**2).mean(dim=(0, 2, 3)) - true_mean.square()
    require(
        not close(std, wrapped.clamp(min=0).sqrt(), 1e-3),
        "the squares are wrong: uint8 has no number above 255. Turn the pixels into floats before you square them.",
    )
    for groups, one in ((parts, "batch"), (scaled.split(1), "image")):
        own = torch.stack([group.std(dim=(0, 2, 3)) for group in groups])
        share = torch.tensor([len(group) / len(x) for group in groups]).double().view(-1, 1)
        require(
            not close(std, own.mean(dim=0), 3e-3) and not close(std, (share * own).sum(dim=0), 3e-3),
            f"that is the average of each {one}'s own standard deviation. It leaves out how one {one} differs from the "
            "next: add up the squares of all pixels instead.",
        )
    require(not close(std, true_std.square(), 1e-3), "that is the variance. Take its square root.")
    require(close(std, true_std, 3e-3), f"the standard deviation is {_list(std)}, expected {_list(true_std)}.")

    once = "right for a list of batches. But these can be walked through only once, and your code "
    try:
        again = _mean_and_std(call(answer, iter([batch.clone() for batch in batches])))
    except Wrong as wrong:
        raise Wrong(f"{once}needs more: {wrong}") from None
    require(
        close(again[0], true_mean) and close(again[1], true_std, 3e-3),
        f"{once}walks twice. Collect count, sum and sum of squares in the same loop.",
    )
    return "one mean and one standard deviation for each channel, over all pixels, in a single pass."


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
        pair = _two_positions(call(answer, x), len(x))
        alike = torch.corrcoef(x.flatten(1).double())
        require(
            pair != pale,
            f"images {_and(pair)} are two different pale surfaces. Their pixel values are close because both are pale; "
            "the copy has another brightness. Subtract from each image its own mean, divide by its own length.",
        )
        least = set(divmod(int(alike.argmin()), len(x)))
        require(pair != least, f"images {_and(pair)} are the two that are least alike. Take the largest correlation.")
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
    x[copy] = 0.5 * x[first] + 20
    x = (x + 2 * torch.randn(x.shape)).clamp(0, 255).to(torch.uint8)
    return x, {first, copy}, {pale, other}


def _two_positions(result, count: int) -> set:
    try:
        pair = [int(position) for position in result]
    except (TypeError, ValueError, RuntimeError):
        raise Wrong("return two positions: `return i, j`.") from None
    require(len(pair) == 2, f"return two positions, `return i, j`. Got {len(pair)} values.")
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
    result = call(answer, y, 0.25)
    require(isinstance(result, tuple | list) and len(result) == 2, "return two tensors: `return rest, part`.")
    rest, part = result
    for name, positions in (("rest", rest), ("part", part)):
        require(isinstance(positions, torch.Tensor), f"`{name}` must be a tensor, got {type(positions).__name__}.")
        require(
            positions.dtype in (torch.int64, torch.int32) and positions.ndim == 1,
            f"`{name}` must hold positions, int64 in one dimension; got {positions.dtype} {tuple(positions.shape)}. "
            "`mask.nonzero().flatten()` turns true and false into positions.",
        )
    rest, part = rest.long(), part.long()
    both = torch.cat([rest, part])
    require(
        len(both) != len(y) or both.max() >= max(sizes),
        "these are labels, or positions inside each class. Index `members`, the class's positions in y, with them.",
    )
    require(len(both.unique()) == len(both), "a position occurs twice. No image may be in both parts, or twice in one.")
    require(len(both) == len(y), f"the two parts hold {len(both)} positions together, but there are {len(y)} images.")
    require(both.min() >= 0 and both.max() < len(y), "return positions in y, counted from 0.")
    require(
        len(part) != len(y) * 3 // 4,
        "the parts are swapped: return the rest first, then the part of the size `fraction`.",
    )
    counts, expected = torch.bincount(y[part], minlength=4).tolist(), [size // 4 for size in sizes]
    require(
        counts == expected, f"`part` holds {counts} images of the four classes, expected {expected}: a quarter of each."
    )
    steps = []  # from one chosen image of a class to the next, counted in images of that class
    for label in range(4):
        taken = torch.isin((y == label).nonzero().flatten(), part)
        steps += taken.nonzero().flatten().diff().tolist()
    require(
        len(set(steps)) > 1,
        "the choice is not random: it takes a class's images in their order. Shuffle each class's positions first.",
    )
    return "the same share of each class, chosen at random, and no image in both parts."


@check
def crop_batch(answer) -> str:
    """answer(x, top, left, padding): x (B, C, H, W) -> (B, C, H, W), each image cropped at its own place."""
    x = torch.rand(6, 3, 10, 12)
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
