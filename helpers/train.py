"""Training: `fit`, `evaluate`, `History`, and checkpoints that a broken-off run continues from.

Any network that returns logits and any re-iterable of (x, y) batches will do: nothing here knows images.
"""

import contextlib
import functools
import math
import os
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from helpers.utils import Live, bar, curves, figure

# ---------------------------------------------------------------- what happened


class History:
    """One row an epoch. `rows` is a list of dicts with the keys of `COLUMNS`.

    Training loss and accuracy are means over the epoch's steps: of a network that still changes, in train mode and on
    augmented images. Validation figures are taken after the epoch, in eval mode.
    """

    COLUMNS = ("epoch", "lr", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "seconds")

    def __init__(self, rows: list[dict] | None = None):
        self.rows = [] if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, column: str) -> list[float]:
        """The values of one column over the epochs: `history["valid_accuracy"]`."""
        if column not in self.COLUMNS:
            raise KeyError(f"History has no column {column!r}. It has: {', '.join(self.COLUMNS)}.")
        return [row[column] for row in self.rows]

    @property
    def best_epoch(self) -> int:
        """The epoch (from 1) with the highest validation accuracy, the first of equals."""
        return max(self.rows, key=lambda row: row["valid_accuracy"])["epoch"]

    def table(self) -> str:
        head = "epoch      lr  train loss  train acc  valid loss  valid acc  seconds"
        lines = [
            f"{row['epoch']:5d}  {row['lr']:6.4f}  {row['train_loss']:10.3f}  {row['train_accuracy']:9.2%}  "
            f"{row['valid_loss']:10.3f}  {row['valid_accuracy']:9.2%}  {row['seconds']:7.1f}"
            for row in self.rows
        ]
        return "\n".join([head, *lines])

    def plot(self, title: str, data: str) -> None:
        """Loss and accuracy over the epochs, training and validation."""
        _, (left, right) = figure(title, data, 1, 2, size=(10, 3.8))
        for ax, what in ((left, "loss"), (right, "accuracy")):
            series = {"training": self[f"train_{what}"], "validation": self[f"valid_{what}"]}
            curves(series, title=what.capitalize(), data=None, xlabel="epoch", ylabel=what, ax=ax)


# ---------------------------------------------------------------- speed


@functools.cache
def fast_dtype(device_type: str) -> torch.dtype:
    """The number format in which convolutions run fastest on this machine, without harm to training.

    GPUs from compute capability 8 on: bfloat16; older ones: float16 (fit then scales the loss); Apple: float32.
    On a CPU it is measured: without the instructions for it, bfloat16 is several times slower than float32.
    """
    if device_type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16
    if device_type != "cpu":
        return torch.float32
    with torch.random.fork_rng(devices=[]):  # leaves the caller's random numbers alone
        layer = nn.Conv2d(256, 256, 3, padding=1).to(memory_format=torch.channels_last)
        x = torch.randn(64, 256, 8, 8).to(memory_format=torch.channels_last)
    seconds = {torch.float32: [], torch.bfloat16: []}
    for _ in range(6):  # by turns, so that whatever else runs here slows both alike
        for dtype, times in seconds.items():
            begin = time.perf_counter()
            with autocast("cpu", dtype):
                layer(x).float().square().mean().backward()
            times.append(time.perf_counter() - begin)
    return min(seconds, key=lambda dtype: min(seconds[dtype]))


