"""Runs lessons from the top on this machine, saves them with their outputs, and notes how long each took.

    .venv/bin/python .github/save.py              all lessons, in order
    .venv/bin/python .github/save.py 05 06 08     these

What lessons 05 and 07 keep in checkpoints/ is deleted first, so that nothing is left out. The seconds go to
notebooks/seconds.csv, one row a lesson and profile. After lesson 07 its table is copied to notebooks/, after the last
lesson the pictures of README. Close other programs. A lesson that fails stays as it was, and the next ones are not run.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pictures

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS, CHECKPOINTS = ROOT / "notebooks", ROOT / "checkpoints"
TIMES = NOTEBOOKS / "seconds.csv"
COLUMNS = ("lesson", "profile", "seconds", "device", "data", "date")
LAST_CELL = re.compile(
    r"Device: (?P<device>.+)\. Profile: (?P<profile>\w+)\. Data: (?P<data>.+)\.\nRun on (?P<date>\S+)\."
)


def facts(path: Path) -> dict:
    """What the last cell of a saved lesson says of its run."""
    last = json.loads(path.read_text(encoding="utf-8"))["cells"][-1]
    return LAST_CELL.search("".join(last["outputs"][0]["text"])).groupdict()


def note(row: dict) -> None:
    """Write a row into the table of seconds, in the place of the one of the same lesson and profile."""
    rows = {}
    if TIMES.exists():
        with open(TIMES, newline="", encoding="utf-8") as file:
            rows = {(old["lesson"], old["profile"]): old for old in csv.DictReader(file)}
    rows[row["lesson"], row["profile"]] = row
    with open(TIMES, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[key] for key in sorted(rows))


def save(path: Path) -> None:
    number = path.name[:2]
    if number in ("05", "07"):
        for old in CHECKPOINTS.glob(f"{number}_*"):
            old.unlink()
    words = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace"]
    begin = time.perf_counter()
    subprocess.run([*words, "--ExecutePreprocessor.record_timing=False", path], cwd=ROOT, check=True)
    seconds = time.perf_counter() - begin
    note({"lesson": path.stem, "seconds": f"{seconds:.0f}"} | facts(path))
    print(f"{path.name}: {seconds / 60:.1f} minutes", flush=True)
    if number == "07":
        (table,) = CHECKPOINTS.glob("07_experiments_*.csv")
        shutil.copyfile(table, NOTEBOOKS / "07_experiments.csv")


def main() -> None:
    for name in ("CHECKPOINT_DIR", "COURSE_PROFILE", "DATA_DIR", "OMP_NUM_THREADS"):
        if name in os.environ:
            sys.exit(f"{name} is set to {os.environ[name]}. Saved pages are of a run without it: unset it.")
    numbers = sys.argv[1:] or sorted(path.name[:2] for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    lessons = [list(NOTEBOOKS.glob(f"{number}_*.ipynb")) for number in numbers]
    if [] in lessons:
        sys.exit(f"There is no lesson {numbers[lessons.index([])]}. Lessons are named by two digits, such as 05.")
    for (path,) in lessons:
        save(path)
    pictures.main()


if __name__ == "__main__":
    main()
