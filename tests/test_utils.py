import io
import random
import runpy
import sys
import types

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from helpers import utils


def test_the_fastest_device_is_taken_unless_course_device_names_another(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "hpu", types.SimpleNamespace(device_count=lambda: 1), raising=False)
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=cuda: there)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=mps: there)
        for name in ("", "cpu", "cuda", "cuda:1", "hpu"):  # hpu: a type that someone registered
            monkeypatch.setenv("COURSE_DEVICE", name)
            assert utils.device() == torch.device(name or expected)


@pytest.mark.parametrize("name", ["cuda:2", "mps", "cpu:1", "meta", "gpu", "ipu", "xla"])
def test_a_course_device_that_is_not_there_gets_one_clear_error(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.mps, "device_count", lambda: 0)
    monkeypatch.setattr(torch, "xla", types.SimpleNamespace(), raising=False)  # registered, and counts no devices
    monkeypatch.setenv("COURSE_DEVICE", name)
    with pytest.raises(ValueError, match=f"COURSE_DEVICE='{name}' is not a device of this machine. Try 'cpu'"):
        utils.device()


def test_the_profile_is_the_devices_unless_course_profile_names_another(monkeypatch):
    for device, expected in (("cuda", 24), ("mps", 24), ("cpu", 8)):
        monkeypatch.setattr(utils, "device", lambda device=device: torch.device(device))
        for name, value in (("", expected), ("gpu", 24), ("cpu", 8), ("ci", 1)):
            monkeypatch.setenv("COURSE_PROFILE", name)
            assert utils.pick(gpu=24, cpu=8, ci=1) == value
    monkeypatch.setenv("COURSE_PROFILE", "gpuu")
    with pytest.raises(ValueError, match="'gpuu' is not a profile. Set gpu, cpu or ci"):
        utils.pick(gpu=24, cpu=8, ci=1)


def test_the_same_seed_gives_the_same_numbers_from_all_three_sources():
    def draws(seed):
        utils.seed_everything(seed)
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    first, again, other = draws(3), draws(3), draws(4)
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))
    utils.seed_everything(-1)  # PyTorch takes it, so NumPy's smaller range must not refuse it


def test_checkpoints_of_different_data_and_profiles_do_not_meet(monkeypatch, tmp_path):
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path))
    path = utils.checkpoint_path("05_training", "CIFAR-10 (JPEG copy)")
    assert path == tmp_path / "05_training_cifar_10_jpeg_copy_ci.pt"
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    assert utils.checkpoint_path("05_training", "sample shapes").name == "05_training_sample_shapes_cpu.pt"


def test_checkpoints_outlive_colab_in_a_mounted_drive(monkeypatch, tmp_path):
    assert utils.DRIVE.as_posix() == "/content/drive/MyDrive"
    monkeypatch.setattr(utils, "DRIVE", tmp_path / "MyDrive")
    monkeypatch.delenv("CHECKPOINT_DIR")
    assert utils.checkpoint_path("05_training", "x").parent == utils.ROOT / "checkpoints"  # not mounted
    (tmp_path / "MyDrive").mkdir()
    assert utils.checkpoint_path("05_training", "x").parent == tmp_path / "MyDrive" / "cifar10-resnet" / "checkpoints"
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path / "elsewhere"))
    assert utils.checkpoint_path("05_training", "x").parent == tmp_path / "elsewhere"


def test_compare_shows_what_there_is(capsys):
    utils.compare("Parameters", guess=7e6, measured=6_573_130, published=0.9056, source="a report")
    assert capsys.readouterr().out == (
        "Parameters\n"
        "  your guess            7,000,000\n"
        "  measured here         6,573,130\n"
        "  published (a report)  0.9056\n"
    )
    utils.compare("Colour", guess=None, measured="red", published=0)
    assert capsys.readouterr().out == "Colour\n  measured here  red\n  published      0\n"
    shown = {2.0: "2", torch.tensor(1 / 3): "0.3333", 1502.98: "1,503", -1502.98: "-1,503", 0.00801: "0.00801"}
    for value, text in (*shown.items(), (True, "True")):
        utils.compare("", measured=value)
        assert capsys.readouterr().out == f"\n  measured here  {text}\n"


def test_bar():
    assert [utils.bar(done, 4, 8) for done in (0, 3, 4)] == ["[--------]", "[######--]", "[########]"]


def live_with_rows(**options):
    live = utils.Live(**options)
    live.keep("head")
    live.show("a table\n1 of 2")
    live.keep("row")
    live.show("2 of 2")
    return live


def test_live_text_is_printed_once_outside_a_notebook(capsys, monkeypatch):
    live_with_rows().close()
    assert capsys.readouterr() == ("head\nrow\n2 of 2\n", "")
    monkeypatch.setattr(sys, "stderr", None)  # as where there is no console
    live_with_rows().close("")
    assert capsys.readouterr().out == "head\nrow\n"


