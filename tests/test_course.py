"""The form of the course: its lessons, what README and CONTRIBUTING print and promise, its requirements, its style."""

import ast
import csv
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from commands import command, printed
from lessons import LESSONS, REPOSITORY, ROOT, saved_text

README = (ROOT / "README.md").read_text(encoding="utf-8")
COLAB = "https://colab.research.google.com/"
BADGE = f"[![Open In Colab]({COLAB}assets/colab-badge.svg)]({COLAB}github/{REPOSITORY}/blob/main/notebooks/"

each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.path.stem)


def run(*words):
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, encoding="utf-8")


def code(lesson):
    return [cell for cell in lesson.cells if cell.kind == "code"]


def folded(cell):
    """In JupyterLab, and in Colab."""
    return cell.raw["metadata"]["jupyter"]["source_hidden"] and cell.raw["metadata"]["cellView"] == "form"


def title(lesson):
    return lesson.cells[0].lines[0].removeprefix("# ")


# ---------------------------------------------------------------- lessons


def test_the_lessons_are_there_in_their_order():
    fixed = "dataset_exploration vgg_vs_resnet resnet_from_scratch lr_finder training misclassification_analysis"
    assert [lesson.path.stem[3:] for lesson in LESSONS][:6] == fixed.split()
    assert [int(lesson.path.stem[:2]) for lesson in LESSONS] == list(range(1, len(LESSONS) + 1))


@each_lesson
def test_a_lesson_is_a_plain_notebook_of_python_3(lesson):
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert lesson.raw["nbformat"] == 4
    assert lesson.raw["metadata"]["kernelspec"] == kernel
    assert set(lesson.raw["metadata"]) == {"kernelspec", "language_info"}  # no state of widgets: GitHub shows none
    assert lesson.path.stat().st_size < 1_000_000


@each_lesson
def test_head_and_end_lead_to_the_neighbours_and_say_what_was_run(lesson):
    place = LESSONS.index(lesson)
    around = [("Previous", LESSONS[place - 1])] * (place > 0) + [("Next", other) for other in LESSONS[place + 1 :][:1]]
    links = [f"{word}: [{title(other)}]({other.path.name})" for word, other in around]
    head = [f"# {title(lesson)}", f"{BADGE}{lesson.path.name})", " | ".join(links)]
    assert lesson.cells[0].source.split("\n\n")[:3] == head
    assert title(lesson).startswith(f"{lesson.path.stem[:2]} · ")
    assert lesson.cells[-1].source.startswith("utils.about(")
    text = "".join(cell.source for cell in lesson.cells if cell.kind == "markdown")
    for heading in ("What to remember", "Quiz", "References"):
        assert f"## {heading}\n" in text
    for target in re.findall(r"\]\(([^)#:]+\.ipynb)\)", text):
        assert (lesson.path.parent / target).exists(), target


@each_lesson
def test_the_setup_cell_is_the_same_everywhere(lesson):
    (setup,) = lesson.tagged("setup")
    assert setup is lesson.cells[2]
    assert setup.source == LESSONS[0].cells[2].source
    assert folded(setup)
    assert setup.lines[0].startswith("# @title Setup")
    assert f'REPOSITORY = "https://github.com/{REPOSITORY}"' in setup.lines


@each_lesson
def test_an_exercise_has_a_rated_task_a_check_hints_and_a_folded_solution(lesson):
    stubs = lesson.tagged("exercise")
    assert 0 < len(stubs) == len(lesson.tagged("solution"))
    for number, stub in enumerate(stubs, start=1):
        at = lesson.cells.index(stub)
        task, _, hints, solution = lesson.cells[at - 1 : at + 3]
        rated = rf"(?m)^### Exercise {number}: .+\n\n?\*Difficulty \d/5 · importance \d/5 · \d+ min"
        assert re.search(rated, task.source)
        assert "<details><summary>" in hints.source
        assert "solution" in solution.tags
        assert folded(solution)
        assert solution.lines[0] == "# @title Solution"
        check = re.fullmatch(r"checks\.(\w+)\((\w+)\)", stub.lines[-1])
        assert solution.lines[-1] in (f"checks.{check[1]}({check[2]}{end})" for end in ("_solution", "Solution"))


