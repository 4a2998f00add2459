import random

import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from helpers import utils


def test_pick_takes_the_value_of_the_profile(monkeypatch):
    for name, value in (("gpu", 24), ("cpu", 8), ("ci", 1)):
        monkeypatch.setenv("COURSE_PROFILE", name)
        assert utils.pick(gpu=24, cpu=8, ci=1) == value


def test_without_a_profile_the_device_decides(monkeypatch):
    monkeypatch.delenv("COURSE_PROFILE")
    for device, expected in (("cuda", "gpu"), ("mps", "gpu"), ("cpu", "cpu")):
        monkeypatch.setattr(utils, "device", lambda device=device: torch.device(device))
        assert utils.profile() == expected


def test_a_profile_with_a_typo_is_refused(monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "gpuu")
    with pytest.raises(ValueError, match=r"'gpuu' is not a profile. Allowed: gpu, cpu, ci"):
        utils.profile()


def test_the_same_seed_gives_the_same_numbers():
    draws = []
    for seed in (3, 3, 4):
        utils.seed_everything(seed)
        draws.append((random.random(), torch.rand(1).item()))
    assert draws[0] == draws[1] != draws[2]


def test_checkpoints_of_different_data_and_profiles_do_not_meet(monkeypatch, tmp_path):
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path))
    path = utils.checkpoint_path("05_training", "CIFAR-10 (JPEG copy)")
    assert path == tmp_path / "05_training_cifar_10_jpeg_copy_ci.pt"
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    assert utils.checkpoint_path("05_training", "sample shapes").name == "05_training_sample_shapes_cpu.pt"
    monkeypatch.delenv("CHECKPOINT_DIR")
    assert utils.checkpoint_path("05_training", "x").parent == utils.ROOT / "checkpoints"


def test_checkpoints_outlive_colab_in_a_mounted_drive(monkeypatch, tmp_path):
    assert utils.DRIVE.as_posix() == "/content/drive/MyDrive"
    monkeypatch.setattr(utils, "DRIVE", tmp_path / "MyDrive")
    monkeypatch.delenv("CHECKPOINT_DIR")
    assert utils.checkpoint_path("05_training", "x").parent == utils.ROOT / "checkpoints"  # not mounted
    (tmp_path / "MyDrive").mkdir()
    assert utils.checkpoint_path("05_training", "x").parent == tmp_path / "MyDrive" / "cifar10-resnet" / "checkpoints"
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path / "elsewhere"))
    assert utils.checkpoint_path("05_training", "x").parent == tmp_path / "elsewhere"


def test_compare_shows_guess_measured_and_published(capsys):
    utils.compare("Parameters", guess=None, measured=6_573_130, published=0.9056, source="a report")
    shown = capsys.readouterr().out
    assert "none written down" in shown
    assert "6,573,130" in shown
    assert "published (a report)  0.9056" in shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (0.5, "0.5"),
        (2.0, "2"),
        (torch.tensor(0.25), "0.25"),
        (1502.98, "1,503"),
        (0.00801, "0.00801"),
        ("text", "text"),
        (True, "True"),
    ],
)
def test_numbers_are_printed_as_a_reader_wants_them(value, text):
    assert utils._number(value) == text


def test_bar():
    assert utils.bar(0, 4, 8) == "[--------]"
    assert utils.bar(3, 4, 8) == "[######--]"
    assert utils.bar(4, 4, 8) == "[########]"


def test_live_text_is_printed_once_outside_a_notebook(capsys):
    live = utils.Live()
    for done in range(400):
        live.show(f"{done} of 400")
    live.close("400 of 400")
    assert capsys.readouterr().out == "400 of 400\n"


