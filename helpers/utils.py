"""What every lesson needs first: the device, the seed, the budget of this machine, and pictures."""

import datetime
import io
import os
import platform
import random
import re
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ("gpu", "cpu", "ci")
DRIVE = Path("/content/drive/MyDrive")  # the reader's Google Drive, once it is mounted in Colab


# ---------------------------------------------------------------- the machine


def device() -> torch.device:
    """The fastest device that PyTorch can use here: cuda, then mps (Apple), then cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def profile() -> str:
    """Which budgets the lessons use: "gpu", "cpu" or "ci". COURSE_PROFILE overrides what is detected."""
    chosen = os.environ.get("COURSE_PROFILE", "")
    if not chosen:
        return "cpu" if device().type == "cpu" else "gpu"
    if chosen not in PROFILES:
        raise ValueError(
            f"COURSE_PROFILE={chosen!r} is not a profile. Allowed: {', '.join(PROFILES)}. "
            "Set one of these, or unset the variable to let the course choose."
        )
    return chosen


def pick(*, gpu, cpu, ci):
    """The value for this machine: `epochs = pick(gpu=24, cpu=8, ci=1)`."""
    return {"gpu": gpu, "cpu": cpu, "ci": ci}[profile()]


def seed_everything(seed: int) -> None:
    """Seed Python's and PyTorch's random numbers. The same seed gives the same run on the CPU."""
    random.seed(seed)
    torch.manual_seed(seed)


def start(seed: int = 0) -> torch.device:
    """First call of a lesson: seed, plot style, one printed line about the machine. Returns the device."""
    seed_everything(seed)
    plt.rcParams.update(STYLE)
    chosen = device()
    name = torch.cuda.get_device_name() if chosen.type == "cuda" else f"{os.cpu_count()} cores"
    print(f"Device: {chosen.type} ({name}). Profile: {profile()}. Seed: {seed}.")
    return chosen


def about(*names: str) -> None:
    """Last call of a lesson: print the versions, device, data and date that its saved outputs come from."""
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {platform.system()} {platform.machine()}")
    print(f"Device: {device().type}. Profile: {profile()}. Data: {', '.join(names) or 'none'}.")
    print(f"Run on {datetime.date.today().isoformat()}.")


def checkpoint_path(lesson: str, data: str) -> Path:
    """Where a lesson keeps its trained network: one file for each lesson, data set and profile.

    The folder is what the environment variable CHECKPOINT_DIR names. Without it, `checkpoints/` in the repository; but
    Colab's disk is lost when it disconnects, so there it is `cifar10-resnet/checkpoints` in a mounted Google Drive.
    """
    home = DRIVE / "cifar10-resnet" if DRIVE.is_dir() else ROOT
    folder = Path(os.environ.get("CHECKPOINT_DIR") or home / "checkpoints")
    slug = re.sub(r"[^a-z0-9]+", "_", data.lower()).strip("_")
    return folder / f"{lesson}_{slug}_{profile()}.pt"


# ---------------------------------------------------------------- words on the page


class Live:
    """Text that replaces itself in place, so that a progress bar is saved once and not 400 times.

    In a notebook it is one display that is updated. Elsewhere kept lines and the final text are printed, and a terminal
    shows the newest line in between. With `silent` nothing is shown at all.
    """

    def __init__(self, silent: bool = False):
        self.text, self.kept, self.silent = "", [], silent
        wanted = _in_notebook() and not silent
        self.handle = display({"text/plain": ""}, raw=True, display_id=True) if wanted else None

    def show(self, text: str) -> None:
        if self.silent:
            return
        self.text = text
        if self.handle:
            self.handle.update({"text/plain": "\n".join([*self.kept, *([text] if text else [])])}, raw=True)
        elif sys.stderr.isatty():
            print(f"\r\x1b[K{text.splitlines()[-1] if text else ''}", end="", file=sys.stderr, flush=True)

    def keep(self, line: str) -> None:
        """Add a line that stays above the text; the text starts empty again."""
        if self.silent:
            return
        self.kept.append(line)
        self.show("")
        if not self.handle:
            print(line, flush=True)

    def close(self, text: str | None = None) -> None:
        """Leave the kept lines and `text` (or what was shown last) as the final state."""
        if self.silent:
            return
        final = self.text if text is None else text
        self.show(final if self.handle else "")
        if not self.handle and final:
            print(final)


def _in_notebook() -> bool:
    return getattr(get_ipython(), "kernel", None) is not None


def bar(done: int, total: int, width: int = 20) -> str:
    """A text progress bar: `bar(3, 4, 8)` is `[######--]`."""
    filled = width * done // max(total, 1)
    return f"[{'#' * filled}{'-' * (width - filled)}]"


def compare(what: str, *, guess=None, measured, published=None, source: str = "") -> None:
    """Print the reader's guess, the measured value and, where there is one, the published value.

    Numbers are shown with four digits; anything that is no number as it is.
    """
    rows = [("your guess", "none written down" if guess is None else guess), ("measured here", measured)]
    if published is not None:
        rows.append((f"published ({source})" if source else "published", published))
    width = max(len(label) for label, _ in rows)
    print(what)
    for label, value in rows:
        print(f"  {label:<{width}}  {_number(value)}")


def _number(value) -> str:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


# ---------------------------------------------------------------- pictures

STYLE = {
    "figure.dpi": 100,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "image.cmap": "Blues",
    "image.interpolation": "nearest",
    "savefig.bbox": "tight",
}


def figure(title: str, data: str | None, rows: int = 1, columns: int = 1, size: tuple = (7, 4), **kwargs):
    """A figure with a title that states its finding and the name of the data it was made from.

    Args:
        title: what the figure shows, as a sentence.
        data: `images.name`, printed small below the figure; None for a figure made from no images.
        rows, columns: the panels.
        size: width and height of the whole figure, in inches.
        kwargs: passed to `plt.subplots`.

    Returns:
        (figure, axes): axes as from `plt.subplots`.
    """
    fig, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", **kwargs)
    if _in_notebook():  # for each figure anew: Jupyter sets its own way with the first figure, and when its cell ends
        get_ipython().display_formatter.formatters["image/png"].for_type(Figure, described_png)
    fig.suptitle(title, fontsize=13)
    if data is not None:
        fig.supxlabel(f"data: {data}", fontsize=8, color="grey", x=0.99, ha="right")
    return fig, axes


def small_png(fig: Figure) -> bytes:
    """The figure as a PNG file of 256 colours, chosen for it: a third of the usual size, and hard to tell from it.

    A page with many pictures would otherwise grow beyond what GitHub shows.
    """
    full, small = io.BytesIO(), io.BytesIO()
    fig.savefig(full, format="png", bbox_inches="tight")
    Image.open(full).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


def described_png(fig: Figure) -> tuple[bytes, dict]:
    """The figure as Jupyter takes it: the PNG file, and its alternative text where nbconvert looks for it."""
    return small_png(fig), {"alt": alt_text(fig)}


def alt_text(fig: Figure) -> str:
    """What a figure shows, for a reader who cannot see it: title, panels, axes, legend, data.

    The title says most of it: it states the finding.
    """
    legends = [*fig.legends, *(ax.get_legend() for ax in fig.axes if ax.get_legend())]
    parts = {
        "": [fig.get_suptitle()],
        "Panels: ": [ax.get_title(loc) for ax in fig.axes for loc in ("left", "center")],
        "Across: ": [ax.get_xlabel() for ax in fig.axes],
        "Up: ": [ax.get_ylabel() for ax in fig.axes],
        "Legend: ": [text.get_text() for legend in legends for text in legend.get_texts()],
        "Data: ": [fig.get_supxlabel().removeprefix("data: ")],
    }
    told = {name: _listed(texts) for name, texts in parts.items()}
    return " ".join(f"{name}{texts}." for name, texts in told.items() if texts)


def _listed(texts: list[str], most: int = 10) -> str:
    """The different ones among the texts on one line, without a full stop; of many, the first `most`."""
    lines = [" ".join(text.split()).rstrip(".") for text in dict.fromkeys(texts) if text.strip()]
    return "; ".join([*lines[:most], *([f"and {len(lines) - most} more"] if len(lines) > most else [])])


def image_grid(x, labels=None, *, title: str, data: str, columns: int = 10, inches: float = 1.0):
    """Show images as a grid, enlarged without smoothing, so that 32x32 pixels can be seen.

    Args:
        x: images (N, 3, H, W), uint8 or float in [0, 1].
        labels: N short texts, one above each image.
        title, data: as in `figure`.
        columns: images a row.
        inches: side of one image on the page.
    """
    count = len(x)
    if count == 0:
        raise ValueError("image_grid got 0 images: there is nothing to show. Pass at least one.")
    if labels is not None and len(labels) != count:
        raise ValueError(f"image_grid got {count} images and {len(labels)} labels: pass one label for each image.")
    columns = min(columns, count)
    rows = -(-count // columns)
    line = 0.2 * (1 + max(str(text).count("\n") for text in labels)) if labels is not None else 0
    fig, axes = figure(title, data, rows, columns, size=(columns * inches, rows * (inches + line) + 0.7), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for i, ax in zip(range(count), axes.flat, strict=False):
        ax.imshow(x[i].permute(1, 2, 0).cpu().numpy())
        if labels is not None:
            ax.set_title(labels[i], fontsize=9, pad=2)
    plt.show()


def curves(series: dict, *, title: str, data: str | None, xlabel: str, ylabel: str, x=None, ax=None, **axis):
    """Draw one line for each entry of `series` (name -> values). `axis` goes to `ax.set`, e.g. yscale="log".

    Without `ax` it makes and shows a figure of its own; with `ax` it draws there and `title` is that panel's.
    """
    own = ax is None
    if own:
        _, ax = figure(title, data)
    for name, values in series.items():
        ax.plot(range(1, len(values) + 1) if x is None else x, values, marker="o", markersize=3, label=name)
    ax.set(xlabel=xlabel, ylabel=ylabel, **axis)
    if not own:
        ax.set_title(title)
    if len(series) > 1:
        ax.legend(frameon=False)
    if own:
        plt.show()
