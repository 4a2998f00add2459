import csv
import io
import math
import os
import pickle
import random
import signal
import subprocess
import sys
import weakref
import zipfile

import killed_run
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from killed_run import Network
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from helpers import data, sample, train
from helpers.model import CustomResNet

F32 = torch.float32


@pytest.fixture(scope="module")
def pictures():
    x, y = sample.draw(240, 0)
    return data.Images(x, y, sample.CLASSES, "sample shapes").split(0.25, seed=0)


def batches(pictures, seed=0):
    stats = pictures[0].mean_std()
    augment = [data.random_crop(), data.random_flip()]
    return data.Batches(pictures[0], stats, 32, augment=augment, shuffle=True, seed=seed), data.Batches(
        pictures[1], stats, 32
    )


def network(seed=0, **options):
    torch.manual_seed(seed)
    return Network(**options)


def weights(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


# ---------------------------------------------------------------- fit


def test_fit_equals_the_loop_written_out(pictures):
    mine, theirs = network(), network()
    loader, valid = batches(pictures)
    history = train.fit(
        mine, loader, valid, 2, 0.05, schedule="constant", clip=0.5, label_smoothing=0.1, dtype=F32, seed=3
    )

    loader, _ = batches(pictures)
    decayed = [p for p in theirs.parameters() if p.ndim > 1]
    others = [p for p in theirs.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0}]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
    theirs.train().to(memory_format=torch.channels_last)
    torch.manual_seed(3)
    for epoch in range(2):
        losses = []
        for x, y in loader:
            loss = F.cross_entropy(theirs(x.to(memory_format=torch.channels_last)), y, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
            optimizer.step()
            losses.append((loss.item(), len(y)))
        mean = sum(loss * count for loss, count in losses) / sum(count for _, count in losses)
        assert history["train_loss"][epoch] == pytest.approx(mean, rel=1e-6)
    assert same(weights(mine), weights(theirs))


def test_the_ci_network_learns_the_sample_and_leaves_mistakes():
    train_set, test_set = data.load("cifar10")
    stats = train_set.mean_std()
    torch.manual_seed(0)
    model = CustomResNet(width=8)
    loader = data.Batches(train_set, stats, 64, augment=[data.random_crop(), data.random_flip()], shuffle=True)
    test_batches = data.Batches(test_set, stats, 500)
    train.fit(model, loader, test_batches, epochs=8, lr=0.02)
    assert 0.5 <= train.evaluate(model, test_batches)[1] < 1.0


def test_same_seed_same_run(pictures):
    runs = []
    for seed in (1, 1, 2):
        model = network(seed)
        train.fit(model, *batches(pictures, seed), 1, 0.01, dtype=F32, seed=seed)
        runs.append(weights(model))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_one_cycle_rises_then_falls_to_nearly_nothing(pictures):
    history = train.fit(network(), *batches(pictures), 10, 0.01, dtype=F32)
    rates = history["lr"]
    assert max(rates) <= 0.01
    assert rates.index(max(rates)) in (2, 3)
    assert rates[-1] < 0.01 / 500
    assert history["epoch"] == list(range(1, 11))


def test_cosine_falls_from_the_given_rate_to_nearly_nothing(pictures):
    rates = train.fit(network(), *batches(pictures), 10, 0.01, schedule="cosine", dtype=F32)["lr"]
    expected = [0.01 * (1 + math.cos(math.pi * (6 * epoch - 1) / 60)) / 2 for epoch in range(1, 11)]
    assert rates == pytest.approx(expected, rel=1e-6)


def test_plateau_lowers_the_rate_after_three_epochs_without_gain(pictures):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    history = train.fit(model, *batches(pictures), 7, 1e-7, schedule="plateau", dtype=F32)
    assert history["lr"] == pytest.approx([1e-7] * 5 + [1e-8] * 2)


def test_betas_and_momentum_reach_the_optimizer(pictures):
    ends = [
        train.fit(network(), *batches(pictures), 1, 0.01, dtype=F32, **options)["train_loss"][0]
        for optimizer, values in (("adam", ((0.9, 0.999), (0.95, 0.99))), ("adamw", ((0.9, 0.999), (0.5, 0.999))))
        for options in ({"optimizer": optimizer, "betas": betas} for betas in values)
    ]
    ends += [
        train.fit(network(), *batches(pictures), 1, 0.01, dtype=F32, momentum=m)["train_loss"][0] for m in (0, 0.9)
    ]
    assert len(set(ends)) == 6


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "plateau", "constant"])
def test_every_optimizer_and_schedule_lowers_the_loss(pictures, optimizer, schedule):
    model = network()
    history = train.fit(model, *batches(pictures), 4, 0.003, optimizer=optimizer, schedule=schedule, dtype=F32)
    assert history["train_loss"][-1] < history["train_loss"][0]


