"""Owner and name of this repository stand in one place, `repository-code` in CITATION.cff. The links follow from it.

Without arguments: list the links that lead elsewhere; the exit status is 1 if there are any.
With `owner/name`: change CITATION.cff, every badge, every link and the lessons' setup cells.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "CITATION.cff"
FILES = [PLACE, ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "notebooks").glob("*.ipynb"))]

# What stands before owner/name where only this repository can be meant. Other links to GitHub may lead anywhere.
BEFORE = (
    'repository-code: "https://github.com/',
    'REPOSITORY = \\"https://github.com/',  # the setup cell, as it stands in the .ipynb
    "git clone https://github.com/",
    "https://colab.research.google.com/github/",
    "https://kaggle.com/kernels/welcome?src=https://github.com/",
    "https://codespaces.new/",
)
OWN = re.compile(f"(?P<before>{'|'.join(map(re.escape, BEFORE))})(?P<name>[\\w.-]+/[\\w.-]*\\w)", re.ASCII)
ALLOWED = re.compile(r"[a-z0-9](-?[a-z0-9])*/(?!.*\.git$)[\w.-]*\w", re.ASCII | re.IGNORECASE)


def read(path: Path) -> str:
    return path.read_bytes().decode()  # bytes, so that the ends of lines stay what they are


def named() -> str:
    """Owner and name as CITATION.cff has them."""
    return next(link["name"] for link in OWN.finditer(read(PLACE)))


def differing(name: str) -> list[str]:
    """One line for each link to this repository that has another owner or name."""
    return [
        f"{path.relative_to(ROOT).as_posix()}, line {number}: {link['name']}"
        for path in FILES
        if path.exists()
        for number, line in enumerate(read(path).splitlines(), start=1)
        for link in OWN.finditer(line)
        if link["name"] != name
    ]


def rename(old: str, new: str) -> None:
    """Put `new` wherever `old` stands as a whole, and into each link to this repository, whatever it has now."""
    whole = re.compile(rf"(?<![\w.-]){re.escape(old)}(?![\w-]|\.\w)")
    for path in FILES:
        if path.exists():
            text = OWN.sub(rf"\g<before>{new}", read(path))
            path.write_bytes(whole.sub(new, text).encode())


def main(arguments: list[str]) -> int:
    if not arguments:
        lines = differing(named())
        print("\n".join([*lines, f"CITATION.cff says {named()}; links that say otherwise: {len(lines)}."]))
        return 1 if lines else 0
    if len(arguments) > 1 or not ALLOWED.fullmatch(arguments[0]):
        given = " ".join(arguments)
        print(f"{given!r} is not owner/name, such as jane-doe/cifar10-resnet. Nothing was changed.", file=sys.stderr)
        return 2
    rename(named(), arguments[0])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
