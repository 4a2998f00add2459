"""What JPEG costs: the same recipe on lossless images and on their JPEG copies, paired image by image.

    .venv/bin/python tests/benchmarks/compression.py LOSSLESS COPY [--epochs 48] [--seeds 0 1 2] [--width 16]

LOSSLESS and COPY are folders {train,test}/<class>/<index>: PNG files there, the same images as JPEG files here (quality
75, colours at half the resolution, in the copy that the course's results come from). The images of LOSSLESS, training
and test together, are cut into five parts: each part is answered by networks that learned from the other four, one
from lossless images, one from compressed ones, with equal initial weights, order and augmentation. That makes ten
networks a seed, each the one after its last epoch. Two intervals are printed, and the wider one counts: over images
(correct without compression minus with it, averaged over the seeds), and over pairs of networks.
"""

import argparse
import contextlib
import io
import os
import platform
import statistics
import sys
from pathlib import Path

import torch
from scipy import stats
from training import RECIPES, recipe_batches

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from helpers import analysis, data, train, utils
from helpers.model import CustomResNet

PARTS = 5


def read(lossless: Path, copy: Path) -> list[data.Images]:
    """The pictures of `lossless`, and the same ones from `copy`."""
    paths = sorted(path.relative_to(lossless) for path in lossless.glob("*/*/*.png"))
    classes = tuple(sorted({path.parent.name for path in paths}))
    y = torch.tensor([classes.index(path.parent.name) for path in paths])
    both = [lossless / path for path in paths], [(copy / path).with_suffix(".jpg") for path in paths]
    return [data.Images(torch.stack([*map(data.read_image, files)]), y, classes, "CIFAR-10") for files in both]


def correct(images, part, width, epochs, seed, device) -> torch.Tensor:
    """bool: which images of `part` (positions) a network answers right that has learned from all others."""
    others = torch.ones(len(images), dtype=torch.bool).index_fill(0, part, False).nonzero().flatten()
    learned, held_out = images.take(others), images.take(part)
    train_batches, test_batches = recipe_batches("course", learned, held_out, 128, device, seed)
    torch.manual_seed(seed)
    model = CustomResNet(width, classes=len(images.classes)).to(device)
    with contextlib.redirect_stdout(io.StringIO()):
        train.fit(model, train_batches, test_batches, epochs, seed=seed, **RECIPES["course"])
    return analysis.predict(model, test_batches).correct


def half_width(differences) -> float:
    """Half of the 95% t interval of their mean."""
    values = torch.as_tensor(differences).tolist()
    return stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("lossless", type=Path)
    parser.add_argument("copy", type=Path)
    parser.add_argument("--epochs", type=int, default=48)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--width", type=int, default=16)
    options = parser.parse_args()
    device = utils.device()
    print(f"torch {torch.__version__}, {platform.machine()}, {device}, {os.cpu_count()} cores")
    if not any(options.lossless.glob("*/*/*.png")):
        parser.error(f"{options.lossless} holds no {{train,test}}/<class>/*.png. Name the folder of lossless images.")
    both, copy = read(options.lossless, options.copy)
    change = (both.x.float() - copy.x.float()).square().mean().sqrt()
    print(f"{len(both):,} images; compression changes a value by {change:.1f} of 255 (root mean square)")
    right, pairs = torch.zeros(2, len(options.seeds), len(both)), []
    for row, seed in enumerate(options.seeds):
        parts = torch.randperm(len(both), generator=torch.Generator().manual_seed(seed)).tensor_split(PARTS)
        for number, part in enumerate(parts):
            for arm, images in enumerate((both, copy)):
                network = PARTS * seed + number
                right[arm, row, part] = correct(images, part, options.width, options.epochs, network, device).float()
            pairs.append(100 * (right[0, row, part] - right[1, row, part]).mean())
        lossless, jpeg = (100 * right[:, row].mean(dim=1)).tolist()
        print(f"seed {seed}: lossless {lossless:.2f}%, JPEG {jpeg:.2f}%", flush=True)
    lossless, jpeg = (100 * right.mean(dim=(1, 2))).tolist()
    images = 100 * (right[0] - right[1]).mean(dim=0)  # difference of each image
    print(f"width {options.width}, {options.epochs} epochs, {len(options.seeds)} seeds of {PARTS} pairs of networks:")
    print(f"lossless {lossless:.2f}%, JPEG {jpeg:.2f}%, cost {lossless - jpeg:.2f} points")
    print(f"95% interval: ± {half_width(images):.2f} over images, ± {half_width(pairs):.2f} over pairs of networks")


if __name__ == "__main__":
    main()
