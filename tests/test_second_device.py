"""Every helper on a second device, and what makes it wait; then the lessons (slow, but for one)."""

import copy

import nbformat
import pytest
import torch
import torch.nn.functional as F
from lessons import PATHS, ROOT
from nbclient import NotebookClient
from second_device import NAME, counting  # in the first lines: it must be there before any backward pass
from torch import nn

from helpers import analysis, data, guard, train
from helpers.checkpoint import load_checkpoint, restore
from helpers.model import CustomResNet

ONE = torch.ones(3, device=NAME)
AUGMENTATIONS = {
    "crop": data.random_crop(4),
    "reflected crop": data.random_crop(4, mode="reflect"),
    "flip": data.random_flip(),
    "rotation": data.random_rotation(20),
    "jitter": data.color_jitter(),
    "sharpness": data.random_sharpness(),
    "erasing": data.random_erasing(),
    "cutout": data.cutout(),
}


@pytest.fixture(scope="module")
def images():
    return data.load("cifar10")[0]  # DATA_DIR=sample: conftest.py


@pytest.fixture(autouse=True)
def _no_tick(monkeypatch):
    """A progress tick reads the device, whenever half a second has gone by."""
    monkeypatch.setattr(guard, "TICK", float("inf"))


def network(device=NAME, seed=0):
    torch.manual_seed(seed)
    return CustomResNet(width=4).to(device)


def batches(images, steps, device=NAME, **options):
    return data.Batches(images.subset(8 * steps), images.mean_std(), 8, device=device, **options)


def fit(model, images, steps=4, epochs=1, device=NAME, **options):
    options = {"dtype": torch.float32, "quiet": True, **options}
    shuffled = batches(images, steps, device, shuffle=True, augment=[data.random_crop(4), data.random_flip()])
    return train.fit(model, shuffled, batches(images, 2, device), epochs, 0.01, **options)