@each_lesson
def test_saved_outputs_are_of_real_images_and_without_errors(lesson):
    outputs = [output for cell in code(lesson) for output in cell.raw["outputs"]]
    assert outputs
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output["text"] for output in outputs if output.get("name") == "stderr"]
    for word in ("sample shapes", "Profile: ci", "/home/", "/root/", "/Users/", str(ROOT)):
        assert word not in saved_text(lesson)


@each_lesson
def test_outputs_that_nbval_compares_were_saved_and_are_the_same_for_every_reader(lesson):
    exact = lesson.tagged("nbval-check-output")
    assert exact, "no exact output is compared"
    for cell in exact:
        assert cell.raw["outputs"], "without a saved output nbval compares nothing"
        assert "utils.compare(" not in cell.source, "prints the reader's guess"


@each_lesson
def test_no_cell_hides_a_failure_or_draws_past_the_helpers(lesson):
    """A failing `!command` does not fail its cell. Figures of utils name the data that they show."""
    hiding = {"raises-exception", "nbval-raises-exception", "nbval-skip", "skip-execution"}
    for cell in code(lesson):
        assert not hiding & set(cell.tags)
        assert "NBVAL" not in cell.source, "what the tests want stands in tags"
        assert not [line for line in cell.lines if line.lstrip().startswith(("!", "%"))]
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)}
        assert not calls & {"plt.subplots", "plt.figure", "plt.plot", "plt.imshow"}


# ---------------------------------------------------------------- README


def block(heading, language):
    """The first code block of a language under a heading of README."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.search(rf"```{language}\n(.+?)\n```", section)[1]


@pytest.mark.parametrize(
    ("heading", "end"),
    [
        ("Start", ".venv/bin/jupyter lab notebooks/01_dataset_exploration.ipynb"),
        ("Test", ".venv/bin/python -m pytest"),
    ],
)
def test_one_command_sets_everything_up_on_each_system(heading, end):
    steps = block(heading, "sh").split(" && ")
    assert steps == ["python3 -m venv .venv", ".venv/bin/python -m pip install -r requirements.txt", end]
    on_windows = block(heading, "bat").replace("\\", "/").replace("/Scripts/", "/bin/")
    assert on_windows.split(" && ") == ["py -m venv .venv", *steps[1:]]


def test_the_workflow_runs_the_test_command():
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    assert "run: bash .ci/run" in workflow
    assert block("Test", "bat").replace("py -m", "python -m") in workflow


@each_lesson
def test_every_lesson_has_its_row_in_the_table(lesson):
    (row,) = (line for line in README.splitlines() if line.startswith(f"| [{title(lesson)}]"))
    link, _, exercises, _, accuracy, badge = (cell.strip() for cell in row.strip("|").split("|"))
    assert link == f"[{title(lesson)}](notebooks/{lesson.path.name})"
    assert int(exercises) == len(lesson.tagged("exercise"))
    assert badge == f"{BADGE}{lesson.path.name})"
    assert "%" not in accuracy or accuracy.split()[0] in saved_text(lesson)


def test_links_and_names_lead_to_files():
    names = set(re.findall(r"\]\(([^):#]+)\)", README))
    for text in (README, (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        names |= set(re.findall(r"(?<![\w/])(?:helpers|notebooks|tests|\.github|\.ci)/[\w/.]*\w", text))
    assert [name for name in sorted(names) if "NAME" not in name and not (ROOT / name).exists()] == []


@pytest.fixture
def results(monkeypatch):
    """What tests/benchmarks/results.py defines."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "benchmarks")  # where Python finds what the benchmarks share
    return runpy.run_path(str(ROOT / command("benchmarks/results.py")[1]))


def test_every_accuracy_in_readme_is_one_that_was_measured(results):
    """By the runs behind its table, which the benchmark prints, or by a saved lesson."""
    rows = results["read"]()
    table = results["summary"](rows)
    assert table in README
    of_runs = [f"{row[name]:.2f}%" for row in rows for name in results["ACCURACIES"]]
    measured = "\n".join([table, *of_runs, *map(saved_text, LESSONS)])
    elsewhere = {"90.22%"}  # one run of tests/benchmarks/time_to_accuracy.py, as the text says
    accuracies = r"\d+\.\d+%"
    assert set(re.findall(accuracies, README)) - set(re.findall(accuracies, measured)) <= elsewhere


