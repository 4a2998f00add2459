"""The ordinary training loop beside `fit`, by turns in one run: images a second, and the share of the machine's speed.

    .venv/bin/python tests/benchmarks/training.py [--steps 16] [--widths 64 32] [--batch 128]
    .venv/bin/python tests/benchmarks/training.py --accuracy [--epochs 24 7]

Ordinary means: float32, contiguous, Adam, images that a DataLoader with two workers augments one by one with PIL.
Draws its own pictures, so that it needs no data. Close other programs: both sides use every core. About three minutes
on two cores. The machine's speed is that of its matrix products, in the precision that `fit` chose.

With --accuracy it goes on to the question that counts, on CIFAR-10 and at the first width: which test accuracy do the
published recipe's 24 epochs give, and does the course's recipe reach it in an eighth of the time? Both train through
`fit` on the same 45,000 images. The times are what these images take at the rates measured just before, the published
recipe's at the ordinary loop's rate. It takes hours on a CPU: each epoch is kept in checkpoints/, so that a broken-off
run continues.
"""

import argparse
import contextlib
import io
import multiprocessing
import platform
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from helpers import data, sample, train, utils
from helpers.model import CustomResNet

WARM_UP = 3  # steps that are not counted
LEAST_GAIN = 2.3  # on a CPU with bfloat16 instructions, at width 64

CROP_FLIP, SMALL_CROP_FLIP = ([data.random_crop(by), data.random_flip()] for by in (4, 2))
RECIPES = {  # the first two as in lesson 05
    "published": {"lr": 0.001, "optimizer": "adam", "betas": (0.95, 0.99), "schedule": "constant", "weight_decay": 0.0},
    "ours": {"lr": 0.1, "weight_decay": 5e-4, "clip": 10.0, "label_smoothing": 0.1},
    # Settings of cifar10-fast (D. Page 2018, dawn.py: rate 0.4 for batches of 512), and label smoothing.
    "course": {"lr": 0.1, "weight_decay": 5e-4, "label_smoothing": 0.1},
}
AUGMENT = {
    "published": CROP_FLIP,
    "ours": SMALL_CROP_FLIP,
    "course": [data.random_crop(4, mode="reflect"), data.random_flip(), data.cutout(8, p=1.0)],
}
HALVES = torch.full((3,), 0.5), torch.full((3,), 0.5)


class Clock:
    """Batches that note when each is asked for: from one call to the next is one whole step."""

    def __init__(self, batches):
        self.batches, self.times = batches, []

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for batch in self.batches:
            self.times.append(time.perf_counter())
            yield batch
        self.times.append(time.perf_counter())

    def seconds_a_step(self) -> float:
        times = self.times[WARM_UP:]
        return statistics.median(after - before for before, after in zip(times, times[1:], strict=False))


