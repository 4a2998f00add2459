import math
import weakref

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from runs import F32, Changed, Network, Wrapped, batches, network, same, weights
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from helpers import data, guard, precision, sample, train
from helpers.model import CustomResNet


@pytest.fixture(scope="module")
def pictures():
    x, y = sample.draw(240, 0)
    return data.Images(x, y, sample.CLASSES, "sample shapes").split(0.25, seed=0)


# ---------------------------------------------------------------- fit


def test_fit_equals_the_loop_written_out(pictures):
    mine, theirs = network(), network()
    loader, valid = batches(pictures)
    options = {"schedule": "constant", "clip": 0.5, "label_smoothing": 0.1, "dtype": F32, "seed": 3}
    history = train.fit(mine, loader, valid, 2, 0.05, **options)

    loader, _ = batches(pictures)
    decayed = [p for p in theirs.parameters() if p.ndim > 1]
    others = [p for p in theirs.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0}]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True, fused=True)
    theirs.train().to(memory_format=torch.channels_last)
    torch.manual_seed(3)
    for epoch in range(2):
        losses, correct, norms = [], 0, []
        for x, y in loader:
            logits = theirs(x.to(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, y, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            norms.append(nn.utils.clip_grad_norm_(theirs.parameters(), 0.5).item())
            optimizer.step()
            losses.append(loss.item() * len(y))
            correct += (logits.argmax(1) == y).sum().item()
        images = len(loader.dataset)
        assert history["train_loss"][epoch] == pytest.approx(sum(losses) / images, rel=1e-6)
        assert history["train_accuracy"][epoch] == pytest.approx(correct / images)
        assert history["grad_norm"][epoch] == pytest.approx(sum(norms) / len(norms), rel=1e-6)  # before clipping
    assert same(weights(mine), weights(theirs))
    assert min(norms) > 0.5


def test_same_seed_same_run(pictures):
    runs = []
    for seed in (1, 1, 2):
        np.random.rand()  # noqa: NPY002 - whatever was drawn before
        model = network(1)
        noisy = Changed(batches(pictures)[0], lambda x, y: (x + np.random.rand(), y))  # noqa: NPY002
        train.fit(model, noisy, batches(pictures)[1], 1, 0.01, dtype=F32, seed=seed)
        runs.append(weights(model))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_schedules(pictures):
    rates = train.fit(network(), *batches(pictures), 10, 0.01, dtype=F32)["lr"]
    assert max(rates) <= 0.01
    assert rates.index(max(rates)) in (2, 3)
    assert rates[-1] < 0.01 / 500
    rates = train.fit(network(), *batches(pictures), 10, 0.01, schedule="cosine", dtype=F32)["lr"]
    expected = [0.01 * (1 + math.cos(math.pi * (6 * epoch - 1) / 60)) / 2 for epoch in range(1, 11)]
    assert rates == pytest.approx(expected, rel=1e-6)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    history = train.fit(flat, *batches(pictures), 7, 1e-7, schedule="plateau", dtype=F32)
    assert history["lr"] == pytest.approx([1e-7] * 5 + [1e-8] * 2)


def test_betas_reach_the_optimizer(pictures):
    ends = {
        train.fit(network(), *batches(pictures), 1, 0.01, dtype=F32, optimizer=which, betas=betas)["train_loss"][0]
        for which in ("adam", "adamw")
        for betas in ((0.9, 0.999), (0.5, 0.99))
    }
    assert len(ends) == 4


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_optimizers_are_fused_and_lower_the_loss(pictures, optimizer, monkeypatch):
    made = []
    monkeypatch.setattr(train, "_scheduler", lambda *args, make=train._scheduler: made.append(args[1]) or make(*args))
    history = train.fit(network(), *batches(pictures), 4, 0.003, optimizer=optimizer, schedule="cosine", dtype=F32)
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert made[0].defaults["fused"]


def test_an_optimizer_of_ones_own_gets_groups_rate_and_schedule(pictures):
    def own(groups, lr):
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True, fused=True)

    ends = []
    for optimizer in ("sgd", own):
        model = network()
        options = {"optimizer": optimizer, "schedule": "cosine", "weight_decay": 0.01, "dtype": F32}
        history = train.fit(model, *batches(pictures), 2, 0.05, **options)
        ends.append((weights(model), history["lr"]))
    assert same(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]


def test_weight_decay_leaves_biases_and_batch_norm_alone():
    decayed, others = train.parameter_groups(CustomResNet(width=8), 5e-4)
    assert (decayed["weight_decay"], others["weight_decay"]) == (5e-4, 0)
    assert all(p.ndim > 1 for p in decayed["params"])
    assert (len(decayed["params"]), len(others["params"])) == (9, 8 * 2 + 1)
    model = CustomResNet(width=8)
    model.prep.requires_grad_(False)
    decayed, others = train.parameter_groups(model, 5e-4)
    assert (len(decayed["params"]), len(others["params"])) == (8, 7 * 2 + 1)


def test_frozen_parts_stay_frozen(pictures):
    model = network().eval()
    model.train()
    model.norm.eval()
    model.conv.requires_grad_(False)
    before = weights(model)
    train.fit(model, *batches(pictures), 2, 0.01, dtype=F32)
    assert torch.equal(model.norm.running_mean, before["norm.running_mean"])
    assert torch.equal(model.conv.weight, before["conv.weight"])
    assert not torch.equal(model.linear.weight, before["linear.weight"])
    assert (model.training, model.norm.training, model.drop.training) == (True, False, True)

    model = network().eval()  # all of it in eval mode, as `evaluate` needs it: nothing is frozen
    train.fit(model, *batches(pictures), 1, 0.01, dtype=F32)
    assert not torch.equal(model.norm.running_mean, before["norm.running_mean"])
    assert not model.training


def test_gradients_that_the_caller_switched_off_do_not_matter(pictures):
    usual = train.fit(network(), *batches(pictures), 2, 0.01, dtype=F32)
    with torch.no_grad():
        history = train.fit(network(), *batches(pictures), 2, 0.01, dtype=F32)
    assert history["train_loss"] == usual["train_loss"]


# ---------------------------------------------------------------- precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_trains_too(pictures, dtype):
    seen = []

    class Watched(Network):
        def forward(self, x):
            logits = super().forward(x)
            seen.append(logits.dtype)
            return logits

    torch.manual_seed(0)
    history = train.fit(Watched(), *batches(pictures), 3, 0.01, dtype=dtype, clip=1.0)
    assert history["train_loss"][-1] < history["train_loss"][0]
    assert set(seen) == {dtype}
    usual = train.fit(network(), *batches(pictures), 3, 0.01, dtype=F32, clip=1.0)
    for column in ("grad_norm", "train_loss"):  # the gradient is measured and clipped in its own units
        assert history[column] == pytest.approx(usual[column], rel=0.1)


@pytest.fixture
def overflowing(monkeypatch):
    """Loss scaling that begins far too high, as it does on a GPU now and then: steps have to be left out."""
    scalers = []

    class Scaler(torch.amp.GradScaler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs | {"init_scale": 2.0**24})
            scalers.append(self)

    monkeypatch.setattr(torch.amp, "GradScaler", Scaler)
    return scalers


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_float16_scales_the_loss_and_leaves_out_steps_that_overflow(pictures, overflowing, optimizer):
    model = network()
    before = weights(model)
    options = {"optimizer": optimizer, "dtype": torch.float16, "clip": 1.0}
    history = train.fit(model, *batches(pictures), 4, 0.01, **options)
    assert 1 < overflowing[0].get_scale() < 2.0**24  # some steps overflowed, later ones did not
    assert all(math.isfinite(value) and value > 0 for value in history["grad_norm"][1:])
    assert not same(before, weights(model))
    assert all(value.isfinite().all() for value in weights(model).values())


def test_a_gradient_that_overflows_at_any_scale_stops_the_run(pictures):
    class Broken(Network):
        def forward(self, x):
            logits = super().forward(x)
            if self.training:
                logits.register_hook(lambda gradient: gradient * math.inf)
            return logits

    with pytest.raises(FloatingPointError, match="gradient is not finite at step 1 of epoch 1, at learning rate"):
        train.fit(Broken(), *batches(pictures), 4, 0.01, dtype=F32)
    with pytest.raises(FloatingPointError, match=r"epoch 2.*65,504: try dtype=torch.float32"):  # 2^10 halved 11 times
        train.fit(Broken(), *batches(pictures), 4, 0.01, dtype=torch.float16)


@pytest.mark.parametrize(("gain", "dtype"), [(0.4, F32), (1.1, F32), (1.9, torch.bfloat16)])
def test_bfloat16_is_taken_where_it_is_faster_and_one_line_says_so(monkeypatch, capsys, gain, dtype):
    monkeypatch.setattr(precision, "_bfloat16_gain", lambda: gain)
    assert precision.fast_dtype.__wrapped__("cpu") == dtype
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert f"Precision: {str(dtype)[6:]}" in said
    assert str(gain) in said


def test_the_choice_of_a_precision_changes_nothing_else():
    torch.manual_seed(5)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    with torch.inference_mode():
        precision.fast_dtype.__wrapped__("cpu")
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


# ---------------------------------------------------------------- what stands guard


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


def test_running_out_of_memory_is_told_with_a_batch_size_to_try(pictures):
    model = Greedy(patience=3)
    before = weights(model)
    with pytest.raises(RuntimeError) as caught:
        train.fit(model, *batches(pictures), epochs=1, lr=0.1, dtype=F32)
    assert "batches of 16 instead of 32 images" in caught.value.__notes__[0]
    assert same(weights(model), before)
    assert model.maps() is None, "the error keeps the memory that the next try needs"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda x, y: (x / 0, y), FloatingPointError, "epoch 1, step 1: the images .* deviation of 0"),
        (lambda x, y: (x, y + 5), ValueError, "epoch 1, step 1: a label lies outside 0 to 9.* 10 outputs"),
        (lambda x, y: (x, y - 1), ValueError, "a label lies outside 0 to 9"),
        (lambda x, y: (x, y.float()), ValueError, "labels .* of whole numbers"),
        (lambda x, y: (x, F.one_hot(y, 10)), ValueError, r"got \(32, 3, 32, 32\) and \(32, 10\)"),
        (lambda x, y: (x[:0], y[:0]), ValueError, "with B >= 1"),
        (lambda x, y: ((x * 255).byte(), y), ValueError, "Images must be float and normalised, got torch.uint8"),
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
    with pytest.raises((ValueError, FloatingPointError)):
        train.evaluate(model, Changed(loader, change), dtype=F32)