def assert_close(state, other, tolerance=0.0):
    for key, value in state.items():
        torch.testing.assert_close(value.cpu(), other[key].cpu(), rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------- the pretended device can be believed


@pytest.mark.parametrize(
    "mix",
    [
        lambda: ONE + torch.ones(3),
        lambda: ONE.add_(torch.ones(3)),
        lambda: torch.zeros(()).add_(ONE.sum()),
        lambda: torch.stack([ONE.sum(), torch.ones(())]),
        lambda: torch.zeros(3)[torch.zeros(1, dtype=torch.int64, device=NAME)],
        lambda: F.cross_entropy(torch.ones(2, 3, device=NAME), torch.tensor([0, 1])),
        lambda: nn.Conv2d(3, 4, 1).to(NAME)(torch.ones(1, 3, 2, 2)),
        lambda: torch.rand(3, device=NAME, generator=torch.Generator()),
    ],
)
def test_two_devices_never_mix(mix):
    with pytest.raises(RuntimeError, match="device"):
        mix()


@pytest.mark.parametrize(
    ("waits", "transfers", "work"),
    [
        (1, 0, lambda x: x.sum().item()),
        (1, 0, lambda x: bool((x > 0).all())),
        (1, 0, lambda x: x.tolist()),
        (1, 0, lambda x: x.cpu().numpy()),
        (1, 0, lambda x: torch.zeros(3).copy_(x)),
        (1, 0, lambda x: torch.equal(x, x)),
        (1, 0, lambda x: x[x > 0]),
        (1, 0, lambda x: x.nonzero()),
        (1, 0, lambda x: torch.bincount(x.long())),
        (1, 0, lambda x: torch.pretend.synchronize()),
        (0, 1, lambda x: torch.ones(3).to(NAME)),
        (0, 1, lambda x: torch.tensor([1.0], device=NAME)),
        (0, 1, lambda x: x[torch.tensor([0, 1])]),
        (0, 1, lambda x: torch.where(x > 0, x, torch.tensor(0.0))),
        (0, 0, lambda x: torch.where(x > 0, 2 * x, 0.0) + torch.tensor(1.0)),
        (0, 0, lambda x: x[torch.zeros(2, dtype=torch.int64, device=NAME)].clone().masked_fill_(x[:2] > 0, 3.0)),
        (0, 0, lambda x: nn.utils.clip_grad_norm_(nn.Linear(3, 3, device=NAME).parameters(), 1.0)),
    ],
)
def test_counts(waits, transfers, work):
    with counting() as counts:
        work(ONE)
    assert (counts.waits, counts.transfers) == (waits, transfers), counts.where


def test_views_share_memory_and_random_numbers_are_the_devices_own():
    x = torch.zeros(2, 3, device=NAME)
    x.t()[0] = 1.0
    x[:, 1:].reshape(2, 2).add_(2.0)
    assert x.tolist() == [[1, 2, 2], [1, 2, 2]]
    assert copy.deepcopy(x).add_(1).device == x.device
    torch.manual_seed(0)
    first = torch.rand(3)
    torch.manual_seed(0)
    state = torch.get_device_module(NAME).get_rng_state()
    drawn = [torch.rand(3, device=NAME).tolist(), F.dropout(ONE, training=True).tolist()]
    assert torch.equal(torch.rand(3), first)
    torch.get_device_module(NAME).set_rng_state(state)
    assert drawn == [torch.rand(3, device=NAME).tolist(), F.dropout(ONE, training=True).tolist()]


# ---------------------------------------------------------------- every helper


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_batches_equal_those_of_the_cpu(images, name):
    options = {"augment": [AUGMENTATIONS[name]], "shuffle": True}
    here, there = (list(batches(images, 3, device, **options)) for device in ("cpu", NAME))
    for (x, y), (other_x, other_y) in zip(here, there, strict=True):
        assert other_x.device.type == other_y.device.type == NAME
        assert torch.equal(x, other_x.cpu())
        assert torch.equal(y, other_y.cpu())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_fit_evaluate_predict_and_grad_cam_equal_those_of_the_cpu(images, optimizer):
    found = {}
    for device in ("cpu", NAME):
        model = network(device)
        history = fit(model, images, epochs=2, device=device, optimizer=optimizer, clip=1.0, label_smoothing=0.1)
        judge = batches(images, 4, device)
        loss = torch.tensor(train.evaluate(model, judge, dtype=torch.float32))
        predictions = analysis.predict(model, judge)
        x, y = next(iter(judge))
        maps = analysis.grad_cam(model, model.layer2, x, y)
        assert maps.device.type == predictions.logits.device.type == "cpu"
        found[device] = {
            "train": torch.tensor(history["train_loss"]),
            "norm": torch.tensor(history["grad_norm"]),
            "valid": torch.tensor(history["valid_accuracy"]),
            "loss": loss,
            "logits": predictions.logits,
            "features": predictions.features,
            "maps": maps,
            **model.state_dict(),
        }
    assert_close(found["cpu"], found[NAME], 1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fit_in_low_precision(images, dtype):
    seen = []
    model = network()
    model.layer1.register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    history = fit(model, images, steps=8, epochs=2, dtype=dtype)
    assert history["train_loss"][1] < history["train_loss"][0]
    assert set(seen) == {dtype}


def test_a_resumed_run_equals_an_uninterrupted_one(images, tmp_path, capsys):
    def with_dropout(device=NAME, seed=0):  # its draws are the device's
        return nn.Sequential(network(device, seed), nn.Dropout(0.2))

    class Stop(Exception):
        pass

    def stop(layer, inputs):
        passes.append(layer.training)
        if passes.count(True) == 6:  # in the second epoch
            raise Stop

    whole, stopped, resumed, passes = with_dropout(), with_dropout(), with_dropout(), []
    fit(whole, images, epochs=2)
    stopped.register_forward_pre_hook(stop)
    with pytest.raises(Stop):
        fit(stopped, images, epochs=2, checkpoint=tmp_path / "run.pt")
    fit(resumed, images, epochs=2, checkpoint=tmp_path / "run.pt")
    assert "1 of 2 epochs are done" in capsys.readouterr().out
    assert_close(whole.state_dict(), resumed.state_dict())

    saved = load_checkpoint(tmp_path / "run.pt")  # on any machine
    assert {value.device.type for value in saved["model"].values()} == {"cpu"}
    on_the_cpu = with_dropout("cpu", seed=1)
    restore(on_the_cpu, saved)
    assert_close(whole.state_dict(), on_the_cpu.state_dict())


# ---------------------------------------------------------------- no wait


def counted(work, *arguments, **options):
    with counting() as counts:
        work(*arguments, **options)
    return counts


def extra(more, fewer):
    """What `more` counted beyond `fewer`, for the message of an assertion."""
    return more.where - fewer.where


def test_batches_move_an_epochs_draws_at_once(images):
    for augment in ([], list(AUGMENTATIONS.values())):
        short, long = (batches(images, steps, shuffle=True, augment=augment) for steps in (8, 16))
        few, many = counted(list, short), counted(list, long)
        assert many.waits == 0, many.where
        assert many.transfers == few.transfers, extra(many, few)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "adam", "schedule": "cosine", "clip": 1.0, "label_smoothing": 0.1},
        {"optimizer": "adamw", "dtype": torch.bfloat16},
        {"dtype": torch.float16},
        {"optimizer": lambda groups, lr: torch.optim.RMSprop(groups, lr=lr), "schedule": "plateau"},
    ],
    ids=["sgd", "adam", "adamw in bfloat16", "sgd in float16", "own"],
)
def test_fit_neither_waits_nor_moves_anything_in_a_step(images, options):
    few, many, twice = (
        counted(fit, network(), images, steps, epochs, **options) for steps, epochs in ((8, 1), (16, 1), (8, 2))
    )
    assert many.waits == few.waits, extra(many, few)
    assert many.transfers == few.transfers, extra(many, few)
    reads = 3 if options.get("dtype") == torch.float16 else 2  # an epoch: sums, validation; the scaler's scale
    assert twice.waits - few.waits == reads, extra(twice, few)


