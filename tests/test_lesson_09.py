"""What lesson 09 defines: its small network, and the start of several processes."""

import ast
import math
import os
import platform
import subprocess
import sys
import time

import pytest
import torch
import torch.nn.functional as F
from lessons import ROOT, Lesson
from torch import nn

from helpers import data, sample, utils
from helpers.model import conv3x3
from helpers.train import autocast


@pytest.fixture(scope="module")
def lesson():
    """The names that the cells tagged `definition` define."""
    cells = Lesson(ROOT / "notebooks" / "09_speed.ipynb").tagged("definition")
    assert len(cells) == 4
    namespace = {"os": os, "platform": platform, "subprocess": subprocess, "sys": sys, "root": ROOT}
    namespace |= {"math": math, "time": time, "torch": torch, "nn": nn, "F": F, "conv3x3": conv3x3, "utils": utils}
    namespace |= {"device": torch.device("cpu"), "autocast": autocast, "fast_dtype": lambda kind: torch.float32}
    for cell in cells:
        exec(cell.source, namespace)
    return namespace


@pytest.mark.parametrize("width", [8, 32])
def test_small_network_shapes(lesson, width):
    network = lesson["SmallNetwork"](torch.eye(12), width, classes=7)
    seen = []
    for layer in (network.whiten, *network.groups[1:], network.pool):
        layer.register_forward_hook(lambda *args: seen.append(tuple(args[2].shape[1:])))
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    assert seen == [(24, 31, 31), (width, 15, 15), (4 * width, 7, 7), (4 * width, 3, 3), (4 * width, 1, 1)]


def test_whitened_layer_is_the_filters_with_both_signs_and_stays_so(lesson):
    filters = torch.randn(12, 12)
    network = lesson["SmallNetwork"](filters, 8)
    x = torch.randn(2, 3, 32, 32)
    patches = F.unfold(x, 2).transpose(1, 2)  # (2, 31 * 31, 12)
    expected = (patches @ filters.T).transpose(1, 2).view(2, 12, 31, 31)
    assert torch.allclose(network.whiten(x), torch.cat([expected, -expected], dim=1), atol=1e-5)
    F.cross_entropy(network(x), torch.tensor([1, 2])).backward()
    trained = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert trained == {name for name, _ in network.named_parameters()} - {"whiten.weight"}


def test_first_filters_of_a_group_copy_their_input(lesson):
    first, second = (layer for layer in lesson["group"](4, 6) if isinstance(layer, nn.Conv2d))
    x = torch.randn(1, 4, 5, 5)
    assert torch.allclose(first(x)[:, :4], x, atol=1e-5)
    assert first(x)[:, 4:].abs().sum() > 0
    x = torch.randn(1, 6, 5, 5)
    assert torch.allclose(second(x), x, atol=1e-5)


def test_six_looks_weigh_the_image_and_its_mirror_most(lesson):
    class Corner(nn.Module):
        def forward(self, x):
            return x[:, :, 1, 1]

    x = torch.rand(2, 3, 4, 4)
    middle, up_left, down_right = (x[..., i, i] + x[..., i, i + 1] for i in (1, 0, 2))
    assert torch.allclose(lesson["SixLooks"](Corner())(x), middle / 4 + up_left / 8 + down_right / 8)


def test_orthogonal_keeps_the_directions_and_evens_out_their_lengths(lesson):
    left, right = torch.linalg.qr(torch.randn(6, 6)).Q, torch.linalg.qr(torch.randn(9, 9)).Q[:6]
    lengths = left.T @ lesson["orthogonal"](left @ torch.diag(torch.linspace(1, 6, 6)) @ right) @ right.T
    assert torch.allclose(lengths, lengths.diagonal().diag(), atol=1e-3)
    assert 0.5 < lengths.diagonal().min() <= lengths.diagonal().max() < 1.3


def test_muon_step_goes_against_the_gradient_and_keeps_the_length(lesson):
    weight = torch.randn(4, 3, 3, 3)
    weight *= 2 / weight.norm()  # 2 is the root of 4 filters
    before, weight.grad = weight.clone(), torch.randn(4, 3, 3, 3)
    running = torch.zeros_like(weight)
    lesson["muon_step"](weight, running, 0.0, torch.float32)
    assert torch.allclose(weight, before)
    assert torch.allclose(running, weight.grad)
    lesson["muon_step"](weight, running, 0.1, torch.float32)
    moved = before - weight
    assert torch.allclose(running, 1.6 * weight.grad)
    assert (moved * weight.grad).sum() > 0
    assert 0.1 < moved.norm() < 0.3  # 0.1 along each of four directions would be 0.2


def test_training_on_the_clock_learns_and_leaves_alone_what_it_must(lesson):
    images = data.Images(*sample.draw(200, 0), sample.CLASSES, "sample shapes")
    batches = data.Batches(images, images.mean_std(), 50, shuffle=True)
    torch.manual_seed(0)
    network = lesson["SmallNetwork"](torch.eye(12), 8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x, y = next(iter(data.Batches(images, images.mean_std(), 200)))
    loss = F.cross_entropy(network(x), y)
    assert lesson["train_on_the_clock"](network, batches, 4) > 0
    with torch.no_grad():
        assert F.cross_entropy(network(x), y) < loss - 0.2
    same = {name for name, value in network.named_parameters() if torch.equal(value, before[name])}
    scales = {f"groups.{group}.{layer}.weight" for group in (1, 2, 3) for layer in (2, 5)}
    assert same == scales | {"whiten.weight"}


def test_the_script_is_a_program(lesson):
    names = {node.name for node in ast.parse(lesson["SCRIPT"]).body if isinstance(node, ast.FunctionDef)}
    assert {"network", "train", "measure", "main"} <= names


FAILS = """
import os, sys, time
open(os.path.join(sys.argv[1], os.environ["RANK"] + ".pid"), "w").write(str(os.getpid()))
if os.environ["RANK"] == "1":
    raise ValueError("label 12 of 10 classes")
time.sleep(600)
"""
NEVER_ENDS = FAILS.replace('== "1"', '== "none"')


def assert_all_gone(folder):
    for file in folder.glob("*.pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)


@pytest.mark.skipif(platform.system() == "Windows", reason="the lesson starts no processes there")
def test_a_failing_process_ends_all_and_is_heard(lesson, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(FAILS)
    with pytest.raises(RuntimeError, match="process 1: ValueError: label 12 of 10 classes"):
        lesson["launch"](script)
    assert (tmp_path / "1.pid").exists()
    assert_all_gone(tmp_path)


@pytest.mark.skipif(platform.system() == "Windows", reason="the lesson starts no processes there")
def test_a_limit_ends_all_processes(lesson, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(NEVER_ENDS)
    with pytest.raises(RuntimeError, match="not done after 6 seconds"):
        lesson["launch"](script, limit=6)
    assert_all_gone(tmp_path)