def test_a_loss_that_is_not_finite_names_its_step(pictures):
    model = network()
    before = weights(model)
    with pytest.raises(FloatingPointError, match=r"step [2-6] of epoch 1, at learning rate 1e\+12.*try a tenth"):
        train.fit(model, *batches(pictures), 1, 1e12, schedule="constant", dtype=F32)
    assert same(before, weights(model))


def test_it_stops_at_the_next_tick_not_at_the_end_of_the_epoch(pictures, monkeypatch):
    monkeypatch.setattr(guard, "TICK", 0.0)
    seen = []
    loader = Changed(batches(pictures)[0], lambda x, y: seen.append(1) or (x / 0, y))
    with pytest.raises(FloatingPointError):
        train.fit(network(), loader, batches(pictures)[1], 1, 0.01, dtype=F32)
    assert len(seen) <= 2


def test_validation_images_that_are_not_finite_are_blamed_themselves(pictures, tmp_path):
    loader, valid = batches(pictures)
    broken = Changed(valid, lambda x, y: (x / 0, y))
    with pytest.raises(FloatingPointError, match="validation after epoch 1, step 1: the images"):
        train.fit(network(), loader, broken, 1, 0.01, dtype=F32, checkpoint=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_network_that_cannot_be_trained_is_refused_in_words(pictures):
    frozen, halved, broken = (network() for _ in range(3))
    frozen.requires_grad_(False)
    halved.linear.to("meta")
    with torch.no_grad():
        broken.linear.bias[0] = math.nan
    for model, words in (
        (frozen, "no parameter to train. Unfreeze"),
        (halved, "several devices"),
        (broken, "not finite numbers. Build it anew"),
        (nn.Conv2d(3, 4, 3), r"must return logits \(B, classes\), got \(1, 4, 30, 30\)"),
    ):
        with pytest.raises(ValueError, match=words):
            train.fit(model, *batches(pictures), 1, 0.01, dtype=F32)


def test_passes_of_a_wrong_length_are_refused(pictures):
    x, y = torch.randn(33, 3, 32, 32), torch.zeros(33, dtype=torch.int64)
    for empty in ([], DataLoader(TensorDataset(x, y), 64, drop_last=True)):
        with pytest.raises(ValueError, match="train yields no batch"):
            train.fit(network(), empty, [(x, y)], 1, 0.01, dtype=F32)
    with pytest.raises(ValueError, match="train needs a length"):
        train.fit(network(), (batch for batch in [(x, y)]), [(x, y)], 1, 0.01, dtype=F32)

    class Liar(Wrapped):
        def __len__(self):
            return 9

    with pytest.raises(ValueError, match=r"epoch 1 had 6 batches, but len\(train\) is 9"):
        train.fit(network(), Liar(batches(pictures)[0]), batches(pictures)[1], 1, 0.01, dtype=F32)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": "sdg"}, "'sdg' is not known. Allowed: sgd, adam, adamw, or a function"),
        ({"optimizer": lambda groups, lr: groups}, "optimizer must return a torch.optim.Optimizer, got list"),
        ({"schedule": "cosinus"}, "'cosinus' is not known. Allowed: one_cycle, cosine, plateau, constant"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"lr": -1.0}, "lr above 0"),
        ({"lr": math.nan}, "lr above 0"),
        ({"clip": 0.0}, "clip must be above 0"),
        ({"label_smoothing": 1.0}, "label_smoothing must lie in"),
    ],
)
def test_unknown_options_are_refused(pictures, options, words):
    with pytest.raises(ValueError, match=words):
        train.fit(network(), *batches(pictures), **{"epochs": 1, "lr": 0.1, "dtype": F32, **options})


