"""Augmentation of a whole batch at once, each image with its own random draw.

First the operations, which take what is drawn as an argument: each equals torchvision's functional operation applied
image by image. Then the `random_...` functions, which draw: each returns a function (x, generator) -> x, as `Batches`
takes them. All batches are uint8 (B, 3, H, W), values 0 to 255, and the input is never changed.

Draws come from a CPU generator, so that a seed gives the same batches on every device.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

Augmentation = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


# ---------------------------------------------------------------- operations


def crop(x: torch.Tensor, top: torch.Tensor, left: torch.Tensor, padding: int, mode: str = "zero") -> torch.Tensor:
    """Pad by `padding` on all sides, then cut the old size out of image i at row top[i], column left[i].

    mode "zero" pads with black, "reflect" with the image mirrored at its edge (the edge pixel is not repeated).
    """
    height, width = x.shape[2:]
    if mode == "reflect":
        rows, columns = (_reflected(size, padding).to(x.device) for size in (height, width))
        padded = x[:, :, rows][:, :, :, columns]  # F.pad has no reflection for uint8
    else:
        padded = F.pad(x, [padding] * 4)
    # A view with all windows of each padded image: (B, 3, 2 * padding + 1, 2 * padding + 1, H, W).
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(x), device=x.device), :, top, left]


def _reflected(size: int, padding: int) -> torch.Tensor:
    """Positions 0..size-1 with their mirror images before and after: 2 1 0 1 2 ... for padding 2."""
    position = torch.arange(-padding, size + padding).abs()
    return torch.minimum(position, 2 * (size - 1) - position)


def flip(x: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Mirror left and right where `chosen`, bool (B,), is true."""
    return torch.where(chosen.view(-1, 1, 1, 1), x.flip(3), x)


def rotate(x: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """Turn image i counter-clockwise by degrees[i] about its centre: nearest pixel, black where nothing was."""
    height, width = x.shape[2:]
    angle = degrees.double().deg2rad()
    cos, sin = angle.cos().float(), angle.sin().float()
    # For each pixel of the result, where it comes from: in pixels from the centre, then -1..1 as grid_sample has it.
    across = torch.linspace((1 - width) / 2, (width - 1) / 2, width, device=x.device)
    down = torch.linspace((1 - height) / 2, (height - 1) / 2, height, device=x.device)
    pixels = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1).view(1, -1, 2)  # (1, H * W, 2)
    turn = torch.stack([torch.stack([cos, -sin], dim=1), torch.stack([sin, cos], dim=1)], dim=1)  # (B, 2, 2)
    turn = turn.mT / torch.tensor([width / 2, height / 2], device=x.device)
    grid = (pixels @ turn).view(-1, height, width, 2)
    return F.grid_sample(x.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False).to(x.dtype)


def adjust_brightness(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Multiply image i by factor[i]: 0 is black, 1 changes nothing."""
    return (x * factor.view(-1, 1, 1, 1)).clamp_(0, 255).to(x.dtype)


def adjust_contrast(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Stretch image i around its mean grey by factor[i]: 0 is that grey everywhere, 1 changes nothing."""
    return _blend(x, _grey(x).mean(dim=(1, 2, 3), keepdim=True), factor)


def adjust_saturation(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Stretch the colours of image i away from grey by factor[i]: 0 is grey, 1 changes nothing."""
    return _blend(x, _grey(x), factor)


def adjust_sharpness(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Stretch image i away from its blurred self by factor[i]: 0 is blurred, 1 changes nothing, 2 is sharper.

    The blur is a 3x3 average in which the centre counts five times. The outermost pixels stay as they are.
    """
    image = x.float()
    inner = image[:, :, 1:-1, 1:-1]
    rows = image[:, :, :-2] + image[:, :, 1:-1] + image[:, :, 2:]
    square = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]  # the sum of each 3x3 neighbourhood
    blurred = square.add_(inner, alpha=4).div_(13).round_()
    inner.addcmul_(1 - factor.view(-1, 1, 1, 1), blurred.sub_(inner))
    return image.clamp_(0, 255).to(x.dtype)


def erase(
    x: torch.Tensor, top: torch.Tensor, left: torch.Tensor, height: torch.Tensor, width: torch.Tensor
) -> torch.Tensor:
    """Blacken in image i the rectangle of height[i] x width[i] pixels whose upper left corner is (top[i], left[i]).

    The part of a rectangle that lies outside the image is ignored; height 0 erases nothing.
    """
    rows, columns = (torch.arange(size, device=x.device) for size in x.shape[2:])
    inside_rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])  # (B, H)
    inside_columns = (columns >= left[:, None]) & (columns < (left + width)[:, None])  # (B, W)
    return x.masked_fill(inside_rows[:, None, :, None] & inside_columns[:, None, None, :], 0)


