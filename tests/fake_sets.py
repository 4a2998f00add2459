"""Small stand-ins for the real data sets, in the real formats; torchvision is told their MD5 sums.

Each function takes pytest's monkeypatch and returns the files to download, by name.
"""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile

import numpy as np
import scipy.io
from torchvision.datasets import CIFAR10, CIFAR100, SVHN, FashionMNIST

from helpers import download


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def tar_gz(content: bytes = b"", **settings) -> bytes:
    """An archive of one file."""
    packed, info = io.BytesIO(), tarfile.TarInfo("file")
    info.size = len(content)
    for name, value in settings.items():
        setattr(info, name, value)
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def _cifar(monkeypatch, dataset, counts: dict, classes: int, labels: str, names: str, meta: str) -> dict[str, bytes]:
    """An archive with `counts[name]` noise images in each of its files."""
    files, packed = {meta: pickle.dumps({names: [f"class {i}" for i in range(classes)]})}, io.BytesIO()
    random = np.random.default_rng(0)
    for name, count in counts.items():
        pixels = random.integers(0, 256, (count, 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": pixels, labels: [i % classes for i in range(count)]})
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{dataset.base_folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(dataset, "tgz_md5", md5(packed.getvalue()))
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(dataset, part, [[name, md5(files[name])] for name, _ in getattr(dataset, part)])
    monkeypatch.setattr(dataset, "meta", {"filename": meta, "key": names, "md5": md5(files[meta])})
    return {dataset.filename: packed.getvalue()}


def cifar10(monkeypatch) -> dict[str, bytes]:
    counts = {name: 20 for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]}
    return _cifar(monkeypatch, CIFAR10, counts, 10, "labels", "label_names", "batches.meta")


def cifar100(monkeypatch) -> dict[str, bytes]:
    return _cifar(monkeypatch, CIFAR100, {"train": 200, "test": 100}, 100, "fine_labels", "fine_label_names", "meta")


def fashion_mnist(monkeypatch) -> dict[str, bytes]:
    """All pixels of image i are i."""
    inside = {}
    for part, count in (("train", 30), ("t10k", 20)):
        pixels = np.repeat(np.arange(count, dtype=np.uint8), 28 * 28).tobytes()
        inside[f"{part}-images-idx3-ubyte"] = struct.pack(">4i", 0x803, count, 28, 28) + pixels
        inside[f"{part}-labels-idx1-ubyte"] = struct.pack(">2i", 0x801, count) + bytes(i % 10 for i in range(count))
    files = {f"{name}.gz": gzip.compress(content) for name, content in inside.items()}
    monkeypatch.setattr(FashionMNIST, "resources", [(name, md5(content)) for name, content in files.items()])
    monkeypatch.setattr(download, "UNPACKED", {name: md5(content) for name, content in inside.items()})
    return files


def svhn(monkeypatch) -> dict[str, bytes]:
    """Image i is i in row 0, column 1, blue."""
    files, parts = {}, {}
    for part, count in (("train", 30), ("test", 20)):
        pixels, content = np.zeros((32, 32, 3, count), dtype=np.uint8), io.BytesIO()
        pixels[0, 1, 2] = np.arange(count)
        scipy.io.savemat(content, {"X": pixels, "y": np.array([[1 + i % 10] for i in range(count)])})  # 10 means 0
        url, name, _ = SVHN.split_list[part]
        files[name] = content.getvalue()
        parts[part] = [url, name, md5(files[name])]
    monkeypatch.setattr(SVHN, "split_list", parts)
    return files
