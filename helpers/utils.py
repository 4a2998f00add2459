"""What every lesson needs first: the device, the seed, the budget of this machine, and pictures."""

import datetime
import io
import math
import os
import platform
import random
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
DRIVE = Path("/content/drive/MyDrive")  # the reader's Google Drive, once it is mounted in Colab

if hasattr(sys.stdout, "reconfigure"):  # a name that the terminal cannot show is printed with escapes
    sys.stdout.reconfigure(errors="backslashreplace")


def device() -> torch.device:
    """The fastest device here: cuda, then mps (Apple), then cpu.

    COURSE_DEVICE overrides it: "cpu", "cuda:1", or any type that PyTorch has registered; ValueError if it is not there.
    """
    name = os.environ.get("COURSE_DEVICE")
    if not name:
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        chosen, module = torch.device(name), torch.get_device_module(name)
        if (chosen.index or 0) < module.device_count():
            return chosen
    except (RuntimeError, AttributeError):  # PyTorch does not know this type, or has no module for it
        pass
    raise ValueError(f"COURSE_DEVICE={name!r} is not a device of this machine. Try 'cpu', or unset the variable.")


def profile() -> str:
    """Which budgets the lessons use: "gpu", "cpu" or "ci". COURSE_PROFILE overrides what is detected."""
    chosen = os.environ.get("COURSE_PROFILE") or ("cpu" if device().type == "cpu" else "gpu")
    if chosen not in ("gpu", "cpu", "ci"):
        raise ValueError(f"COURSE_PROFILE={chosen!r} is not a profile. Set gpu, cpu or ci, or unset the variable.")
    return chosen


def pick(*, gpu, cpu, ci):
    """The value for this machine: `epochs = pick(gpu=24, cpu=8, ci=1)`."""
    return {"gpu": gpu, "cpu": cpu, "ci": ci}[profile()]