def test_live_shows_the_newest_text_in_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    live_with_rows().close()
    shown = capsys.readouterr()
    assert shown.out == "head\nrow\n2 of 2\n"
    assert shown.err.count("1 of 2") == 1
    assert "a table" not in shown.err
    assert shown.err.endswith("\r\x1b[K")  # nothing of it is left on the line


@pytest.mark.parametrize("notebook", [True, False])
def test_silent_live_shows_nothing(capsys, monkeypatch, notebook):
    monkeypatch.setattr(utils, "_in_notebook", lambda: notebook)
    monkeypatch.setattr(utils, "display", lambda *args, **kwargs: pytest.fail("a display was made"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    live_with_rows(silent=True).close("end")
    assert capsys.readouterr() == ("", "")


def test_live_is_one_display_in_a_notebook(monkeypatch):
    shown = []

    class Handle:
        def update(self, content, raw):
            shown.append(content["text/plain"])

    monkeypatch.setattr(utils, "_in_notebook", lambda: True)
    monkeypatch.setattr(utils, "display", lambda *args, **kwargs: Handle())
    live_with_rows().close("")
    assert shown == ["head", "head\na table\n1 of 2", "head\nrow", "head\nrow\n2 of 2", "head\nrow"]


def test_a_name_that_the_terminal_cannot_show_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    fresh = runpy.run_path(utils.__file__)  # as a new process would import it
    fresh["compare"]("猫", measured="\udcff")
    sys.stdout.flush()
    assert sys.stdout.buffer.getvalue() == b"\\u732b\n  measured here  \\udcff\n"


def test_a_figure_tells_what_it_shows_to_who_cannot_see_it():
    fig, axes = utils.figure("Deeper is worse.", "sample shapes", 1, 2)
    errors = {"20 layers": [3, 2], "56 layers": [3, 1]}
    for ax, kind, ylabel in zip(axes, ("Plain", "Residual"), ("error\n(%)", ""), strict=True):
        utils.curves(errors, title=kind, data=None, xlabel="epoch", ylabel=ylabel, ax=ax)
    picture, metadata = utils.described_png(fig)
    assert picture.startswith(b"\x89PNG")
    assert metadata == {
        "alt": "Deeper is worse. Panels: Plain; Residual. Across: epoch. Up: error (%). "
        "Legend: 20 layers; 56 layers. Data: sample shapes."
    }
    plt.close(fig)


@pytest.mark.parametrize("count", [1, 10, 11])
def test_image_grid_shows_every_image_and_tells_of_ten(count):
    labels = [f"no. {i}" for i in range(count)]
    x = torch.rand(count, 3, 8, 8)
    utils.image_grid(x, labels, title="Some", data="sample shapes")
    fig = plt.gcf()
    shown = [ax for ax in fig.axes if ax.images]
    assert [ax.get_title() for ax in shown] == labels
    assert all(np.array_equal(ax.images[0].get_array(), x[i].permute(1, 2, 0)) for i, ax in enumerate(shown))
    more = "; and 1 more" if count == 11 else ""
    assert utils.alt_text(fig) == f"Some. Panels: {'; '.join(labels[:10])}{more}. Data: sample shapes."
    plt.close(fig)


def test_image_grid_refuses_nothing_and_a_wrong_number_of_labels():
    for count, labels in ((0, None), (3, ["a", "b"]), (3, [])):
        with pytest.raises(ValueError, match=f"got {count} images and {len(labels or [])} labels"):
            utils.image_grid(torch.rand(count, 3, 32, 32), labels, title="t", data="d")


def test_names_that_look_like_broken_formulas_are_drawn_as_they_are():
    utils.image_grid(torch.rand(1, 3, 8, 8), [r"$\frac$"], title=r"$\frac$", data=r"$\frac$")
    plt.gcf().draw_without_rendering()
    plt.close("all")


def test_a_figure_is_saved_with_256_colours_and_looks_the_same(tmp_path):
    torch.manual_seed(0)
    fig, axes = utils.figure("Pictures", None, 1, 3)
    for ax in axes:  # smooth pictures, enlarged as image_grid does it
        picture = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4), size=32, mode="bicubic").clamp(0, 1)
        ax.imshow(picture[0].permute(1, 2, 0).numpy())
    fig.savefig(tmp_path / "full.png", format="png", bbox_inches="tight")
    (tmp_path / "small.png").write_bytes(utils.described_png(fig)[0])
    full, small = (Image.open(tmp_path / f"{name}.png") for name in ("full", "small"))
    assert (small.format, small.mode, small.size) == ("PNG", "P", full.size)
    assert (tmp_path / "small.png").stat().st_size < 0.6 * (tmp_path / "full.png").stat().st_size
    difference = pil_to_tensor(full.convert("RGB")).float() - pil_to_tensor(small.convert("RGB")).float()
    assert difference.abs().mean() < 4
    plt.close(fig)