def own_sgd(groups, lr):
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)


def test_an_optimizer_of_ones_own_gets_groups_rate_and_schedule(pictures):
    ends = []
    for optimizer in ("sgd", own_sgd):
        model = network()
        options = {"optimizer": optimizer, "schedule": "cosine", "weight_decay": 0.01, "dtype": F32}
        history = train.fit(model, *batches(pictures), 2, 0.05, **options)
        ends.append((weights(model), history["lr"]))
    assert same(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


def test_a_checkpoint_knows_an_optimizer_of_ones_own_by_its_name(pictures, tmp_path):
    options = {"epochs": 1, "lr": 0.01, "dtype": F32, "checkpoint": tmp_path / "own.pt"}
    train.fit(network(), *batches(pictures), optimizer=own_sgd, **options)
    assert train.load_checkpoint(tmp_path / "own.pt")["recipe"]["optimizer"] == "own_sgd"
    with pytest.raises(ValueError, match="optimizer was 'own_sgd', now 'sgd'"):
        train.fit(network(), *batches(pictures), **options)


def test_the_choice_of_a_number_format_draws_no_random_numbers():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train.fast_dtype.__wrapped__("cpu")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_trains_too(pictures, dtype):
    seen = []

    class Watched(Network):
        def forward(self, x):
            logits = super().forward(x)
            seen.append(logits.dtype)
            return logits

    torch.manual_seed(0)
    history = train.fit(Watched(), *batches(pictures), 3, 0.01, dtype=dtype)
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert set(seen) == {dtype}


@pytest.fixture
def overflowing(monkeypatch):
    """Loss scaling that begins far too high, as it does on a GPU now and then: steps have to be left out."""
    scalers = []

    class Scaler(torch.amp.GradScaler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, init_scale=2.0**24, **kwargs)
            scalers.append(self)

    monkeypatch.setattr(torch.amp, "GradScaler", Scaler)
    return scalers


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_float16_scales_the_loss_and_leaves_out_steps_that_overflow(pictures, overflowing, recwarn, optimizer):
    model = network()
    before = weights(model)
    options = {"optimizer": optimizer, "dtype": torch.float16, "clip": 1.0}
    history = train.fit(model, *batches(pictures), 4, 0.01, **options)
    assert 1 < overflowing[0].get_scale() < 2.0**24  # some steps overflowed, later ones did not
    assert all(math.isfinite(value) and value > 0 for value in history["grad_norm"][1:])
    assert not same(before, weights(model))
    assert not [w for w in recwarn if "lr_scheduler" in str(w.message)]


def test_a_gradient_that_overflows_at_any_scale_stops_the_run(pictures, monkeypatch):
    class Broken(Network):
        def forward(self, x):
            logits = super().forward(x)
            if self.training:
                logits.register_hook(lambda gradient: gradient * math.inf)
            return logits

    for dtype, steps in ((F32, "step 1 of epoch 1"), (torch.float16, "step 6 of epoch 3")):  # 2 ** -17 is below 1
        with pytest.raises(FloatingPointError, match=f"the gradient's length is .* at {steps}"):
            train.fit(Broken(), *batches(pictures), 4, 0.01, dtype=dtype)


def test_a_broken_off_float16_run_keeps_its_scale(pictures, overflowing, tmp_path):
    recipe = {"epochs": 3, "lr": 0.02, "dtype": torch.float16}
    whole, part = network(), network()
    train.fit(whole, *batches(pictures), **recipe)
    loader, valid = batches(pictures)
    with pytest.raises(Stop):
        train.fit(network(), StopsAt(loader, 2, 1), valid, checkpoint=tmp_path / "run.pt", **recipe)
    train.fit(part, loader, valid, checkpoint=tmp_path / "run.pt", **recipe)
    assert same(weights(whole), weights(part))
    assert overflowing[0].get_scale() == overflowing[2].get_scale()


def test_float16_names_itself_as_a_cause(pictures):
    model = network()
    with torch.no_grad():
        model.linear.weight.mul_(1e8)
    with pytest.raises(FloatingPointError, match=r"step 1 of epoch 1.*65,504: try dtype=torch.float32"):
        train.fit(model, *batches(pictures), 1, 0.01, dtype=torch.float16)


class Greedy(Network):
    """Asks for more memory than any machine has, once it has seen `patience` batches."""

    def __init__(self, patience):
        super().__init__()
        self.patience, self.maps = patience, None

    def forward(self, x):
        maps = self.conv(x)
        self.maps = weakref.ref(maps)
        self.patience -= 1
        if self.patience < 0:
            torch.empty(2**60)
        return super().forward(x)


def test_a_full_memory_is_told_with_a_batch_size_to_try(pictures):
    model = Greedy(patience=2)
    before = weights(model)
    with pytest.raises(MemoryError, match="fit: the memory is full .+ batches of 16 instead of 32 images") as caught:
        train.fit(model, *batches(pictures), epochs=1, lr=0.1)
    assert same(weights(model), before)
    assert caught.value.__traceback__ is not None
    assert model.maps() is None, "the error keeps the memory that the next try needs"
    with pytest.raises(MemoryError, match="evaluate: the memory is full"):
        train.evaluate(model, batches(pictures)[1])


def test_other_errors_of_a_network_go_on_as_they_are(pictures):
    model = network()
    model.forward = lambda x: model.linear(x)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
        train.fit(model, *batches(pictures), epochs=1, lr=0.1)
    assert not isinstance(caught.value, MemoryError)


@pytest.mark.parametrize(("gain", "dtype"), [(0.4, F32), (1.1, F32), (1.9, torch.bfloat16)])
def test_bfloat16_is_taken_where_it_is_faster_and_one_line_says_so(monkeypatch, capsys, gain, dtype):
    monkeypatch.setattr(train, "_bfloat16_gain", lambda: gain)
    assert train.fast_dtype.__wrapped__("cpu") == dtype
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert f"Number format: {str(dtype)[6:]}" in said
    assert str(gain) in said


def test_bfloat16_is_measured_on_one_thread_and_the_number_of_threads_given_back(monkeypatch):
    seen, threads = set(), torch.get_num_threads()
    autocast = train.autocast
    monkeypatch.setattr(train, "autocast", lambda *args: seen.add(torch.get_num_threads()) or autocast(*args))
    torch.set_num_threads(2)
    try:
        assert train._bfloat16_gain() > 0
        assert seen == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_large_blocks_are_kept_where_the_c_library_can():
    assert train.keep_large_blocks() == (sys.platform == "linux" and "glibc" in os.confstr("CS_GNU_LIBC_VERSION"))


def test_compiled_steps_train_the_same_network(pictures, tmp_path, monkeypatch):
    calls = []

    def compile(model):
        wrapped = torch.nn.Sequential(model)  # other names in its state_dict, as a compiled network has
        wrapped.register_forward_hook(lambda *_: calls.append(1))
        return wrapped

    monkeypatch.setattr(torch, "compile", compile)
    plain, compiled = network(), network()
    train.fit(plain, *batches(pictures), 1, 0.01, dtype=F32)
    train.fit(compiled, *batches(pictures), 1, 0.01, dtype=F32, compile=True, checkpoint=tmp_path / "run.pt")
    assert len(calls) == len(batches(pictures)[0])
    assert same(weights(plain), weights(compiled))
    train.restore(network(5), train.load_checkpoint(tmp_path / "run.pt"))


# ---------------------------------------------------------------- the moving average


def test_the_average_of_the_weights_equals_the_sum_written_out(pictures):
    trail = []

    class Trail:
        """Batches that note the weights before each step."""

        def __init__(self, inner, model):
            self.inner, self.model = inner, model

        def __len__(self):
            return len(self.inner)

        def __iter__(self):
            for batch in self.inner:
                trail.append(weights(self.model))
                yield batch
            trail.append(weights(self.model))

    loader, valid = batches(pictures)
    model, raw = network(), network()
    train.fit(raw, loader, valid, 1, 0.05, dtype=F32)
    loader.set_epoch(0)
    history = train.fit(model, Trail(loader, model), valid, 1, 0.05, dtype=F32, ema=0.35)
    assert same(weights(raw), trail[-1])  # the average does not touch the training
    expected = trail[0]
    for step, new in enumerate(trail[1:], start=1):
        share = min(0.35, (1 + step) / (10 + step))
        expected = {
            key: share * value + (1 - share) * new[key] if value.is_floating_point() else new[key]
            for key, value in expected.items()
        }
    assert all(torch.allclose(value, expected[key], atol=1e-6) for key, value in weights(model).items())
    assert not same(weights(model), weights(raw))
    assert history["valid_loss"][-1] == train.evaluate(model, valid, dtype=F32)[0]  # the average is what is validated


def test_weight_decay_leaves_biases_and_batch_norm_alone():
    decayed, others = train.parameter_groups(CustomResNet(width=8), 5e-4)
    assert decayed["weight_decay"] == 5e-4
    assert others["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decayed["params"])
    assert len(decayed["params"]) == 9
    assert len(others["params"]) == 8 * 2 + 1


def test_a_loss_that_is_not_finite_stops_at_once(pictures):
    model = network()
    before = weights(model)
    with pytest.raises(FloatingPointError, match=r"step \d+ of epoch \d+, at learning rate 1e\+12.*try a tenth"):
        train.fit(model, *batches(pictures), 1, 1e12, schedule="constant", dtype=F32)
    assert same(before, weights(model))


class Changed:
    """Batches with `change` applied to (x, y)."""

    def __init__(self, inner, change):
        self.inner, self.change = inner, change

    def __len__(self):
        return len(self.inner)

    def __iter__(self):
        return (self.change(x, y) for x, y in self.inner)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda x, y: (x / 0, y), FloatingPointError, "step 1 of epoch 1, at learning rate .* deviation of 0"),
        (lambda x, y: (x, y + 5), ValueError, r"Labels run from \d to 14, but the network has 10 outputs"),
        (lambda x, y: (x, y - 1), ValueError, "Labels run from -1 to"),
        (lambda x, y: (x, y.float()), ValueError, "labels .* of whole numbers"),
        (lambda x, y: (x, F.one_hot(y, 10)), ValueError, r"got \(32, 3, 32, 32\) and \(32, 10\)"),
        (lambda x, y: (x[:0], y[:0]), ValueError, "with B >= 1"),
        (lambda x, y: ((x * 255).byte(), y), ValueError, "Images must be float and normalised, got torch.uint8"),
        (lambda x, y: (x[:1], y[:1]), ValueError, "one image, of which batch norm.*drop_last=True"),
        (lambda x, y: (x.to("meta"), y), ValueError, r"network is on cpu, the images on meta.*model.to\('meta'\)"),
    ],
)
def test_batches_that_cannot_be_trained_on_are_refused_in_words(pictures, change, error, words):
    loader, valid = batches(pictures)
    model = network()
    before = weights(model)
    with pytest.raises(error, match=words):
        train.fit(model, Changed(loader, change), valid, 1, 0.01, dtype=F32)
    assert same(before, weights(model))


