"""Check a class's notebooks: `python -m helpers.checks FILES...`, in the course's folder."""

import argparse
import csv
import glob
import sys
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
    remarks = []
    for number, (check, (verdict, words)) in enumerate(verdicts.items(), start=1):
        if verdict != "right":  # words may quote the student's code: no line breaks, no codes for the terminal
            words = " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())
            remarks.append(f"{number} {check}, {verdict}: {words[:600]}")
    short = [verdict for verdict, _ in verdicts.values()]
    return [file, lesson, str(short.count("right")), *short], remarks


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m helpers.checks", description=DESCRIPTION, epilog=WARNING)
    parser.add_argument("files", nargs="+", metavar="FILE", help="a submitted notebook, such as anna/05_training.ipynb")
    parser.add_argument("--csv", type=Path, metavar="NEW", help="write the table to this file, too")
    parser.add_argument("--limit", type=float, default=60, metavar="SECONDS", help="of a cell and of a check (60)")
    options = parser.parse_args(arguments)
    if options.csv and (options.csv.exists() or not options.csv.absolute().parent.is_dir()):
        parser.error(
            f"--csv {options.csv}: it exists and may hold marks by hand, or its folder does not. Name a new file."
        )
    files = []
    for file in options.files:  # Windows leaves *.ipynb to the program
        files += [file] if Path(file).exists() else sorted(glob.glob(file)) or [file]
    graded = []
    for number, file in enumerate(files, start=1):
        print(f"{number} of {len(files)}: {file}", file=sys.stderr)
        graded.append(row_of(file, options.limit))
    most = max(len(row) for row, _ in graded)
    table = [["file", "lesson", "right", *map(str, range(1, most - 2))], *(row for row, _ in graded)]
    table = [row + [""] * (most - len(row)) for row in table]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    for row, remarks in graded:
        if remarks:
            print("\n" + "\n  ".join([row[0], *remarks]))
    if options.csv:
        last = ["remarks", *(" | ".join(remarks) for _, remarks in graded)]
        with options.csv.open("x", newline="", encoding="utf-8-sig") as out:  # the encoding that spreadsheets recognise
            csv.writer(out).writerows([*row, text] for row, text in zip(table, last, strict=True))


if __name__ == "__main__":
    main()
