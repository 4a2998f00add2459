"""Augmentation of whole batches, each image with its own random draw.

First the operations, which are told what was drawn: each equals torchvision's functional operation, image by image.
Then the augmentations, which draw. All batches are uint8 (B, 3, H, W), values 0 to 255; no operation changes its input.

Draws come from a CPU generator, so that a seed gives the same batches on every device.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

# ---------------------------------------------------------------- operations


def crop(x: Tensor, top: Tensor, left: Tensor, padding: int, mode: str = "zero") -> Tensor:
    """Pad by `padding` on all sides, then cut the old size out of image i at row top[i], column left[i].

    mode "zero" pads with black, "reflect" with the image mirrored at its edge (the edge pixel is not repeated).
    """
    height, width = x.shape[2:]
    if mode == "reflect":
        rows, columns = (_reflected(size, padding, x.device) for size in (height, width))
        padded = x[:, :, rows][:, :, :, columns]  # F.pad has no reflection for uint8
    else:
        padded = F.pad(x, [padding] * 4)
    # A view with all windows of each padded image: (B, 3, 2 * padding + 1, 2 * padding + 1, H, W).
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(len(x), device=x.device), :, top, left]


def _reflected(size: int, padding: int, device: torch.device) -> Tensor:
    """Positions 0..size-1 with their mirror images before and after: 2 1 0 1 2 ... for padding 2."""
    position = torch.arange(-padding, size + padding, device=device).abs()
    return torch.minimum(position, 2 * (size - 1) - position)


def flip(x: Tensor, chosen: Tensor) -> Tensor:
    """Mirror left and right where `chosen`, bool (B,), is true."""
    return torch.where(chosen.view(-1, 1, 1, 1), x.flip(3), x)


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Turn image i counter-clockwise by degrees[i] about its centre: nearest pixel, black where nothing was."""
    height, width = x.shape[2:]
    angle = degrees.deg2rad().view(-1, 1, 1)
    cos, sin = angle.cos(), angle.sin()
    # Where each pixel of the result comes from: in pixels from the centre, then from -1 to 1 as grid_sample wants it.
    across, down = (torch.arange(size, device=x.device).float() - (size - 1) / 2 for size in (width, height))
    down = down.view(-1, 1)
    grid = torch.stack([(cos * across - sin * down) / (width / 2), (sin * across + cos * down) / (height / 2)], dim=3)
    return F.grid_sample(x.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False).to(x.dtype)


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply image i by factor[i]: 0 is black, 1 changes nothing."""
    return (x * factor.view(-1, 1, 1, 1)).clamp_(0, 255).to(x.dtype)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Stretch image i around its mean grey by factor[i]: 0 is that grey everywhere, 1 changes nothing."""
    return _blend(x, _grey(x).mean(dim=(1, 2, 3), keepdim=True), factor)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Stretch the colours of image i away from grey by factor[i]: 0 is grey, 1 changes nothing."""
    return _blend(x, _grey(x), factor)


def adjust_sharpness(x: Tensor, factor: Tensor) -> Tensor:
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


def erase(x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Blacken in image i the rectangle of height[i] x width[i] pixels whose upper left corner is (top[i], left[i]).

    The part of a rectangle that lies outside the image is ignored; height 0 erases nothing.
    """
    rows, columns = (torch.arange(size, device=x.device) for size in x.shape[2:])
    inside_rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])  # (B, H)
    inside_columns = (columns >= left[:, None]) & (columns < (left + width)[:, None])  # (B, W)
    return x.masked_fill(inside_rows[:, None, :, None] & inside_columns[:, None, None, :], 0)