def test_each_history_in_results_is_that_of_its_row(results):
    rows = {"{recipe}_{width:.0f}_{epochs:.0f}_{seed:.0f}".format(**row): row for row in results["read"]()}
    paths = [path for path in results["FOLDER"].glob("*.csv") if path != results["TABLE"]]
    assert paths
    for path in paths:
        with open(path, newline="", encoding="utf-8") as file:
            accuracy = [100 * float(epoch["valid_accuracy"]) for epoch in csv.DictReader(file)]
        row = rows[path.stem]
        assert (len(accuracy), round(accuracy[-1], 2), round(max(accuracy), 2)) == tuple(
            row[name] for name in ("epochs", "valid", "best")
        )


def test_the_pictures_of_readme_are_those_of_the_lessons():
    pictures = runpy.run_path(str(ROOT / ".github" / "pictures.py"))
    assert set(re.findall(r"\(\.github/pictures/([\w.]+)\)", README)) == set(pictures["PICTURES"])
    for name, place in pictures["PICTURES"].items():
        kept = (pictures["FOLDER"] / name).read_bytes()
        assert kept == pictures["drawn"](*place), f"{name} is of a former run: run .github/pictures.py"
        assert len(kept) < 100_000


# ---------------------------------------------------------------- commands


@pytest.mark.parametrize("line", printed())
def test_a_printed_command_names_programs_and_files_that_are_there(line, pytestconfig):
    """The tests run most of them as well, the workflow the rest."""
    for step in line.split(" && "):
        program, *words = (word for word in shlex.split(step) if not re.match("[A-Z_]+=", word))
        if program.startswith(".venv/bin/"):
            here = Path(sys.executable).parent
            assert shutil.which(program.removeprefix(".venv/bin/"), path=here), program
        else:
            assert program in ("python3", "bash")
        if "-m" in words[:1]:
            assert words[1] in ("venv", "playwright") or find_spec(words[1])
        for before, word in zip([program, *words], words, strict=False):
            if before == "-r" or word.startswith(("notebooks/", "tests/", "helpers/", ".github/")):
                assert list(ROOT.glob(word)), word
        if words[:2] == ["-m", "pytest"] and "-m" in words[2:]:
            marker = words[words.index("-m", 2) + 1]
            assert marker in [known.partition(":")[0] for known in pytestconfig.getini("markers")]


def test_the_command_that_saves_a_lesson_runs_and_saves_it(tmp_path):
    *words, pages = command("--execute --inplace")
    page = tmp_path / pages.replace("*", "05_training")
    page.parent.mkdir()
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": "print(6 * 7)", "outputs": []}
    cells = [cell | {"execution_count": None}]
    page.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}), encoding="utf-8")
    subprocess.run([*words, str(page)], cwd=tmp_path, check=True, capture_output=True)
    (cell,) = json.loads(page.read_text(encoding="utf-8"))["cells"]
    assert "".join(cell["outputs"][0]["text"]).strip() == "42"
    assert cell["metadata"] == {}, "times of the run would make every saved page differ"