# ---------------------------------------------------------------- evaluate


def test_evaluate_equals_one_pass_over_all_images(pictures):
    model, (_, valid) = network(), batches(pictures)
    model.train()
    model.norm.eval()
    before = weights(model)
    loss, accuracy = train.evaluate(model, valid, dtype=F32)
    assert (model.training, model.norm.training, model.drop.training) == (True, False, True)
    assert same(before, weights(model))
    model.eval()
    x, y = (torch.cat(parts) for parts in zip(*valid, strict=True))
    with torch.no_grad():
        assert loss == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-5)
        assert accuracy == pytest.approx((model(x).argmax(1) == y).float().mean().item())


def test_evaluate_refuses_nothing_and_a_damaged_network(pictures):
    with pytest.raises(ValueError, match="there are no images"):
        train.evaluate(network(), [], dtype=F32)
    model = network()
    with torch.no_grad():
        model.linear.bias[0] = math.nan
    with pytest.raises(FloatingPointError, match="evaluation: the loss is not a finite number"):
        train.evaluate(model, batches(pictures)[1], dtype=F32)


# ---------------------------------------------------------------- History


def test_history_is_measured_told_and_drawn(pictures, capsys):
    history = train.fit(network(), *batches(pictures), 3, 0.01, dtype=F32)
    assert capsys.readouterr().out == history.table() + "\n"
    assert history["epoch"] == [1, 2, 3]
    assert all(value > 0 for column in ("grad_norm", "lr", "seconds") for value in history[column])
    with pytest.raises(KeyError, match="no column 'accuracy'"):
        history["accuracy"]
    history.plot("A finding", "sample shapes")
    labels = {ax.get_ylabel(): [list(line.get_ydata()) for line in ax.lines] for ax in plt.gcf().axes}
    assert list(plt.gcf().axes[0].lines[0].get_xdata()) == [1, 2, 3]
    assert labels["accuracy"] == [history["train_accuracy"], history["valid_accuracy"]]
    assert labels["loss"] == [history["train_loss"], history["valid_loss"]]
    assert labels["gradient norm"] == [history["grad_norm"]]
    assert labels["learning rate"] == [history["lr"]]
    plt.close()
    quiet = train.fit(network(), *batches(pictures), 3, 0.01, dtype=F32, quiet=True)
    assert capsys.readouterr().out == ""
    assert quiet["valid_loss"] == history["valid_loss"]


def test_an_empty_history_says_so():
    with pytest.raises(ValueError, match="no epoch was finished"):
        train.History().plot("t", "d")


def test_progress_names_rate_and_time_left():
    line = guard._progress(epoch=1, epochs=4, step=25, steps=100, seen=3200, seconds=10)
    assert line == "    2  [#####---------------] 320 images/s, about 1:50 left"