def _grey(x: Tensor) -> Tensor:
    """(B, 1, H, W): brightness as the eye weighs red, green and blue (ITU-R 601), in whole numbers, as float."""
    red, green, blue = x.float().unbind(dim=1)
    return (0.2989 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_().unsqueeze(1)


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    factor = factor.view(-1, 1, 1, 1)
    return (x * factor).addcmul_(1 - factor, other).clamp_(0, 255).to(x.dtype)


# ---------------------------------------------------------------- augmentations


@dataclass(frozen=True)
class Augmentation:
    """A random change of images, called with a batch and a CPU generator: (x, generator) -> x.

    name: the call that makes it, such as "random_flip(p=0.5)"; its repr.
    draw(count, shape, generator): the random numbers for `count` images of `shape` (3, H, W), as a tuple of CPU tensors
        with first dimension `count`.
    apply(x, *drawn): the batch changed by what was drawn for each of its images, on the device of both.
    """

    name: str
    draw: Callable[[int, torch.Size, Generator], tuple[Tensor, ...]]
    apply: Callable[..., Tensor]

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        drawn = self.draw(len(x), x.shape[1:], generator)
        return self.apply(x, *(values.to(x.device) for values in drawn))

    def __repr__(self) -> str:
        return self.name


def random_crop(padding: int = 4, mode: str = "zero") -> Augmentation:
    """Pad on all sides, then cut a window of the old size out at a random place. mode: "zero" (black), "reflect"."""
    if mode not in ("zero", "reflect"):
        raise ValueError(f"random_crop: mode must be 'zero' or 'reflect', got {mode!r}.")
    if not isinstance(padding, int) or padding < 0:
        raise ValueError(f"random_crop: padding must be a whole number of pixels, 0 or more, got {padding!r}.")

    def draw(count, shape, generator):
        if mode == "reflect" and padding >= min(shape[1:]):
            raise ValueError(f"random_crop: reflection needs padding below the image's {min(shape[1:])} pixels.")
        return torch.randint(2 * padding + 1, (2, count), generator=generator, device="cpu").unbind()

    name = f"random_crop({padding=}, {mode=})"
    return Augmentation(name, draw, lambda x, top, left: crop(x, top, left, padding, mode))


def random_flip(p: float = 0.5) -> Augmentation:
    """Mirror left and right, each image with probability p."""
    _check_probability("random_flip", p)
    return Augmentation(f"random_flip({p=})", lambda count, _, generator: (_chosen(count, p, generator),), flip)


def random_rotation(degrees: float = 20) -> Augmentation:
    """Turn each image by an angle drawn uniformly from -degrees to degrees."""
    if not 0 <= degrees <= 180:
        raise ValueError(f"random_rotation: degrees must be from 0 to 180, got {degrees}.")
    name = f"random_rotation({degrees=})"
    return Augmentation(name, lambda count, _, generator: (_uniform(count, -degrees, degrees, generator),), rotate)


def color_jitter(brightness: float = 0.4, contrast: float = 0.4, saturation: float = 0.4) -> Augmentation:
    """Change brightness, contrast and saturation, in this order, by factors drawn from 1 - value to 1 + value."""
    name, values = f"color_jitter({brightness=}, {contrast=}, {saturation=})", (brightness, contrast, saturation)
    if min(values) < 0:
        raise ValueError(f"color_jitter: values must be 0 or more, got {name}.")

    def draw(count, shape, generator):
        return tuple(_uniform(count, max(0, 1 - value), 1 + value, generator) for value in values)

    def apply(x, *factors):
        adjust = (adjust_brightness, adjust_contrast, adjust_saturation)
        for operation, value, factor in zip(adjust, values, factors, strict=True):
            x = operation(x, factor) if value > 0 else x
        return x

    return Augmentation(name, draw, apply)


def random_sharpness(factor: float = 2.0, p: float = 0.5) -> Augmentation:
    """Sharpen (factor above 1) or blur (below 1) each image with probability p."""
    _check_probability("random_sharpness", p)
    if factor < 0:
        raise ValueError(f"random_sharpness: factor must be 0 or more, got {factor}.")

    def draw(count, shape, generator):
        chosen = _chosen(count, p, generator)
        return (torch.ones_like(chosen, dtype=torch.float32).masked_fill_(chosen, factor),)

    return Augmentation(f"random_sharpness({factor=}, {p=})", draw, adjust_sharpness)


def random_erasing(p: float = 0.75, scale: tuple = (0.02, 0.33), ratio: tuple = (0.3, 3.3)) -> Augmentation:
    """Blacken a random rectangle, each image with probability p (Zhong et al. 2017, "Random Erasing", section 3.2).

    Its area is `scale` of the image's, its height divided by its width `ratio` (uniform on the logarithmic scale). A
    rectangle that does not fit is drawn again, up to ten times; then nothing is erased.
    """
    _check_probability("random_erasing", p)
    if not (0 <= scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]):
        raise ValueError(f"random_erasing: scale must rise within 0 to 1, ratio above 0, got {scale} and {ratio}.")

    def draw(count, shape, generator):
        _, rows, columns = shape
        area = rows * columns * _uniform(10 * count, *scale, generator)
        aspect = _uniform(10 * count, *map(math.log, ratio), generator).exp()
        sizes = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()]).round().long().view(2, 10, count)
        fits = (sizes[0] < rows) & (sizes[1] < columns)
        first = fits.int().argmax(dim=0)  # of an image's ten tries the first that fits
        height, width = sizes.take_along_dim(first.view(1, 1, -1), dim=1)[:, 0]
        top = (_uniform(count, 0, 1, generator) * (rows - height + 1)).long()
        left = (_uniform(count, 0, 1, generator) * (columns - width + 1)).long()
        return top, left, height * (_chosen(count, p, generator) & fits.any(dim=0)), width

    return Augmentation(f"random_erasing({p=}, {scale=}, {ratio=})", draw, erase)


def cutout(side: int = 8, p: float = 0.5) -> Augmentation:
    """Blacken a square of `side` pixels at a random place, each image with probability p (DeVries & Taylor 2017).

    The centre lies anywhere in the image, so the square may reach over its edge.
    """
    _check_probability("cutout", p)
    if not isinstance(side, int) or side < 1:
        raise ValueError(f"cutout: side must be a whole number of pixels, 1 or more, got {side!r}.")

    def draw(count, shape, generator):
        row, column = (torch.randint(size, (count,), generator=generator, device="cpu") for size in shape[1:])
        size = side * _chosen(count, p, generator)
        return row - side // 2, column - side // 2, size, size

    return Augmentation(f"cutout({side=}, {p=})", draw, erase)


def _uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float32, device="cpu")


def _chosen(count: int, p: float, generator: Generator) -> Tensor:
    return _uniform(count, 0, 1, generator) < p


def _check_probability(name: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p is a probability, from 0 to 1, got {p}.")
