"""Code and notebooks follow the rules in pyproject.toml."""

import subprocess
import sys

from lessons import ROOT


def test_ruff_has_nothing_to_say():
    result = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_imports_run_downwards_only():
    floors = [("utils",), ("sample",), ("data", "model"), ("train",), ("analysis", "checks")]
    forbidden_for_train = {"data", "model", "sample"}
    for height, names in enumerate(floors):
        for name in names:
            files = [ROOT / "helpers" / f"{name}.py", *(ROOT / "helpers" / name).glob("*.py")]
            source = "\n".join(path.read_text(encoding="utf-8") for path in files if path.exists())
            assert source, name
            below = {lower for floor in floors[:height] for lower in floor}
            for other in (word for floor in floors for word in floor if word != name):
                if f"from helpers.{other} import" in source or f"from helpers import {other}" in source:
                    assert other in below, f"{name} imports {other}"
                    assert not (name == "train" and other in forbidden_for_train)
