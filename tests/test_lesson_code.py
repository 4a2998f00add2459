"""What lessons define: lesson 03's network, lesson 07's table of runs, lesson 09's network and processes."""

import csv
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time

import nbclient
import nbformat
import pytest
import torch
import torch.nn.functional as F
from lessons import LESSONS, ROOT, saved_text
from torch import nn

from helpers import data, model, sample, utils
from helpers.train import autocast


def lesson(stem):
    (found,) = (lesson for lesson in LESSONS if lesson.path.stem == stem)
    return found


def defined(stem, tag, names):
    """The names that a lesson's cells of this tag define; `names` are those that they find."""
    cells = lesson(stem).tagged(tag)
    assert cells, f"no cell of {stem} is tagged {tag}"
    for cell in cells:
        exec(compile(cell.source, stem, "exec"), names)
    return names


# ---------------------------------------------------------------- 03: the network is the library's


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("width", [8, 64])
def test_the_network_of_lesson_03_is_that_of_the_library(width, mode):
    """Same first weights from the same seed, same names, outputs, gradients and running averages."""
    lesson_class = defined("03_resnet_from_scratch", "definition", {"torch": torch, "nn": nn, "F": F})["CustomResNet"]
    nets = []
    for build in (lesson_class, model.CustomResNet):
        torch.manual_seed(3)
        nets.append(build(width))
        if width == 64:
            assert sum(p.numel() for p in nets[-1].parameters()) == 6_573_130
    mine, theirs = (net.state_dict() for net in nets)
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    for name, t in theirs.items():  # weights that no seed gives, and batch norm that does something in eval mode, too
        if t.is_floating_point():
            t.uniform_(0.5, 1.5) if "running" in name else t.add_(0.05 * torch.randn_like(t))
    nets[0].load_state_dict(theirs)
    x, y = torch.randn(4, 3, 32, 32), torch.randint(0, 10, (4,))
    logits = [net.train(mode == "train")(x) for net in nets]
    assert logits[0].shape == (4, 10)
    assert torch.allclose(*logits, rtol=1e-4, atol=1e-4)
    for out in logits:
        F.cross_entropy(out, y).backward()
    for (name, p), q in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-3, atol=1e-5), name
    for (name, a), b in zip(nets[0].named_buffers(), nets[1].buffers(), strict=True):
        assert torch.allclose(a, b, atol=1e-5), name


# ---------------------------------------------------------------- 05 to 08: one network


@pytest.mark.slow
def test_lessons_06_and_08_go_on_with_the_network_of_lesson_05(tmp_path, monkeypatch):
    """Else each trains one of its own. In the ordinary run each lesson has a folder of checkpoints to itself."""
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path))
    for stem in ("05_training", "06_misclassification_analysis", "08_your_own_images"):
        nbclient.execute(nbformat.read(lesson(stem).path, 4), cwd=str(ROOT / "notebooks"))
    assert {path.name[:2] for path in tmp_path.glob("[!.]*")} == {"05"}  # hidden: the locks of checkpoints


# ---------------------------------------------------------------- 07: the table of runs


@pytest.fixture
def runner(tmp_path):
    """The cell that keeps the table, with a small BASE; `trained` lists the (settings, seed) that were run."""
    trained = []

    def run(settings, seed):
        trained.append((dict(settings), seed))
        return {"accuracy": 50.0 + seed / 3, "seconds": 1.5, "step_seconds": 0.1, "note": "", "hits": "1 2 3"}

    names = {"csv": csv, "json": json, "os": os, "utils": utils, "run": run, "trained": trained, "SEEDS": range(3)}
    names |= {"TABLE": tmp_path / "folder" / "table.csv", "BASE": {"lr": 0.05, "clip": None, "augment": ""}}
    return defined("07_experiments", "runner", names)


def test_a_restarted_lesson_trains_only_what_is_missing(runner):
    runner["complete"]("first", {"faster": {"lr": 0.1}}, [0, 1])
    assert len(runner["trained"]) == 2
    runner["complete"]("second", {"faster": {"lr": 0.1}, "baseline": {}})
    assert runner["trained"][2:] == [(runner["BASE"] | {"lr": 0.1}, 2), *((runner["BASE"], seed) for seed in range(3))]
    assert runner["accuracies"]({"lr": 0.1}) == [50.0 + seed / 3 for seed in range(3)]
    assert runner["name_of"]({"clip": 1.0, "lr": 0.1, "augment": ""}) == "lr 0.1, clip 1.0"
    runner["BASE"]["clip"] = 1.0  # rows of another baseline are not found
    assert runner["find"]({"lr": 0.1}, 0) is None
    with pytest.raises(ValueError, match=r"BASE has no setting \['rate'\]"):
        runner["result"]({"rate": 0.1}, 0)


def test_whoever_is_killed_while_writing_keeps_the_table(runner, monkeypatch):
    row = runner["result"]({}, 0)

    def killed(*paths):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            runner["result"]({}, 1)
    assert runner["read_table"]() == [row]
    runner["result"]({}, 1)
    assert [row["seed"] for row in runner["read_table"]()] == [0, 1]