class Pictures(Dataset):
    """PIL images, as torchvision.datasets.CIFAR10 hands them out."""

    TRANSFORM = v2.Compose(
        [
            v2.RandomCrop(32, padding=4),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )

    def __init__(self, images):
        self.pixels, self.labels = images.x.permute(0, 2, 3, 1).numpy(), images.y.tolist()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.TRANSFORM(Image.fromarray(self.pixels[i])), self.labels[i]


def ordinary_loop(width, images, batch, device) -> float:
    """Seconds a step of the loop that most tutorials show."""
    model = CustomResNet(width).to(device)
    clock = Clock(DataLoader(Pictures(images), batch, shuffle=True, num_workers=2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    model.train()
    for x, y in clock:
        x, y = x.to(device), y.to(device)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        loss.item()
    return clock.seconds_a_step()


def fit_loop(width, images, batch, device) -> float:
    """Seconds a step of `fit` with the course's batches."""
    model = CustomResNet(width).to(device)
    stats = images.mean_std()
    clock = Clock(data.Batches(images, stats, batch, augment=CROP_FLIP, shuffle=True, device=device))
    valid = data.Batches(images.take(torch.arange(100)), stats, 100, device=device)
    with contextlib.redirect_stdout(io.StringIO()):
        train.fit(model, clock, valid, epochs=1, lr=0.02, clip=10.0)
    return clock.seconds_a_step()


def in_own_process(function, *args):
    """So that neither loop profits from memory and threads that the other has warmed up."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def product_rate(dtype: torch.dtype, device, size: int) -> float:
    """Operations a second of a product of two square matrices: 2 * size^3 each; the best of eight."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    times = []
    for _ in range(8):
        begin = time.perf_counter()
        (a @ b)[0, 0].item()
        times.append(time.perf_counter() - begin)
    return 2 * size**3 / min(times)


def operations_a_step(width: int, batch: int) -> int:
    """Of convolutions and the linear layer, forward and backward; a multiplication and an addition count as two."""
    model, counter = CustomResNet(width), FlopCounterMode(display=False)
    with counter:
        model(torch.zeros(batch, 3, 32, 32)).sum().backward()
    return counter.get_total_flops()


class Mirrored(nn.Module):
    """A network that answers to an image and to its mirror image, and adds the two logits."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x) + self.model(x.flip(3))


def recipe_batches(name, part, valid, batch, device, seed) -> tuple[data.Batches, data.Batches]:
    """Training and validation batches of a recipe, normalised as it has them."""
    stats = HALVES if name == "published" else part.mean_std()
    options = {"shuffle": True, "drop_last": name == "course", "device": device, "seed": seed}
    learn = data.Batches(part, stats, batch, augment=AUGMENT[name], **options)
    return learn, data.Batches(valid, stats, 500, device=device)


def trained(name, epochs, width, batch, device, seed=0) -> dict:
    """One finished run: accuracies of the network after the last epoch, between 0 and 1, without augmentation.

    "train" is that of 5,000 training images, as in lesson 05. "best" is the highest validation accuracy of any epoch.
    "mirrored" is that of the test images with the answers to each image and to its mirror image added. "seconds" is the
    time of all epochs with their validation, "rate" training images a second of the median epoch.
    """
    images, test = data.load("cifar10")
    part, valid = images.split(0.1, seed=0)
    learn, judge = recipe_batches(name, part, valid, batch, device, seed)
    torch.manual_seed(seed)
    model = CustomResNet(width, classes=len(images.classes)).to(device)
    history = train.fit(
        model,
        learn,
        judge,
        epochs,
        seed=seed,
        **RECIPES[name],
        checkpoint=utils.checkpoint_path(f"benchmark_{name}_{width}_{batch}_{epochs}_{seed}", images.name),
    )
    few, met_once = (recipe_batches(name, part, p, batch, device, seed)[1] for p in (part.subset(5000, seed=0), test))
    kinds = {
        "train": (model, few),
        "valid": (model, judge),
        "test": (model, met_once),
        "mirrored": (Mirrored(model), met_once),
    }
    return {kind: train.evaluate(*what)[1] for kind, what in kinds.items()} | {
        "history": history,
        "best": max(history["valid_accuracy"]),
        "seconds": sum(history["seconds"]),
        "rate": len(part) / statistics.median(history["seconds"]),
        "images": epochs * len(part),
        "parameters": sum(p.numel() for p in model.parameters()),
        "data": images.name,
    }


def time_to_accuracy(epochs, width, batch, device, seconds_a_step) -> None:
    """The published recipe by the ordinary loop and ours by `fit`; seconds_a_step: of these two loops."""
    print("\nTime: images trained on, at the rates measured above; without validation.")
    results = []
    for name, count, seconds in zip(("published", "ours"), epochs, seconds_a_step, strict=True):
        print(f"\n{name}: {count} epochs, {RECIPES[name]}")
        run = trained(name, count, width, batch, device)
        results.append((run["test"], run["images"] / batch * seconds))
    print()
    for name, (accuracy, seconds) in zip(("published", "ours"), results, strict=True):
        print(f"{name:10} {accuracy:.2%} on the test images, {seconds:8,.0f} s")
    gain = results[0][1] / results[1][1]
    print(f"ours takes 1/{gain:.1f} of the time (wanted: at most 1/8, and no lower accuracy)")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 32])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--accuracy", action="store_true", help="train both recipes to the end: hours on a CPU")
    parser.add_argument("--epochs", type=int, nargs=2, default=[24, 7], metavar=("PUBLISHED", "OURS"))
    options = parser.parse_args()
    device = utils.device()
    print(f"torch {torch.__version__}, {platform.machine()}, {device}, {torch.get_num_threads()} threads")
    dtype = train.fast_dtype(device.type)
    size = 4096 if device.type == "cpu" else 8192
    images = data.Images(*sample.draw(options.steps * options.batch, 0), sample.CLASSES, "sample shapes")
    loops = {"ordinary loop": (ordinary_loop, torch.float32), "fit": (fit_loop, dtype)}
    rates, fastest = dict.fromkeys((torch.float32, dtype), 0.0), {}
    for width in options.widths:
        seconds = {name: [] for name in loops}
        for _ in range(2):  # by turns: whatever else runs on this machine slows all alike
            for name, (loop, kind) in loops.items():
                rates[kind] = max(rates[kind], product_rate(kind, device, size))
                seconds[name].append(in_own_process(loop, width, images, options.batch, device))
        operations = operations_a_step(width, options.batch)
        print(f"\nwidth {width}, batch {options.batch}: {operations / 1e9:,.0f} billion operations a step")
        for name, (_, kind) in loops.items():
            best = min(seconds[name])
            share = operations / best / rates[kind]
            print(
                f"  {name:14} {options.batch / best:8,.0f} images a second   {share:6.1%} of matrix products in {kind}"
            )
        gain = min(seconds["ordinary loop"]) / min(seconds["fit"])
        wanted = f" (wanted: at least {LEAST_GAIN})" if width == 64 and dtype == torch.bfloat16 else ""
        print(f"  fit is {gain:.2f} times as fast{wanted}")
        fastest[width] = [min(times) for times in seconds.values()]
    for kind, rate in rates.items():
        print(f"matrix products in {kind}: {rate / 1e9:,.0f} billion operations a second")
    if options.accuracy:
        width = options.widths[0]
        time_to_accuracy(options.epochs, width, options.batch, device, fastest[width])


if __name__ == "__main__":
    main()