def test_validation_images_that_are_not_finite_stop_the_run(pictures, tmp_path):
    loader, valid = batches(pictures)
    with pytest.raises(FloatingPointError, match="validation after epoch 1"):
        train.fit(
            network(), loader, Changed(valid, lambda x, y: (x / 0, y)), 1, 0.01, dtype=F32, checkpoint=tmp_path / "c"
        )
    assert not (tmp_path / "c").exists()


def test_a_network_that_cannot_be_trained_is_refused_in_words(pictures):
    frozen, halved, broken = (network() for _ in range(3))
    frozen.requires_grad_(False)
    halved.linear.to("meta")
    with torch.no_grad():
        broken.linear.bias[0] = math.nan
    for model, words in (
        (frozen, "no parameter to train: all are frozen"),
        (nn.Flatten(), "it has none"),
        (halved, r"several devices \(cpu, meta\)"),
        (broken, "not finite numbers. Build it anew"),
    ):
        with pytest.raises(ValueError, match=words):
            train.fit(model, *batches(pictures), 1, 0.01, dtype=F32)


def test_a_partly_frozen_network_trains_its_other_part(pictures):
    model = network()
    model.conv.requires_grad_(False)
    before = weights(model)
    train.fit(model, *batches(pictures), 1, 0.01, dtype=F32)
    assert torch.equal(model.conv.weight, before["conv.weight"])
    assert not torch.equal(model.linear.weight, before["linear.weight"])


