"""Training: `fit`, `evaluate`, `History`, and checkpoints that a broken-off run continues from.

Any network that returns logits and any re-iterable of (x, y) batches will do: nothing here knows images.
Read `fit` first: it is one loop. What it calls stands below it, in the order in which it is called.
"""

import contextlib
import copy
import csv
import ctypes
import dataclasses
import functools
import glob
import inspect
import itertools
import math
import os
import platform
import random
import re
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from helpers.utils import Live, bar, curves, figure

# ---------------------------------------------------------------- what happened


class History:
    """One row an epoch. `rows` is a list of dicts with the keys of `COLUMNS`.

    `lr` is the learning rate of the epoch's last step, `grad_norm` the mean length of the gradient before clipping.
    Training loss and accuracy are means over the epoch's steps: of a network that still changes, in train mode and on
    augmented images. Validation figures are taken after the epoch, in eval mode. Accuracies lie between 0 and 1.
    """

    COLUMNS = ("epoch", "lr", "grad_norm", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "seconds")
    HEAD = "epoch      lr  grad norm  train loss  train acc  valid loss  valid acc  seconds"

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
        self._not_empty()
        return max(self.rows, key=lambda row: row["valid_accuracy"])["epoch"]

    def line(self, index: int) -> str:
        """Row `index` as text, in the columns of `HEAD`."""
        row = self.rows[index]
        return (
            f"{row['epoch']:5d}  {row['lr']:6.4f}  {row['grad_norm']:9.3g}  {row['train_loss']:10.3f}  "
            f"{row['train_accuracy']:9.2%}  {row['valid_loss']:10.3f}  {row['valid_accuracy']:9.2%}  "
            f"{row['seconds']:7.1f}"
        )

    def table(self) -> str:
        return "\n".join([self.HEAD, *map(self.line, range(len(self)))])

    def save(self, path: str | Path) -> None:
        """Write a table (CSV, all digits) that spreadsheets and pandas read; an existing file is replaced."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)

    def plot(self, title: str, data: str) -> None:
        """Loss and accuracy of training and validation, learning rate and gradient norm, over the epochs."""
        self._not_empty()
        _, axes = figure(title, data, 2, 2, size=(10, 6), height_ratios=(3, 2), sharex=True)
        for ax, what in zip(axes[0], ("loss", "accuracy"), strict=True):
            series = {"training": self[f"train_{what}"], "validation": self[f"valid_{what}"]}
            curves(series, title=what.capitalize(), data=None, xlabel="", ylabel=what, ax=ax)
        for ax, (column, ylabel) in zip(
            axes[1], (("lr", "learning rate"), ("grad_norm", "gradient norm")), strict=True
        ):
            curves({column: self[column]}, title="", data=None, xlabel="epoch", ylabel=ylabel, ax=ax)

    def _not_empty(self) -> None:
        if not self.rows:
            raise ValueError("This History is empty: no epoch was finished. Train for at least one.")


# ---------------------------------------------------------------- speed


@functools.cache
def fast_dtype(device_type: str) -> torch.dtype:
    """The number format in which convolutions run fastest on this machine, without harm to training.

    GPUs from compute capability 8 on: bfloat16; older ones: float16 (fit then scales the loss); Apple: float32.
    On a CPU it is measured: without the instructions for it, bfloat16 is several times slower than float32.
    The choice is made once and said in one line.
    """
    dtype, why = torch.float32, "the usual one"
    if device_type == "cuda":
        major, minor = torch.cuda.get_device_capability()
        dtype = torch.bfloat16 if major >= 8 else torch.float16
        why = f"fast on a GPU of compute capability {major}.{minor}"
    elif device_type == "cpu":
        gain = _bfloat16_gain()
        # A smaller gain is not worth the lost digits, and could turn out the other way in the next process.
        dtype = torch.bfloat16 if gain > 1.2 else torch.float32
        why = f"bfloat16 was measured at {gain:.1f} times the speed of float32 on this CPU"
    print(f"Number format: {_name(dtype)} ({why}).")
    return dtype


def _bfloat16_gain() -> float:
    """Seconds of a convolution, forward and backward, in float32, divided by those in bfloat16."""
    with torch.random.fork_rng(devices=[]):  # leaves the caller's random numbers alone
        layer = nn.Conv2d(256, 256, 3, padding=1).to(memory_format=torch.channels_last)
        x = torch.randn(64, 256, 8, 8).to(memory_format=torch.channels_last)
    seconds = {torch.float32: [], torch.bfloat16: []}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine several threads wait for each other, and that hides the difference
    try:
        for _ in range(6):  # by turns, so that whatever else runs here slows both alike
            for dtype, times in seconds.items():
                begin = time.perf_counter()
                with autocast("cpu", dtype):
                    layer(x).float().square().mean().backward()
                times.append(time.perf_counter() - begin)
    finally:
        torch.set_num_threads(threads)
    return min(seconds[torch.float32]) / min(seconds[torch.bfloat16])


def autocast(device_type: str, dtype: torch.dtype):
    """Context in which matrix products and convolutions run in `dtype`; does nothing for float32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device_type, dtype=dtype)


