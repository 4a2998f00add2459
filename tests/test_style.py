"""Code and notebooks follow the rules in pyproject.toml."""

import ast
import subprocess
import sys

from lessons import ROOT


def test_ruff_has_nothing_to_say():
    result = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


FLOORS = [("utils",), ("augment", "download", "sample"), ("data", "model"), ("train",), ("analysis", "checks")]


def imported_helpers(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "helpers":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("helpers."):
            yield node.module.split(".")[1]


def test_imports_run_downwards_only():
    height = {name: place for place, floor in enumerate(FLOORS) for name in floor}
    files = [path for path in (ROOT / "helpers").rglob("*.py") if path.name != "__init__.py"]
    assert {path.relative_to(ROOT / "helpers").parts[0].removesuffix(".py") for path in files} == set(height)
    for path in files:
        name = path.relative_to(ROOT / "helpers").parts[0].removesuffix(".py")
        for other in set(imported_helpers(path.read_text(encoding="utf-8"))) - {name}:
            assert height[other] < height[name], f"{name} imports {other}"
            assert name != "train" or other == "utils", f"train imports {other}: it is handed network and batches"