def test_sets_of_a_wrong_size_are_refused_before_the_first_step(pictures):
    class Untouched(nn.BatchNorm2d):
        def forward(self, x):
            raise AssertionError("a step was taken")

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Untouched(4))
    x, y = torch.randn(33, 3, 32, 32), torch.zeros(33, dtype=torch.int64)
    whole = TensorDataset(x, y)
    one_left = data.Batches(pictures[0], pictures[0].mean_std(), len(pictures[0]) - 1)
    for loader in (DataLoader(whole, 32), DataLoader(whole, 1), one_left):
        with pytest.raises(ValueError, match="last batch holds one image"):
            train.fit(model, loader, [(x, y)], 1, 0.01, dtype=F32)
    for empty in ([], DataLoader(whole, 64, drop_last=True)):
        with pytest.raises(ValueError, match="train yields no batch"):
            train.fit(model, empty, [(x, y)], 1, 0.01, dtype=F32)
    with pytest.raises(ValueError, match="train must have a length"):
        train.fit(model, (batch for batch in [(x, y)]), [(x, y)], 1, 0.01, dtype=F32)
    train.fit(network(), DataLoader(whole, 32, drop_last=True), [(x, y)], 1, 0.01, dtype=F32)  # leaves it out


def test_a_walk_of_another_length_than_promised_is_refused(pictures):
    loader, valid = batches(pictures)

    class Liar(Changed):
        def __len__(self):
            return 9

    with pytest.raises(ValueError, match=r"epoch 1 had 6 batches, but len\(train\) is 9"):
        train.fit(network(), Liar(loader, lambda x, y: (x, y)), valid, 1, 0.01, dtype=F32)


