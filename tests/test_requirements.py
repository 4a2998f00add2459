"""requirements.txt lists what is used, and what is listed is used."""

import ast
import json
import re
import subprocess
import sys

import pytest
from lessons import LESSONS, ROOT

MODULE_OF = {  # others: the same name
    "pillow": "PIL",
    "ipython": "IPython",
    "jupyter-client": "jupyter_client",
    "torch-lr-finder": "torch_lr_finder",
}
TOOLS = {  # used without an import, or by tests only: where, and by which words
    "captum": ("tests/test_analysis.py", "from captum.attr import LayerGradCam"),
    "jupyterlab": ("README.md", "jupyter lab"),
    "latex2mathml": ("notebooks/html/config.py", "from latex2mathml.converter import convert"),
    "nbval": ("pyproject.toml", "--nbval-lax"),
    "pytest": ("README.md", "-m pytest"),
    "ruff": ("pyproject.toml", "[tool.ruff]"),
    "scikit-learn": ("tests/test_analysis.py", "import sklearn.metrics"),
    "scipy": ("helpers/data.py", "torchvision.datasets.SVHN"),
}
TOP_LEVEL = {
    "README.md", "requirements.txt", "environment.yml", "pyproject.toml", "notebooks", "helpers", "tests", "LICENSE",
    "CITATION.cff", "CONTRIBUTING.md", "conftest.py", ".gitignore", ".ci", ".github", ".devcontainer",
}  # fmt: skip


def listed():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return {re.match(r"[\w-]+", line)[0]: line for line in lines if line.strip()}


def imported(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.partition(".")[0]


def used():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "helpers").rglob("*.py")]
    sources += [cell.source for lesson in LESSONS for cell in lesson.cells if cell.kind == "code"]
    return {name for source in sources for name in imported(source)} - set(sys.stdlib_module_names) - {"helpers"}


def test_everything_imported_is_listed():
    there = {"google"}  # google.colab: lesson 08 asks for it where Colab has brought it along
    assert used() - there <= {MODULE_OF.get(name, name) for name in listed()}


def test_everything_listed_is_used():
    for name in listed():
        if name in TOOLS:
            file, words = TOOLS[name]
            assert words in (ROOT / file).read_text(encoding="utf-8")
        else:
            assert MODULE_OF.get(name, name) in used(), f"{name} is listed, but nothing imports it"


def test_every_requirement_has_a_floor_and_a_reason():
    for line in listed().values():
        assert re.fullmatch(r"[\w-]+>=[\d.]+ +# .+", line), line


def test_conda_environment_installs_the_same_list():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    items = re.findall(r"^ *- (?!conda-forge)(.+)$", text, flags=re.MULTILINE)
    assert items == ["python>=3.11", "pip", "pip:", "-r requirements.txt"]


def test_codespaces_installs_the_same_list():
    settings = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert settings["image"] == "mcr.microsoft.com/devcontainers/python:3.12"
    assert settings["postCreateCommand"] == "python -m pip install -r requirements.txt"


def test_no_other_top_level_entries():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    assert {line.partition("/")[0] for line in tracked.stdout.splitlines()} <= TOP_LEVEL
