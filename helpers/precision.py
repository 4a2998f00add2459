"""The precision in which convolutions and matrix products run."""

import contextlib
import functools
import time

import torch
from torch import nn


@functools.cache
def fast_dtype(device_type: str) -> torch.dtype:
    """The precision in which convolutions run fastest on this machine, without harm to training.

    GPUs from compute capability 8 on: bfloat16; older ones: float16 (fit then scales the loss); others: float32. On a
    CPU it is measured: without the instructions for it, bfloat16 is several times slower than float32. The choice is
    made once and said in one line.
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
    print(f"Precision: {name_of(dtype)} ({why}).")
    return dtype


def _bfloat16_gain() -> float:
    """Seconds of a convolution, forward and backward, in float32, divided by those in bfloat16."""
    threads, seconds = torch.get_num_threads(), {torch.float32: [], torch.bfloat16: []}
    torch.set_num_threads(1)  # on a busy machine several threads wait for each other, and that hides the difference
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
            layer = nn.Conv2d(256, 256, 3, padding=1).to(memory_format=torch.channels_last)
            x = torch.randn(64, 256, 8, 8).to(memory_format=torch.channels_last)
            for dtype in 6 * list(seconds):  # by turns, so that whatever else runs here slows both alike
                begin = time.perf_counter()
                with autocast("cpu", dtype):
                    layer(x).float().square().mean().backward()
                seconds[dtype].append(time.perf_counter() - begin)
    finally:
        torch.set_num_threads(threads)
    return min(seconds[torch.float32]) / min(seconds[torch.bfloat16])


def autocast(device_type: str, dtype: torch.dtype):
    """Context in which matrix products and convolutions run in `dtype`; does nothing for float32."""
    return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(device_type, dtype=dtype)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
