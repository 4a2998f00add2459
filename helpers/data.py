"""Where images come from, and how they reach a network: `load`, `Images`, `Batches` and batched augmentation."""

import contextlib
import hashlib
import os
import socket
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms.functional import pil_to_tensor

from helpers import sample
from helpers.utils import ROOT

SIDE = 32
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


# ---------------------------------------------------------------- images in memory


@dataclass(frozen=True)
class Images:
    """A set of labelled images, all of it in memory.

    x: uint8 (N, 3, 32, 32), values 0 to 255.
    y: int64 (N,), the index of each image's class in `classes`.
    name: what plots call this set, such as "CIFAR-10".
    """

    x: torch.Tensor
    y: torch.Tensor
    classes: tuple[str, ...]
    name: str

    def __post_init__(self):
        if self.x.dtype != torch.uint8 or self.x.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(
                f"Images: x must be uint8 of shape (N, 3, {SIDE}, {SIDE}), got {self.x.dtype} {tuple(self.x.shape)}."
            )
        if self.y.dtype != torch.int64 or self.y.shape != self.x.shape[:1]:
            raise ValueError(
                f"Images: y must be int64 of shape ({len(self.x)},), got {self.y.dtype} {tuple(self.y.shape)}."
            )
        if len(self.y) and not 0 <= int(self.y.min()) <= int(self.y.max()) < len(self.classes):
            raise ValueError(
                f"Images: labels run from {int(self.y.min())} to {int(self.y.max())}, "
                f"but {len(self.classes)} classes allow only 0 to {len(self.classes) - 1}."
            )

    def __len__(self) -> int:
        return len(self.y)

    def take(self, indices: torch.Tensor) -> "Images":
        """The images at these positions."""
        return Images(self.x[indices], self.y[indices], self.classes, self.name)

    def subset(self, n: int, seed: int = 0) -> "Images":
        """n images drawn at random, the classes in the same proportions as here (n >= len: all of them)."""
        if n < 1:
            raise ValueError(f"Images.subset: n must be at least 1, got {n}.")
        if n >= len(self):
            return self
        chosen, _ = self._divide(n, seed)
        return self.take(chosen)

    def split(self, fraction: float, seed: int = 0) -> tuple["Images", "Images"]:
        """Two sets without a common image: (the rest, `fraction` of the images), classes in the same proportions.

        train, valid = images.split(0.1, seed=0) keeps 90% for training.
        """
        count = round(fraction * len(self))
        if not 0 < count < len(self):
            raise ValueError(
                f"Images.split: fraction={fraction} of {len(self)} images leaves one side empty. "
                "Give a fraction between 0 and 1 that leaves at least one image on each side."
            )
        part, rest = self._divide(count, seed)
        return self.take(rest), self.take(part)

    def _divide(self, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices of n images, each class in proportion, and the indices of all others; both in rising order."""
        counts = torch.bincount(self.y, minlength=len(self.classes))
        exact = counts * n / len(self)
        quota = exact.floor().long()
        # What rounding down left over goes to the classes that lost most by it.
        quota[(exact - quota).argsort(descending=True, stable=True)[: n - int(quota.sum())]] += 1
        generator = torch.Generator().manual_seed(seed)
        taken = torch.zeros(len(self), dtype=torch.bool)
        for label, size in enumerate(quota.tolist()):
            members = (self.y == label).nonzero().flatten()
            taken[members[torch.randperm(len(members), generator=generator)[:size]]] = True
        return taken.nonzero().flatten(), (~taken).nonzero().flatten()

    def mean_std(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of each channel over all pixels, as two float tensors (3,), scale 0 to 1."""
        value = torch.arange(256, dtype=torch.float64) / 255
        # 256 possible values: counting them is exact and needs no float copy of the whole set.
        counts = torch.stack([torch.bincount(self.x[:, c].flatten(), minlength=256) for c in range(3)]).double()
        share = counts / counts.sum(dim=1, keepdim=True)
        mean = share @ value
        std = (share @ value.square() - mean.square()).sqrt()
        return mean.float(), std.float()


# ---------------------------------------------------------------- sources

# name on disk and on plots, torchvision's class, what proves that its files are there already
_SETS = {
    "cifar10": ("CIFAR-10", torchvision.datasets.CIFAR10, ("cifar-10-batches-py", "cifar-10-python.tar.gz")),
    "cifar100": ("CIFAR-100", torchvision.datasets.CIFAR100, ("cifar-100-python", "cifar-100-python.tar.gz")),
    "fashion_mnist": ("Fashion-MNIST", torchvision.datasets.FashionMNIST, ("FashionMNIST",)),
    "svhn": ("SVHN", torchvision.datasets.SVHN, ("train_32x32.mat",)),
}


def load(name: str | Path = "cifar10") -> tuple[Images, Images]:
    """The training and the test images of a data set; says in one printed line where they came from.

    Args:
        name: "cifar10", "cifar100", "fashion_mnist", "svhn", or the path of an image folder, either
            `<path>/{train,test}/<class>/*` or `<path>/<class>/*` (then a fifth becomes the test set).

    The environment variable DATA_DIR (default: `data/` in the repository; relative paths count from the repository)
    says where data sets are kept. What it holds is used: for "cifar10" the archive as torchvision stores it, or an
    image folder DATA_DIR/cifar10/{train,test}/<class>/*. Otherwise the set is downloaded there. If that fails,
    "cifar10" falls back on drawn sample pictures, with a notice. DATA_DIR=sample asks for the sample at once.

    Raises:
        ValueError: unknown name, DATA_DIR that holds something else, or a folder that is no image folder.
        FileNotFoundError: DATA_DIR names a folder that does not exist.
        ConnectionError: a set other than "cifar10" is not there and cannot be downloaded.
    """
    if name not in _SETS:
        folder = Path(name)
        if not folder.is_dir():
            raise ValueError(
                f"data.load({str(name)!r}): neither a known data set nor a folder. "
                f"Known: {', '.join(_SETS)}. Or pass the path of an image folder."
            )
        return _said(_image_folder(folder, folder.resolve().name), f"image folder {_shown(folder)}")

    if os.environ.get("DATA_DIR") == "sample":
        if name != "cifar10":
            raise ValueError(f"data.load({name!r}): DATA_DIR=sample has drawn pictures for 'cifar10' only. Unset it.")
        return _said(_sample(), "drawn in code, because DATA_DIR=sample")

    title, dataset, proofs = _SETS[name]
    root = _data_dir()
    if (root / name).is_dir():
        return _said(_image_folder(root / name, f"{title} (image folder)"), f"image folder {_shown(root / name)}")
    if any((root / proof).exists() for proof in proofs):
        return _said(_torchvision(dataset, root, title), f"archive in {_shown(root)}")
    try:
        print(f"{title} is not in {_shown(root)}: downloading it there.")
        return _said(_torchvision(dataset, root, title), f"downloaded to {_shown(root)}")
    except (OSError, RuntimeError) as error:
        if name != "cifar10":
            raise ConnectionError(
                f"data.load({name!r}): not in {root}, and the download failed ({error}). "
                "Connect to the internet and run this again, or put the files there by hand."
            ) from error
        _notice(root, error)
        return _said(_sample(), "drawn in code, because CIFAR-10 could not be had")


def _said(sets: tuple[Images, Images], source: str) -> tuple[Images, Images]:
    train, test = sets
    print(f"Data: {train.name}, {len(train):,} training and {len(test):,} test images ({source}).")
    return sets


def _shown(path: Path) -> str:
    """A path as readers know it: relative to the repository, where it lies inside."""
    path = path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def _data_dir() -> Path:
    """DATA_DIR as a path; the default may be missing (a download makes it), a folder that was named may not."""
    named = os.environ.get("DATA_DIR")
    if not named:
        return ROOT / "data"
    root = ROOT / Path(named).expanduser()
    known = [*_SETS, *(proof for _, _, proofs in _SETS.values() for proof in proofs)]
    if not root.is_dir():
        raise FileNotFoundError(
            f"DATA_DIR={named!r}: there is no folder {root}. "
            "Make it, name another, set DATA_DIR=sample for the built-in pictures, or unset DATA_DIR."
        )
    inside = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    if inside and not set(inside) & set(known):
        raise ValueError(
            f"DATA_DIR={named!r} holds something else: {', '.join(inside[:5])}. It must be empty (to download into) or "
            f"hold one of: {', '.join(known)}. For your own images in {root}/cifar10/{{train,test}}/<class>/, "
            f"set DATA_DIR={root}; or pass the path of an image folder to data.load."
        )
    return root


def _sample() -> tuple[Images, Images]:
    return tuple(
        Images(*sample.draw(count, seed), sample.CLASSES, "sample shapes") for count, seed in ((2000, 1), (500, 2))
    )


def _notice(root: Path, error: Exception) -> None:
    lines = [
        "CIFAR-10 could not be downloaded, so this lesson runs on DRAWN SAMPLE PICTURES.",
        "Everything works, but the numbers are not those of CIFAR-10.",
        f"Why: {str(error)[:200]}",
        "To get the real set: connect to the internet and run this cell again,",
        f"or put cifar-10-python.tar.gz into {root}",
        f"or an image folder into {root / 'cifar10'}/{{train,test}}/<class>/",
    ]
    width = max(map(len, lines))
    edge = f"+-{'-' * width}-+"
    print("\n".join([edge, *(f"| {line:<{width}} |" for line in lines), edge]))


def _torchvision(dataset: Callable, root: Path, title: str) -> tuple[Images, Images]:
    """Both sets through torchvision's own class, which downloads what is missing and verifies MD5 sums."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # torchvision sets none: a silent host would hold the lesson for ever
    try:
        if dataset is torchvision.datasets.SVHN:
            parts = [dataset(root, split=split, download=True) for split in ("train", "test")]
        else:
            parts = [dataset(root, train=train, download=True) for train in (True, False)]
    finally:
        socket.setdefaulttimeout(before)
    classes = tuple(getattr(parts[0], "classes", "0123456789"))
    return tuple(Images(_as_rgb32(part.data), _labels(part), classes, title) for part in parts)


def _labels(part) -> torch.Tensor:
    return torch.as_tensor(part.targets if hasattr(part, "targets") else part.labels, dtype=torch.int64)


def _as_rgb32(x) -> torch.Tensor:
    """(N, 32, 32, 3) as CIFAR stores it, (N, 3, 32, 32) as SVHN, (N, 28, 28) as Fashion-MNIST -> (N, 3, 32, 32)."""
    x = torch.as_tensor(x)
    if x.ndim == 3:  # grey, 28x28: two pixels of black on each side, and three equal channels
        border = (SIDE - x.shape[-1]) // 2
        return F.pad(x, [border] * 4).unsqueeze(1).expand(-1, 3, -1, -1).contiguous()
    return (x.permute(0, 3, 1, 2) if x.shape[-1] == 3 else x).contiguous()


def _image_folder(folder: Path, title: str) -> tuple[Images, Images]:
    parts = [folder / "train", folder / "test"]
    if not any(part.is_dir() for part in parts):
        everything = _read_classes(folder, _class_names(folder), title)
        return everything.split(0.2, seed=0)
    missing = [part.name for part in parts if not part.is_dir()]
    if missing:
        raise ValueError(f"{folder} has no folder {missing[0]!r}. An image folder needs both train/ and test/.")
    names, test_names = map(_class_names, parts)
    if names != test_names:
        raise ValueError(
            f"{folder}: train/ and test/ must hold the same classes, but differ in: "
            f"{', '.join(sorted(set(names) ^ set(test_names)))}."
        )
    return tuple(_read_classes(part, names, title) for part in parts)


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if len(names) < 2:
        raise ValueError(
            f"{folder} holds {len(names)} class folder(s) ({', '.join(names) or 'none'}). A classifier needs at least "
            "two: put the images into one folder a class, <folder>/<class>/*.png."
        )
    return names


def _read_classes(folder: Path, names: tuple[str, ...], title: str) -> Images:
    files, labels = [], []
    for label, name in enumerate(names):
        found = sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in SUFFIXES)
        if not found:
            raise ValueError(f"{folder / name} holds no image. Allowed: {', '.join(SUFFIXES)}.")
        files += found
        labels += [label] * len(found)
    return Images(_decode(folder, files), torch.tensor(labels), names, title)


def _decode(folder: Path, files: list[Path]) -> torch.Tensor:
    """The pictures as uint8 (N, 3, 32, 32), from the cache in `folder` when it fits these files and is undamaged."""
    facts = [(str(f.relative_to(folder)), s.st_size, s.st_mtime_ns) for f in files for s in [f.stat()]]
    key = hashlib.sha256(repr(facts).encode()).hexdigest()  # another key as soon as a file is added, removed, changed
    cache = folder / ".decoded-32x32.pt"
    # Whatever is wrong with the cache, the pictures themselves are at hand.
    with contextlib.suppress(Exception):
        saved = torch.load(cache, weights_only=True)
        x = saved["x"]
        if saved["key"] == key and saved["crc"] == zlib.crc32(x.numpy()) and len(x) == len(files):
            return x
    if len(files) > 5000:
        print(f"Decoding {len(files):,} pictures in {_shown(folder)} (once; kept in {cache.name}) ...")
    with ThreadPoolExecutor() as pool:  # decoding releases Python's lock, so threads help
        x = torch.stack(list(pool.map(_read_image, files)))
    temporary = cache.with_name(f"{cache.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError, RuntimeError):  # a read-only or full disk: decode again next time
        torch.save({"key": key, "crc": zlib.crc32(x.numpy()), "x": x}, temporary)
        os.replace(temporary, cache)
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)
    return x


def _read_image(path: Path) -> torch.Tensor:
    """One file as uint8 (3, 32, 32): colours as RGB, the centre square, scaled to 32x32 (bicubic)."""
    try:
        with Image.open(path) as picture:
            picture = picture.convert("RGB")
            if picture.size != (SIDE, SIDE):
                picture = ImageOps.fit(picture, (SIDE, SIDE))
            return pil_to_tensor(picture)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error}). Replace or remove this file.") from error


# ---------------------------------------------------------------- batches

Augmentation = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


class Batches:
    """Batches of images, ready for a network; may be walked through again and again, like a DataLoader.

    Yields (x, y): x float32 (B, 3, 32, 32), normalised with `stats`; y int64 (B,). A whole batch is augmented at once,
    each image with its own random draw. What epoch e yields depends on (seed, e) only.

    Args:
        images: an `Images`.
        stats: (mean, std) of each channel, from the *training* images: `train.mean_std()`.
        batch_size: images a batch; the last one may be smaller, unless `drop_last`.
        augment: functions as `random_crop()` and `random_flip()` return them, applied in this order to uint8 batches.
        shuffle: a new order each epoch.
        device: where the images are kept and the batches come out.
        seed: of order and augmentation.
    """

    def __init__(
        self,
        images: Images,
        stats: tuple[torch.Tensor, torch.Tensor],
        batch_size: int = 128,
        *,
        augment: Sequence[Augmentation] = (),
        shuffle: bool = False,
        drop_last: bool = False,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ):
        if batch_size < 1:
            raise ValueError(f"Batches: batch_size must be at least 1, got {batch_size}.")
        if len(images) == 0 or (drop_last and len(images) < batch_size):
            why = " (drop_last leaves out the last, smaller one)" if drop_last else ""
            raise ValueError(
                f"Batches: {len(images)} images give no batch of {batch_size}{why}. Add images or lower batch_size."
            )
        self.dataset = images
        self.x, self.y = images.x.to(device), images.y.to(device)
        # (x / 255 - mean) / std, for x in 0..255
        self.mean, self.std = (255 * value.view(1, 3, 1, 1).to(device) for value in stats)
        self.batch_size, self.augment, self.shuffle, self.drop_last = batch_size, tuple(augment), shuffle, drop_last
        self.seed, self.epoch = seed, 0

    def __len__(self) -> int:
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """The next walk through yields the batches of this epoch. Without it, each walk is one epoch further."""
        self.epoch = epoch

    def __iter__(self):
        # One generator an epoch: seeds next to each other must not give related streams, hence the large factor.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        self.epoch += 1
        order = torch.arange(len(self.dataset))
        if self.shuffle:
            order = torch.randperm(len(order), generator=generator)
        order = order.to(self.x.device)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            index = order[start : start + self.batch_size]
            x = self.x[index]
            for change in self.augment:
                x = change(x, generator)
            yield (x.float() - self.mean) / self.std, self.y[index]


def random_crop(padding: int = 4) -> Augmentation:
    """Pad with black on all sides, then cut a window of the old size out at a random place: each image its own."""

    def crop(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        count, _, height, width = x.shape
        top, left = torch.randint(0, 2 * padding + 1, (2, count), generator=generator).to(x.device)
        # A view with all windows of each padded image: (B, 3, 2 * padding + 1, 2 * padding + 1, H, W).
        windows = F.pad(x, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
        return windows[torch.arange(count, device=x.device), :, top, left]

    return crop


def random_flip(p: float = 0.5) -> Augmentation:
    """Mirror left and right, each image with probability p."""

    def flip(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        chosen = torch.rand(len(x), generator=generator).to(x.device) < p
        return torch.where(chosen.view(-1, 1, 1, 1), x.flip(3), x)

    return flip


def cutout(side: int = 8, p: float = 0.5) -> Augmentation:
    """Blacken a square of `side` pixels at a random place, each image with probability p (DeVries & Taylor 2017).

    The centre lies anywhere in the image, so the square may reach over its edge.
    """

    def cut(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        count, _, height, width = x.shape
        row, column = (torch.randint(0, n, (count, 1), generator=generator).to(x.device) for n in (height, width))
        chosen = (torch.rand(count, 1, generator=generator) < p).to(x.device)
        rows = torch.arange(height, device=x.device) - row + side // 2  # (B, H), 0..side-1 inside the square
        columns = torch.arange(width, device=x.device) - column + side // 2
        inside_rows = (rows >= 0) & (rows < side) & chosen
        inside = inside_rows[:, None, :, None] & ((columns >= 0) & (columns < side))[:, None, None, :]
        return x.masked_fill(inside, 0)

    return cut
