"""The commands that README.md and CONTRIBUTING.md print, for the tests that run them."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from lessons import ROOT


def printed() -> list[str]:
    """Every line of every `sh` block."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md")]
    blocks = [block for text in texts for block in re.findall(r"```sh\n(.+?)\n```", text, re.DOTALL)]
    return [line for block in blocks for line in block.splitlines()]


def command(part: str) -> list[str]:
    """The words of the one printed command that contains `part`, its last step, for the programs of this Python."""
    (line,) = {line for line in printed() if part in line}
    here = f"{Path(sys.executable).parent.as_posix()}/"
    return shlex.split(line.split(" && ")[-1].replace(".venv/bin/", here))


def export_html(folder: Path) -> None:
    """Write every lesson as an HTML page into `folder`."""
    words = command("--to html")
    words[words.index("build")] = str(folder)
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
