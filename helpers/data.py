"""Where images come from, and how they reach a network: `load`, `Images`, `Batches` and batched augmentation."""

import os
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torchvision.datasets import CIFAR10, CIFAR100, SVHN, FashionMNIST
from torchvision.datasets.utils import check_integrity

from helpers import download, pictures, sample
from helpers.augment import (  # noqa: F401  a lesson writes data.random_crop()
    Augmentation,
    color_jitter,
    cutout,
    random_crop,
    random_erasing,
    random_flip,
    random_rotation,
    random_sharpness,
)
from helpers.pictures import SIDE, read_image  # noqa: F401
from helpers.utils import ROOT, profile

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
        x, y, classes = self.x, self.y, len(self.classes)
        if x.dtype != torch.uint8 or x.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(f"Images: x must be uint8 (N, 3, {SIDE}, {SIDE}), got {x.dtype} {tuple(x.shape)}.")
        if y.dtype != torch.int64 or y.shape != x.shape[:1]:
            raise ValueError(f"Images: y must be int64 ({len(x)},), got {y.dtype} {tuple(y.shape)}.")
        low, high = map(int, y.aminmax()) if len(y) else (0, 0)
        if len(y) and not 0 <= low <= high < classes:
            raise ValueError(f"Images: labels run from {low} to {high}, but {classes} classes are 0 to {classes - 1}.")

    def __len__(self) -> int:
        return len(self.y)

    def take(self, indices: torch.Tensor) -> "Images":
        """The images at these positions."""
        return Images(self.x[indices], self.y[indices], self.classes, self.name)

    def subset(self, n: int, seed: int = 0) -> "Images":
        """n images drawn at random, the classes in the same proportions as here (n >= len: all of them)."""
        if n < 1:
            raise ValueError(f"Images.subset: n must be at least 1, got {n}.")
        return self if n >= len(self) else self.take(self._draw(n, seed).nonzero().flatten())

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
        drawn = self._draw(count, seed)
        return self.take((~drawn).nonzero().flatten()), self.take(drawn.nonzero().flatten())

    def _draw(self, n: int, seed: int) -> torch.Tensor:
        """bool (N,): n images drawn at random, each class in proportion."""
        counts = torch.bincount(self.y, minlength=len(self.classes))
        quota, lost = counts * n // len(self), counts * n % len(self)
        # What rounding down left over goes to the classes that lost most by it.
        quota[lost.argsort(descending=True, stable=True)[: n - int(quota.sum())]] += 1
        generator, drawn = torch.Generator().manual_seed(seed), torch.zeros_like(self.y, dtype=torch.bool)
        for label, size in enumerate(quota.tolist()):
            members = (self.y == label).nonzero().flatten()
            drawn[members[torch.randperm(len(members), generator=generator, device="cpu")[:size]]] = True
        return drawn

    def mean_std(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of each channel over all pixels, as two float tensors (3,), scale 0 to 1."""
        value = torch.arange(256, dtype=torch.float64, device="cpu") / 255
        # 256 possible values: counting them is exact and needs no float copy of the whole set.
        counts = torch.stack([torch.bincount(self.x[:, c].flatten(), minlength=256) for c in range(3)]).double()
        frequency = counts / counts.sum(dim=1, keepdim=True)
        mean = frequency @ value
        std = (frequency @ value.square() - mean.square()).sqrt()
        return mean.float(), std.float()


# ---------------------------------------------------------------- sources

CI_SIZES = (2000, 500)  # training and test images in the profile ci, at most

# name on plots, torchvision's class, by what a folder that has its files is known
_SETS = {
    "cifar10": ("CIFAR-10", CIFAR10, ("cifar-10-batches-py", "cifar-10-python.tar.gz")),
    "cifar100": ("CIFAR-100", CIFAR100, ("cifar-100-python", "cifar-100-python.tar.gz")),
    "fashion_mnist": ("Fashion-MNIST", FashionMNIST, ("FashionMNIST",)),
    "svhn": ("SVHN", SVHN, ("train_32x32.mat",)),
}


def load(name: str | Path = "cifar10") -> tuple[Images, Images]:
    """The training and the test images of a data set; says in one printed line where they came from.

    Args:
        name: "cifar10", "cifar100", "fashion_mnist", "svhn", or the path of an image folder, either
            `<path>/{train,test}/<class>/*` or `<path>/<class>/*` (then a fifth becomes the test set). Pictures in
            folders inside a class's folder belong to that class; hidden files are left out.

    The environment variable DATA_DIR (default: `data/` in the repository; relative paths count from the repository)
    says where data sets are kept. What it holds is used: for "cifar10" the archive as torchvision stores it, or an
    image folder DATA_DIR/cifar10/{train,test}/<class>/*. Otherwise the set is downloaded there. If that fails,
    "cifar10" falls back on drawn sample pictures, with a notice. DATA_DIR=sample asks for the sample at once. In the
    profile ci, 2,000 training and 500 test images are kept of a larger set, the classes in proportion.

    Raises:
        ValueError: unknown name, DATA_DIR that holds something else, or a folder that is no image folder.
        FileNotFoundError: DATA_DIR names a folder that does not exist.
        OSError: a set other than "cifar10" cannot be downloaded (ConnectionError) or unpacked.
    """
    if name not in _SETS:
        folder = Path(os.path.expanduser(name))
        if not os.path.isdir(folder):
            raise ValueError(
                f"data.load({str(name)!r}): neither a known data set nor a folder. "
                f"Known: {', '.join(_SETS)}. Or pass the path of an image folder."
            )
        return _image_folder(folder, folder.resolve().name.encode(errors="backslashreplace").decode())
    if os.environ.get("DATA_DIR") == "sample":
        if name != "cifar10":
            raise ValueError(f"data.load({name!r}): DATA_DIR=sample has drawn pictures for 'cifar10' only. Unset it.")
        return _sample("DATA_DIR=sample")
    title, dataset, _ = _SETS[name]
    root = _data_dir()
    folder = root / name
    if folder.is_dir():
        # The original pixels are lost in a JPEG copy, and accuracy with them: every figure and result says so.
        jpeg = any(path.suffix.lower() in (".jpg", ".jpeg") for path in folder.glob("train/*/*"))
        return _image_folder(folder, f"{title} ({'JPEG copy' if jpeg else 'image folder'})")
    try:
        return _archive(dataset, root, title)
    except OSError as error:
        if name != "cifar10":
            raise type(error)(f"data.load({name!r}): {error}") from error
        lines = ["CIFAR-10 could not be loaded, so this lesson runs on DRAWN SAMPLE PICTURES."]
        lines += ["Everything works, but the numbers are not those of CIFAR-10."]
        lines += [part for line in str(error).splitlines() for part in textwrap.wrap(line, 100, break_long_words=False)]
        width = max(map(len, lines))
        edge = f"+-{'-' * width}-+"
        print("\n".join([edge, *(f"| {line:<{width}} |" for line in lines), edge]))
        return _sample("CIFAR-10 could not be loaded")


def _told(train: Images, test: Images, source: str) -> tuple[Images, Images]:
    if profile() == "ci" and (len(train) > CI_SIZES[0] or len(test) > CI_SIZES[1]):
        train, test = (part.subset(size) for part, size in zip((train, test), CI_SIZES, strict=True))
        source = f"a part of it, since the profile is ci; {source}"
    print(f"Data: {train.name}, {len(train):,} training and {len(test):,} test images ({source}).")
    return train, test


def _shown(path: Path) -> str:
    """A path as readers know it: relative to the repository, where it lies inside."""
    path = path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def _data_dir() -> Path:
    """DATA_DIR as a path; the default may be missing (a download makes it), a folder that was named may not."""
    named = os.environ.get("DATA_DIR")
    if not named:
        return ROOT / "data"
    root = ROOT / os.path.expanduser(named)
    if not os.path.isdir(root):
        raise FileNotFoundError(
            f"DATA_DIR={named!r}: there is no folder {root}. "
            "Make it, name another, set DATA_DIR=sample for the built-in pictures, or unset DATA_DIR."
        )
    known = [*_SETS, *(marker for _, _, markers in _SETS.values() for marker in markers)]
    if (inside := pictures.visible(root)) and not set(inside) & set(known):
        raise ValueError(
            f"DATA_DIR={named!r} holds something else: {', '.join(inside[:5])}. It must be empty (to download into) or "
            f"hold one of: {', '.join(known)}. For images of your own, pass the path of their folder to data.load."
        )
    return root


def _sample(why: str) -> tuple[Images, Images]:
    drawn = (sample.draw(count, seed) for count, seed in zip(CI_SIZES, (1, 2), strict=True))
    return _told(*(Images(x, y, sample.CLASSES, "sample shapes") for x, y in drawn), f"drawn in code, because {why}")


def _archive(dataset: type, root: Path, title: str) -> tuple[Images, Images]:
    """Both sets through torchvision's own class, which verifies the files; what it misses is downloaded first."""
    try:
        parts = _open(dataset, root)
    # Nothing there, a file damaged (RuntimeError), or half unpacked (each reader has an error of its own).
    except Exception:
        download.provide(dataset, root)
        parts = _open(dataset, root)
    classes = tuple(getattr(parts[0], "classes", "0123456789"))
    return _told(*(Images(_rgb32(p.data), _labels(p), classes, title) for p in parts), f"archive in {_shown(root)}")


def _open(dataset: type, root: Path) -> list:
    if dataset is SVHN:
        return [SVHN(root, split) for split in ("train", "test")]
    raw = root / "FashionMNIST" / "raw"
    if dataset is FashionMNIST and not all(check_integrity(raw / name, md5) for name, md5 in download.UNPACKED.items()):
        raise RuntimeError("damaged")  # torchvision would not notice
    return [dataset(root, train) for train in (True, False)]


def _labels(part) -> torch.Tensor:
    return torch.as_tensor(part.labels if isinstance(part, SVHN) else part.targets, dtype=torch.int64, device="cpu")


def _rgb32(x) -> torch.Tensor:
    """(N, 32, 32, 3) as CIFAR stores it, (N, 3, 32, 32) as SVHN, (N, 28, 28) as Fashion-MNIST -> (N, 3, 32, 32)."""
    x = torch.as_tensor(x, device="cpu")
    if x.ndim == 3:  # grey, 28x28: two pixels of black on each side, and three equal channels
        border = (SIDE - x.shape[-1]) // 2
        return F.pad(x, [border] * 4).unsqueeze(1).expand(-1, 3, -1, -1).contiguous()
    return (x.permute(0, 3, 1, 2) if x.shape[-1] == 3 else x).contiguous()


def _image_folder(folder: Path, title: str) -> tuple[Images, Images]:
    parts, source = [folder / "train", folder / "test"], f"image folder {_shown(folder)}"
    there = [part for part in parts if part.is_dir()]
    if not there:
        return _told(*Images(*pictures.read_folder(folder, title, least=5), title).split(0.2, seed=0), source)
    if len(there) == 1:
        raise ValueError(f"{folder} has only {there[0].name}/. An image folder needs both train/ and test/.")
    names, test_names = map(pictures.class_names, parts)
    if names != test_names:
        differ = ", ".join(sorted(set(names) ^ set(test_names)))
        raise ValueError(f"{folder}: train/ and test/ must hold the same classes, but differ in: {differ}.")
    beside = [name for name in pictures.visible(folder) if name not in ("train", "test")]
    pictures.left_out(title, "they lie beside train/ and test/", beside)
    # At least three to train on: one is held out for validation, and batch norm takes its statistics from two or more.
    least = {"train": 3, "test": 1}
    return _told(*(Images(*pictures.read_folder(part, title, least[part.name]), title) for part in parts), source)


# ---------------------------------------------------------------- batches


class Batches:
    """Batches of images, ready for a network; may be gone through again and again, like a DataLoader.

    Yields (x, y): x float32 (B, 3, 32, 32), normalised with `stats`; y int64 (B,). What epoch e yields depends on
    (seed, e) only. Its random numbers are drawn and moved to the device at its start: nothing waits within the epoch.

    Args:
        images: an `Images`.
        stats: (mean, std) of each channel, from the *training* images: `train.mean_std()`.
        batch_size: images a batch; the last one may be smaller, unless `drop_last`.
        augment: what is done to uint8 batches, in this order: augmentations as `random_crop()` makes them, or functions
            (x, generator) -> x, which draw batch by batch.
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
        augment: Sequence[Augmentation | Callable] = (),
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
        self.dataset, self.batch_size, self.augment = images, batch_size, tuple(augment)
        self.shuffle, self.drop_last, self.seed, self.epoch = shuffle, drop_last, seed, 0
        self.x, self.y = images.x.to(device), images.y.to(device)
        # (x / 255 - mean) / std, for x in 0..255
        self.mean, self.std = (255 * value.float().view(1, 3, 1, 1).to(device) for value in stats)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """The next pass yields the batches of this epoch. Without it, each pass is one epoch further."""
        self.epoch = epoch

    def __iter__(self):
        # One generator an epoch: seeds next to each other must not give related streams, hence the large factor.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        self.epoch += 1
        count, shape, device = len(self.dataset), self.x.shape[1:], self.x.device
        order = torch.arange(count, device="cpu")
        if self.shuffle:
            order = torch.randperm(count, generator=generator, device="cpu")
        # Of each augmentation what it does, and what it has drawn for each place in the epoch.
        changes = [
            (change.apply, [values.to(device) for values in change.draw(count, shape, generator)])
            if isinstance(change, Augmentation)
            else (lambda x, change=change: change(x, generator), [])
            for change in self.augment
        ]
        order = order.to(device)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            part = slice(start, start + self.batch_size)
            x, y = self.x[order[part]], self.y[order[part]]
            for apply, drawn in changes:
                x = apply(x, *(values[part] for values in drawn))
            yield x.float().sub_(self.mean).div_(self.std), y
