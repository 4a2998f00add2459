"""Time to an accuracy: the first and the last rung of lesson 09's ladder, beside each other in one run.

    .venv/bin/python tests/benchmarks/time_to_accuracy.py
    .venv/bin/python tests/benchmarks/time_to_accuracy.py --target 0.94 --width 64 --epochs 10 --train-first

The first rung is the published recipe by the ordinary loop at width 64 (see training.py): float32, Adam at a constant
rate, images one by one. The last one is lesson 09's final run: its small network, its recipe with Muon, its six looks
at each image, all taken from the notebook. (One thing differs: a crop's border is black here, and reflects the picture
there.) Both learn from the same 45,000 training images of CIFAR-10, and their accuracy is that of the other 5,000.

The last rung trains for real, on the clock. The first one would take hours on a CPU. Without --train-first its time is
that of --first-epochs epochs at the ordinary loop's rate, measured before and after: a lower bound wherever it needs
more (see README's results for what 24 epochs of it reach). With --train-first it is trained through `fit` until the
target is reached, and its time is that of these epochs at the measured rate. Close other programs: both sides use every
core. About seven minutes on two cores without --train-first.
"""

import argparse
import math
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from training import CROP_FLIP, HALVES, RECIPES, SMALL_CROP_FLIP, in_own_process, ordinary_loop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lessons import ROOT, Lesson

from helpers import data, train, utils
from helpers.model import CustomResNet, conv3x3

FULL_WIDTH, FIRST_BATCH, LAST_BATCH = 64, 128, 500


def lesson_names(device) -> dict:
    """What the cells tagged `definition` of lesson 09 define."""
    names = {"math": math, "sys": sys, "time": time, "torch": torch, "nn": nn, "F": F, "device": device, "utils": utils}
    names |= {"conv3x3": conv3x3, "autocast": train.autocast, "fast_dtype": train.fast_dtype}
    for cell in Lesson(ROOT / "notebooks" / "09_speed.ipynb").tagged("definition"):
        exec(cell.source, names)
    return names


def last_rung(part, width, epochs, device, seed=0) -> tuple[float, nn.Module, nn.Module]:
    """(seconds of training, network, the same network with six looks at each image) of the lesson's final run."""
    lesson, stats = lesson_names(device), part.mean_std()
    count = min(1000, len(part))
    x, _ = next(iter(data.Batches(part.subset(count, seed=0), stats, count)))
    patches = F.unfold(x, kernel_size=2).transpose(1, 2).flatten(0, 1)
    values, vectors = torch.linalg.eigh(torch.cov(patches.T))
    torch.manual_seed(seed)
    network = lesson["SmallNetwork"]((vectors / (values + 5e-4).sqrt()).T.flip(0), width, len(part.classes)).to(device)
    options = {"augment": SMALL_CROP_FLIP, "shuffle": True, "drop_last": True, "device": device, "seed": seed}
    seconds = lesson["train_on_the_clock"](network, data.Batches(part, stats, LAST_BATCH, **options), epochs)
    return seconds, network, lesson["SixLooks"](network)


def first_rung(part, valid, target, most, device) -> tuple[int, bool]:
    """(epochs to the target, True), or (most, False) if they were not enough."""
    torch.manual_seed(0)
    network = CustomResNet(FULL_WIDTH, classes=len(part.classes)).to(device)
    batches = data.Batches(part, HALVES, FIRST_BATCH, augment=CROP_FLIP, shuffle=True, device=device)
    judge = data.Batches(valid, HALVES, 500, device=device)
    history = train.fit(network, batches, judge, most, **RECIPES["published"])
    enough = [epoch for epoch, value in enumerate(history["valid_accuracy"], start=1) if value >= target]
    return (enough[0], True) if enough else (most, False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", type=float, default=0.9)
    parser.add_argument("--width", type=int, default=48, help="of the last rung's network")
    parser.add_argument("--epochs", type=int, default=9, help="of the last rung")
    parser.add_argument("--first-epochs", type=int, default=24, help="the most that the first rung gets")
    parser.add_argument("--train-first", action="store_true", help="train the first rung, too: hours on a CPU")
    options = parser.parse_args()
    device = utils.device()
    print(f"torch {torch.__version__}, {platform.machine()}, {device}, {torch.get_num_threads()} threads")
    images, _ = data.load("cifar10")
    part, valid = images.split(0.1, seed=0)
    some = part.take(torch.arange(min(len(part), 16 * FIRST_BATCH)))

    def ordinary_rate():
        return FIRST_BATCH / in_own_process(ordinary_loop, FULL_WIDTH, some, FIRST_BATCH, device)

    rates = [ordinary_rate()]
    seconds, _, looks = last_rung(part, options.width, options.epochs, device)
    rates.append(ordinary_rate())
    _, accuracy = train.evaluate(looks, data.Batches(valid, part.mean_std(), 500, device=device))
    verdict = "reached" if accuracy >= options.target else "NOT reached"
    print(f"last rung:  {options.epochs} epochs, {seconds:,.0f} s: {accuracy:.2%} right, target {verdict}")

    epochs, reached = options.first_epochs, False
    if options.train_first:
        epochs, reached = first_rung(part, valid, options.target, epochs, device)
    rate = statistics.mean(rates)
    first = epochs * len(part) / rate
    least = "" if reached else "at least "
    print(f"first rung: {epochs} epochs at {rate:,.0f} images a second, {least}{first:,.0f} s")
    print(f"to {options.target:.0%}: {least}{first / seconds:.0f} times faster (wanted: 10)")


if __name__ == "__main__":
    main()
