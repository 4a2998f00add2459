"""Image folders: which files are pictures, and what becomes of a picture of any size and mode."""

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

SIDE = 32
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def read_image(path: str | Path) -> torch.Tensor:
    """One file as uint8 (3, 32, 32): what `data.load` makes of each picture of an image folder.

    Turned upright as its EXIF data say; colours, greys and palettes to RGB; transparent parts on white; grey of 16 bits
    scaled to 8 (grey in floats: from its smallest to its largest value); of an animation the first picture; then the
    largest centred square, scaled to 32x32 (bicubic).

    Raises:
        ValueError: there is no such file, or it cannot be read as an image; names the file and why.
    """
    return torch.from_numpy(_pixels(path)).permute(2, 0, 1).contiguous()


def _pixels(path: str | Path) -> np.ndarray:
    """The same as (32, 32, 3)."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise OSError("no regular file")
        with Image.open(path) as picture:
            ImageOps.exif_transpose(picture, in_place=True)
            picture = _rgb(picture)
            if picture.size != (SIDE, SIDE):
                picture = ImageOps.fit(picture, (SIDE, SIDE))
            return np.array(picture)
    except Exception as error:  # each format's reader has errors of its own
        words = str(error) or type(error).__name__
        raise ValueError(f"{path} cannot be read as an image ({words}). Replace or remove this file.") from error


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":  # grey of 16 or 32 bits: Pillow would cut it off at 255
        values = np.asarray(picture).astype(np.float64)
        low, high = (0, 65535) if picture.mode != "F" else (values.min(), values.max())
        values = (values - low) / max(high - low, 1e-12) * 255
        picture = Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def read_folder(folder: Path, title: str, least: int = 1) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """The pictures in `<folder>/<class>/`, in the folders inside it and where links there lead.

    Hidden files are left out. What else is left out is told in one printed line, which begins with `title`.

    Returns:
        x: uint8 (N, 3, 32, 32); y: int64 (N,), indices of classes; the classes' names.

    Raises:
        ValueError: fewer than two classes, a class without pictures, fewer than `least` pictures, one cannot be read.
    """
    names, files, labels, others = class_names(folder), [], [], []
    above = [path for start in (folder.absolute(), folder.resolve()) for path in (start, *start.parents)]
    for label, name in enumerate(names):
        found = list(_files(folder / name, set(map(os.path.realpath, above))))
        pictures = [path for path in found if path.lower().endswith(SUFFIXES)]
        if not pictures:
            raise ValueError(f"{folder / name} holds no image. Allowed: {', '.join(SUFFIXES)}.")
        files += pictures
        labels += [label] * len(pictures)
        others += [Path(path).suffix or "no ending" for path in found if not path.lower().endswith(SUFFIXES)]
    left_out(title, "they lie in no class's folder", [name for name in visible(folder) if name not in names])
    left_out(title, "by their names they are no pictures", others)
    if len(files) < least:
        raise ValueError(f"{folder} holds {len(files)} pictures. It needs at least {least}: add some.")
    with ThreadPoolExecutor() as pool:
        # Threads decode photographs side by side. Of small pictures, which come in thousands, they make slower work.
        read = pool.map if len(files) < 5000 else map
        x = torch.from_numpy(np.stack(list(read(_pixels, files)))).permute(0, 3, 1, 2).contiguous()
    # Bytes of a name that are no UTF-8 are written out: plots and terminals refuse them.
    readable = tuple(name.encode(errors="backslashreplace").decode() for name in names)
    return x, torch.from_numpy(np.array(labels)), readable


def class_names(folder: Path) -> list[str]:
    """The visible folders in `folder`, in alphabetical order: at least two, or ValueError."""
    names = [name for name in visible(folder) if os.path.isdir(folder / name)]
    if len(names) < 2:
        raise ValueError(
            f"{folder} holds {len(names)} class folder(s) ({', '.join(names) or 'none'}). A classifier needs at least "
            "two: put the images into one folder a class, <folder>/<class>/*.png."
        )
    return names


def visible(folder: str | Path) -> list[str]:
    """What the folder holds but for hidden files, in alphabetical order."""
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def left_out(title: str, why: str, names: list[str]) -> None:
    """One line about files that are left out, if there are any."""
    if names:
        different = sorted(set(names))
        few = ", ".join([*different[:5], *(["..."] if len(different) > 5 else [])])
        print(f"{title}: left out, because {why}: {len(names)} ({few}).")


def _files(folder: str | Path, seen: set[str]) -> Iterator[str]:
    """All visible files in the folder, in those inside it and where links lead; no folder twice, none of `seen`."""
    if (real := os.path.realpath(folder)) not in seen:
        seen.add(real)
        for name in visible(folder):
            path = os.path.join(folder, name)
            yield from _files(path, seen) if os.path.isdir(path) else [path]