def seed_everything(seed: int) -> None:
    """Seed the random numbers of Python, NumPy and PyTorch. The same seed gives the same run on the CPU."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  for code that draws from NumPy's global state
    torch.manual_seed(seed)


def start(seed: int = 0) -> torch.device:
    """First call of a lesson: seed, plot style, one printed line about the machine. Returns the device."""
    seed_everything(seed)
    plt.rcParams.update(STYLE)
    chosen = device()
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else f"{os.cpu_count()} cores"
    print(f"Device: {chosen} ({name}). Profile: {profile()}. Seed: {seed}.")
    return chosen


def about(*names: str) -> None:
    """Last call of a lesson: print the versions, device, data and date that its saved outputs come from."""
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {platform.system()} {platform.machine()}")
    print(f"Device: {device().type}. Profile: {profile()}. Data: {', '.join(names) or 'none'}.")
    print(f"Run on {datetime.date.today().isoformat()}.")


def checkpoint_path(lesson: str, data: str) -> Path:
    """Where a lesson keeps its trained network: one file for each lesson, data set and profile.

    The folder is the one that CHECKPOINT_DIR names; without it `checkpoints/` in the repository, or in a Google Drive
    that is mounted (Colab's own disk is lost when it disconnects).
    """
    home = DRIVE / "cifar10-resnet" if DRIVE.is_dir() else ROOT
    folder = Path(os.environ.get("CHECKPOINT_DIR") or home / "checkpoints")
    slug = re.sub(r"[^a-z0-9]+", "_", data.lower()).strip("_")
    return folder / f"{lesson}_{slug}_{profile()}.pt"


class Live:
    """Text that replaces itself in place, so that a progress bar is saved once and not 400 times.

    In a notebook it is one display that is updated. Elsewhere kept lines and the final text are printed, and a terminal
    shows the newest line in between. With `silent` nothing is shown at all.
    """

    def __init__(self, silent: bool = False):
        self.text, self.kept, self.handle = "", [], None
        self.prints = not silent and not _in_notebook()
        if not silent and not self.prints:
            self.handle = display({"text/plain": ""}, raw=True, display_id=True)

    def show(self, text: str) -> None:
        self.text = text
        if self.handle:
            self.handle.update({"text/plain": "\n".join([*self.kept, *([text] if text else [])])}, raw=True)
        elif self.prints and sys.stderr and sys.stderr.isatty():  # stderr is None where there is no console
            print(f"\r\x1b[K{text.splitlines()[-1] if text else ''}", end="", file=sys.stderr, flush=True)

    def keep(self, line: str) -> None:
        """Add a line that stays above the text; the text starts empty again."""
        self.kept.append(line)
        self.show("")
        if self.prints:
            print(line, flush=True)

    def close(self, text: str | None = None) -> None:
        """Leave the kept lines and `text` (or what was shown last) as the final state."""
        final = self.text if text is None else text
        self.show(final if self.handle else "")
        if self.prints and final:
            print(final)


def _in_notebook() -> bool:
    return getattr(get_ipython(), "kernel", None) is not None


def bar(done: int, total: int, width: int = 20) -> str:
    """A text progress bar: `bar(3, 4, 8)` is `[######--]`."""
    filled = width * done // max(total, 1)
    return f"[{'#' * filled}{'-' * (width - filled)}]"


def compare(what: str, *, guess=None, measured, published=None, source: str = "") -> None:
    """Print what was measured beside the reader's guess and the published value, where there are such.

    Numbers are shown with four digits, large ones whole; anything that is no number as it is.
    """
    rows = {"your guess": guess, "measured here": measured, f"published ({source})": published}
    rows = {label.removesuffix(" ()"): value for label, value in rows.items() if value is not None}
    print(what)
    for label, value in rows.items():
        value = value.item() if isinstance(value, torch.Tensor) else value
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        print(f"  {label:<{max(map(len, rows))}}  {value}")


STYLE = {
    "figure.dpi": 100, "font.size": 11, "axes.titlesize": 12, "axes.grid": True, "grid.alpha": 0.3,
    "axes.spines.top": False, "axes.spines.right": False,
    "image.cmap": "Blues", "image.interpolation": "nearest", "savefig.bbox": "tight",
}  # fmt: skip


def figure(title: str, data: str | None, rows: int = 1, columns: int = 1, size: tuple = (7, 4), **kwargs):
    """A figure with a title that states its finding and the name of the data it was made from.

    `data` is `images.name`, printed small below the figure, or None; `size` is that of the whole figure in inches.
    Returns (figure, axes) as `plt.subplots` does, which also gets `kwargs`.
    """
    fig, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", **kwargs)
    if _in_notebook():  # for each figure anew: Jupyter sets its own way with the first figure, and when its cell ends
        get_ipython().display_formatter.formatters["image/png"].for_type(Figure, described_png)
    fig.suptitle(title, fontsize=13, parse_math=False)
    if data is not None:
        fig.supxlabel(f"data: {data}", fontsize=8, color="grey", x=0.99, ha="right", parse_math=False)
    return fig, axes


def described_png(fig: Figure) -> tuple[bytes, dict]:
    """The figure as Jupyter takes it: a PNG file and, where nbconvert looks for it, its alternative text.

    256 colours, chosen for it, need a third of the usual size and look the same; GitHub does not show large pages.
    """
    full, small = io.BytesIO(), io.BytesIO()
    fig.savefig(full, format="png", bbox_inches="tight")
    Image.open(full).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue(), {"alt": alt_text(fig)}


def alt_text(fig: Figure) -> str:
    """A figure's title (it states the finding), panels, axes, legend and data, for a reader who cannot see it."""
    legends = [*fig.legends, *(ax.get_legend() for ax in fig.axes if ax.get_legend())]
    parts = {
        "": [fig.get_suptitle()],
        "Panels: ": [ax.get_title(loc) for ax in fig.axes for loc in ("left", "center")],
        "Across: ": [ax.get_xlabel() for ax in fig.axes],
        "Up: ": [ax.get_ylabel() for ax in fig.axes],
        "Legend: ": [text.get_text() for legend in legends for text in legend.get_texts()],
        "Data: ": [fig.get_supxlabel().removeprefix("data: ")],
    }
    told = []
    for name, texts in parts.items():
        lines = [" ".join(text.split()).rstrip(".") for text in dict.fromkeys(texts) if text.strip()]
        if len(lines) > 10:
            lines[10:] = [f"and {len(lines) - 10} more"]
        if lines:
            told.append(f"{name}{'; '.join(lines)}.")
    return " ".join(told)


def image_grid(x, labels=None, *, title: str, data: str, columns: int = 10, inches: float = 1.0):
    """Show images as a grid, enlarged without smoothing, so that 32x32 pixels can be seen.

    `x` is (N, 3, H, W), uint8 or float in [0, 1]; `labels` are N short texts, one above each image; `columns` images a
    row, each `inches` wide; title and data as in `figure`.
    """
    labels = [""] * len(x) if labels is None else [str(label) for label in labels]
    if len(x) == 0 or len(labels) != len(x):
        raise ValueError(f"image_grid got {len(x)} images and {len(labels)} labels. Pass one label for each image.")
    columns = min(columns, len(x))
    rows = math.ceil(len(x) / columns)
    height = inches + 0.2 * max(1 + label.count("\n") if label else 0 for label in labels)
    fig, axes = figure(title, data, rows, columns, size=(columns * inches, rows * height + 0.7), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, label in zip(axes.flat, x, labels, strict=False):
        ax.imshow(image.permute(1, 2, 0).cpu().numpy())
        ax.set_title(label, fontsize=9, pad=2, parse_math=False)  # the name of a class may hold a $
    plt.show()


def curves(series: dict, *, title: str, data: str | None, xlabel: str, ylabel: str, x=None, ax=None, **axis):
    """Draw one line for each entry of `series` (name -> values). `axis` goes to `ax.set`, e.g. yscale="log".

    Without `ax` it makes and shows a figure of its own; with `ax` it draws there and `title` is that panel's.
    """
    panel = ax or figure(title, data)[1]
    for name, values in series.items():
        panel.plot(range(1, len(values) + 1) if x is None else x, values, marker="o", markersize=3, label=name)
    panel.set(xlabel=xlabel, ylabel=ylabel, **axis)
    if len(series) > 1:
        panel.legend(frameon=False)
    if ax:
        ax.set_title(title)
    else:
        plt.show()