def test_the_advice_of_the_saved_page_is_that_of_the_table_beside_it():
    with open(ROOT / "notebooks" / "07_experiments.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = re.findall(r"(?m)^  .*?(\d+\.\d)% ± (\d+\.\d) +row: (.+)$", saved_text(lesson("07_experiments")))
    assert len(lines) > 30
    for mean, spread, name in lines:
        mine = [float(row["accuracy"]) for row in rows if row["name"] == name and row["seed"] in "012"]
        assert float(mean) == pytest.approx(statistics.mean(mine), abs=0.051)
        assert float(spread) == pytest.approx(statistics.stdev(mine), abs=0.051)


# ---------------------------------------------------------------- 09: the fast network, and several processes


@pytest.fixture(scope="module")
def speed():
    names = {"os": os, "platform": platform, "subprocess": subprocess, "sys": sys, "root": ROOT, "math": math}
    names |= {"time": time, "torch": torch, "nn": nn, "F": F, "conv3x3": model.conv3x3, "utils": utils}
    names |= {"device": torch.device("cpu"), "autocast": autocast, "fast_dtype": lambda kind: torch.float32}
    return defined("09_speed", "definition", names)


def test_the_fast_network_whitens_copies_and_learns_all_but_its_filters(speed):
    filters, x = torch.randn(12, 12), torch.randn(2, 3, 32, 32)
    network = speed["SmallNetwork"](filters, 8, classes=7)
    seen = []
    for layer in (network.whiten, *network.groups[1:], network.pool):
        layer.register_forward_hook(lambda *args: seen.append(tuple(args[2].shape[1:])))
    F.cross_entropy(network(x), torch.tensor([1, 2])).backward()
    assert seen == [(24, 31, 31), (8, 15, 15), (32, 7, 7), (32, 3, 3), (32, 1, 1)]
    trained = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert trained == {name for name, _ in network.named_parameters()} - {"whiten.weight"}
    expected = (F.unfold(x, 2).transpose(1, 2) @ filters.T).transpose(1, 2).view(2, 12, 31, 31)
    assert torch.allclose(network.whiten(x), torch.cat([expected, -expected], dim=1), atol=1e-5)
    x = torch.randn(1, 4, 5, 5)
    assert torch.allclose(speed["group"](4, 6)[0](x)[:, :4], x, atol=1e-5)


def test_six_looks_weigh_the_image_and_its_mirror_most(speed):
    corner, x = nn.Identity(), torch.rand(2, 3, 4, 4)
    corner.forward = lambda x: x[:, :, 1, 1]
    middle, up_left, down_right = (x[..., i, i] + x[..., i, i + 1] for i in (1, 0, 2))
    assert torch.allclose(speed["SixLooks"](corner)(x), middle / 4 + up_left / 8 + down_right / 8)


def test_muon_evens_out_the_directions_and_keeps_the_length(speed):
    left, right = torch.linalg.qr(torch.randn(6, 6)).Q, torch.linalg.qr(torch.randn(9, 9)).Q[:6]
    lengths = left.T @ speed["orthogonal"](left @ torch.diag(torch.linspace(1, 6, 6)) @ right) @ right.T
    assert torch.allclose(lengths, lengths.diagonal().diag(), atol=1e-3)
    assert 0.5 < lengths.diagonal().min() <= lengths.diagonal().max() < 1.3
    weight = torch.randn(4, 3, 3, 3)
    before = weight * 2 / weight.norm()  # 2 is the root of 4 filters
    weight.grad, running = torch.randn(4, 3, 3, 3), torch.zeros_like(weight)
    speed["muon_step"](weight, running, 0.0, torch.float32)
    assert torch.allclose(weight, before)
    speed["muon_step"](weight, running, 0.1, torch.float32)
    assert torch.allclose(running, 1.6 * weight.grad)
    moved = before - weight
    assert (moved * weight.grad).sum() > 0
    assert 0.1 < moved.norm() < 0.3  # 0.1 along each of four directions would be 0.2


def test_training_on_the_clock_learns_and_leaves_alone_what_it_must(speed):
    images = data.Images(*sample.draw(200, 0), sample.CLASSES, "sample shapes")
    torch.manual_seed(0)
    network = speed["SmallNetwork"](torch.eye(12), 8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x, y = next(iter(data.Batches(images, images.mean_std(), 200)))
    loss = F.cross_entropy(network(x), y)
    speed["train_on_the_clock"](network, data.Batches(images, images.mean_std(), 50, shuffle=True), 4)
    with torch.no_grad():
        assert F.cross_entropy(network(x), y) < loss - 0.2
    same = {name for name, value in network.named_parameters() if torch.equal(value, before[name])}
    scales = {f"groups.{group}.{layer}.weight" for group in (1, 2, 3) for layer in (2, 5)}
    assert same == scales | {"whiten.weight"}


PROCESS = """
import os, sys, time
open(os.path.join(sys.argv[1], os.environ["RANK"] + ".pid"), "w").write(str(os.getpid()))
if os.environ["RANK"] == "1" and {fails}:
    raise ValueError("label 12 of 10 classes")
time.sleep(600)
"""


@pytest.mark.skipif(platform.system() == "Windows", reason="the lesson starts no processes there")
@pytest.mark.parametrize(
    ("fails", "limit", "words"),
    [(True, 240, "process 1: ValueError: label 12 of 10 classes"), (False, 6, "not done after 6 seconds")],
)
def test_processes_that_fail_or_never_end_are_ended_and_heard(speed, tmp_path, fails, limit, words):
    (tmp_path / "script.py").write_text(PROCESS.format(fails=fails))
    with pytest.raises(RuntimeError, match=words):
        speed["launch"](tmp_path / "script.py", limit)
    for file in tmp_path.glob("*.pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)
