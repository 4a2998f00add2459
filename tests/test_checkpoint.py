"""Resuming, and everything that must be refused."""

import functools
import io
import os
import pickle
import random
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import F32, Changed, Network, Wrapped, batches, network, same, weights
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from helpers import checkpoint, data, sample, train
from helpers.fingerprint import described
from helpers.model import CustomResNet

RECIPE = {"epochs": 3, "lr": 0.02, "clip": 1.0, "dtype": F32}


@pytest.fixture(scope="module")
def pictures():
    x, y = sample.draw(240, 0)
    return data.Images(x, y, sample.CLASSES, "sample shapes").split(0.25, seed=0)


class Stop(Exception):
    pass


class StopsAt(Wrapped):
    """Batches that break off at one step of one epoch, as a killed run does."""

    def __init__(self, inner, epoch, step, error=Stop):
        super().__init__(inner)
        self.at, self.error = (epoch, step), error

    def set_epoch(self, epoch):
        self.epoch = epoch
        super().set_epoch(epoch)

    def __iter__(self):
        for step, batch in enumerate(self.inner):
            if (self.epoch, step) == self.at:
                raise self.error
            yield batch


def without_seconds(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


# ---------------------------------------------------------------- resumed bit for bit


@pytest.mark.parametrize(
    ("options", "epoch", "step"),
    [
        ({"schedule": "one_cycle"}, 0, 3),
        ({"schedule": "one_cycle"}, 2, 5),
        ({"schedule": "cosine", "optimizer": "adam"}, 1, 0),
        ({"schedule": "plateau"}, 2, 5),
        ({"dtype": torch.float16, "optimizer": "adamw"}, 2, 5),
    ],
)
def test_an_interrupted_run_ends_in_the_same_weights(pictures, tmp_path, epoch, step, options):
    recipe, path = RECIPE | options, tmp_path / "run.pt"
    whole = network()
    expected = train.fit(whole, *batches(pictures), **recipe)
    loader, valid = batches(pictures)
    with pytest.raises(Stop):
        train.fit(network(), StopsAt(loader, epoch, step), valid, checkpoint=path, **recipe)
    assert path.exists() == (epoch > 0)
    resumed = network()
    torch.manual_seed(99)  # whatever a new process has drawn before
    random.seed(99)
    history = train.fit(resumed, *batches(pictures), checkpoint=path, **recipe)
    assert same(weights(whole), weights(resumed))
    assert without_seconds(history.rows) == without_seconds(expected.rows)


def test_an_interrupt_keeps_the_last_finished_epoch_and_the_same_call_continues(pictures, tmp_path, capsys):
    whole, part = network(), network()
    expected = train.fit(whole, *batches(pictures), **RECIPE)
    loader, valid = batches(pictures)
    path = tmp_path / "run.pt"
    history = train.fit(part, StopsAt(loader, 1, 3, KeyboardInterrupt), valid, checkpoint=path, **RECIPE)
    assert without_seconds(history.rows) == without_seconds(expected.rows[:1])
    assert same(weights(part), checkpoint.load_checkpoint(path)["model"])
    assert train.evaluate(part, valid, dtype=F32)[0] == history["valid_loss"][0]
    assert "as after epoch 1 of 3. The same call continues" in capsys.readouterr().out
    history = train.fit(part, loader, valid, checkpoint=path, **RECIPE)
    assert same(weights(whole), weights(part))
    assert without_seconds(history.rows) == without_seconds(expected.rows)


def test_an_interrupt_before_anything_is_reached_goes_on_to_the_caller(pictures):
    loader, valid = batches(pictures)
    model = network()
    before = weights(model)
    with pytest.raises(KeyboardInterrupt):
        train.fit(model, StopsAt(loader, 0, 3, KeyboardInterrupt), valid, **RECIPE)
    assert same(before, weights(model))


@pytest.mark.parametrize("line", ["finished = ", "history.rows[:] = finished[0]\n                run", "run.save"])
def test_an_interrupt_around_the_end_of_an_epoch_leaves_network_and_history_together(pictures, line):
    """Ctrl-C just before or after a line of `fit`: rows and weights are of the same epoch."""
    source = Path(train.__file__).read_text(encoding="utf-8")
    number = source[: source.index(line, source.index("row = dict"))].count("\n") + 1
    model, (loader, valid), seen = network(), batches(pictures), []

    def trace(frame, event, _):
        if frame.f_code is train.fit.__code__ and event == "line" and frame.f_lineno == number:
            seen.append(1)
            if len(seen) == 2:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        history = train.fit(model, loader, valid, **RECIPE)
    finally:
        sys.settrace(None)
    assert len(history) in (1, 2)
    assert train.evaluate(model, valid, dtype=F32)[0] == history["valid_loss"][-1]


def test_the_precision_of_a_run_stays_when_it_continues(pictures, tmp_path, monkeypatch):
    loader, valid = batches(pictures)
    path = tmp_path / "run.pt"
    monkeypatch.setattr(train, "fast_dtype", lambda _: torch.bfloat16)
    with pytest.raises(Stop):
        train.fit(network(), StopsAt(loader, 1, 0), valid, 2, 0.01, checkpoint=path)
    monkeypatch.setattr(train, "fast_dtype", lambda _: F32)  # as a busy machine may choose
    train.fit(network(), loader, valid, 2, 0.01, checkpoint=path)
    assert checkpoint.load_checkpoint(path)["facts"]["dtype"] == "'bfloat16'"


# ---------------------------------------------------------------- another run is refused


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    """The checkpoint of a run of two epochs, and a function that tries to resume it with something changed."""
    path = tmp_path_factory.mktemp("finished") / "run.pt"
    rates = {"epochs": 2, "lr": 0.01, "dtype": F32, "about": {"width": 4}, "optimizer": momentum(0.9)}
    train.fit(network(), *batches(pictures), checkpoint=path, **rates)
    whole = path.read_bytes()

    def resume(model=None, learn=None, valid=None, **options):
        model = network() if model is None else model
        before = weights(model)
        loaders = batches(pictures)
        try:
            return train.fit(model, learn or loaders[0], valid or loaders[1], checkpoint=path, **(rates | options))
        except ValueError as error:
            assert same(before, weights(model))
            assert path.read_bytes() == whole
            return str(error)

    return resume


def momentum(value):
    return lambda groups, lr: torch.optim.SGD(groups, lr=lr, momentum=value)


def rebuilt(pictures, **changes):
    """The training batches of `batches`, with something changed."""
    options = {"augment": [data.random_crop(), data.random_flip()], "shuffle": True, "batch_size": 32, **changes}
    images = options.pop("images", pictures[0])
    return data.Batches(images, options.pop("stats", pictures[0].mean_std()), **options)


def other(images, **changes):
    return data.Images(**({"x": images.x, "y": images.y, "classes": images.classes, "name": images.name} | changes))


class Leaky(Network):
    def forward(self, x):
        return self.linear(self.drop(nn.functional.leaky_relu(self.norm(self.conv(x)), 0.1).flatten(1)))


def dropping(p):
    model = network()
    model.drop.p = p
    return model


def frozen(model, part):
    model.train()
    getattr(model, part).eval()
    return model


CHANGES = {
    "lr": (lambda p: {"lr": 0.02}, "lr was 0.01, now 0.02"),
    "epochs": (lambda p: {"epochs": 3}, "epochs was 2, now 3"),
    "schedule": (lambda p: {"schedule": "cosine"}, "schedule was 'one_cycle', now 'cosine'"),
    "clip": (lambda p: {"clip": 1.0}, "clip was None, now 1.0"),
    "dtype": (lambda p: {"dtype": torch.bfloat16}, "dtype was 'float32', now 'bfloat16'"),
    "seed": (lambda p: {"seed": 4}, "seed was 0, now 4"),
    "weight decay": (lambda p: {"weight_decay": 1e-3}, "optimizer settings.0.weight_decay was 0.0005, now 0.001"),
    "label smoothing": (lambda p: {"label_smoothing": 0.1}, "label_smoothing was 0.0, now 0.1"),
    "about": (lambda p: {"about": {"width": 5}}, "about.width was 4, now 5"),
    "optimiser": (lambda p: {"optimizer": "sgd"}, "optimizer"),
    "its settings in a function": (lambda p: {"optimizer": momentum(0.8)}, "0.momentum was 0.9, now 0.8"),
    "initial weights": (lambda p: {"model": network(5)}, "other initial weights"),
    "activation": (lambda p: {"model": made(Leaky)}, "network"),
    "a hidden activation": (lambda p: {"model": made(type("Network", (Leaky,), {}))}, "its forward pass differs"),
    "dropout": (lambda p: {"model": dropping(0.5)}, r"Dropout\(p=0.2.*now .*Dropout\(p=0.5"),
    "frozen weights": (lambda p: {"model": frozen_conv()}, "trained"),
    "frozen batch norm": (lambda p: {"model": frozen(network(), "norm")}, "frozen"),
    "augmentation": (lambda p: {"learn": rebuilt(p, augment=[])}, "train.augment"),
    "its strength": (lambda p: {"learn": rebuilt(p, augment=[data.random_crop(3), data.random_flip()])}, "train.augm"),
    "normalisation": (
        lambda p: {"learn": rebuilt(p, stats=(p[0].mean_std()[0] + 0.01, p[0].mean_std()[1]))},
        "train.mean",
    ),
    "one image": (
        lambda p: {"learn": rebuilt(p, images=other(p[0], x=p[0].x.index_fill(0, ONE, 0)))},
        "train",
    ),
    "permuted labels": (lambda p: {"learn": rebuilt(p, images=other(p[0], y=p[0].y.flip(0)))}, "train.dataset.y"),
    "class names": (
        lambda p: {"learn": rebuilt(p, images=other(p[0], classes=tuple("abcdefghij")))},
        "train.dataset.classes",
    ),
    "order": (lambda p: {"learn": rebuilt(p, shuffle=False)}, "train.shuffle was True, now False"),
    "seed of the batches": (lambda p: {"learn": rebuilt(p, seed=8)}, r"train\.seed was 0, now 8"),
    "batch size": (lambda p: {"learn": rebuilt(p, batch_size=16)}, "train.batch_size was 32, now 16"),
    "validation images": (
        lambda p: {"valid": data.Batches(p[1].take(torch.arange(1, 60)), p[0].mean_std(), 32)},
        "valid.dataset.x",
    ),
    "validation's normalisation": (
        lambda p: {"valid": data.Batches(p[1], tuple(v + 0.1 for v in p[0].mean_std()), 32)},
        "valid.mean",
    ),
    "what a wrapper hides": (lambda p: {"learn": Wrapped(rebuilt(p, seed=8))}, "train.seed"),
    "what a wrapper does": (
        lambda p: {"learn": Changed(rebuilt(p), lambda x, y: (x * 1.1, y))},
        "first training batch",
    ),
}
ONE = torch.tensor([150])


def made(kind):
    torch.manual_seed(0)
    return kind()


def frozen_conv():
    model = network()
    model.conv.requires_grad_(False)
    return model


@pytest.mark.parametrize("what", CHANGES)
def test_everything_that_makes_a_run_is_compared(finished, pictures, what):
    change, words = CHANGES[what]
    message = finished(**change(pictures))
    assert isinstance(message, str), "resumed, though something else is trained"
    assert "run.pt belongs to another run" in message
    assert re.search(words, message), message


def test_the_same_run_is_resumed_wrapped_or_not(finished, pictures, capsys):
    assert len(finished()) == 2
    assert len(finished(learn=Wrapped(rebuilt(pictures)))) == 2
    assert "2 of 2 epochs are done; nothing is left to train" in capsys.readouterr().out


def test_another_number_of_threads_is_refused_on_the_cpu(finished):
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert f"threads was {threads}, now {threads + 1}" in finished()
    finally:
        torch.set_num_threads(threads)


def test_batches_of_pytorch_are_compared_too(pictures, tmp_path):
    x, y = pictures[0].x.float() / 255, pictures[0].y

    def loader(seed=1, scale=1.0, **options):
        generator = torch.Generator().manual_seed(seed)
        return DataLoader(TensorDataset(x * scale, y), 32, shuffle=True, generator=generator, **options)

    options = {"epochs": 2, "lr": 0.01, "dtype": F32, "checkpoint": tmp_path / "run.pt"}
    with pytest.raises(Stop):
        train.fit(network(), StopsAt2(loader()), [(x, y)], **options)
    for changed in (loader(seed=2), loader(scale=0.9), loader(drop_last=True)):
        with pytest.raises(ValueError, match="belongs to another run"):
            train.fit(network(), changed, [(x, y)], **options)
    whole, resumed = network(), network()
    train.fit(whole, loader(), [(x, y)], 2, 0.01, dtype=F32)
    train.fit(resumed, loader(), [(x, y)], **options)
    assert same(weights(whole), weights(resumed))


class StopsAt2(Wrapped):
    """Breaks off in the second pass."""

    passes = 0

    def __iter__(self):
        StopsAt2.passes += 1
        if StopsAt2.passes == 2:
            raise Stop
        return iter(self.inner)


def test_functions_are_told_apart_by_what_they_do():
    def scaled(by, offset=0):
        return lambda x: x * by + offset

    assert described(scaled(2)) == described(scaled(2))
    assert described(scaled(2)) != described(scaled(3))
    assert described(scaled(2)) != described(lambda x: x - 2)
    assert described(functools.partial(max, 1)) != described(functools.partial(max, 2))
    assert described(data.random_crop(2)) != described(data.random_crop(2, mode="reflect"))
    holds_itself = [1]
    holds_itself.append(holds_itself)
    assert described(holds_itself)


# ---------------------------------------------------------------- files


def test_two_runs_never_write_one_file(pictures, tmp_path):
    path, found = tmp_path / "run.pt", []

    def try_again(x, y):
        if not found:
            try:
                train.fit(network(), *batches(pictures), checkpoint=path, **RECIPE)
            except ValueError as error:
                found.append(str(error))
        return x, y

    loader, valid = batches(pictures)
    train.fit(network(), Changed(loader, try_again), valid, checkpoint=path, **RECIPE)
    assert "run.pt is being written by another run. Stop it, or name another file" in found[0]
    assert len(checkpoint.load_checkpoint(path)["history"]) == 3


def test_leftovers_of_a_killed_run_go_and_those_of_others_stay(pictures, tmp_path):
    (tmp_path / ".run.pt.123.tmp").write_bytes(b"half")
    (tmp_path / ".other.pt.123.tmp").write_bytes(b"half")
    train.fit(network(), *batches(pictures), checkpoint=tmp_path / "run.pt", **RECIPE)
    assert [path.name for path in tmp_path.glob(".*.tmp")] == [".other.pt.123.tmp"]


def test_a_disk_that_gets_full_costs_the_checkpoint_and_not_the_run(pictures, tmp_path, monkeypatch, capsys):
    path, save = tmp_path / "run.pt", torch.save

    def disk_full(content, target):
        if len(content["history"]) >= 2:
            target.write_bytes(b"half")
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
        save(content, target)

    monkeypatch.setattr(torch, "save", disk_full)
    history = train.fit(network(), *batches(pictures), checkpoint=path, **RECIPE)
    assert len(history) == 3
    said = capsys.readouterr().out
    assert said.count("Not saved: ") == 2
    assert "run.pt cannot be written" in said
    assert len(checkpoint.load_checkpoint(path)["history"]) == 1
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("place", ["full", "a file in the way"])
def test_a_disk_that_cannot_be_written_is_met_before_the_first_epoch(pictures, tmp_path, monkeypatch, place):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "folder" / "run.pt"
    if place == "full":
        monkeypatch.setattr(torch, "save", refuse)
    else:
        (tmp_path / "folder").write_text("a file")
    loader, valid = batches(pictures)
    with pytest.raises(OSError, match=r"run\.pt cannot be written \(.+\)\. Make room there, or name a file"):
        train.fit(network(), StopsAt(loader, 0, 0), valid, checkpoint=path, **RECIPE)


@pytest.mark.parametrize("facts", [{"lr": np.float64(0.1)}, {"when": [object()]}])
def test_facts_that_would_not_be_read_back_are_refused_at_once(pictures, tmp_path, facts):
    loader, valid = batches(pictures)
    with pytest.raises(ValueError, match="plain facts only, but about is"):
        train.fit(network(), StopsAt(loader, 0, 0), valid, checkpoint=tmp_path / "run.pt", about=facts, **RECIPE)
    assert not list(tmp_path.glob("*.pt"))
    train.fit(network(), loader, valid, checkpoint=tmp_path / "run.pt", **(RECIPE | {"lr": np.float64(0.01)}))
    checkpoint.load_checkpoint(tmp_path / "run.pt")


def test_checkpoints_that_are_damaged_foreign_forged_or_missing_are_refused(pictures, tmp_path):
    path = tmp_path / "run.pt"
    with pytest.raises(FileNotFoundError, match="There is no checkpoint"):
        checkpoint.load_checkpoint(path)
    train.fit(network(), *batches(pictures), checkpoint=path, **RECIPE)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        tensors = [entry for entry in file.infolist() if "/data/" in entry.filename]
        largest = max(tensors, key=lambda entry: entry.file_size)
        flipped = bytearray(whole)
        flipped[largest.header_offset + 200] ^= 1  # in the middle of the numbers: PyTorch alone would not see it
    legacy = io.BytesIO()
    torch.save({"weights": torch.zeros(3)}, legacy, _use_new_zipfile_serialization=False)
    foreign = (pickle.dumps([1, 2]), legacy.getvalue(), b"", b"text", b"PK\x03\x04")
    model = network()
    for damaged in (whole[: len(whole) // 2], whole[:-1], bytes(flipped), *foreign):
        path.write_bytes(damaged)
        for use in (
            checkpoint.load_checkpoint,
            lambda p: train.fit(network(), *batches(pictures), checkpoint=p, **RECIPE),
        ):
            with pytest.raises(ValueError, match=r"run\.pt cannot be read .* damaged or of another kind. Delete or mo"):
                use(path)
        assert path.read_bytes() == damaged  # it may be someone's only copy of something
    for strange in (network().state_dict(), [1], {"format": 3}, torch.zeros(2)):
        torch.save(strange, path)
        with pytest.raises(ValueError, match=r"run\.pt is not a checkpoint of this course. Delete or move it"):
            checkpoint.load_checkpoint(path)
    for older in ({"format": "resnet-course-1", "model": {}}, {"format": checkpoint._FORMAT}):
        torch.save(older, path)
        with pytest.raises(ValueError, match="another version of this course. Delete or move it"):
            checkpoint.load_checkpoint(path)
    path.write_bytes(whole)
    for junk in ({"state": {}}, {"model": 3}, {"history": None}, {"facts": {}}, {"probe": None}, {"first": [1]}):
        torch.save(torch.load(io.BytesIO(whole), weights_only=True) | junk, path)
        model = network()
        before = weights(model)
        with pytest.raises(ValueError, match=r"run\.pt (cannot be resumed|belongs to another run)"):
            train.fit(model, *batches(pictures), checkpoint=path, **RECIPE)
        assert same(before, weights(model))


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"format": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="damaged or of another kind"):
        checkpoint.load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_another_architecture_is_refused_and_nothing_changes(pictures, tmp_path):
    path = tmp_path / "run.pt"
    train.fit(network(), *batches(pictures), checkpoint=path, about={"network": {"width": 4}}, **RECIPE)
    saved = checkpoint.load_checkpoint(path)
    for wrong in (CustomResNet(width=8), network(classes=7)):
        before = weights(wrong)
        with pytest.raises(ValueError, match=r"run\.pt holds another architecture.*'width': 4"):
            checkpoint.restore(wrong, saved, path)
        assert same(before, weights(wrong))
    model = network(seed=5)
    checkpoint.restore(model, saved, path)
    assert same(weights(model), saved["model"])