def autocast(device_type: str, dtype: torch.dtype):
    """Context in which matrix products and convolutions run in `dtype`; does nothing for float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device_type, dtype=dtype)


def _place(x: torch.Tensor, y: torch.Tensor, device: torch.device):
    return x.to(device, memory_format=torch.channels_last), y.to(device)


# ---------------------------------------------------------------- the loop


def fit(
    model: nn.Module,
    train,
    valid,
    epochs: int,
    lr: float,
    *,
    optimizer: str = "sgd",
    schedule: str = "one_cycle",
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    clip: float | None = None,
    label_smoothing: float = 0.0,
    dtype: torch.dtype | None = None,
    checkpoint: str | Path | None = None,
    about: dict | None = None,
    seed: int = 0,
) -> History:
    """Train `model` in place and return its History.

    Args:
        model: returns logits (B, classes); trained on the device where it is.
        train, valid: sized, re-iterable batches (x, y). If `train` has `set_epoch`, it is told the epoch before each
            walk, so that a continued run sees the same batches as an uninterrupted one.
        epochs: walks through `train`.
        lr: the highest learning rate of the schedule.
        optimizer: "sgd" (with Nesterov momentum), "adam" or "adamw".
        schedule: "one_cycle" (up for 30% of the steps, then down to nearly 0; Smith & Topin 2017), "plateau" (a tenth
            when the validation loss has not fallen for 3 epochs) or "constant".
        momentum: of SGD.
        weight_decay: pulls all weights but biases and batch norm's towards 0.
        clip: largest norm of the gradient; None leaves gradients as they are.
        label_smoothing: share of the target probability that is spread over all classes.
        dtype: number format of convolutions and matrix products; None takes `fast_dtype`.
        checkpoint: file written after each epoch. If it exists, training continues where it stopped; on the CPU that
            ends in the same weights, bit for bit, as an uninterrupted run.
        about: plain facts to store in the checkpoint for whoever loads it, such as the network's width.
        seed: of what the network itself draws (dropout). Initial weights are drawn before, order and augmentation of
            images by `train`.

    Raises:
        ValueError: an unknown option, labels that the network has no output for, or a checkpoint of another run.
        FloatingPointError: the loss is no longer a finite number.
    """
    if epochs < 1 or lr <= 0:
        raise ValueError(f"fit: epochs must be at least 1 and lr above 0, got epochs={epochs} and lr={lr}.")
    device = next(model.parameters()).device
    model.to(memory_format=torch.channels_last)
    dtype = dtype or fast_dtype(device.type)
    optim = _optimizer(optimizer, model, lr, momentum, weight_decay)
    steps = epochs * len(train)
    scheduler = _scheduler(schedule, optim, lr, steps)
    scaler = torch.amp.GradScaler(device.type) if dtype == torch.float16 else None
    history = History()
    random.seed(seed)
    torch.manual_seed(seed)

    recipe = {
        "epochs": epochs, "steps": steps, "lr": lr, "optimizer": optimizer, "schedule": schedule, "momentum": momentum,
        "weight_decay": weight_decay, "clip": clip, "label_smoothing": label_smoothing, "seed": seed,
    }  # fmt: skip
    saved = None
    if checkpoint is not None and Path(checkpoint).exists():
        saved = load_checkpoint(checkpoint)
        _same_recipe(checkpoint, saved["recipe"], recipe)
        restore(model, saved, checkpoint)
        optim.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
        if scaler and saved["scaler"]:
            scaler.load_state_dict(saved["scaler"])
        history.rows = saved["history"]
        dtype = getattr(torch, saved["dtype"])
        _set_random_state(saved["random"])
        done = "nothing is left to train" if len(history) == epochs else "training continues"
        print(f"{Path(checkpoint).name}: {len(history)} of {epochs} epochs are done; {done}.")
        print("To start anew, delete that file.")

    live = Live()
    try:
        for epoch in range(len(history), epochs):
            begin = shown = time.perf_counter()
            if hasattr(train, "set_epoch"):
                train.set_epoch(epoch)
            model.train()
            seen = hits = loss_sum = 0
            for step, (x, y) in enumerate(train, start=1):
                x, y = _place(x, y, device)
                with autocast(device.type, dtype):
                    logits = model(x)
                _check_labels(logits, y)
                loss = F.cross_entropy(logits.float(), y, label_smoothing=label_smoothing)
                loss_value = loss.item()
                if not math.isfinite(loss_value):
                    raise FloatingPointError(
                        f"fit: the loss is {loss_value} at step {step} of epoch {epoch + 1}, at learning rate "
                        f"{optim.param_groups[0]['lr']:.3g}. Most likely the learning rate is too large: try a tenth, "
                        "or gradient clipping (clip=1.0)."
                    )

                optim.zero_grad(set_to_none=True)
                if scaler:
                    scaler.scale(loss).backward()
                    scaler.unscale_(optim)  # gradients must be in their own units before they are clipped
                else:
                    loss.backward()
                if clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                if scaler:
                    scaler.step(optim)
                    scaler.update()
                else:
                    optim.step()
                rate = optim.param_groups[0]["lr"]
                if schedule == "one_cycle":
                    scheduler.step()

                seen += len(y)
                loss_sum += loss_value * len(y)
                hits += (logits.argmax(1) == y).sum().item()
                if time.perf_counter() - shown > 0.5:
                    shown = time.perf_counter()
                    live.show(f"{history.table()}\n{_progress(epoch, epochs, step, len(train), seen, shown - begin)}")

            valid_loss, valid_accuracy = evaluate(model, valid, dtype=dtype)
            if schedule == "plateau":
                scheduler.step(valid_loss)
            values = (epoch + 1, rate, loss_sum / seen, hits / seen, valid_loss, valid_accuracy)
            history.rows.append(dict(zip(History.COLUMNS, (*values, time.perf_counter() - begin), strict=True)))
            if checkpoint is not None:
                _save(checkpoint, model, optim, scheduler, scaler, history, recipe, dtype, about)
    finally:
        live.close(history.table())
    return history


def _progress(epoch, epochs, step, steps, seen, seconds) -> str:
    left = seconds / step * (steps - step + (epochs - epoch - 1) * steps)
    clock = f"{int(left) // 60}:{int(left) % 60:02d}"
    return f"{epoch + 1:5d}  {bar(step, steps)} {seen / seconds:,.0f} images/s, about {clock} left"


def evaluate(model: nn.Module, batches, *, dtype: torch.dtype | None = None) -> tuple[float, float]:
    """(mean cross-entropy, accuracy between 0 and 1) of `model` on all `batches`, in eval mode, without gradients.

    The network is left in the mode (train or eval) in which it came.
    """
    device = next(model.parameters()).device
    dtype = dtype or fast_dtype(device.type)
    was_training = model.training
    model.eval()
    seen = hits = loss_sum = 0
    with torch.inference_mode():
        for x, y in batches:
            x, y = _place(x, y, device)
            with autocast(device.type, dtype):
                logits = model(x).float()
            _check_labels(logits, y)
            loss_sum += F.cross_entropy(logits, y, reduction="sum").item()
            hits += (logits.argmax(1) == y).sum().item()
            seen += len(y)
    model.train(was_training)
    if seen == 0:
        raise ValueError("evaluate got no images: pass batches that yield at least one.")
    return loss_sum / seen, hits / seen


def _check_labels(logits: torch.Tensor, y: torch.Tensor) -> None:
    if logits.ndim != 2 or len(logits) != len(y):
        raise ValueError(f"The network must return logits (B, classes) for B = {len(y)}, got {tuple(logits.shape)}.")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= logits.shape[1]:
        raise ValueError(
            f"Labels run from {low} to {high}, but the network has {logits.shape[1]} outputs (labels 0 to "
            f"{logits.shape[1] - 1}). Build it with as many classes as the data set has."
        )


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Weights of convolutions and linear layers with decay; biases and batch norm (one-dimensional) without."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _optimizer(name: str, model, lr, momentum, weight_decay) -> torch.optim.Optimizer:
    groups = parameter_groups(model, weight_decay)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0)
    if name in ("adam", "adamw"):
        return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name](groups, lr=lr)
    raise ValueError(f"fit: optimizer={name!r} is not known. Allowed: sgd, adam, adamw.")


def _scheduler(name: str, optim, lr, steps):
    if name == "one_cycle":
        # One rate for each step and one for after the last. Momentum stays as given: one thing less to explain.
        return torch.optim.lr_scheduler.OneCycleLR(optim, max_lr=lr, total_steps=steps + 1, cycle_momentum=False)
    if name == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optim, factor=0.1, patience=3)
    if name == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optim, factor=1.0)
    raise ValueError(f"fit: schedule={name!r} is not known. Allowed: one_cycle, plateau, constant.")


# ---------------------------------------------------------------- checkpoints

_FORMAT = "resnet-course-1"


def _save(path, model, optim, scheduler, scaler, history, recipe, dtype, about) -> None:
    """Write to a temporary name, then rename: a run killed in between leaves the previous checkpoint whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "format": _FORMAT,
        "model": {key: value.contiguous() for key, value in model.state_dict().items()},
        "optimizer": optim.state_dict(),
        "scheduler": scheduler.state_dict(),
        "scaler": scaler.state_dict() if scaler else None,
        "history": history.rows,
        "recipe": recipe,
        "dtype": str(dtype).removeprefix("torch."),
        "about": about or {},
        "random": _random_state(),
    }
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(content, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: str | Path) -> dict:
    """What `fit` wrote: "model", "history" (rows), "recipe", "about" and the state of the run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or not a checkpoint of this course.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no checkpoint {path}. Train first (lesson 05 writes one).")
    try:
        # weights_only: a file from a stranger may hold numbers, but no code that would run on loading.
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes PyTorch raise nearly anything, IndexError included
        raise ValueError(
            f"{path} cannot be read as a checkpoint: it is damaged or of another kind. Delete it and train again."
        ) from error
    if not isinstance(saved, dict) or saved.get("format") != _FORMAT:
        raise ValueError(f"{path} is not a checkpoint of this course. Delete or move it, or name another file.")
    return saved


def restore(model: nn.Module, saved: dict, path: str | Path = "checkpoint") -> None:
    """Put the weights of `load_checkpoint(path)` into `model`, which must be the same architecture.

    Raises:
        ValueError: names or shapes differ; the network is then left as it was.
    """
    mine, theirs = model.state_dict(), saved["model"]
    faults = [f"{key} is missing" for key in mine if key not in theirs]
    faults += [f"{key} is not in the network" for key in theirs if key not in mine]
    faults += [
        f"{key} is {tuple(theirs[key].shape)} there and {tuple(mine[key].shape)} here"
        for key in mine
        if key in theirs and theirs[key].shape != mine[key].shape
    ]
    if faults:
        raise ValueError(
            f"{path} holds another architecture than {type(model).__name__} as built here: {faults[0]}"
            f"{f' (and {len(faults) - 1} more)' if len(faults) > 1 else ''}. "
            f"It was saved with {saved.get('about') or 'no description'}: build the network so, or delete the file."
        )
    model.load_state_dict(theirs)


def _same_recipe(path, theirs: dict, mine: dict) -> None:
    changed = [f"{key} was {theirs.get(key)!r}, now {mine[key]!r}" for key in mine if theirs.get(key) != mine[key]]
    if changed:
        raise ValueError(
            f"{path} belongs to a run with other settings: {'; '.join(changed)}. "
            "To train with the new settings, delete that file or name another; to continue, set them back."
        )


def _random_state() -> dict:
    state = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _set_random_state(state: dict) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
