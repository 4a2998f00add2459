"""Images a second: the ordinary DataLoader with PIL transforms beside Batches, in one run.

    .venv/bin/python tests/benchmarks/batches.py

Twice: crop, flip, normalise; and the complete list. Draws its own pictures, so that it needs no data. Close other
programs: both sides use every core.
"""

import sys
import time
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from helpers import data, sample

COUNT, BATCH = 20_000, 128


class PictureDataset(Dataset):
    """As torchvision.datasets.CIFAR10 works: an array in memory, each image made a PIL image, then the transforms."""

    def __init__(self, images, transform):
        self.arrays, self.labels, self.transform = images.x.permute(0, 2, 3, 1).numpy(), images.y.tolist(), transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.arrays[i])), self.labels[i]


def rate(batches) -> float:
    begin = time.perf_counter()
    count = sum(len(y) for _, y in batches)
    return count / (time.perf_counter() - begin)


def main():
    x, y = sample.draw(2_000, 0)
    images = data.Images(x.repeat(COUNT // 2_000, 1, 1, 1), y.repeat(COUNT // 2_000), sample.CLASSES, "sample shapes")
    stats = images.mean_std()
    normalise = [transforms.ToTensor(), transforms.Normalize(*(values.tolist() for values in stats))]
    geometry = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    colour = [
        transforms.RandomRotation(20),
        transforms.ColorJitter(0.4, 0.4, 0.4),
        transforms.RandomAdjustSharpness(2.0),
    ]
    batched_geometry = [data.random_crop(), data.random_flip()]
    batched_rest = [data.random_rotation(), data.color_jitter(), data.random_sharpness(), data.random_erasing()]
    pipelines = {
        "crop, flip": ([*geometry, *normalise], batched_geometry),
        "complete list": (
            [*geometry, *colour, *normalise, transforms.RandomErasing(p=0.75)],
            [*batched_geometry, *batched_rest],
        ),
    }
    print(f"{torch.get_num_threads()} threads, {COUNT:,} images, batches of {BATCH}; images a second")
    for name, (ordinary, batched) in pipelines.items():
        loaders = {
            f"DataLoader, {workers} workers": DataLoader(
                PictureDataset(images, transforms.Compose(ordinary)), BATCH, shuffle=True, num_workers=workers
            )
            for workers in (0, 2)
        }
        loaders["Batches"] = data.Batches(images, stats, BATCH, augment=batched, shuffle=True)
        rate(loaders["Batches"])  # the first walk pays for memory that all others use again
        rates = {label: rate(batches) for label, batches in loaders.items()}
        for label, value in rates.items():
            ratio = value / rates["DataLoader, 0 workers"]
            print(f"{name:14} {label:22} {value:10,.0f}  {ratio:6.1f} times")


if __name__ == "__main__":
    main()
