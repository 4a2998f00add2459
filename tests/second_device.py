"""A second device, pretended on the CPU: it refuses the CPU's tensors, and counts what would make the CPU wait.

After `import second_device`, "pretend" is a device like "cuda": `model.to("pretend")`, `torch.zeros(3, device=
"pretend")`, autograd, autocast, `torch.amp.GradScaler("pretend")`, fused optimisers, random states, `torch.save`.

    with second_device.counting() as counts:
        fit(...)
    assert counts.waits == 0, counts.where

Its tensors are PyTorch's own, of the key that PyTorch keeps for devices of others (PrivateUse1). Their storages point
to memory of the CPU, where one fallback runs every operation. Import it before the first backward pass of a process:
autograd counts the devices once.

Not pretended: time, streams, pinned memory, `torch.Generator("pretend")`, torch.compile, several processes, the
profiler. And `model.to("pretend")` makes new parameters, where "cuda" keeps the objects: build the optimiser after it.
"""

import collections
import contextlib
import dataclasses
import functools
import sys

import torch
from torch.utils import backend_registration

NAME = "pretend"
DEVICE = torch.device("privateuseone", 0)  # called so until NAME is registered, below
aten = torch.ops.aten

# ---------------------------------------------------------------- counts


@dataclasses.dataclass
class Counts:
    """waits: the CPU needed a value or a size from the device. transfers: copies to it (on a GPU, most wait as well).

    where: both, by operation and line of the caller.
    """

    waits: int = 0
    transfers: int = 0
    where: collections.Counter = dataclasses.field(default_factory=collections.Counter)


_open: list[Counts] = []


@contextlib.contextmanager
def counting():
    _open.append(Counts())
    try:
        yield _open[-1]
    finally:
        _open.pop()


def _count(kind: str, what: str) -> None:
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals["__name__"].partition(".")[0] in (__name__, "torch"):
        frame = frame.f_back
    for counts in _open:
        setattr(counts, kind, getattr(counts, kind) + 1)
        counts.where[f"{kind}: {what}, {frame.f_code.co_filename}:{frame.f_lineno}"] += 1


# ---------------------------------------------------------------- tensors

_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


def _storage(host: torch.UntypedStorage) -> torch.UntypedStorage:
    storage = torch._C._construct_storage_from_data_pointer(host.data_ptr(), DEVICE, host.nbytes())
    storage.host = host  # lives as long as the storage does
    storage.__deepcopy__ = lambda memo: _storage(host.clone())
    return storage


def _place(tensor: torch.Tensor, storage: torch.UntypedStorage, like: torch.Tensor) -> torch.Tensor:
    where = like.storage_offset(), like.shape, like.stride()
    return aten.set_.source_Storage_storage_offset.redispatch(_CPU, tensor, storage, *where)