def test_live_keeps_lines_and_shows_the_newest_text_in_a_terminal(capsys, monkeypatch):
    live = utils.Live()
    monkeypatch.setattr(utils.sys.stderr, "isatty", lambda: True)
    live.keep("head")
    live.show("a table\n1 of 2")
    live.keep("row")
    live.close("")
    shown = capsys.readouterr()
    assert shown.out == "head\nrow\n"
    assert shown.err.count("1 of 2") == 1
    assert shown.err.endswith("\r\x1b[K")  # nothing of it is left on the line


@pytest.mark.parametrize("notebook", [True, False])
def test_silent_live_shows_nothing(capsys, monkeypatch, notebook):
    monkeypatch.setattr(utils, "_in_notebook", lambda: notebook)
    monkeypatch.setattr(utils, "display", lambda *args, **kwargs: pytest.fail("a display was made"))
    monkeypatch.setattr(utils.sys.stderr, "isatty", lambda: True)
    live = utils.Live(silent=True)
    live.keep("head")
    live.show("1 of 2")
    live.close("end")
    assert capsys.readouterr() == ("", "")


def test_live_is_one_display_in_a_notebook(monkeypatch):
    shown = []

    class Handle:
        def update(self, content, raw):
            shown.append(content["text/plain"])

    monkeypatch.setattr(utils, "_in_notebook", lambda: True)
    monkeypatch.setattr(utils, "display", lambda *args, **kwargs: Handle())
    live = utils.Live()
    live.keep("head")
    live.show("1 of 2")
    live.keep("row")
    live.close("")
    assert shown == ["head", "head\n1 of 2", "head\nrow", "head\nrow"]


def test_a_figure_carries_its_title_and_the_name_of_its_data():
    fig, _ = utils.figure("A finding", "sample shapes")
    assert fig.get_suptitle() == "A finding"
    assert fig.get_supxlabel() == "data: sample shapes"
    plt.close(fig)


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


def test_many_labels_are_not_all_told():
    utils.image_grid(torch.rand(12, 3, 8, 8), [f"no. {i}" for i in range(12)], title="A dozen", data="sample shapes")
    told = "; ".join(f"no. {i}" for i in range(10))
    assert utils.alt_text(plt.gcf()) == f"A dozen. Panels: {told}; and 2 more. Data: sample shapes."
    plt.close()


@pytest.mark.parametrize("count", [1, 7, 10, 23])
def test_image_grid_shows_every_image(count):
    utils.image_grid(torch.rand(count, 3, 32, 32), [str(i) for i in range(count)], title="t", data="d")
    fig = plt.gcf()
    shown = [ax for ax in fig.axes if ax.images]
    assert [ax.get_title() for ax in shown] == [str(i) for i in range(count)]
    plt.close(fig)


def test_image_grid_refuses_nothing_and_a_wrong_number_of_labels():
    with pytest.raises(ValueError, match="0 images"):
        utils.image_grid(torch.rand(0, 3, 32, 32), title="t", data="d")
    with pytest.raises(ValueError, match="3 images and 2 labels"):
        utils.image_grid(torch.rand(3, 3, 32, 32), ["a", "b"], title="t", data="d")


def test_a_figure_is_saved_with_256_colours_and_looks_the_same(tmp_path):
    torch.manual_seed(0)
    fig, axes = utils.figure("Pictures", None, 1, 3)
    for ax in axes:  # smooth pictures, enlarged as image_grid does it
        picture = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4), size=32, mode="bicubic").clamp(0, 1)
        ax.imshow(picture[0].permute(1, 2, 0).numpy())
    fig.savefig(tmp_path / "full.png", format="png", bbox_inches="tight")
    (tmp_path / "small.png").write_bytes(utils.small_png(fig))
    full, small = (Image.open(tmp_path / f"{name}.png") for name in ("full", "small"))
    assert (small.format, small.mode, small.size) == ("PNG", "P", full.size)
    assert (tmp_path / "small.png").stat().st_size < 0.6 * (tmp_path / "full.png").stat().st_size
    difference = pil_to_tensor(full.convert("RGB")).float() - pil_to_tensor(small.convert("RGB")).float()
    assert difference.abs().mean() < 4
