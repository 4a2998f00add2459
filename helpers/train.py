"""Training: one epoch, `fit`, `evaluate`, `History`.

Any network that returns logits and any re-iterable of (x, y) batches will do: nothing here knows images. The loop comes
first. What guards it is in guard.py, what keeps and resumes it in checkpoint.py.
"""

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from helpers.checkpoint import Run
from helpers.guard import Meter, eval_mode, memory_advice, modes_kept, ready
from helpers.precision import autocast, fast_dtype, name_of
from helpers.utils import Live, curves, figure


def _train_epoch(model, batches, optimizer, scaler, after_step, meter, dtype, clip, label_smoothing) -> None:
    """What training is. Nothing in here waits for the device: `meter` adds up there, and is read elsewhere."""
    for x, y in batches:  # on the device, checked
        with autocast(meter.device.type, dtype):
            logits = model(x)
        loss = F.cross_entropy(logits.float(), y, label_smoothing=label_smoothing)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)  # gradients in their own units, before they are measured and clipped
        norm = nn.utils.clip_grad_norm_(model.parameters(), clip or math.inf)
        meter.add(loss, logits, y, norm, optimizer.param_groups[0]["lr"])
        scaler.step(optimizer)
        scaler.update()
        after_step()


def fit(
    model: nn.Module,
    train,
    valid,
    epochs: int,
    lr: float,
    *,
    optimizer: str | Callable[[list[dict], float], torch.optim.Optimizer] = "sgd",
    schedule: str = "one_cycle",
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 5e-4,
    clip: float | None = None,
    label_smoothing: float = 0.0,
    dtype: torch.dtype | None = None,
    checkpoint: str | Path | None = None,
    about: dict | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> "History":
    """Train `model` in place and return its History.

    Whatever happens, `model` ends as it was after a finished epoch (before the first: as it came). Interrupted from
    the keyboard, fit says what it kept and returns the History so far; in the first epoch there is nothing to keep,
    and the interrupt goes on to the caller.

    Args:
        model: returns logits (B, classes); trained on the device where it is. Parts that are in eval mode while the
            network itself is in train mode stay so: that is how batch norm is frozen.
        train, valid: sized, re-iterable batches (x, y): x float (B, ...), y whole numbers (B,). If `train` has
            `set_epoch`, it is told the epoch before each pass, so that a resumed run sees the same batches as an
            uninterrupted one. A DataLoader does, too, as long as its workers are not persistent.
        epochs: passes through `train`.
        lr: the highest learning rate of the schedule.
        optimizer: "sgd" (Nesterov momentum 0.9), "adam" or "adamw"; or a function (groups, lr) that returns another
            torch.optim.Optimizer for the groups of `parameter_groups`.
        schedule: "one_cycle" (up for 30% of the steps, then down to nearly 0; Smith & Topin 2017), "cosine" (down to
            nearly 0 along half a cosine; Loshchilov & Hutter 2016), "plateau" (a tenth when the validation loss has not
            fallen for 3 epochs) or "constant".
        betas: of Adam and AdamW.
        weight_decay: pulls all weights but biases and batch norm's towards 0.
        clip: largest norm of the gradient; None leaves gradients as they are.
        label_smoothing: share of the target probability that is spread over all classes (Szegedy et al. 2015).
        dtype: precision of convolutions and matrix products; None takes `fast_dtype`.
        checkpoint: file written after each epoch. If it exists, training goes on where it stopped; on the CPU that
            ends in the same weights, bit for bit, as an uninterrupted run. It must be of this same run.
        about: plain facts to store in the checkpoint for whoever loads it, such as the network's width.
        seed: of what the network itself draws (dropout). Initial weights are drawn before, order and augmentation of
            images by `train`. On the CPU the same seed gives the same run; on a GPU only after
            `torch.use_deterministic_algorithms(True)`, with the environment variable CUBLAS_WORKSPACE_CONFIG=:4096:8.
        quiet: no progress and no line an epoch; only what must be seen.

    Raises:
        ValueError: an unknown option, a network or batches that cannot be trained, or a checkpoint that is of another
            run or is being written by one.
        FloatingPointError: the loss is no longer a finite number; names the step, its learning rate and likely cause.
        OSError: the checkpoint cannot be written.
    """
    _check(model, train, epochs, lr, clip, label_smoothing)
    device, lr, steps = next(model.parameters()).device, float(lr), epochs * len(train)
    model.to(memory_format=torch.channels_last)
    torch.backends.cudnn.benchmark = True  # cuDNN tries its algorithms once for each shape
    frozen = [part for part in model.modules() if model.training and not part.training]
    history, live = History(), Live(silent=quiet)
    say = print if quiet else live.keep  # what must be seen
    with modes_kept(model), torch.enable_grad(), memory_advice(train), Run(checkpoint, model, train, valid) as run:
        dtype = dtype or run.dtype or fast_dtype(device.type)
        optim = _optimizer(optimizer, parameter_groups(model, weight_decay), lr, betas)
        scheduler = _scheduler(schedule, optim, lr, steps)
        scaler = torch.amp.GradScaler(device.type, init_scale=1024, enabled=dtype == torch.float16)
        after_step = scheduler.step if schedule != "plateau" else lambda: None
        options = {
            "epochs": epochs, "steps": steps, "lr": lr, "schedule": schedule, "clip": clip, "seed": seed,
            "label_smoothing": label_smoothing, "dtype": name_of(dtype), "optimizer": optimizer, "about": about or {},
        }  # fmt: skip
        run.begin(options, history.rows, optimizer=optim, scheduler=scheduler, scaler=scaler)
        finished = list(history.rows), _copy(model)
        live.keep(history.table())
        try:
            for epoch in range(len(history), epochs):
                begin = time.perf_counter()
                if hasattr(train, "set_epoch"):
                    train.set_epoch(epoch)
                model.train()
                for part in frozen:
                    part.training = False
                meter = Meter(device, f"epoch {epoch + 1}", scaler)
                batches = ready(train, model, dtype, meter, live, (epoch, epochs), run.first_batch)
                _train_epoch(model, batches, optim, scaler, after_step, meter, dtype, clip, label_smoothing)
                result = meter.read()
                _check_num_batches(meter.steps, train, epoch)
                valid_loss, valid_accuracy = _measure(model, valid, dtype, f"validation after epoch {epoch + 1}")
                if schedule == "plateau":
                    scheduler.step(valid_loss)
                values = (
                    *(epoch + 1, meter.rates[-1], result["norm"], result["loss"], result["accuracy"]),
                    *(valid_loss, valid_accuracy, time.perf_counter() - begin),
                )
                row = dict(zip(History.COLUMNS, values, strict=True))
                finished = [*finished[0], row], _copy(model)  # one assignment: an interrupt finds both or neither
                history.rows[:] = finished[0]
                run.save(say)
                live.keep(history.line(-1))
        except KeyboardInterrupt:
            if not finished[0]:
                raise
            again = "continues after it" if checkpoint is not None else "trains this network from here, as a new run"
            done = f"network and History are as after epoch {len(finished[0])} of {epochs}"
            say(f"Interrupted: {done}. The same call {again}.")
        finally:
            history.rows[:] = finished[0]
            model.load_state_dict(finished[1])
            live.close("")
    return history


def evaluate(model: nn.Module, batches, *, dtype: torch.dtype | None = None) -> tuple[float, float]:
    """(mean cross-entropy, accuracy between 0 and 1) of `model` on all `batches`, in eval mode, without gradients.

    Each part of the network is left in the mode in which it came.

    Raises:
        ValueError: no images, or labels that the network has no output for.
        FloatingPointError: the loss is not a finite number.
    """
    dtype = dtype or fast_dtype(next(model.parameters()).device.type)
    with memory_advice(batches):
        return _measure(model, batches, dtype, "evaluation")


def _measure(model, batches, dtype, where: str) -> tuple[float, float]:
    """(mean cross-entropy, accuracy); waits for the device once, at the end."""
    meter = Meter(next(model.parameters()).device, where)
    with eval_mode(model), torch.inference_mode():
        for x, y in ready(batches, model, dtype, meter):
            with autocast(meter.device.type, dtype):
                logits = model(x)
            meter.add(F.cross_entropy(logits.float(), y), logits, y)
    result = meter.read()
    return result["loss"], result["accuracy"]


def _check(model, train, epochs, lr, clip, label_smoothing) -> None:
    name, parameters = type(model).__name__, list(model.parameters())
    if not any(p.requires_grad for p in parameters):
        raise ValueError(f"fit: {name} has no parameter to train. Unfreeze some: p.requires_grad = True.")
    if len({t.device for t in [*parameters, *model.buffers()]}) > 1:
        raise ValueError(f"fit: {name} lies on several devices. Move it: model.to(device).")
    if not torch.stack([p.isfinite().all() for p in parameters]).all():
        raise ValueError(f"fit: {name} holds weights that are not finite numbers. Build it anew.")
    if not hasattr(train, "__len__") or not hasattr(train, "__iter__"):
        raise ValueError("fit: train needs a length and a fresh pass each epoch: pass a DataLoader or Batches.")
    if len(train) == 0:
        raise ValueError("fit: train yields no batch: it is empty (or drop_last left the only one out).")
    if epochs < 1 or not 0 < lr < math.inf:
        raise ValueError(f"fit: epochs must be at least 1 and lr above 0, got epochs={epochs} and lr={lr}.")
    if clip is not None and not clip > 0:
        raise ValueError(f"fit: clip must be above 0 or None, got {clip}.")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"fit: label_smoothing must lie in [0, 1), got {label_smoothing}.")


