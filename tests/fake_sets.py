"""Small stand-ins for the real data sets, in the real formats; torchvision is told their MD5 sums."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile

import numpy as np
import scipy.io
import torchvision


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def _tar_gz(folder: str, files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def cifar10(monkeypatch, per_batch: int = 20, seed: int = 0) -> bytes:
    """The archive `cifar-10-python.tar.gz` with five batches of `per_batch` noise images, and one of test images."""
    dataset, random = torchvision.datasets.CIFAR10, np.random.default_rng(seed)
    files = {"batches.meta": pickle.dumps({"label_names": list("abcdefghij")})}
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        pixels = random.integers(0, 256, (per_batch, 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": pixels, "labels": [i % 10 for i in range(per_batch)]})
    archive = _tar_gz(dataset.base_folder, files)
    monkeypatch.setattr(dataset, "tgz_md5", md5(archive))
    for names in ("train_list", "test_list"):
        monkeypatch.setattr(dataset, names, [[name, md5(files[name])] for name, _ in getattr(dataset, names)])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(files["batches.meta"])}
    monkeypatch.setattr(dataset, "meta", meta)
    return archive


def cifar100(monkeypatch) -> bytes:
    dataset, random = torchvision.datasets.CIFAR100, np.random.default_rng(0)
    files = {"meta": pickle.dumps({"fine_label_names": [f"class {i}" for i in range(100)]})}
    for name, count in (("train", 200), ("test", 100)):
        pixels = random.integers(0, 256, (count, 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": pixels, "fine_labels": [i % 100 for i in range(count)]})
    archive = _tar_gz(dataset.base_folder, files)
    monkeypatch.setattr(dataset, "tgz_md5", md5(archive))
    monkeypatch.setattr(dataset, "train_list", [["train", md5(files["train"])]])
    monkeypatch.setattr(dataset, "test_list", [["test", md5(files["test"])]])
    monkeypatch.setattr(dataset, "meta", {"filename": "meta", "key": "fine_label_names", "md5": md5(files["meta"])})
    return archive


def fashion_mnist(monkeypatch) -> dict[str, bytes]:
    """The four files by name; all pixels of image i are i."""
    dataset, files = torchvision.datasets.FashionMNIST, {}
    for part, count in (("train", 30), ("t10k", 20)):
        pixels = np.repeat(np.arange(count, dtype=np.uint8), 28 * 28).tobytes()
        labels = bytes(i % 10 for i in range(count))
        files[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(struct.pack(">4i", 0x803, count, 28, 28) + pixels)
        files[f"{part}-labels-idx1-ubyte.gz"] = gzip.compress(struct.pack(">2i", 0x801, count) + labels)
    monkeypatch.setattr(dataset, "resources", [(name, md5(content)) for name, content in files.items()])
    return files


def svhn(monkeypatch) -> dict[str, bytes]:
    dataset, files, parts = torchvision.datasets.SVHN, {}, {}
    for part, count in (("train", 30), ("test", 20)):
        pixels = np.zeros((32, 32, 3, count), dtype=np.uint8)
        pixels[0, 1, 2] = np.arange(count)  # row 0, column 1, blue
        content = io.BytesIO()
        scipy.io.savemat(content, {"X": pixels, "y": np.array([[1 + i % 10] for i in range(count)])})  # 10 means 0
        url, name, _ = dataset.split_list[part]
        files[name] = content.getvalue()
        parts[part] = [url, name, md5(files[name])]
    monkeypatch.setattr(dataset, "split_list", parts)
    return files