def test_checkpoints_cost_the_same_whatever_the_number_of_steps(images, tmp_path):
    few, many = (counted(fit, network(), images, n, checkpoint=tmp_path / f"{n}.pt") for n in (8, 16))
    assert many.waits == few.waits, extra(many, few)


def test_fit_waits_once_a_tick(images, monkeypatch):
    monkeypatch.setattr(guard, "TICK", -1.0)
    few, many = (counted(fit, network(), images, steps) for steps in (8, 16))
    assert many.waits - few.waits == 8, extra(many, few)


@pytest.mark.parametrize("work", [lambda *args: train.evaluate(*args, dtype=torch.float32), analysis.predict])
def test_evaluate_and_predict_read_once(images, work):
    few, many = (counted(work, network(), batches(images, steps)) for steps in (4, 8))
    assert few.waits == many.waits == 1, many.where
    assert few.transfers == many.transfers, extra(many, few)


def test_what_is_found_late_still_names_its_step(images):
    class Bad(list):
        def __iter__(self):
            for i, (x, y) in enumerate(super().__iter__()):
                yield x, y + 20 if i == 2 else y

    given = Bad(batches(images, 4))
    with pytest.raises(ValueError, match="step 3.*label"):
        train.fit(network(), given, given, 1, 0.01, dtype=torch.float32, quiet=True)
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(FloatingPointError, match="step [1-4] of epoch 1, at learning rate"):
        train.fit(model, batches(images, 4), given, 1, 1e30, schedule="constant", dtype=torch.float32, quiet=True)
    assert_close(before, model.state_dict())


# ---------------------------------------------------------------- the lessons

# What only a real device could do is not reached here: profile ci leaves torch.compile out, and torchsummary, torchrun
# and the profiler run on the CPU by themselves.
QUICK = "01"


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[] if p.name.startswith(QUICK) else pytest.mark.slow, id=p.stem) for p in PATHS],
)
def test_lesson(path, monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_DEVICE", NAME)
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path))
    register = f"__import__('sys').path.append({str(ROOT / 'tests')!r}); __import__('second_device')"
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(  # raises what a cell raises
        notebook,
        timeout=600,
        kernel_name="python3",
        extra_arguments=[f"--IPKernelApp.exec_lines={register}"],
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    printed = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    assert f"Device: {NAME}" in "".join(printed)
