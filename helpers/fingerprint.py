"""What makes a run, as texts and digests that can be compared when it is resumed."""

import functools
import hashlib
import inspect
import random
import re
import types
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice)
_LOADER = ("batch_size", "drop_last", "sampler", "batch_sampler", "generator", "dataset", "num_workers", "collate_fn")


def described(value, name: str = "", found: dict | None = None, inside: tuple = ()) -> dict[str, str]:
    """Everything in `value` that can change a run, as texts by their place: {"train.batch_size": "128", ...}.

    Goes into containers, functions (code, defaults, closure, global constants) and objects; arrays are told by shape
    and digest. Of objects of unknown classes only arrays and objects count: the rest may change while a run goes on.
    """
    found = {} if found is None else found
    if any(value is one for one in inside):
        return found  # it holds itself

    def into(members: dict) -> None:
        for key, member in members.items():
            described(member, f"{name}.{key}" if name else str(key), found, (*inside, value))

    if type(value) in _PLAIN or isinstance(value, torch.dtype | type | Path):
        found[name] = repr(value)
    elif isinstance(value, torch.Tensor | np.ndarray):
        found[name] = f"{tuple(value.shape)} {digest([torch.as_tensor(value)])}"
    elif isinstance(value, list | tuple) and len(value) > 1000:
        found[name] = f"{len(value)} entries {_short(repr(value))}"
    elif isinstance(value, list | tuple):
        into(dict(enumerate(value)) | {"length": len(value)})
    elif isinstance(value, dict):
        into(value)
    elif isinstance(value, torch.Generator):
        found[name] = f"seed {value.initial_seed()}"
    elif isinstance(value, functools.partial):
        into({"function": value.func, "arguments": value.args, "keywords": value.keywords})
    elif isinstance(value, types.MethodType):
        into({"method": value.__func__, "of": value.__self__})
    elif isinstance(value, types.FunctionType):
        uses = {name: value.__globals__.get(name) for name in value.__code__.co_names}
        uses = {name: one for name, one in uses.items() if isinstance(one, bool | int | float | str)}
        found[name] = f"{value.__qualname__} {_code(value.__code__)}"
        into({"defaults": value.__defaults__, "keywords": value.__kwdefaults__})
        into(uses | dict(inspect.getclosurevars(value).nonlocals))
    elif isinstance(value, nn.Module):
        into({f"line {i}": line for i, line in enumerate(re.sub(r" at 0x\w+", "", repr(value)).splitlines())})
    elif isinstance(value, DataLoader):
        into({part: getattr(value, part) for part in _LOADER})
    else:
        members = {k: v for k, v in getattr(value, "__dict__", {}).items() if k not in ("epoch", "root")}
        members = {k: v for k, v in members.items() if not isinstance(v, torch.device)}
        if _known(value):
            found[name] = type(value).__qualname__
            into(members)
        else:  # a wrapper, say: what it wraps counts, while its counters and hooks may change at any time
            for key, member in members.items():
                if _holds(member) or _known(member) or isinstance(member, torch.Tensor | np.ndarray):
                    described(member, name if _holds(member) else f"{name}.{key}", found, (*inside, value))
    return found


def _known(value) -> bool:
    kinds = [kind for kind in type(value).__mro__ if kind not in (Dataset, IterableDataset)]
    return any(kind.__module__.startswith(("helpers.", "torchvision.", "torch.utils.data")) for kind in kinds)


def _holds(value) -> bool:
    """Is it an object around others, such as a DataLoader, a sampler, a data set, a wrapper?"""
    plain = (torch.Tensor, np.ndarray, *_PLAIN, list, tuple, dict, set, type)
    return hasattr(value, "__iter__") and not isinstance(value, plain)


def _code(code: types.CodeType) -> str:
    constants = [_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return _short(repr((code.co_code, code.co_names, constants)))


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest(tensors: list[torch.Tensor]) -> str:
    """The first 16 digits of the SHA-256 of all values, on whatever device they lie."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()[:16]


def sample(x: torch.Tensor, y: torch.Tensor) -> dict:
    """About 32 values of each image of a batch, all its labels, and the shape of an image."""
    values = x.detach().flatten(1)
    values = values[:, :: max(1, values.shape[1] // 32)].float().cpu()
    return {"x": values, "y": y.tolist(), "shape": list(x.shape[1:])}


def close(value: torch.Tensor, other: torch.Tensor, tolerance: float) -> bool:
    """Equal up to `tolerance` times the largest number."""
    return value.shape == other.shape and bool((value - other).abs().max() <= tolerance * other.abs().max())


# ---------------------------------------------------------------- random numbers


def generators(train) -> list[torch.Generator]:
    """Sources of random numbers that belong to the batches: a DataLoader, its sampler, or what a wrapper holds."""
    found, holders = [], [train]
    for holder in holders:
        for value in getattr(holder, "__dict__", {}).values():
            if isinstance(value, torch.Generator):
                found.append(value)
            elif _holds(value) and not any(value is one for one in holders):
                holders.append(value)
    return found


def random_state(device: torch.device, train) -> dict:
    """The state of all random numbers that a run draws, as plain values and tensors."""
    kind, key, *rest = np.random.get_state()  # noqa: NPY002
    state = {"python": random.getstate(), "numpy": [kind, key.tolist(), *rest], "torch": torch.get_rng_state()}
    if device.type != "cpu":
        state[device.type] = torch.get_device_module(device).get_rng_state()
    return state | {"batches": [generator.get_state() for generator in generators(train)]}


def set_random_state(state: dict, device: torch.device, train) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(tuple(state["numpy"]))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device.type in state and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(state[device.type])
    for generator, saved in zip(generators(train), state["batches"], strict=False):
        generator.set_state(saved)