def _grey(x: torch.Tensor) -> torch.Tensor:
    """(B, 1, H, W): brightness as the eye weighs red, green and blue (ITU-R 601), in whole numbers, as float."""
    red, green, blue = x.unbind(dim=1)
    return (0.2989 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_().unsqueeze(1)


def _blend(x: torch.Tensor, other: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    factor = factor.view(-1, 1, 1, 1)
    return (x * factor).addcmul_(1 - factor, other).clamp_(0, 255).to(x.dtype)


# ---------------------------------------------------------------- random draws


def random_crop(padding: int = 4, mode: str = "zero") -> Augmentation:
    """Pad on all sides, then cut a window of the old size out at a random place. mode: "zero" (black), "reflect"."""
    if mode not in ("zero", "reflect"):
        raise ValueError(f"random_crop: mode must be 'zero' or 'reflect', got {mode!r}.")
    if not isinstance(padding, int) or padding < 0:
        raise ValueError(f"random_crop: padding must be a whole number of pixels, 0 or more, got {padding!r}.")

    def change(x, generator):
        if mode == "reflect" and padding >= min(x.shape[2:]):
            raise ValueError(f"random_crop: reflection needs padding below the image's {min(x.shape[2:])} pixels.")
        top, left = torch.randint(0, 2 * padding + 1, (2, len(x)), generator=generator).to(x.device)
        return crop(x, top, left, padding, mode)

    return change


def random_flip(p: float = 0.5) -> Augmentation:
    """Mirror left and right, each image with probability p."""
    _probability("random_flip", p)
    return lambda x, generator: flip(x, _chosen(len(x), p, generator).to(x.device))


def random_rotation(degrees: float = 20) -> Augmentation:
    """Turn each image by an angle drawn uniformly from -degrees to degrees."""
    if not 0 <= degrees <= 180:
        raise ValueError(f"random_rotation: degrees must be from 0 to 180, got {degrees}.")
    return lambda x, generator: rotate(x, _uniform(len(x), -degrees, degrees, generator).to(x.device))


def color_jitter(brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4) -> Augmentation:
    """Change brightness, contrast and saturation, in this order, by factors drawn from 1 - value to 1 + value."""
    steps = [(adjust_brightness, brightness), (adjust_contrast, contrast), (adjust_saturation, saturation)]
    if min(value for _, value in steps) < 0:
        raise ValueError(f"color_jitter: values must be 0 or more, got {brightness}, {contrast}, {saturation}.")

    def change(x, generator):
        for adjust, value in steps:
            if value > 0:
                x = adjust(x, _uniform(len(x), max(0, 1 - value), 1 + value, generator).to(x.device))
        return x

    return change


def random_sharpness(factor: float = 2.0, p: float = 0.5) -> Augmentation:
    """Sharpen (factor above 1) or blur (below 1) each image with probability p."""
    _probability("random_sharpness", p)
    if factor < 0:
        raise ValueError(f"random_sharpness: factor must be 0 or more, got {factor}.")

    def change(x, generator):
        chosen = _chosen(len(x), p, generator)
        return adjust_sharpness(x, torch.where(chosen, factor, 1.0).to(x.device))

    return change


def random_erasing(
    p: float = 0.75, scale: tuple[float, float] = (0.02, 0.33), ratio: tuple[float, float] = (0.3, 3.3)
) -> Augmentation:
    """Blacken a random rectangle, each image with probability p (Zhong et al. 2017, "Random Erasing", section 3.2).

    Its area is `scale` of the image's, its height divided by its width `ratio` (uniform on the logarithmic scale). A
    rectangle that does not fit is drawn again, up to ten times; then nothing is erased.
    """
    _probability("random_erasing", p)
    if not (0 <= scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]):
        raise ValueError(
            f"random_erasing: scale must rise within 0 to 1 and ratio rise above 0, got {scale} and {ratio}."
        )

    def change(x, generator):
        count, (rows, columns) = len(x), x.shape[2:]
        tries = 10 * count
        area = rows * columns * _uniform(tries, *scale, generator)
        aspect = _uniform(tries, math.log(ratio[0]), math.log(ratio[1]), generator).exp()
        sizes = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()]).round().long().view(2, 10, count)
        fits = (sizes[0] < rows) & (sizes[1] < columns)
        first = fits.int().argmax(dim=0)  # the first of an image's ten tries that fits
        height, width = sizes[:, first, torch.arange(count)]
        top = (torch.rand(count, generator=generator) * (rows - height + 1)).long()
        left = (torch.rand(count, generator=generator) * (columns - width + 1)).long()
        height = height * (_chosen(count, p, generator) & fits.any(dim=0))
        return erase(x, *(value.to(x.device) for value in (top, left, height, width)))

    return change


def cutout(side: int = 8, p: float = 0.5) -> Augmentation:
    """Blacken a square of `side` pixels at a random place, each image with probability p (DeVries & Taylor 2017).

    The centre lies anywhere in the image, so the square may reach over its edge.
    """
    _probability("cutout", p)
    if not isinstance(side, int) or side < 1:
        raise ValueError(f"cutout: side must be a whole number of pixels, 1 or more, got {side!r}.")

    def change(x, generator):
        row, column = (torch.randint(0, size, (len(x),), generator=generator) for size in x.shape[2:])
        size = side * _chosen(len(x), p, generator)
        return erase(x, *(value.to(x.device) for value in (row - side // 2, column - side // 2, size, size)))

    return change


def _chosen(count: int, p: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(count, generator=generator) < p


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _probability(name: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p is a probability, from 0 to 1, got {p}.")