def test_an_accuracy_at_chance_is_said_once(pictures, capsys):
    loader, valid = batches(pictures)
    generator = torch.Generator().manual_seed(0)

    def noise(x, y):
        return torch.randn(x.shape, generator=generator), y

    train.fit(network(), Changed(loader, noise), Changed(valid, noise), 9, 1e-5, dtype=F32)
    said = capsys.readouterr().out
    assert said.count("Warning") == 1
    assert "guessing one of 10 classes gives 10.0%" in said
    train.fit(network(), loader, valid, 9, 0.01, optimizer="adam", dtype=F32)
    assert "Warning" not in capsys.readouterr().out


def test_quiet_leaves_nothing_on_the_page_but_warnings(pictures, capsys):
    loader, valid = batches(pictures)
    loud = train.fit(network(), loader, valid, 2, 0.01, dtype=F32)
    assert capsys.readouterr().out.count("\n") == 3  # the head and a line an epoch
    quiet = train.fit(network(), loader, valid, 2, 0.01, dtype=F32, quiet=True)
    assert capsys.readouterr().out == ""
    assert quiet["valid_loss"] == loud["valid_loss"]
    flat = Changed(loader, lambda x, y: (torch.zeros_like(x), y)), Changed(valid, lambda x, y: (torch.zeros_like(x), y))
    train.fit(network(), *flat, 9, 0.01, dtype=F32, quiet=True)
    assert capsys.readouterr().out.startswith("Warning: after epoch")


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ((0.10, 45_000, 0.10, 5000, 10, 1), "lr far too large or too small"),
        ((0.10, 180, 0.10, 60, 10, 1), ""),  # too few images were shown to expect anything
        ((0.10, 180, 0.10, 60, 10, 6), "guessing one of 10 classes"),
        ((0.45, 45_000, 0.10, 5000, 10, 1), "normalised as the training images"),
        ((0.45, 45_000, 0.10, 50, 10, 1), ""),
        ((0.13, 45_000, 0.12, 5000, 10, 1), ""),
        ((0.50, 45_000, 0.50, 5000, 2, 1), "guessing one of 2 classes gives 50.0%"),
    ],
)
def test_what_counts_as_chance(figures, words):
    warning = train._chance(*figures)
    assert words in warning
    assert bool(words) == bool(warning)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": "sdg"}, "'sdg' is not known. Allowed: sgd, adam, adamw, or a function"),
        ({"optimizer": lambda groups, lr: groups}, "optimizer must return a torch.optim.Optimizer, got list"),
        ({"schedule": "cosinus"}, "'cosinus' is not known. Allowed: one_cycle, cosine, plateau, constant"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"lr": -1.0}, "lr above 0"),
        ({"lr": math.nan}, "lr above 0"),
        ({"ema": 1.0}, "ema must lie between 0 and 1"),
        ({"clip": 0.0}, "clip must be above 0"),
        ({"momentum": 1.5}, "momentum must lie in"),
        ({"label_smoothing": 1.0}, "label_smoothing must lie in"),
    ],
)
def test_unknown_options_are_refused(pictures, options, words):
    with pytest.raises(ValueError, match=words):
        train.fit(network(), *batches(pictures), **{"epochs": 1, "lr": 0.1, **options})


def test_a_network_with_too_few_outputs_is_refused(pictures):
    with pytest.raises(ValueError, match=r"the network has 4 outputs \(labels 0 to 3\)"):
        train.fit(network(classes=4), *batches(pictures), 1, 0.1, dtype=F32)


def test_progress_names_rate_and_time_left():
    line = train._progress(epoch=1, epochs=4, step=25, steps=100, seen=3200, seconds=10)
    assert line == "    2  [#####---------------] 320 images/s, about 1:50 left"


# ---------------------------------------------------------------- evaluate


def test_evaluate_equals_one_pass_over_all_images(pictures):
    model, (_, valid) = network(), batches(pictures)
    model.train()
    before = weights(model)
    loss, accuracy = train.evaluate(model, valid, dtype=F32)
    assert model.training
    assert same(before, weights(model))
    model.eval()
    x, y = (torch.cat(parts) for parts in zip(*valid, strict=True))
    with torch.no_grad():
        assert loss == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-5)
        assert accuracy == pytest.approx((model(x).argmax(1) == y).float().mean().item())


