"""Checks of the exercises of lesson 01."""

import torch
import torch.nn.functional as F

from helpers.checks.frame import Wrong, call, check, close, require, tensor


@check
def channel_statistics(answer) -> str:
    """answer(x): x uint8 (N, 3, H, W) -> (mean, std), each (3,), of the pixels on the scale 0 to 1."""
    # Channels of different spread, and images of different brightness, so that shortcuts show.
    x = torch.randint(0, 256, (12, 3, 8, 8)) * torch.tensor([1.0, 0.6, 0.2]).view(1, 3, 1, 1)
    x = (x * torch.linspace(0.1, 1, 12).view(12, 1, 1, 1)).to(torch.uint8)
    result = call(answer, x)
    require(isinstance(result, tuple | list) and len(result) == 2, "return two tensors: `return mean, std`.")
    mean, std = result
    if isinstance(mean, torch.Tensor) and mean.numel() == 1:
        raise Wrong("the mean is one number for all channels. Average over images, rows and columns, not channels.")
    mean, std = tensor(mean, (3,), "mean"), tensor(std, (3,), "std")
    scaled = x.double() / 255
    true_mean, true_std = scaled.mean(dim=(0, 2, 3)), scaled.std(dim=(0, 2, 3), correction=0)
    per_image = scaled.std(dim=(2, 3), correction=0).mean(dim=0)
    require(not close(mean, 255 * true_mean, 1e-2), "the mean is on the scale 0 to 255. Divide the pixels by 255.")
    require(not close(mean, true_std, 1e-3), "the two are swapped: return the mean first.")
    require(close(mean, true_mean), f"the mean is {_list(mean)}, expected {_list(true_mean)}: full brightness is 255.")
    require(not close(std, 255 * true_std, 1e-2), "the standard deviation is on the scale 0 to 255.")
    require(
        not close(std, per_image, 2e-3),
        "the standard deviation is the average of each image's own. That leaves out how images differ from each other: "
        "take it over all pixels of all images at once.",
    )
    require(not close(std, true_std.square(), 1e-3), "that is the variance. Take its square root.")
    require(close(std, true_std, 3e-3), f"the standard deviation is {_list(std)}, expected {_list(true_std)}.")
    return "one mean and one standard deviation for each channel, over all images and pixels."


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
            positions.dtype == torch.int64 and positions.ndim == 1,
            f"`{name}` must hold positions, int64 in one dimension; got {positions.dtype} {tuple(positions.shape)}.",
        )
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
    again = call(answer, y, 0.25)[1]
    require(
        not torch.equal(part.sort().values, again.sort().values),
        "the choice is not random: two calls gave the same images. Shuffle the positions of each class first.",
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
    require(not close(result, swapped), "rows and columns are swapped: `top` counts rows, dimension 2 of x.")
    require(not close(result, first), "all images are cropped at the first one's place. Use `top[i]` and `left[i]`.")
    require(not close(result, x), "the images are unchanged. Cut at `top[i]` and `left[i]`.")
    for i, expected in enumerate(cut(top, left)):
        require(
            close(result[i], expected),
            f"image {i} is not the window at row {top[i]}, column {left[i]} of the image padded with zeros.",
        )
    return "each image is cut at its own place."


def _list(values: torch.Tensor) -> str:
    return ", ".join(f"{value:.4f}" for value in values.tolist())
