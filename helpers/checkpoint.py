"""Checkpoints: saved whole, never half; resumed exactly, or refused with what differs.

A run is resumed only if everything that makes it is the same: options, optimiser, network, images, augmentation,
normalisation, order. `described` tells most of that. Three samples show what it cannot see: the first training batch,
the initial weights, and the network's logits of fixed noise.
"""

import contextlib
import glob
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import nn

from helpers.fingerprint import (
    close,
    described,
    digest,
    generators,
    random_state,
    sample,
    set_random_state,
)
from helpers.guard import eval_mode
from helpers.utils import seed_everything

_FORMAT = "resnet-course-3"
_KEYS = ("model", "history", "about", "facts", "device", "initial", "generators", "first", "probe", "state")


def load_checkpoint(path: str | Path) -> dict:
    """What `fit` wrote: "model" (state dict), "history" (rows), "about", "facts" (settings) and the state of the run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or not a checkpoint of this course.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no checkpoint {path}. Train first (lesson 05 writes one).")
    remedy = "Delete or move it and train again, or name another file."
    try:
        with zipfile.ZipFile(path) as file:  # the form of PyTorch's files; it holds check sums, which torch.load skips
            damaged = file.testzip()
        # weights_only: a file from a stranger may hold numbers, but no code that would run on loading.
        saved = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception:  # a damaged file makes PyTorch raise nearly anything, IndexError included
        damaged = True
    if damaged:
        raise ValueError(f"{path} cannot be read as a checkpoint: it is damaged or of another kind. {remedy}") from None
    if not isinstance(saved, dict) or not str(saved.get("format")).startswith("resnet-course-"):
        raise ValueError(f"{path} is not a checkpoint of this course. {remedy}")
    if saved["format"] != _FORMAT or not saved.keys() >= set(_KEYS):
        raise ValueError(f"{path} was written by another version of this course. {remedy}")
    return saved


def restore(model: nn.Module, saved: dict, path: str | Path = "checkpoint") -> None:
    """Put the weights of `load_checkpoint(path)` into `model`, which must be the same architecture.

    Raises:
        ValueError: names or shapes differ; the network is then left as it was.
    """
    mine, theirs = ({k: tuple(v.shape) for k, v in state.items()} for state in (model.state_dict(), saved["model"]))
    if mine != theirs:
        key = next(key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key))
        raise ValueError(
            f"{path} holds another architecture than {type(model).__name__} as built here: {key} is "
            f"{theirs.get(key, 'missing')} there and {mine.get(key, 'missing')} here. It was saved with "
            f"{saved.get('about') or 'no description'}: build the network so, or delete the file."
        )
    model.load_state_dict(saved["model"])


class Run:
    """A training run and its checkpoint, as `fit` uses them: enter, `begin`, then `save` after each epoch.

    Only one run at a time can be inside with the same file. Without a path it seeds, and does no more.
    """

    def __init__(self, path: str | Path | None, model: nn.Module, train, valid):
        self.path, self.model, self.train, self.valid = path and Path(path), model, train, valid
        self.device, self.dtype = next(model.parameters()).device, None
        self.saved, self.first = None, None

    def __enter__(self) -> "Run":
        if self.path is None:
            return self
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=0)
            self.lock.acquire()
        except Timeout:
            raise ValueError(f"{self.path} is being written by another run. Stop it, or name another file.") from None
        except OSError as error:
            raise _unwritable(self.path, error) from error
        try:
            for rest in self.path.parent.glob(f".{glob.escape(self.path.name)}.*.tmp"):  # of a killed run
                rest.unlink()
            if self.path.exists():
                self.saved = load_checkpoint(self.path)
                if self.saved["device"] == self.device.type:
                    self.dtype = getattr(torch, str(self.saved["facts"].get("dtype")).strip("'"), None)
        except BaseException:
            self.lock.release()
            raise
        return self

    def __exit__(self, *_) -> None:
        if self.path is not None:
            self.lock.release()

    def begin(self, options: dict, rows: list[dict], **parts) -> None:
        """Seed. With a checkpoint: compare it, then load it into network, `rows` and `parts`, such as the optimiser."""
        self.rows, self.parts, self.about = rows, parts, options["about"]
        seed_everything(options["seed"])
        if self.path is None:
            return
        groups = [{k: v for k, v in g.items() if k not in ("params", "fused")} for g in parts["optimizer"].param_groups]
        self.facts = described(
            {
                **options,
                "optimizer settings": groups,
                "network": self.model,
                "trained": [p.requires_grad for p in self.model.parameters()],
                "frozen": [part.training != self.model.training for part in self.model.modules()],
                "train": self.train,
                "valid": self.valid,
                "threads": torch.get_num_threads() if self.device.type == "cpu" else None,
            }
        )
        self.initial = digest(list(self.model.parameters()))
        self.generators = [generator.get_state() for generator in generators(self.train)]
        if self.saved is None:
            self._try_writing()
        else:
            self._resume()

    def first_batch(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Keeps the run's very first batch until it is saved: it shows images, labels, order and augmentation."""
        if self.path is not None and self.first is None:
            self.first = x, y

    def save(self, say: Callable[[str], None]) -> None:
        """Write the run as it is after an epoch. A disk that is full now costs the checkpoint, not the run."""
        if self.path is not None:
            try:
                _write(self.path, self._content())
            except OSError as error:
                say(f"Not saved: {error} Training goes on.")

    def _content(self) -> dict:
        if isinstance(self.first, tuple):
            self.first = sample(*self.first)
        content = {
            "model": self.model.state_dict(),
            "history": self.rows,
            "about": self.about,
            "facts": self.facts,
            "device": self.device.type,
            "initial": self.initial,
            "generators": self.generators,
            "first": self.first,
            "probe": self.first and self._probe(),
            "state": {name: part.state_dict() for name, part in self.parts.items()},
        }
        content["state"]["random"] = random_state(self.device, self.train)
        return {"format": _FORMAT, **content}

    def _probe(self) -> torch.Tensor:
        """Logits (2, classes) of fixed noise, in eval mode: what the forward pass does with these weights."""
        x = torch.randn(2, *self.first["shape"], generator=torch.Generator().manual_seed(0))
        with eval_mode(self.model), torch.no_grad():
            return self.model(x.to(self.device)).float().cpu()

    def _try_writing(self) -> None:
        """Before the first epoch: is there room, may it be written, can it be read back?"""
        spare = {"spare": [torch.zeros_like(p) for p in self.model.parameters()] * 2}  # the optimiser's, later on
        temporary = _write(self.path, self._content() | spare, rename=False)
        try:
            torch.load(temporary, weights_only=True)
        except Exception as error:
            raise ValueError(
                f"fit: a checkpoint holds plain facts only, but about is {self.about!r}. Convert it: .item() makes a "
                "number, .tolist() a list, str() a text."
            ) from error
        finally:
            temporary.unlink()

    def _resume(self) -> None:
        saved, before = self.saved, {key: value.clone() for key, value in self.model.state_dict().items()}
        try:
            self._compare(saved)
            restore(self.model, saved, self.path)
            same_device = saved["device"] == self.device.type
            if not close(self._probe(), saved["probe"], 1e-4 if same_device else 2e-2):
                self._refuse(["the network gives other logits with the same weights: its forward pass differs"])
            for name, part in self.parts.items():
                if saved["state"][name]:
                    part.load_state_dict(saved["state"][name])
            self.rows[:] = saved["history"]
            self.initial, self.generators = saved["initial"], saved["generators"]
            set_random_state(saved["state"]["random"], self.device, self.train)
        except Exception as error:
            self.model.load_state_dict(before)
            if str(self.path) in str(error):
                raise
            raise ValueError(f"{self.path} cannot be resumed ({error}). Delete it and train again.") from error
        epochs = self.facts["epochs"]
        left = "nothing is left to train" if str(len(self.rows)) == epochs else "training continues"
        print(f"{self.path.name}: {len(self.rows)} of {epochs} epochs are done; {left}.")
        print("To start anew, delete that file.")

    def _compare(self, saved: dict) -> None:
        moved = () if saved["device"] == self.device.type else ("dtype", "threads")  # another device: other digits
        pairs = {key: (saved["facts"].get(key), self.facts.get(key)) for key in {**saved["facts"], **self.facts}}
        differ = {key: pair for key, pair in pairs.items() if pair[0] != pair[1] and key not in moved}
        self._refuse([f"{key} was {old}, now {new}" for key, (old, new) in differ.items()])
        weights = [saved["model"][name] for name, _ in self.model.named_parameters()]
        if self.initial not in (saved["initial"], digest(weights)):
            self._refuse(["the network starts from other initial weights"])
        for generator, state in zip(generators(self.train), saved["generators"], strict=False):
            generator.set_state(state)
        if hasattr(self.train, "set_epoch"):
            self.train.set_epoch(0)
        self.first = sample(*next(iter(self.train)))
        if not close(self.first["x"], saved["first"]["x"], 1e-3) or self.first["y"] != saved["first"]["y"]:
            self._refuse(["the first training batch holds other images or labels"])

    def _refuse(self, told: list[str]) -> None:
        if told:
            more = f" and {len(told) - 3} more" if len(told) > 3 else ""
            raise ValueError(
                f"{self.path} belongs to another run: {'; '.join(told[:3])}{more}. To train with the new settings, "
                "delete that file or name another; to continue, set them back."
            )


def _write(path: Path, content: dict, rename: bool = True) -> Path:
    """Write to a temporary name, then rename: a run killed in between leaves the previous checkpoint whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(content, temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # onto the disk before the name points to it: the power may fail, too
        if rename:
            os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # PyTorch's own writer raises RuntimeError on a full disk
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _unwritable(path, error) from error
    return temporary


def _unwritable(path: Path, error: Exception) -> OSError:
    why = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return OSError(f"{path} cannot be written ({why}). Make room there, or name a file that you may write to.")