def test_evaluate_refuses_nothing():
    with pytest.raises(ValueError, match="no images"):
        train.evaluate(network(), [])


# ---------------------------------------------------------------- History


def test_history_knows_its_columns_and_its_best_epoch():
    rows = [
        dict.fromkeys(train.History.COLUMNS, 0.0) | {"epoch": e, "valid_accuracy": a}
        for e, a in ((1, 0.5), (2, 0.7), (3, 0.7))
    ]
    history = train.History(rows)
    assert history.best_epoch == 2
    assert history["valid_accuracy"] == [0.5, 0.7, 0.7]
    assert "70.00%" in history.table()
    with pytest.raises(KeyError, match="no column 'accuracy'"):
        history["accuracy"]


def test_history_is_measured_saved_and_drawn(pictures, tmp_path):
    history = train.fit(network(), *batches(pictures), 3, 0.01, dtype=F32)
    assert all(value > 0 for column in ("grad_norm", "lr", "seconds") for value in history[column])
    history.save(tmp_path / "tables" / "history.csv")
    with open(tmp_path / "tables" / "history.csv", newline="") as file:
        read = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert read == history.rows
    history.plot("A finding", "sample shapes")
    labels = {ax.get_ylabel(): [list(line.get_ydata()) for line in ax.lines] for ax in plt.gcf().axes}
    assert labels["accuracy"] == [history["train_accuracy"], history["valid_accuracy"]]
    assert labels["gradient norm"] == [history["grad_norm"]]
    assert len(labels) == 4
    plt.close()


def test_the_gradient_norm_is_that_before_clipping(pictures):
    free = train.fit(network(), *batches(pictures), 1, 1e-9, dtype=F32)
    clipped = train.fit(network(), *batches(pictures), 1, 1e-9, dtype=F32, clip=1e-3)
    assert clipped["grad_norm"][0] == pytest.approx(free["grad_norm"][0], rel=1e-3)
    assert free["grad_norm"][0] > 0.1


def test_an_empty_history_says_so():
    for use in (lambda: train.History().best_epoch, lambda: train.History().plot("t", "d")):
        with pytest.raises(ValueError, match="no epoch was finished"):
            use()


# ---------------------------------------------------------------- checkpoints


class Stop(Exception):
    pass


class StopsAt:
    """Batches that break off at one step of one epoch, as a killed run does."""

    def __init__(self, inner, epoch, step, error=Stop):
        self.inner, self.at, self.error = inner, (epoch, step), error

    def __len__(self):
        return len(self.inner)

    def set_epoch(self, epoch):
        self.epoch = epoch
        self.inner.set_epoch(epoch)

    def __iter__(self):
        for step, batch in enumerate(self.inner):
            if (self.epoch, step) == self.at:
                raise self.error
            yield batch


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "one_cycle"},
        {"schedule": "cosine", "ema": 0.9},
        {"schedule": "plateau", "optimizer": "adam"},
        {"dtype": torch.float16, "optimizer": "adamw"},
    ],
)
@pytest.mark.parametrize(("epoch", "step"), [(0, 3), (1, 0), (2, 5)])
def test_a_broken_off_run_ends_in_the_same_weights(pictures, tmp_path, epoch, step, options):
    recipe = {"epochs": 3, "lr": 0.02, "clip": 1.0, "dtype": F32, **options}
    whole = network()
    expected = train.fit(whole, *batches(pictures), **recipe)

    path = tmp_path / "run.pt"
    loader, valid = batches(pictures)
    with pytest.raises(Stop):
        train.fit(network(), StopsAt(loader, epoch, step), valid, checkpoint=path, **recipe)
    assert path.exists() == (epoch > 0)
    torch.manual_seed(99)  # whatever a new process has drawn before
    random.seed(99)
    continued = network(seed=99 if epoch else 0)
    history = train.fit(continued, *batches(pictures), checkpoint=path, **recipe)
    assert same(weights(whole), weights(continued))
    assert without_seconds(history.rows) == without_seconds(expected.rows)


