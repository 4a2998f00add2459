"""What stands guard around a pass over batches: sums that wait for nothing, checks of what goes in, advice.

Nothing here reads the device within a pass but `ready`, every TICK seconds. What is found late is still named: the
step, its learning rate, the likely cause.
"""

import contextlib
import time
import traceback

import torch
from torch import nn

from helpers.precision import autocast
from helpers.utils import Live, bar

TICK = 0.5  # seconds between two looks at the device while an epoch runs


class Meter:
    """Sums over a pass, kept on the device: `add` waits for nothing, `read` waits once.

    It notes the first step whose loss, images or labels are no good. With float16, gradients that overflow are the
    scaler's affair: it leaves that step out.
    """

    def __init__(self, device: torch.device, where: str, scaler: torch.amp.GradScaler | None = None):
        self.device, self.where = device, where
        self.scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self.steps, self.seen, self.classes, self.rates = 0, 0, 0, []
        self.sums = torch.zeros(4, device=device)  # loss, correct, gradient norm, steps that had a norm
        self.first_bad = torch.zeros(3, device=device)  # loss, images, labels: the first such step, counted from 1

    def known(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Notes images that are not finite and labels without an output. Returns labels that cannot crash a GPU."""
        known = y.clamp(0, self.classes - 1)
        self._note(1, ~x.isfinite().all())
        self._note(2, (known != y).any())
        return known

    def add(self, loss, logits, y, norm=None, rate: float | None = None) -> None:
        """The batch's mean `loss`, its logits (B, K) and labels (B,), the gradient's norm and the learning rate."""
        norm = loss.new_zeros(()) if norm is None else norm.float()
        finite = norm.isfinite()
        self._note(0, ~(loss.isfinite() & (finite | (self.scaler is not None))))
        correct = (logits.argmax(1) == y).sum().float()
        self.sums += torch.stack([loss.detach().float() * len(y), correct, norm.where(finite, 0.0), finite.float()])
        self.seen += len(y)
        self.rates.append(rate)

    def _note(self, kind: int, bad: torch.Tensor) -> None:
        first = self.first_bad[kind]
        first.copy_(torch.where(bad & (first == 0), float(self.steps), first))

    def read(self) -> dict[str, float]:
        """The means so far: loss, accuracy, norm. Raises what was noted (ValueError, FloatingPointError)."""
        loss, correct, norm, steps, bad, images, labels = map(float, torch.cat([self.sums, self.first_bad]).tolist())
        if labels:
            raise ValueError(
                f"{self.where}, step {labels:.0f}: a label lies outside 0 to {self.classes - 1}, but the network has "
                f"{self.classes} outputs. Build it with as many classes as the data set has."
            )
        if images:
            raise FloatingPointError(
                f"{self.where}, step {images:.0f}: the images hold values that are not finite. Were they divided by a "
                "deviation of 0?"
            )
        if bad or (self.scaler is not None and self.scaler.get_scale() < 1):
            raise FloatingPointError(self._diagnosis(int(bad) or self.steps))
        if self.seen == 0:
            raise ValueError(f"{self.where}: there are no images. Pass batches that yield at least one.")
        return {"loss": loss / self.seen, "accuracy": correct / self.seen, "norm": norm / max(steps, 1)}

    def _diagnosis(self, step: int) -> str:
        if (rate := self.rates[step - 1]) is None:
            return f"{self.where}: the loss is not a finite number. The network's weights or statistics are damaged."
        float16 = "" if self.scaler is None else " Or a number exceeded float16's 65,504: try dtype=torch.float32."
        return (
            f"The loss or its gradient is not finite at step {step} of {self.where}, at learning rate {rate:.3g}. Most "
            f"likely the rate is too large: try a tenth, or gradient clipping (clip=1.0).{float16} The network is as "
            "after the last finished epoch."
        )


def ready(batches, model, dtype, meter: Meter, live: Live | None = None, place=(0, 1), first_batch=None):
    """Yields the batches on the network's device, checked; every TICK seconds reads `meter` and says how far it is.

    place: (epoch, epochs), counted from 0. first_batch: is given the first batch as the network will see it.
    """
    begin = shown = time.perf_counter()
    for x, y in batches:
        _check_batch(x, y, meter.device)
        order = torch.channels_last if x.ndim == 4 else torch.preserve_format
        x = x.to(meter.device, memory_format=order, non_blocking=True)
        y = y.to(meter.device, torch.int64, non_blocking=True)
        if meter.steps == 0:
            meter.classes = _outputs(model, x[:1], dtype)
            if first_batch is not None:
                first_batch(x, y)
        meter.steps += 1
        yield x, meter.known(x, y)
        if live is not None and time.perf_counter() - shown > TICK:
            shown = time.perf_counter()
            meter.read()
            live.show(_progress(*place, meter.steps, len(batches), meter.seen, shown - begin))


def _check_batch(x: torch.Tensor, y: torch.Tensor, device: torch.device) -> None:
    if not x.is_floating_point():
        raise ValueError(f"Images must be float and normalised, got {x.dtype}: divide by 255, subtract the mean.")
    if y.is_floating_point() or y.ndim != 1 or len(x) != len(y) or len(y) == 0:
        raise ValueError(
            f"A batch must be images (B, ...) with B >= 1 and labels (B,) of whole numbers, got {tuple(x.shape)} and "
            f"{tuple(y.shape)} of {y.dtype}."
        )
    if x.device.type != "cpu" and x.device != device:
        raise ValueError(f"The network is on {device}, the images on {x.device}. Move it: model.to('{x.device}').")


def _outputs(model: nn.Module, x: torch.Tensor, dtype: torch.dtype) -> int:
    """The number of the network's outputs, from a single image."""
    with eval_mode(model), torch.no_grad(), autocast(x.device.type, dtype):
        logits = model(x)
    if logits.ndim != 2 or len(logits) != 1:
        raise ValueError(f"The network must return logits (B, classes), got {tuple(logits.shape)} for one image.")
    return logits.shape[1]


def _progress(epoch: int, epochs: int, step: int, steps: int, seen: int, seconds: float) -> str:
    left = int(seconds / step * (steps - step + (epochs - epoch - 1) * steps))
    rate = f"{seen / seconds:,.0f} images/s, about {left // 60}:{left % 60:02d} left"
    return f"{epoch + 1:5d}  {bar(step, steps)} {rate}"


@contextlib.contextmanager
def modes_kept(model: nn.Module):
    """Whatever happens inside, each part of the network is afterwards in the mode in which it came."""
    modes = [(part, part.training) for part in model.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextlib.contextmanager
def eval_mode(model: nn.Module):
    """Eval mode inside, and the modes of before afterwards."""
    with modes_kept(model):
        model.eval()
        yield


@contextlib.contextmanager
def memory_advice(batches):
    """Adds advice to an out-of-memory error, and frees what the failed step has allocated, for a second try."""
    try:
        yield
    except RuntimeError as error:
        if "out of memory" in str(error) or "you tried to allocate" in str(error):
            traceback.clear_frames(error.__traceback__)  # a notebook keeps the error, and with it the feature maps
            half = f" of {size // 2} instead of {size} images" if (size := getattr(batches, "batch_size", 0)) else ""
            error.add_note(f"Try smaller batches{half} at half the learning rate, or a narrower network.")
        raise
