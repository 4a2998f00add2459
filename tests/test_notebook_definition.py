"""The network that lesson 03 defines is the library's: the cells tagged `definition` are run and compared."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import model

NOTEBOOK = Path(__file__).resolve().parent.parent / "notebooks" / "03_resnet_from_scratch.ipynb"


@pytest.fixture(scope="module")
def lesson_class():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if "definition" in cell["metadata"].get("tags", [])]
    assert sources, "no cell of lesson 03 is tagged `definition`"
    namespace = {"torch": torch, "nn": nn, "F": F}
    for source in sources:
        exec(compile(source, NOTEBOOK.name, "exec"), namespace)
    return namespace["CustomResNet"]


def _pair(lesson_class, width, classes=10):
    torch.manual_seed(width)
    return lesson_class(width, classes), model.CustomResNet(width, classes)


def test_default_width_and_classes(lesson_class):
    assert sum(p.numel() for p in lesson_class().parameters()) == 6_573_130
    assert sum(p.numel() for p in model.CustomResNet().parameters()) == 6_573_130


@pytest.mark.parametrize("width", [8, 64])
def test_same_names_and_shapes_in_the_same_order(lesson_class, width):
    shapes = [[(name, tuple(t.shape)) for name, t in net.state_dict().items()] for net in _pair(lesson_class, width, 7)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("width", [8, 64])
def test_weights_load_both_ways(lesson_class, width):
    mine, theirs = _pair(lesson_class, width)
    weights = {name: torch.randn_like(t) if t.is_floating_point() else t for name, t in theirs.state_dict().items()}
    mine.load_state_dict(weights, strict=True)
    theirs.load_state_dict(mine.state_dict(), strict=True)
    for name, t in theirs.state_dict().items():
        assert torch.equal(t, weights[name]), name


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("width", [8, 64])
def test_same_outputs_gradients_and_running_averages(lesson_class, width, mode):
    mine, theirs = _pair(lesson_class, width)
    with torch.no_grad():  # batch norm that does something in eval mode too
        for name, t in theirs.state_dict().items():
            if name.endswith(("running_var", "running_mean")):
                t.uniform_(0.5, 1.5)
    mine.load_state_dict(theirs.state_dict())
    x, y = torch.randn(4, 3, 32, 32), torch.randint(0, 10, (4,))
    logits = [net.train(mode == "train")(x) for net in (mine, theirs)]
    assert logits[0].shape == (4, 10)
    assert torch.allclose(*logits, atol=1e-5)
    for out in logits:
        F.cross_entropy(out, y).backward()
    for (name, p), q in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-3, atol=1e-5), name
    for (name, a), b in zip(mine.named_buffers(), theirs.buffers(), strict=True):
        assert torch.allclose(a, b, atol=1e-5), name


def test_same_seed_gives_the_same_first_weights(lesson_class):
    nets = []
    for build in (lesson_class, model.CustomResNet):
        torch.manual_seed(3)
        nets.append(build(8))
    for (name, p), q in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(p, q), name
