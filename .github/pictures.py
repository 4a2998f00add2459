"""Copies the pictures that README shows out of the saved lessons: `.venv/bin/python .github/pictures.py`."""

import base64
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".github" / "pictures"
PICTURES = {  # file -> lesson and cell; the cell's first figure is taken
    "training_curves.png": ("05_training", "cell-52"),
    "confusion_matrix.png": ("06_misclassification_analysis", "cell-21"),
    "confident_mistakes.png": ("06_misclassification_analysis", "cell-25"),
    "where_it_looked.png": ("06_misclassification_analysis", "cell-41"),
}


def drawn(lesson: str, cell_id: str) -> bytes:
    """The first figure, a PNG, that a cell of a saved lesson has drawn."""
    notebook = json.loads((ROOT / "notebooks" / f"{lesson}.ipynb").read_text(encoding="utf-8"))
    (cell,) = (cell for cell in notebook["cells"] if cell["id"] == cell_id)
    figures = [output["data"]["image/png"] for output in cell["outputs"] if "image/png" in output.get("data", {})]
    if not figures:
        raise ValueError(f"{lesson}.ipynb has no figure in {cell_id}: run and save the lesson first.")
    return base64.b64decode("".join(figures[0]))


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, place in PICTURES.items():
        (FOLDER / name).write_bytes(drawn(*place))
        print(f"{name}: from {place[0]}, {place[1]}")


if __name__ == "__main__":
    main()
