"""A training run that kills itself, as `kill -9` would, at a moment given on the command line. Used by test_train.py.

    python tests/killed_run.py FOLDER [MOMENT]

Trains three networks, one for each schedule, each with its own checkpoint in FOLDER. A moment is a word that `tell` is
called with, such as "cosine step 2.3" or "plateau half written 1"; without one the run goes to its end.
The three take their batches in three ways, so that all kinds of random state matter.
"""

import contextlib
import os
import random
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from runs import Network

from helpers import train
from helpers.checkpoint import load_checkpoint

EPOCHS = 3
MOMENTS = (  # each starts where the one before left off; epochs and steps count from 0
    "one_cycle step 0.2",  # nothing is saved yet
    "one_cycle half written 1",
    "cosine half written 0",  # in the first write: there is no earlier checkpoint
    "cosine before renaming 1",
    "cosine validation 2",
    "plateau after renaming 0",
    "plateau step 2.1",
)


def dataset(count, seed):
    """Random pictures, brighter from class to class: something to learn."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 10, (count,), generator=generator)
    return TensorDataset(torch.randn(count, 3, 32, 32, generator=generator) + y.view(-1, 1, 1, 1) / 3, y)


class SetEpoch:
    """Order and noise depend on the number of the epoch, as in helpers.data.Batches."""

    def __init__(self, images):
        self.x, self.y = images.tensors

    def __len__(self):
        return 4

    def set_epoch(self, epoch):
        self.generator_of_epoch = torch.Generator().manual_seed(epoch)

    def __iter__(self):
        for index in torch.randperm(len(self.y), generator=self.generator_of_epoch).chunk(4):
            yield self.x[index] + torch.rand(1, generator=self.generator_of_epoch), self.y[index]


class Announced:
    """Batches that tell before each step where they are; all else they leave to the batches inside."""

    def __init__(self, inner, tell, words, first=0):
        self.inner, self.tell, self.words, self.epoch = inner, tell, words, first

    def __len__(self):
        return len(self.inner)

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __iter__(self):
        for step, (x, y) in enumerate(self.inner):
            self.tell(self.words.format(epoch=self.epoch, step=step))
            # An augmentation that draws from the random numbers which everything shares.
            yield (x + random.random() + np.random.rand() if "step" in self.words else x), y  # noqa: NPY002
        self.epoch += 1


def batches(schedule):
    images = dataset(128, 0)
    if schedule == "one_cycle":
        return DataLoader(images, 32, shuffle=True, generator=torch.Generator().manual_seed(5))
    return DataLoader(images, 32, shuffle=True) if schedule == "cosine" else SetEpoch(images)


def run(folder: Path, moment: str | None = None) -> dict:
    """Returns {schedule: (weights, rows of the History)}."""
    return {
        schedule: _run(schedule, folder / f"{schedule}.pt", moment) for schedule in ("one_cycle", "cosine", "plateau")
    }


def _run(schedule, path, moment):
    save, replace = torch.save, os.replace

    def tell(here):
        if f"{schedule} {here}" == moment:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))  # on Windows, too, this ends at once

    def save_in_halves(content, target):
        save(content, target)
        whole, epoch = Path(target).read_bytes(), len(content["history"]) - 1
        Path(target).write_bytes(whole[: len(whole) // 2])
        tell(f"half written {epoch}")
        Path(target).write_bytes(whole)
        tell(f"before renaming {epoch}")

    def replace_and_tell(source, target):
        replace(source, target)
        tell(f"after renaming {len(load_checkpoint(target)['history']) - 1}")

    first = len(load_checkpoint(path)["history"]) if path.exists() else 0
    learn = Announced(batches(schedule), tell, "step {epoch}.{step}", first)
    valid = Announced(DataLoader(dataset(40, 1), 32), tell, "validation {epoch}", first)
    torch.manual_seed(0)
    network = Network()
    optimizer = {"one_cycle": "sgd", "cosine": "adam", "plateau": "adamw"}[schedule]
    options = {"optimizer": optimizer, "schedule": schedule, "clip": 1.0, "dtype": torch.float32}
    torch.save, os.replace = save_in_halves, replace_and_tell
    try:
        with contextlib.redirect_stdout(None):
            history = train.fit(network, learn, valid, EPOCHS, 0.02, checkpoint=path, **options)
    finally:
        torch.save, os.replace = save, replace
    return network.state_dict(), history.rows


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    result = run(folder, *sys.argv[2:])
    torch.save(result, folder / "result.pt")