def _to_device(host: torch.Tensor, base: torch.Tensor | None = None) -> torch.Tensor:
    """The device's tensor for `host`, in whose memory it lies, or which is a view of `base`'s memory."""
    if base is not None and base.dtype == host.dtype:
        return aten.as_strided.default.redispatch(_CPU, base, host.shape, host.stride(), host.storage_offset())
    storage = _storage(host.untyped_storage()) if base is None else base.untyped_storage()
    return _place(torch._C._acc.create_empty_tensor((0,), host.dtype), storage, host)


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as a tensor of the CPU."""
    storage = tensor.untyped_storage().host
    return torch.empty(0, dtype=tensor.dtype).set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())


# ---------------------------------------------------------------- operations


@functools.cache
def _facts(op) -> tuple[str, dict[int | str, bool], bool, bool]:
    """(name, which arguments are written by place and by name, does it draw, does its result depend on values)."""
    written = [bool(argument.alias_info and argument.alias_info.is_write) for argument in op._schema.arguments]
    named = {argument.name: write for argument, write in zip(op._schema.arguments, written, strict=True)}
    depends = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(op.tags)
    draws = torch.Tag.nondeterministic_seeded in op.tags
    return op._schema.name.removeprefix("aten::"), dict(enumerate(written)) | named, draws, bool(depends)


def _run(op, *given, **options):
    """The fallback: `op` on the CPU, on the same memory."""
    name, written, draws, waits = _facts(op)
    if name == "set_":
        return op.redispatch(_CPU, *given, **options)
    if name == "index":  # that a mask waits, and that an index of the CPU is moved, was counted before it comes here
        waits = False
    elif name == "_index_put_impl_":  # with a mask, unless one number is put there
        waits = given[2].numel() > 1 and any(i is not None and i.dtype == torch.bool for i in given[1])
    pairs, bases = {}, {}  # (CPU's tensor, device's) by the first one's id; device's tensor by address of the storage

    def inside(value, write=False):
        if isinstance(value, torch.Tensor) and value.device.type == NAME:
            host = _to_host(value)
            pairs[id(host)], bases[host.untyped_storage()._cdata] = (host, value), value
            return host
        if isinstance(value, list | tuple):
            return [inside(item, write) for item in value]
        if isinstance(value, torch.device):
            return torch.device("cpu")
        if isinstance(value, torch.Generator):
            raise RuntimeError(f"Expected a {NAME!r} device type for generator but found '{value.device}' ({name}).")
        if not isinstance(value, torch.Tensor):
            return value
        # A tensor of the CPU: an index, or a number.
        indexed = name in ("index", "_index_put_impl_") and any(value is index for index in given[1])
        number = value.ndim == 0 and not write and name not in ("cat", "stack")
        if not indexed and not number:
            devices = f"{NAME} and {value.device}"
            raise RuntimeError(f"Expected all tensors to be on the same device, but found {devices} ({name}).")
        if name in ("where", "_index_put_impl_"):
            _count("transfers", f"a tensor of the CPU in {name}")
        return value

    def outside(value):
        if isinstance(value, list | tuple):
            return type(value)(map(outside, value))
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) in pairs:
            return pairs[id(value)][1]
        return _to_device(value, bases.get(value.untyped_storage()._cdata))

    arguments = [inside(value, written[place]) for place, value in enumerate(given)]
    for place, value in enumerate(arguments):
        if isinstance(value, bool) and str(op._schema.arguments[place].type) == "Tensor":  # as in `mask | True`
            arguments[place] = torch.tensor(value)
    options = {key: inside(value, written[key]) for key, value in options.items()}
    with _module.drawing() if draws else contextlib.nullcontext():
        result = op(*arguments, **options)
    for host, device in pairs.values():  # what was resized
        if host.shape != device.shape or host.data_ptr() != device.data_ptr():
            _place(device, _storage(host.untyped_storage()), host)
    if waits or isinstance(result, bool | int | float):
        _count("waits", name)
    return outside(result)


def _copy(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    """Under `copy_`, `.to`, `.cpu()`, `.tolist()`, `torch.tensor(..., device="pretend")` and `torch.save`."""
    if source.device.type == "cpu":
        _count("transfers", "copy to the device")
    elif target.device.type == "cpu":
        _count("waits", "copy to the CPU")
    source, inner = (_to_host(tensor) if tensor.device.type == NAME else tensor for tensor in (source, target))
    inner.copy_(source)
    return target


def _load(storage: torch.UntypedStorage, location: str) -> torch.UntypedStorage | None:
    return _storage(storage.clone()) if location.startswith(NAME) else None


# ---------------------------------------------------------------- random numbers, autocast


class _Module(backend_registration._DummyBackendModule):
    """`torch.pretend`, also what `torch.get_device_module` returns. Its random numbers are not the CPU's."""

    state = torch.Generator().get_state()

    @contextlib.contextmanager
    def drawing(self):
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.state)
            yield
            self.state = torch.get_rng_state()

    def manual_seed_all(self, seed):
        self.state = torch.Generator().manual_seed(seed).get_state()

    manual_seed = manual_seed_all

    def get_rng_state(self, device=None):
        return self.state.clone()

    def set_rng_state(self, state, device=None):
        self.state = state.clone()

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]

    def synchronize(self, device=None):
        _count("waits", "synchronize")


def _autocast(op, low: bool):
    below = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def cast(value):
        if isinstance(value, torch.Tensor) and value.dtype in (torch.float32, torch.bfloat16, torch.float16):
            return value.to(torch.get_autocast_dtype(NAME) if low else torch.float32)
        return value

    def kernel(*args, **kwargs):
        with torch._C._ExcludeDispatchKeyGuard(below):
            return op(*map(cast, args), **{key: cast(value) for key, value in kwargs.items()})

    return kernel


# ---------------------------------------------------------------- registration, once a process

_module = _Module()
backend_registration._setup_privateuseone_for_python_backend(NAME, _module)
torch.serialization.register_package(0, lambda storage: None, _load)
_all, _some = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
_all.fallback(_run, "PrivateUse1")
_all.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
_some.impl("_copy_from", _copy, "PrivateUse1")
for _op in (aten.convolution.default, aten.convolution_backward.default):  # PyTorch's own ask for kernels in C++
    _some.impl(_op, functools.partial(_run, _op), "PrivateUse1")
for _op in (aten.conv2d.default, aten.linear.default, aten.matmul.default, aten.mm.default, aten.addmm.default):
    _some.impl(_op, _autocast(_op, low=True), "AutocastPrivateUse1")
for _op in (aten.softmax.int, aten.log_softmax.int, aten.cross_entropy_loss.default, aten.nll_loss_nd.default):
    _some.impl(_op, _autocast(_op, low=False), "AutocastPrivateUse1")
