"""Images a second: the ordinary DataLoader beside Batches, in one run, for crop, flip and normalise.

    .venv/bin/python tests/benchmarks/batches.py

Draws its own pictures, so that it needs no data. Close other programs: both sides use every core.
"""

import sys
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from helpers import data, sample

COUNT, BATCH = 20_000, 128


class ImageDataset(Dataset):
    def __init__(self, images, transform):
        self.images, self.transform = images, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.transform(self.images.x[i]), int(self.images.y[i])


def rate(batches) -> float:
    begin = time.perf_counter()
    count = sum(len(y) for _, y in batches)
    return count / (time.perf_counter() - begin)


def main():
    x, y = sample.draw(COUNT, 0)
    images = data.Images(x, y, sample.CLASSES, "sample shapes")
    mean, std = images.mean_std()
    transform = v2.Compose(
        [
            v2.RandomCrop(32, padding=4),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean.tolist(), std.tolist()),
        ]
    )
    batched = data.Batches(images, (mean, std), BATCH, augment=[data.random_crop(), data.random_flip()], shuffle=True)
    rates = {
        f"DataLoader, {workers} workers": rate(
            DataLoader(ImageDataset(images, transform), BATCH, shuffle=True, num_workers=workers)
        )
        for workers in (0, 2)
    }
    rates["Batches"] = max(rate(batched) for _ in range(3))
    slowest = rates["DataLoader, 0 workers"]
    for name, value in rates.items():
        print(f"{name:22} {value:10,.0f} images a second  {value / slowest:6.1f} times")


if __name__ == "__main__":
    main()
