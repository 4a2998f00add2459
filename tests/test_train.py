import os
import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import data, sample, train
from helpers.model import CustomResNet

F32 = torch.float32


class Network(nn.Module):
    """Small, with batch norm and dropout, so that all kinds of state matter."""

    def __init__(self, classes=10):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4)
        self.drop, self.linear = nn.Dropout(0.2), nn.Linear(4 * 8 * 8, classes)

    def forward(self, x):
        return self.linear(self.drop(self.norm(self.conv(x)).relu().flatten(1)))


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


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["one_cycle", "plateau", "constant"])
def test_every_optimizer_and_schedule_lowers_the_loss(pictures, optimizer, schedule):
    model = network()
    history = train.fit(model, *batches(pictures), 4, 0.003, optimizer=optimizer, schedule=schedule, dtype=F32)
    assert history["train_loss"][-1] < history["train_loss"][0]


def test_the_choice_of_a_number_format_draws_no_random_numbers():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train.fast_dtype.__wrapped__("cpu")
    assert torch.equal(torch.rand(3), expected)


def test_reduced_precision_trains_too(pictures):
    history = train.fit(network(), *batches(pictures), 3, 0.01, dtype=torch.bfloat16)
    assert history["train_loss"][-1] < history["train_loss"][0]


def test_weight_decay_leaves_biases_and_batch_norm_alone():
    decayed, others = train.parameter_groups(CustomResNet(width=8), 5e-4)
    assert decayed["weight_decay"] == 5e-4
    assert others["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decayed["params"])
    assert len(decayed["params"]) == 9
    assert len(others["params"]) == 8 * 2 + 1


def test_a_loss_that_is_not_finite_stops_at_once(pictures):
    with pytest.raises(FloatingPointError, match=r"step \d+ of epoch \d+, at learning rate .*try a tenth"):
        train.fit(network(), *batches(pictures), 5, 1e12, schedule="constant", dtype=F32)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": "sdg"}, "'sdg' is not known. Allowed: sgd, adam, adamw"),
        ({"schedule": "cosinus"}, "'cosinus' is not known. Allowed: one_cycle, plateau, constant"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"lr": -1.0}, "lr above 0"),
    ],
)
def test_unknown_options_are_refused(pictures, options, words):
    with pytest.raises(ValueError, match=words):
        train.fit(network(), *batches(pictures), **{"epochs": 1, "lr": 0.1, **options})


def test_a_network_with_too_few_outputs_is_refused(pictures):
    with pytest.raises(ValueError, match=r"the network has 4 outputs \(labels 0 to 3\)"):
        train.fit(network(classes=4), *batches(pictures), 1, 0.1, dtype=F32)


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


# ---------------------------------------------------------------- checkpoints


class Stop(Exception):
    pass


class StopsAt:
    """Batches that break off at one step of one epoch, as a killed run does."""

    def __init__(self, inner, epoch, step):
        self.inner, self.at = inner, (epoch, step)

    def __len__(self):
        return len(self.inner)

    def set_epoch(self, epoch):
        self.epoch = epoch
        self.inner.set_epoch(epoch)

    def __iter__(self):
        for step, batch in enumerate(self.inner):
            if (self.epoch, step) == self.at:
                raise Stop
            yield batch


@pytest.mark.parametrize("schedule", ["one_cycle", "plateau"])
@pytest.mark.parametrize(("epoch", "step"), [(0, 3), (1, 0), (2, 5)])
def test_a_broken_off_run_ends_in_the_same_weights(pictures, tmp_path, epoch, step, schedule):
    recipe = {"epochs": 3, "lr": 0.02, "clip": 1.0, "schedule": schedule, "dtype": F32}
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
    for column in ("lr", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy"):
        assert history[column] == expected[column]


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
    for damaged in (whole[: len(whole) // 2], b"", b"text"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged or of another kind"):
            train.load_checkpoint(path)
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="not a checkpoint of this course"):
        train.load_checkpoint(path)


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
