"""The lessons as data, for the tests that read them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATHS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
CITATION = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
REPOSITORY = re.search(r'^repository-code: "https://github\.com/(.+)"$', CITATION, re.MULTILINE)[1]  # owner/name


@dataclass
class Cell:
    kind: str
    source: str
    tags: list
    raw: dict

    @property
    def lines(self):
        return self.source.splitlines()


class Lesson:
    def __init__(self, path: Path):
        self.path = path
        self.raw = json.loads(path.read_text(encoding="utf-8"))
        self.cells = [
            Cell(raw["cell_type"], "".join(raw["source"]), raw["metadata"].get("tags", []), raw)
            for raw in self.raw["cells"]
        ]

    def tagged(self, tag: str) -> list[Cell]:
        return [cell for cell in self.cells if tag in cell.tags]

    def exercises(self):
        """(check's name, stub, solution) of each exercise."""
        for stub, solution in zip(self.tagged("exercise"), self.tagged("solution"), strict=True):
            yield stub.lines[-1].removeprefix("checks.").partition("(")[0], stub, solution


def saved_text(lesson: Lesson) -> str:
    """All that the saved cells have printed, or shown as text."""
    outputs = [output for cell in lesson.cells for output in cell.raw.get("outputs", [])]
    return "\n".join("".join(o.get("text", o.get("data", {}).get("text/plain", ""))) for o in outputs)


LESSONS = [Lesson(path) for path in PATHS]