@functools.cache
def keep_large_blocks() -> bool:
    """Let the C library keep large blocks of memory for the next step, instead of returning each to the system.

    Linux with glibc only; elsewhere nothing happens. The price: memory once used stays with this process.
    Without it each step gets its feature maps as fresh pages, which the system fills with zeros first.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    trim_threshold, mmap_max = -1, -4  # names of options in malloc.h; man 3 mallopt
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(mmap_max, 0) and libc.mallopt(trim_threshold, 2**31 - 1))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# ---------------------------------------------------------------- memory


def _explain_out_of_memory(function):
    """Turn running out of memory into advice, for functions of (network, batches, ...).

    Frees what the failed step has allocated: a notebook keeps the last error, and with it the step's feature maps, so
    that a second try with smaller batches would fail as well.
    """

    @functools.wraps(function)
    def explained(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            if not re.search("out of memory|you tried to allocate", str(error)):
                raise
            traceback.clear_frames(error.__traceback__)
            _, batches, *_ = inspect.signature(function).bind(*args, **kwargs).arguments.values()
            advice = _memory_advice(str(error), getattr(batches, "batch_size", None))
            raise MemoryError(f"{function.__name__}: {advice}") from None

    return explained


def _memory_advice(message: str, batch_size: int | None) -> str:
    first = message.splitlines()[0].strip().removesuffix(".")
    smaller = "smaller batches"
    if batch_size:
        smaller = f"batches of {max(1, batch_size // 2)} instead of {batch_size} images, and half the learning rate"
    return (
        f"the memory is full ({first}). Try {smaller}, or a narrower network. If another notebook holds memory, shut "
        "its kernel down."
    )


# ---------------------------------------------------------------- the loop


@_explain_out_of_memory
def fit(
    model: nn.Module,
    train,
    valid,
    epochs: int,
    lr: float,
    *,
    optimizer: str | Callable[[list[dict], float], torch.optim.Optimizer] = "sgd",
    schedule: str = "one_cycle",
    momentum: float = 0.9,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 5e-4,
    clip: float | None = None,
    label_smoothing: float = 0.0,
    ema: float | None = None,
    dtype: torch.dtype | None = None,
    compile: bool = False,
    checkpoint: str | Path | None = None,
    about: dict | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> History:
    """Train `model` in place and return its History.

    Whatever happens, `model` ends as it was after a finished epoch (before the first: as it came). Interrupted from
    the keyboard, fit says what it kept and returns the History so far; in the first epoch there is nothing to keep,
    and the interrupt goes on to the caller.

    Args:
        model: returns logits (B, classes); trained on the device where it is.
        train, valid: sized, re-iterable batches (x, y): x float (B, ...), y whole numbers (B,). If `train` has
            `set_epoch`, it is told the epoch before each walk, so that a continued run sees the same batches as an
            uninterrupted one. A DataLoader does, too, as long as its workers are not persistent.
        epochs: walks through `train`.
        lr: the highest learning rate of the schedule.
        optimizer: "sgd" (with Nesterov momentum), "adam" or "adamw"; or a function (groups, lr) that returns another
            optimiser of torch's kind. It gets the parameters as `parameter_groups` divides them; `momentum` and `betas`
            are then its own affair. With a checkpoint, its `state_dict` must hold all that it remembers.
        schedule: "one_cycle" (up for 30% of the steps, then down to nearly 0; Smith & Topin 2017), "cosine" (down to
            nearly 0 along half a cosine; Loshchilov & Hutter 2016), "plateau" (a tenth when the validation loss has not
            fallen for 3 epochs) or "constant".
        momentum: of SGD.
        betas: of Adam and AdamW: how much of the running means of gradient and squared gradient each step keeps.
        weight_decay: pulls all weights but biases and batch norm's towards 0.
        clip: largest norm of the gradient; None leaves gradients as they are.
        label_smoothing: share of the target probability that is spread over all classes.
        ema: share that the exponential moving average of the weights keeps at each step, such as 0.999. This average
            is what is validated, and what `model` holds in the end. None trains without.
        dtype: number format of convolutions and matrix products; None takes `fast_dtype`.
        compile: run the training steps through torch.compile. Takes a minute first; pays on GPUs, on few CPUs.
        checkpoint: file written after each epoch. If it exists, training continues where it stopped; on the CPU that
            ends in the same weights, bit for bit, as an uninterrupted run.
        about: plain facts to store in the checkpoint for whoever loads it, such as the network's width.
        seed: of what the network itself draws (dropout). Initial weights are drawn before, order and augmentation of
            images by `train`. On the CPU the same seed gives the same run; on a GPU only after
            `torch.use_deterministic_algorithms(True)`, with the environment variable CUBLAS_WORKSPACE_CONFIG=:4096:8.
        quiet: print warnings only: no progress, no line an epoch.

    Raises:
        ValueError: an unknown option, a network or batches that cannot be trained (frozen, empty, on another device,
            labels without an output, one image for batch norm), or a checkpoint that is not of this run.
        FloatingPointError: the loss is no longer a finite number.
        MemoryError: a step does not fit into the memory of the device; the message names a batch size to try.
    """
    device = _check_network(model)
    _check_options(train, epochs, lr, momentum, ema, clip, label_smoothing)
    _check_last_batch(train, model)
    lr = float(lr)
    model.to(memory_format=torch.channels_last)
    recipe = {
        "epochs": epochs, "steps": epochs * len(train), "lr": lr, "optimizer": _own_name(optimizer),
        "schedule": schedule, "momentum": momentum, "betas": list(betas), "weight_decay": weight_decay, "clip": clip,
        "label_smoothing": label_smoothing, "ema": ema, "compile": compile, "seed": seed,
        "trainable parameters": sum(p.numel() for p in model.parameters() if p.requires_grad), **_facts(train),
    }  # fmt: skip
    if checkpoint is not None:
        _check_plain(recipe | {"about": about}, "fit")
    saved = _saved_run(checkpoint, recipe, model, dtype)
    if dtype is None:
        known = saved is not None and saved["device"] == device.type
        dtype = getattr(torch, saved["dtype"]) if known else fast_dtype(device.type)
    if device.type == "cpu":
        keep_large_blocks()

    optim = _optimizer(optimizer, model, lr, momentum, betas, weight_decay, dtype)
    scheduler = _scheduler(schedule, optim, lr, recipe["steps"])
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)  # does nothing when not enabled
    average = copy.deepcopy(model) if ema else model
    forward = torch.compile(model) if compile else model
    history = History()
    _seed(seed)
    state = _State(model, average, optim, scheduler, scaler, history, train, device)
    if saved is not None:
        state.load(saved)
    reached = _copy(average)

    live = Live(silent=quiet)
    say = print if quiet else live.keep  # what must be seen
    live.keep(history.table())
    warned = False
    try:
        for epoch in range(len(history), epochs):
            begin = shown = time.perf_counter()
            if hasattr(train, "set_epoch"):
                train.set_epoch(epoch)
            model.train()
            step = seen = hits = loss_sum = 0
            norms = []
            for step, (x, y) in enumerate(train, start=1):
                x, y = _place(x, y, device)
                _check_batch_norm(len(y), model)
                with autocast(device.type, dtype):
                    logits = forward(x)
                _check_labels(logits, y)
                loss = F.cross_entropy(logits.float(), y, label_smoothing=label_smoothing)

                optim.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()
                scaler.unscale_(optim)  # gradients must be in their own units before they are measured and clipped
                norm = _clip(model, clip)
                rate = optim.param_groups[0]["lr"]
                loss_value, norm_value = torch.stack([loss.detach(), norm]).tolist()
                overflow = scaler.is_enabled() and scaler.get_scale() >= 1  # not yet a reason to stop
                if not math.isfinite(loss_value) or not (math.isfinite(norm_value) or overflow):
                    where = f"step {step} of epoch {epoch + 1}, at learning rate {rate:.3g}"
                    raise FloatingPointError(_diagnosis(loss_value, norm_value, where, x, dtype))
                if math.isfinite(norm_value):  # with float16 gradients may overflow: that step is left out,
                    norms.append(norm_value)
                    scaler.step(optim)
                    if schedule != "plateau":
                        scheduler.step()
                    if ema:
                        _move_average(average, model, ema, epoch * len(train) + step)
                scaler.update()  # and the scaler multiplies the next losses by less

                seen += len(y)
                loss_sum += loss_value * len(y)
                hits += (logits.argmax(1) == y).sum()
                if time.perf_counter() - shown > 0.5:
                    shown = time.perf_counter()
                    live.show(_progress(epoch, epochs, step, len(train), seen, shown - begin))
            _check_walk(step, len(train), epoch)

            valid_loss, valid_accuracy, valid_seen = _measure(average, valid, device, dtype)
            if not math.isfinite(valid_loss):
                where = f"validation after epoch {epoch + 1}, at learning rate {rate:.3g}"
                raise FloatingPointError(_diagnosis(valid_loss, 0.0, where, x, dtype))
            if schedule == "plateau":
                scheduler.step(valid_loss)
            train_accuracy, norm = float(hits) / seen, sum(norms) / max(len(norms), 1)
            values = (epoch + 1, rate, norm, loss_sum / seen, train_accuracy, valid_loss, valid_accuracy)
            reached = _copy(average)
            history.rows.append(dict(zip(History.COLUMNS, (*values, time.perf_counter() - begin), strict=True)))
            if checkpoint is not None:
                _write(checkpoint, state.content() | {"recipe": recipe, "dtype": _name(dtype), "about": about or {}})
            live.keep(history.line(-1))
            warning = _chance(train_accuracy, seen, valid_accuracy, valid_seen, logits.shape[1], epoch + 1)
            if warning and not warned:
                say(warning)
                warned = True
    except KeyboardInterrupt:
        if len(history) == 0:
            raise
        again = "continues after it" if checkpoint is not None else "trains this network from here, as a new run"
        say(f"Interrupted: network and History are as after epoch {len(history)} of {epochs}. The same call {again}.")
    finally:
        model.load_state_dict(reached)  # of the last finished epoch, whatever has happened since
        live.close("")
    return history


def _check_network(model: nn.Module) -> torch.device:
    """The one device that `model` is on; ValueError for a network that cannot be trained."""
    name, parameters = type(model).__name__, list(model.parameters())
    if not any(p.requires_grad for p in parameters):
        raise ValueError(
            f"fit: {name} has no parameter to train: {'all are frozen' if parameters else 'it has none'}. "
            "Unfreeze those that shall learn (p.requires_grad = True, or model.requires_grad_())."
        )
    devices = {str(t.device) for t in itertools.chain(parameters, model.buffers())}
    if len(devices) > 1:
        raise ValueError(
            f"fit: {name} lies on several devices ({', '.join(sorted(devices))}). Move it: model.to(device)."
        )
    if not all(torch.isfinite(p).all() for p in parameters):
        raise ValueError(f"fit: {name} holds weights that are not finite numbers. Build it anew before training.")
    return parameters[0].device


def _check_options(train, epochs, lr, momentum, ema, clip, label_smoothing) -> None:
    if not hasattr(train, "__len__") or not hasattr(train, "__iter__"):
        raise ValueError("fit: train must have a length and allow a new walk each epoch: pass a DataLoader or Batches.")
    allowed = {
        f"epochs must be at least 1 and lr above 0, got epochs={epochs} and lr={lr}": epochs >= 1 and 0 < lr < math.inf,
        f"momentum must lie in [0, 1), got {momentum}": 0 <= momentum < 1,
        f"ema must lie between 0 and 1, such as 0.999, or be None, got {ema}": ema is None or 0 < ema < 1,
        f"clip must be above 0 or None, got {clip}": clip is None or clip > 0,
        f"label_smoothing must lie in [0, 1), got {label_smoothing}": 0 <= label_smoothing < 1,
        "train yields no batch: it is empty (or drop_last left the only one out)": len(train) > 0,
    }
    for fault, right in allowed.items():
        if not right:
            raise ValueError(f"fit: {fault}.")


def _check_last_batch(train, model) -> None:
    """Refuse a last batch of one image before training, if `train` tells its sizes as a DataLoader does."""
    size, images = getattr(train, "batch_size", None), getattr(train, "sampler", getattr(train, "dataset", None))
    known = size and hasattr(images, "__len__") and not getattr(train, "drop_last", False)
    if known and len(images) % size == 1 % size:
        _check_batch_norm(1, model)


def _check_batch_norm(count: int, model) -> None:
    if count == 1 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        raise ValueError(
            "fit: the last batch holds one image, of which batch norm cannot take statistics. "
            "Leave it out (drop_last=True) or choose another batch size."
        )


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - of augmentations that others wrote with it
    torch.manual_seed(seed)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Weights of convolutions and linear layers with decay; biases and batch norm (one-dimensional) without."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _optimizer(name: str | Callable, model, lr, momentum, betas, weight_decay, dtype) -> torch.optim.Optimizer:
    groups = parameter_groups(model, weight_decay)
    if callable(name):
        made = name(groups, lr)
        if not isinstance(made, torch.optim.Optimizer):
            raise ValueError(f"fit: optimizer must return a torch.optim.Optimizer, got {type(made).__name__}.")
        return made
    # Fused: one pass over memory instead of several. It rounds the last digit otherwise, so float32 keeps to the form
    # that a loop written by hand would use.
    fused = dtype == torch.bfloat16 or None
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=fused)
    if name in ("adam", "adamw"):
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
        return kind(groups, lr=lr, betas=betas, fused=fused)
    raise ValueError(f"fit: optimizer={name!r} is not known. Allowed: sgd, adam, adamw, or a function.")


def _own_name(optimizer: str | Callable) -> str:
    return optimizer if isinstance(optimizer, str) else getattr(optimizer, "__name__", type(optimizer).__name__)


def _scheduler(name: str, optim, lr, steps):
    if name == "one_cycle":
        # One rate for each step and one for after the last. Momentum stays as given: one thing less to explain.
        return torch.optim.lr_scheduler.OneCycleLR(optim, max_lr=lr, total_steps=steps + 1, cycle_momentum=False)
    if name == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optim, T_max=steps)
    if name == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optim, factor=0.1, patience=3)
    if name == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optim, factor=1.0)
    raise ValueError(f"fit: schedule={name!r} is not known. Allowed: one_cycle, cosine, plateau, constant.")


def _place(x: torch.Tensor, y: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(x, y) on `device`, images in channels_last order; ValueError for what is no batch."""
    if not x.is_floating_point():
        raise ValueError(f"Images must be float and normalised, got {x.dtype}: divide by 255, subtract the mean.")
    if y.is_floating_point() or y.ndim != 1 or len(x) != len(y) or len(y) == 0:
        raise ValueError(
            f"A batch must be images (B, ...) with B >= 1 and labels (B,) of whole numbers, "
            f"got {tuple(x.shape)} and {tuple(y.shape)} of {y.dtype}."
        )
    if x.device.type != "cpu" and x.device != device:
        raise ValueError(
            f"The network is on {device}, the images on {x.device}. Move the network before training: "
            f"model.to('{x.device}')."
        )
    order = torch.channels_last if x.ndim == 4 else torch.preserve_format
    return x.to(device, memory_format=order), y.to(device, torch.int64)