def test_without_a_network_pip_takes_what_it_has(tmp_path):
    (tmp_path / "wheels").mkdir()
    *words, last = command("--no-index")
    said = subprocess.run([*words, str(ROOT / last)], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert "already satisfied" in said


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_imports_what_is_there(path, monkeypatch):
    """Not run: they measure for minutes, and want a machine of their own."""
    monkeypatch.syspath_prepend(path.parent)
    assert callable(runpy.run_path(str(path))["main"])


def test_one_command_moves_the_repository(tmp_path, capsys):
    """In a copy of all files that name it: links that differ are listed, then all are changed, and nothing else."""
    moving = runpy.run_path(str(ROOT / ".github" / "repository.py"))
    own, main = moving["main"].__globals__, moving["main"]
    assert {ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(lesson.path for lesson in LESSONS)} <= set(own["FILES"])
    assert main([]) == 0, capsys.readouterr().out
    files = {}
    for path in own["FILES"]:
        files[path] = tmp_path / path.relative_to(ROOT)
        files[path].parent.mkdir(exist_ok=True)
        shutil.copyfile(path, files[path])
    own |= {"ROOT": tmp_path, "PLACE": files[own["PLACE"]], "FILES": list(files.values())}
    readme, other = files[ROOT / "README.md"], "jane-doe/My.course_2"
    text = readme.read_bytes()
    foreign = f" https://codespaces.new/someone/else github.com/pytorch/vision {REPOSITORY}-2"
    readme.write_bytes(text + foreign.encode())
    assert main([]) == 1
    assert "someone/else" in capsys.readouterr().out
    assert main(["https://github.com/a/b"]) == 2
    assert readme.read_bytes() == text + foreign.encode()
    assert main([other]) == main([]) == 0
    after = text.replace(REPOSITORY.encode(), other.encode()) + foreign.replace("someone/else", other).encode()
    assert readme.read_bytes() == after
    for path, copy in files.items():
        if path.suffix == ".ipynb":
            assert copy.read_bytes() == path.read_bytes().replace(REPOSITORY.encode(), other.encode())


@each_lesson
def test_the_script_that_saves_lessons_finds_what_the_last_cell_says(lesson, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / ".github")
    facts = runpy.run_path(str(ROOT / ".github" / "save.py"))["facts"](lesson.path)
    assert facts["profile"] in ("cpu", "gpu")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", facts["date"])


# ---------------------------------------------------------------- requirements

MODULES = {"pillow": "PIL", "ipython": "IPython", "torch-lr-finder": "torch_lr_finder"}  # others: the same name
TOOLS = {  # used without an import, or by tests only: where, and by which words
    "captum": ("tests/test_analysis.py", "captum"),
    "jupyterlab": ("README.md", "jupyter lab"),
    "latex2mathml": ("notebooks/html/config.py", "from latex2mathml.converter import convert"),
    "nbval": ("pyproject.toml", "--nbval-lax"),
    "pytest": ("README.md", "-m pytest"),
    "pytest-xdist": ("pyproject.toml", "--dist loadfile"),
    "ruff": ("pyproject.toml", "[tool.ruff]"),
    "scikit-learn": ("tests/test_analysis.py", "sklearn"),
}


def imported(source):
    """Full names of all modules that a source imports; for `from a import b` both a and a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def test_what_is_listed_is_used_and_what_is_used_is_listed():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        assert re.fullmatch(r"[\w-]+>=[\d.]+ +# .+", line), "a floor and a reason"
    listed = {line.partition(">=")[0] for line in lines}
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "helpers").rglob("*.py")]
    sources += [cell.source for lesson in LESSONS for cell in code(lesson)]
    used = {name.partition(".")[0] for source in sources for name in imported(source)}
    used -= set(sys.stdlib_module_names) | {"helpers", "google", "nbformat"}  # Colab and nbclient bring the last two
    assert used <= {MODULES.get(name, name) for name in listed}
    assert {MODULES.get(name, name) for name in listed - set(TOOLS)} <= used | {
        "scipy"
    }  # scipy: for torchvision's SVHN
    assert set(TOOLS) <= listed
    for file, words in TOOLS.values():
        assert words in (ROOT / file).read_text(encoding="utf-8")


def test_conda_and_codespaces_install_the_same_list():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    items = re.findall(r"^ *- (?!conda-forge)(.+)$", text, flags=re.MULTILINE)
    assert items == ["python>=3.11", "pip", "pip:", "-r requirements.txt"]
    settings = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert settings["postCreateCommand"] == "python -m pip install -r requirements.txt"


# ---------------------------------------------------------------- style


@pytest.mark.quick
@pytest.mark.parametrize("words", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff_has_nothing_to_say(words):
    result = run("-m", "ruff", *words, ".")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.quick
def test_imports_run_downwards_only():
    below = {}  # name -> those that it imports
    for path in (ROOT / "helpers").rglob("*.py"):
        name = path.relative_to(ROOT / "helpers").parts[0].removesuffix(".py")
        modules = [module.split(".") for module in imported(path.read_text(encoding="utf-8"))]
        below.setdefault(name, set()).update(m[1] for m in modules if m[0] == "helpers" and m[1:])
        below[name].discard(name)
    for _ in below:  # and those that they import
        below = {name: others.union(*(below[other] for other in others)) for name, others in below.items()}
    assert [name for name in below if name in below[name]] == [], "a circle"
    assert below["utils"] == set()
    images, top = {"augment", "data", "download", "pictures", "sample"}, {"analysis", "checks"}
    assert not below["train"] & (images | top | {"model"}), "it is handed network and batches"
    assert not below["model"] & (images | top | {"train"})
    assert not [name for name in set(below) - top if below[name] & top]
