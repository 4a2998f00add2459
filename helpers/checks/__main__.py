"""Check a class's notebooks: `python -m helpers.checks FILES...`, in the course's folder."""

import argparse
import csv
import glob
import sys
import textwrap
from pathlib import Path

from helpers.checks.submission import grade

DESCRIPTION = """Prints which exercises of these notebooks are right, and what the checks say of the others. Cells that
are tagged as solutions are left out. Only what the answers need is run, on the small drawn pictures, unless the
variables COURSE_PROFILE and DATA_DIR are set. Submissions are only read."""
WARNING = """Warning: it runs the students' code on this machine, with your rights. The checks see through mistakes and
simple tricks, not through code that is written to deceive them."""


def row_of(file: str, limit: float) -> tuple[list[str], list[str]]:
    """([file, lesson, how many are right, verdict of each exercise], remarks on what is not right)."""
    try:
        lesson, verdicts = grade(Path(file), limit)
    except ValueError as error:
        return [file, "", ""], [f"not checked: {error}"]
    short = [verdict for verdict, _ in verdicts.values()]
    remarks = []
    for number, (check, (verdict, words)) in enumerate(verdicts.items(), start=1):
        if verdict != "right":  # words may quote the student's code: no line breaks, no codes for the terminal
            words = "".join(letter if letter.isprintable() else " " for letter in words)
            remarks.append(f"{number} {check}, {verdict}: {textwrap.shorten(words, 600)}")
    return [file, lesson, str(short.count("right")), *short], remarks


def show(rows: list[list[str]], remarks: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    for row, lines in zip(rows[1:], remarks, strict=True):
        if lines:
            print("\n" + "\n  ".join([row[0], *lines]))


def save(rows: list[list[str]], remarks: list[list[str]], file: Path) -> None:
    """Write the table and the remarks to a new file, in the encoding that spreadsheets recognise."""
    with file.open("x", newline="", encoding="utf-8-sig") as out:
        lines = [["remarks"], *([" | ".join(lines)] for lines in remarks)]
        csv.writer(out).writerows(row + line for row, line in zip(rows, lines, strict=True))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m helpers.checks", description=DESCRIPTION, epilog=WARNING)
    parser.add_argument("files", nargs="+", metavar="FILE", help="a submitted notebook, such as anna/05_training.ipynb")
    parser.add_argument("--csv", type=Path, metavar="NEW", help="write the table to this file, too")
    parser.add_argument("--limit", type=float, default=60, metavar="SECONDS", help="of a cell and of a check (60)")
    options = parser.parse_args(arguments)
    if not 0 < options.limit <= 86_400:
        parser.error(f"--limit {options.limit:g}: it must be above 0 seconds, and at most a day.")
    if options.csv and options.csv.exists():
        parser.error(f"--csv {options.csv}: it exists, and may hold marks by hand. Name a new file, or delete it.")
    if options.csv and not options.csv.absolute().parent.is_dir():
        parser.error(f"--csv {options.csv}: there is no such folder.")
    files = []
    for file in options.files:  # Windows leaves *.ipynb to the program
        files += [file] if Path(file).exists() else sorted(glob.glob(file)) or [file]
    rows, remarks = [], []
    for number, file in enumerate(files, start=1):
        print(f"{number} of {len(files)}: {file}", file=sys.stderr)
        row, lines = row_of(file, options.limit)
        rows.append(row)
        remarks.append(lines)
    most = max(map(len, rows))
    head = ["file", "lesson", "right", *map(str, range(1, most - 2))]
    rows = [head, *(row + [""] * (most - len(row)) for row in rows)]
    show(rows, remarks)
    if options.csv:
        save(rows, remarks, options.csv)


if __name__ == "__main__":
    main()