def _check_labels(logits: torch.Tensor, y: torch.Tensor) -> None:
    if logits.ndim != 2 or len(logits) != len(y):
        raise ValueError(f"The network must return logits (B, classes) for B = {len(y)}, got {tuple(logits.shape)}.")
    low, high = torch.stack(torch.aminmax(y)).tolist()
    if low < 0 or high >= logits.shape[1]:
        raise ValueError(
            f"Labels run from {low} to {high}, but the network has {logits.shape[1]} outputs (labels 0 to "
            f"{logits.shape[1] - 1}). Build it with as many classes as the data set has."
        )


def _clip(model: nn.Module, limit: float | None) -> torch.Tensor:
    """Length of the gradient over all parameters; if it is above `limit`, the gradient is shortened to that."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients).float()
    if limit is not None:
        nn.utils.clip_grads_with_norm_(model.parameters(), limit, norm)
    return norm


def _diagnosis(loss: float, norm: float, where: str, x: torch.Tensor, dtype: torch.dtype) -> str:
    """What is not finite, where, and the most likely cause of it."""
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's length is {norm}"
    if not torch.isfinite(x).all():
        why = "The images of this batch hold values that are not finite: were they divided by a deviation of 0?"
    else:
        why = "Most likely the learning rate is too large: try a tenth, or gradient clipping (clip=1.0)."
        if dtype == torch.float16:
            why += " Or a number exceeded float16's 65,504: try dtype=torch.float32."
    return f"fit: {what} at {where}. {why} The network is as after the last finished epoch."


def _move_average(average: nn.Module, model: nn.Module, share: float, step: int) -> None:
    """average <- share * average + (1 - share) * model, for weights and batch norm's statistics alike.

    In the first steps the share is smaller, (1 + step) / (10 + step), so that the initial weights are soon forgotten.
    """
    share = min(share, (1 + step) / (10 + step))
    with torch.no_grad():
        pairs = (zip(kind(average), kind(model), strict=True) for kind in (nn.Module.parameters, nn.Module.buffers))
        for mean, value in itertools.chain(*pairs):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - share)
            else:
                mean.copy_(value)  # batch norm's count of batches


def _progress(epoch, epochs, step, steps, seen, seconds) -> str:
    left = seconds / step * (steps - step + (epochs - epoch - 1) * steps)
    clock = f"{int(left) // 60}:{int(left) % 60:02d}"
    return f"{epoch + 1:5d}  {bar(step, steps)} {seen / seconds:,.0f} images/s, about {clock} left"


def _check_walk(walked: int, promised: int, epoch: int) -> None:
    if walked != promised:
        raise ValueError(
            f"fit: epoch {epoch + 1} had {walked} batches, but len(train) is {promised}. The schedule needs the true "
            "number, and each epoch a new walk: pass a DataLoader or Batches."
        )


@_explain_out_of_memory
def evaluate(model: nn.Module, batches, *, dtype: torch.dtype | None = None) -> tuple[float, float]:
    """(mean cross-entropy, accuracy between 0 and 1) of `model` on all `batches`, in eval mode, without gradients.

    The network is left in the mode (train or eval) in which it came.

    Raises:
        MemoryError: a batch does not fit into the memory of the device.
    """
    device = next(model.parameters()).device
    return _measure(model, batches, device, dtype or fast_dtype(device.type))[:2]


def _measure(model, batches, device, dtype) -> tuple[float, float, int]:
    """(mean cross-entropy, accuracy, number of images)."""
    was_training = model.training
    model.eval()
    seen = hits = loss_sum = 0
    try:
        with torch.inference_mode():
            for x, y in batches:
                x, y = _place(x, y, device)
                with autocast(device.type, dtype):
                    logits = model(x).float()
                _check_labels(logits, y)
                loss_sum += F.cross_entropy(logits, y, reduction="sum").item()
                hits += (logits.argmax(1) == y).sum().item()
                seen += len(y)
    finally:
        model.train(was_training)
    if seen == 0:
        raise ValueError("evaluate got no images: pass batches that yield at least one.")
    return loss_sum / seen, hits / seen, seen


def _chance(train_accuracy, train_seen, valid_accuracy, valid_seen, classes, epoch) -> str:
    """A warning if the network does no better than guessing, "" otherwise.

    Better than guessing means: by more than three standard errors. Nothing is said before 100 images a class were
    shown, all epochs together: a run that short may not have learned anything yet.
    """

    def guessing(accuracy, count):
        chance = 1 / classes
        return accuracy < chance + 3 * math.sqrt(chance * (1 - chance) / count)

    if classes < 2 or epoch * train_seen < 100 * classes or not guessing(valid_accuracy, valid_seen):
        return ""
    shown = f"Warning: after epoch {epoch} {valid_accuracy:.1%} of {valid_seen:,} validation images are right"
    shown += f"; guessing one of {classes} classes gives {1 / classes:.1%}. "
    if guessing(train_accuracy, train_seen):
        return f"{shown}Training images: {train_accuracy:.1%}. Is lr far too large or too small? Do labels fit images?"
    if train_accuracy < 2.5 / classes or valid_seen < 100 * classes:
        return ""  # it has begun to learn, or there are too few images to tell
    return (
        f"{shown}Training images: {train_accuracy:.1%}. Are validation images normalised as the training images are, "
        "and their classes numbered the same? (In a first epoch, batch norm's statistics may lag behind.)"
    )


# ---------------------------------------------------------------- checkpoints

_FORMAT = "resnet-course-2"
_KEYS = (
    *("format", "model", "raw", "optimizer", "scheduler", "scaler", "history", "random", "device"),  # _State.content
    *("recipe", "dtype", "about"),  # what the run was, for those who load it
)


def _copy(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


@dataclasses.dataclass
class _State:
    """All that changes while training. A run continues bit for bit from exactly this."""

    model: nn.Module
    average: nn.Module  # of the weights; the same object as `model` when there is none
    optimizer: torch.optim.Optimizer
    scheduler: object
    scaler: torch.amp.GradScaler
    history: History
    train: object
    device: torch.device

    def content(self) -> dict:
        return {
            "format": _FORMAT,
            "model": self.average.state_dict(),  # what was validated: this is the network to use
            "raw": self.model.state_dict() if self.average is not self.model else None,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": self.history.rows,
            "random": _random_state(self.device, self.train),
            "device": self.device.type,
        }

    def load(self, saved: dict) -> None:
        self.average.load_state_dict(saved["model"])
        if self.average is not self.model:
            self.model.load_state_dict(saved["raw"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        if saved["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(saved["scaler"])
        self.history.rows[:] = saved["history"]
        _set_random_state(saved["random"], self.device, self.train)


def _generators(train) -> list[torch.Generator]:
    """Sources of random numbers that belong to the batches: a DataLoader, or its sampler, may have one."""
    owned = [getattr(holder, "generator", None) for holder in (train, getattr(train, "sampler", None))]
    return [generator for generator in owned if isinstance(generator, torch.Generator)]


def _random_state(device: torch.device, train) -> dict:
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    key = numpy_state["state"]["key"].tolist()  # plain numbers: all that a checkpoint may hold
    state = {
        "python": random.getstate(),
        "numpy": {**numpy_state, "state": {**numpy_state["state"], "key": key}},
        "torch": torch.get_rng_state(),
        "batches": [generator.get_state() for generator in _generators(train)],
    }
    if device.type != "cpu":
        state[device.type] = torch.get_device_module(device).get_rng_state()
    return state


def _set_random_state(state: dict, device: torch.device, train) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    for generator, saved in zip(_generators(train), state["batches"], strict=False):
        generator.set_state(saved)
    if device.type in state and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state[device.type])


def _write(path, content: dict) -> None:
    """Write to a temporary name, then rename: a run killed in between leaves the previous checkpoint whole."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(content, temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # onto the disk before the name points to it: the power may fail, too
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
    remedy = "Delete or move it and train again, or name another file."
    try:
        with zipfile.ZipFile(path) as file:  # the form of PyTorch's files; it holds check sums, which torch.load skips
            damaged = file.testzip()
        # weights_only: a file from a stranger may hold numbers, but no code that would run on loading.
        saved = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception:  # a damaged file makes PyTorch raise nearly anything, IndexError included
        damaged = "all"
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
    _same_network(model, saved, path)
    model.load_state_dict(saved["model"])