def without_seconds(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_a_run_killed_again_and_again_ends_bit_for_bit_as_if_undisturbed(tmp_path):
    """Seven kills in steps, in validation, and before, in and after writing: see tests/killed_run.py."""
    torch.set_num_threads(1)
    (tmp_path / "undisturbed").mkdir()
    expected = killed_run.run(tmp_path / "undisturbed")
    folder = tmp_path / "killed"
    folder.mkdir()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for moment in (*killed_run.MOMENTS, None):
        command = [sys.executable, killed_run.__file__, str(folder), *([moment] if moment else [])]
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert (result.returncode != 0) == bool(moment), f"{moment}: {result.stderr}"
        assert not result.stderr, result.stderr
        if moment and hasattr(signal, "SIGKILL"):
            assert result.returncode == -signal.SIGKILL
        if moment and "half written" in moment:
            assert len(list(folder.glob("*.tmp"))) == 1
    assert not list(folder.glob("*.tmp"))  # what the killed ones left is gone
    found = torch.load(folder / "result.pt", weights_only=True)
    for schedule, (state, rows) in expected.items():
        assert same(state, found[schedule][0]), schedule
        assert without_seconds(rows) == without_seconds(found[schedule][1]), schedule


def test_an_interrupt_keeps_the_last_finished_epoch_and_the_same_call_continues(pictures, tmp_path, capsys):
    recipe = {"epochs": 3, "lr": 0.02, "dtype": F32, "ema": 0.9}
    whole, part = network(), network()
    expected = train.fit(whole, *batches(pictures), **recipe)
    loader, valid = batches(pictures)
    path = tmp_path / "run.pt"
    history = train.fit(part, StopsAt(loader, 1, 3, KeyboardInterrupt), valid, checkpoint=path, **recipe)
    assert without_seconds(history.rows) == without_seconds(expected.rows[:1])
    assert same(weights(part), train.load_checkpoint(path)["model"])
    assert train.evaluate(part, valid, dtype=F32)[0] == history["valid_loss"][0]
    assert "as after epoch 1 of 3. The same call continues" in capsys.readouterr().out
    history = train.fit(part, loader, valid, checkpoint=path, **recipe)
    assert same(weights(whole), weights(part))
    assert without_seconds(history.rows) == without_seconds(expected.rows)


def test_an_interrupt_before_anything_is_reached_goes_on_to_the_caller(pictures):
    loader, valid = batches(pictures)
    model = network()
    before = weights(model)
    with pytest.raises(KeyboardInterrupt):
        train.fit(model, StopsAt(loader, 0, 3, KeyboardInterrupt), valid, 3, 0.02, dtype=F32)
    assert same(before, weights(model))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"lr": 0.02}, "lr was 0.01, now 0.02"),
        ({"epochs": 2}, "epochs was 1, now 2"),
        ({"schedule": "cosine"}, "schedule was 'one_cycle', now 'cosine'"),
        ({"optimizer": "adam"}, "optimizer was 'sgd', now 'adam'"),
        ({"ema": 0.9}, "ema was None, now 0.9"),
        ({"clip": 1.0}, "clip was None, now 1.0"),
        ({"dtype": torch.bfloat16}, "dtype was 'float32', now 'bfloat16'"),
        ({"seed": 4}, "seed was 0, now 4"),
    ],
)
def test_each_setting_of_the_recipe_counts(pictures, tmp_path_factory, other, words):
    path = tmp_path_factory.getbasetemp() / "recipe.pt"
    options = {"epochs": 1, "lr": 0.01, "dtype": F32, "checkpoint": path}
    if not path.exists():
        train.fit(network(), *batches(pictures), **options)
    with pytest.raises(ValueError, match=f"recipe.pt belongs to a run with other settings: .*{words}"):
        train.fit(network(), *batches(pictures), **(options | other))
    frozen = network()
    frozen.conv.requires_grad_(False)
    with pytest.raises(ValueError, match="trainable parameters was"):
        train.fit(frozen, *batches(pictures), **options)
    with pytest.raises(ValueError, match=r"train\.seed was 0, now 8"):
        train.fit(network(), *batches(pictures, seed=8), **options)


def test_the_number_format_of_a_run_stays_when_it_continues(pictures, tmp_path, monkeypatch):
    loader, valid = batches(pictures)
    path = tmp_path / "run.pt"
    monkeypatch.setattr(train, "fast_dtype", lambda _: torch.bfloat16)
    with pytest.raises(Stop):
        train.fit(network(), StopsAt(loader, 1, 0), valid, 2, 0.01, checkpoint=path)
    monkeypatch.setattr(train, "fast_dtype", lambda _: F32)  # as a busy machine may choose
    train.fit(network(), loader, valid, 2, 0.01, checkpoint=path)
    assert train.load_checkpoint(path)["dtype"] == "bfloat16"