def _check_num_batches(steps: int, train, epoch: int) -> None:
    if steps != len(train):
        raise ValueError(
            f"fit: epoch {epoch + 1} had {steps} batches, but len(train) is {len(train)}. Each epoch needs a fresh "
            "pass of that length: pass a DataLoader or Batches."
        )


def _copy(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


# ---------------------------------------------------------------- optimiser and schedule


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Weights of convolutions and linear layers with decay; biases and batch norm (one-dimensional) without."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _optimizer(which: str | Callable, groups, lr, betas) -> torch.optim.Optimizer:
    if callable(which):
        made = which(groups, lr)
        if not isinstance(made, torch.optim.Optimizer):
            raise ValueError(f"fit: optimizer must return a torch.optim.Optimizer, got {type(made).__name__}.")
        return made
    makers = {
        "sgd": functools.partial(torch.optim.SGD, momentum=0.9, nesterov=True),
        "adam": functools.partial(torch.optim.Adam, betas=betas),
        "adamw": functools.partial(torch.optim.AdamW, betas=betas),
    }
    if which not in makers:
        raise ValueError(f"fit: optimizer={which!r} is not known. Allowed: {', '.join(makers)}, or a function.")
    try:  # fused: one pass over memory instead of several
        optimizer = makers[which](groups, lr=lr, fused=True)
    except RuntimeError:  # not on this device
        return makers[which](groups, lr=lr)
    if which == "sgd":  # else a first step that float16 leaves out would leave uninitialised memory there
        for parameter in (p for group in groups for p in group["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _scheduler(name: str, optim, lr, steps):
    schedules = torch.optim.lr_scheduler
    makers = {
        # One rate for each step and one for after the last. Momentum stays as given: one thing less to explain.
        "one_cycle": lambda: schedules.OneCycleLR(optim, max_lr=lr, total_steps=steps + 1, cycle_momentum=False),
        "cosine": lambda: schedules.CosineAnnealingLR(optim, T_max=steps),
        "plateau": lambda: schedules.ReduceLROnPlateau(optim, factor=0.1, patience=3),
        "constant": lambda: schedules.ConstantLR(optim, factor=1.0),
    }
    if name not in makers:
        raise ValueError(f"fit: schedule={name!r} is not known. Allowed: {', '.join(makers)}.")
    return makers[name]()


# ---------------------------------------------------------------- what happened


class History:
    """One row an epoch. `rows` is a list of dicts with the keys of `COLUMNS`.

    `lr` is the learning rate of the epoch's last step, `grad_norm` the mean norm of the gradient before clipping.
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

    def plot(self, title: str, data: str) -> None:
        """Loss and accuracy of training and validation, learning rate and gradient norm, over the epochs."""
        if not self.rows:
            raise ValueError("This History is empty: no epoch was finished. Train for at least one.")
        _, axes = figure(title, data, 2, 2, size=(10, 6), height_ratios=(3, 2), sharex=True)
        for ax, what in zip(axes[0], ("loss", "accuracy"), strict=True):
            series = {"training": self[f"train_{what}"], "validation": self[f"valid_{what}"]}
            curves(series, title=what.capitalize(), data=None, xlabel="", ylabel=what, ax=ax)
        for ax, column, label in zip(axes[1], ("lr", "grad_norm"), ("learning rate", "gradient norm"), strict=True):
            curves({column: self[column]}, title="", data=None, xlabel="epoch", ylabel=label, ax=ax)