def _same_network(model: nn.Module, saved: dict, path) -> None:
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


def _check_plain(facts, name: str) -> None:
    """Refuse before training what a checkpoint could hold, but would not give back with weights_only=True."""
    if isinstance(facts, dict):
        for key, value in facts.items():
            _check_plain(value, f"{name}[{key!r}]")
    elif isinstance(facts, list | tuple):
        for value in facts:
            _check_plain(value, name)
    elif type(facts) not in (type(None), bool, int, float, str, torch.Tensor):
        raise ValueError(
            f"fit: a checkpoint holds plain facts only, but {name} has {facts!r} of {type(facts)}. "
            "Convert it: .item() makes a number, .tolist() a list, str() a text."
        )


def _facts(train) -> dict:
    """What a continued run can compare its batches by, as far as they tell."""
    facts = {name: getattr(train, name) for name in ("batch_size", "seed", "drop_last") if hasattr(train, name)}
    if hasattr(getattr(train, "dataset", None), "__len__"):
        facts["images"] = len(train.dataset)
    return {f"train.{name}": value for name, value in facts.items()}


def _same_recipe(path, theirs: dict, mine: dict) -> None:
    changed = [
        f"{key} was {theirs[key]!r}, now {mine[key]!r}" for key in mine if theirs.get(key, mine[key]) != mine[key]
    ]
    if changed:
        raise ValueError(
            f"{path} belongs to a run with other settings: {'; '.join(changed)}. "
            "To train with the new settings, delete that file or name another; to continue, set them back."
        )


def _saved_run(checkpoint, recipe: dict, model: nn.Module, dtype: torch.dtype | None) -> dict | None:
    """The checkpoint to continue from, None if there is none yet; ValueError if it is of another run."""
    if checkpoint is None:
        return None
    path = Path(checkpoint)
    path.parent.mkdir(parents=True, exist_ok=True)
    for rest in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):  # of runs that were killed while writing
        with contextlib.suppress(OSError):
            rest.unlink()
    if not path.exists():
        return None
    saved = load_checkpoint(path)
    _same_network(model, saved, path)
    theirs = saved["recipe"] | {"dtype": saved["dtype"]}
    _same_recipe(path, theirs, recipe | ({"dtype": _name(dtype)} if dtype is not None else {}))
    done = len(saved["history"])
    left = "nothing is left to train" if done == recipe["epochs"] else "training continues"
    print(f"{path.name}: {done} of {recipe['epochs']} epochs are done; {left}.")
    print("To start anew, delete that file.")
    return saved