@pytest.mark.parametrize("facts", [{"lr": np.float64(0.1)}, {"when": [object()]}])
def test_facts_that_would_not_be_read_back_are_refused_at_once(pictures, tmp_path, facts):
    with pytest.raises(ValueError, match="plain facts only, but fit\\['about'\\].*has "):
        train.fit(network(), *batches(pictures), 1, 0.01, dtype=F32, checkpoint=tmp_path / "run.pt", about=facts)
    train.fit(network(), *batches(pictures), 1, np.float64(0.01), dtype=F32, checkpoint=tmp_path / "run.pt")
    train.load_checkpoint(tmp_path / "run.pt")


def test_a_finished_run_is_loaded_and_not_trained_again(pictures, tmp_path, capsys):
    path = tmp_path / "run.pt"
    model = network()
    first = train.fit(model, *batches(pictures), 2, 0.01, dtype=F32, checkpoint=path)
    again = network(seed=5)
    second = train.fit(again, *batches(pictures), 2, 0.01, dtype=F32, checkpoint=path)
    assert same(weights(model), weights(again))
    assert first.rows == second.rows
    assert "nothing is left to train" in capsys.readouterr().out


def test_a_run_with_other_settings_is_not_continued(pictures, tmp_path):
    path = tmp_path / "run.pt"
    train.fit(network(), *batches(pictures), 1, 0.01, dtype=F32, checkpoint=path)
    model = network(seed=5)
    before = weights(model)
    with pytest.raises(ValueError, match=r"lr was 0.01, now 0.02.*delete that file"):
        train.fit(model, *batches(pictures), 1, 0.02, dtype=F32, checkpoint=path)
    assert same(before, weights(model))


def test_a_write_that_fails_leaves_the_previous_checkpoint_whole(pictures, tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    save = torch.save

    def disk_full(content, target):
        if len(content["history"]) == 2:
            target.write_bytes(b"half")
            raise OSError("no space left on device")
        save(content, target)

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(OSError, match="no space"):
        train.fit(network(), *batches(pictures), 3, 0.01, dtype=F32, checkpoint=path)
    assert len(train.load_checkpoint(path)["history"]) == 1
    assert os.listdir(tmp_path) == ["run.pt"]


def test_checkpoints_that_are_damaged_foreign_or_missing_are_refused(pictures, tmp_path):
    path = tmp_path / "run.pt"
    with pytest.raises(FileNotFoundError, match="There is no checkpoint"):
        train.load_checkpoint(path)
    train.fit(network(), *batches(pictures), 1, 0.01, dtype=F32, checkpoint=path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        tensors = [entry for entry in file.infolist() if "/data/" in entry.filename]
        largest = max(tensors, key=lambda entry: entry.file_size)
        flipped = bytearray(whole)
        flipped[largest.header_offset + 200] ^= 1  # in the middle of the numbers: PyTorch alone would not see it
    legacy = io.BytesIO()
    torch.save({"weights": torch.zeros(3)}, legacy, _use_new_zipfile_serialization=False)
    foreign = (pickle.dumps([1, 2]), legacy.getvalue(), b"", b"text", b"\x89PNG", b"PK\x03\x04")
    for damaged in (whole[: len(whole) // 2], whole[:-1], bytes(flipped), *foreign):
        path.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=r"run\.pt cannot be read .* damaged or of another kind. Delete or move it"
        ):
            train.load_checkpoint(path)
        with pytest.raises(ValueError, match="damaged or of another kind"):
            train.fit(network(), *batches(pictures), 1, 0.01, dtype=F32, checkpoint=path)
        assert path.read_bytes() == damaged  # it may be someone's only copy of something
    for other in (network().state_dict(), [1], {"format": 3}, torch.zeros(2)):
        torch.save(other, path)
        with pytest.raises(ValueError, match=r"run\.pt is not a checkpoint of this course. Delete or move it"):
            train.load_checkpoint(path)
    for older in ({"format": "resnet-course-1", "model": {}}, {"format": train._FORMAT}):
        torch.save(older, path)
        with pytest.raises(ValueError, match="another version of this course. Delete or move it"):
            train.load_checkpoint(path)
    with pytest.raises(ValueError, match="damaged or of another kind"):
        train.load_checkpoint(tmp_path)


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"format": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="damaged or of another kind"):
        train.load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_another_architecture_is_refused_and_nothing_changes(pictures, tmp_path):
    path = tmp_path / "run.pt"
    train.fit(network(), *batches(pictures), 1, 0.01, dtype=F32, checkpoint=path, about={"network": {"width": 4}})
    saved = train.load_checkpoint(path)
    for other in (CustomResNet(width=8), network(classes=7)):
        before = weights(other)
        with pytest.raises(ValueError, match=r"run\.pt holds another architecture.*'width': 4"):
            train.restore(other, saved, path)
        assert same(before, weights(other))
    model = network(seed=5)
    train.restore(model, saved, path)
    assert same(weights(model), saved["model"])
