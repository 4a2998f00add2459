"""One submitted notebook: which lesson it is, and the verdict of each of that lesson's exercises.

The exercises and their checks are those of the course's own page. Of a submission only the answers count: not what it
prints, nor what became of its check lines. Of its cells those are run that the answers build on.
"""

import ast
import contextlib
import importlib
import json
import os
import re
import subprocess
import symtable
import sys
import tempfile
from collections import namedtuple
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client.manager import start_new_kernel

ROOT = Path(__file__).resolve().parents[2]
SHORT = {"Right": "right", "Not yet": "not yet", "Not solved yet": "not solved"}
Cell = namedtuple("Cell", "kind source tags")


def grade(path: Path, limit: float) -> tuple[str, dict[str, tuple[str, str]]]:
    """(the lesson's name, {check: (verdict, words)}), the verdict right, not yet, not solved, missing or error.

    Args:
        path: the submission. It is only read.
        limit: seconds for each cell and each check.

    Raises:
        ValueError: the file cannot be read, or is of no lesson. The message goes on after the file's name.
    """
    cells = read(path)
    lesson = _lesson(path, cells)
    asked = exercises(lesson)
    sources = [cell.source for cell in cells if cell.kind == "code" and not _is_solution(cell)]
    needed, last = _plan(sources, set(asked.values()))
    verdicts = {check: ("missing", f"no cell defines `{answer}`.") for check, answer in asked.items()}
    if not needed:
        return lesson.stem, verdicts
    with _fresh_kernel(limit) as run:
        for place in needed:
            _, trouble = run(sources[place])
            for check, answer in asked.items():
                if last.get(answer) == place:
                    call = f"__import__('runpy').run_path({__file__!r})['judge']({check!r}, {answer!r}, globals())"
                    verdict, stopped = run("", call)
                    status, words = verdict or ("", trouble or stopped or f"its cell leaves no `{answer}` behind.")
                    verdicts[check] = SHORT.get(status, "error"), words
    return lesson.stem, verdicts


def judge(check: str, answer: str, namespace: dict) -> tuple[str, str] | None:
    """In the submission's kernel: (status, words) of the check. None if there is no answer of that name.

    The check comes from a fresh copy of the course's code, so it does not matter what the submission did to `checks`.
    """
    if answer not in namespace:
        return None
    theirs = _forget_helpers()
    sys.path.insert(0, str(ROOT))
    try:
        verdict = getattr(importlib.import_module("helpers.checks"), check)(namespace[answer])
        return verdict.status, verdict.words
    finally:
        sys.path.remove(str(ROOT))
        _forget_helpers()
        sys.modules.update(theirs)


def _forget_helpers() -> dict:
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "helpers"}


# ---------------------------------------------------------------- the notebook


def read(path: Path) -> list[Cell]:
    """The cells of a notebook. ValueError says what is wrong with the file."""
    if path.is_dir():
        raise ValueError("is a folder: name the notebooks in it.")
    try:
        notebook = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}.") from None
    except ValueError:
        raise ValueError("holds no JSON: it is no notebook, or not the whole of one.") from None
    with contextlib.suppress(KeyError, TypeError, AttributeError):
        if notebook["nbformat"] == 4:
            fields = ((cell["cell_type"], cell["source"], cell["metadata"]) for cell in notebook["cells"])
            return [Cell(kind, "".join(source), set(metadata.get("tags", ()))) for kind, source, metadata in fields]
    raise ValueError("is no notebook of format 4: open it in JupyterLab, save it there, and take that file.")


def exercises(lesson: Path) -> dict[str, str]:
    """{name of the check: name of the answer}, from the last lines of the lesson's exercise cells."""
    stubs = [cell.source.splitlines()[-1] for cell in read(lesson) if "exercise" in cell.tags]
    return dict(re.fullmatch(r"checks\.(\w+)\((\w+)\)", stub).groups() for stub in stubs)


def _lesson(path: Path, cells: list[Cell]) -> Path:
    text = "\n".join(cell.source for cell in cells if cell.kind == "markdown")
    number = re.search(r"^# (\d\d) ·", text, re.MULTILINE) or re.match(r"(\d\d)_", path.name)
    lessons = sorted((ROOT / "notebooks").glob(f"{number[1]}_*.ipynb")) if number else []
    if not lessons:
        raise ValueError("is of no lesson: neither a heading nor its name begins with the number of one.")
    return lessons[0]


def _is_solution(cell: Cell) -> bool:
    return "solution" in cell.tags or cell.source.startswith("# @title Solution")


def _plan(sources: list[str], answers: set[str]) -> tuple[list[int], dict[str, int]]:
    """Positions of the cells to run, and the last of them that binds each answer: there it is judged."""
    bound_and_used = [names(source) for source in sources]
    needed, last, wanted = [], {}, answers | {"*"}
    for place in reversed(range(len(sources))):
        bound, used = bound_and_used[place]
        if bound & wanted:
            needed.insert(0, place)
            wanted |= used
            last = dict.fromkeys(bound & answers, place) | last
    return needed, last


def names(source: str) -> tuple[set[str], set[str]]:
    """Names that a cell binds, and names that it uses. If it is not Python, every word in it may be either."""
    source = re.sub(r"\A\s*%%.*\n", "", source)  # such as %%time
    try:
        tables = [symtable.symtable(TransformerManager().transform_cell(source), "cell", "exec")]
    except (SyntaxError, ValueError):
        words = set(re.findall(r"\w+", source))
        return words, words
    bound = {s.get_name() for s in tables[0].get_symbols() if s.is_assigned() or s.is_imported()}
    used = set()
    for table in tables:  # that of the cell, then all that are nested in it
        tables += table.get_children()
        used |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and s.is_global()}
    return bound | ({"*"} if "import *" in source else set()), used


# ---------------------------------------------------------------- the kernel


@contextlib.contextmanager
def _fresh_kernel(limit: float):
    """Gives run(code, expression) -> (value of the expression after the code, what went wrong or "")."""
    (ROOT / "build").mkdir(exist_ok=True)  # below the course, where the setup cell finds helpers/
    with tempfile.TemporaryDirectory(dir=ROOT / "build", ignore_cleanup_errors=True) as folder:
        variables = {"COURSE_PROFILE": "ci", "DATA_DIR": "sample"} | os.environ  # those that are set override
        variables |= {"PYTHONPATH": str(ROOT), "CHECKPOINT_DIR": folder}
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        manager, client = start_new_kernel(120, "python3", cwd=folder, env=variables, **silent)
        options = {"allow_stdin": False, "stop_on_error": False, "output_hook": lambda message: None}

        def run(code, expression="None", limit=limit):
            if not manager.is_alive():
                return None, "not reached: a cell before it could not be stopped, or ended Python."
            asked = {"value": expression}
            try:
                reply = client.execute_interactive(code, user_expressions=asked, timeout=limit, **options)["content"]
            except TimeoutError:
                try:
                    manager.interrupt_kernel()
                    client.wait_for_ready(timeout=10)
                except RuntimeError:  # it does not listen
                    manager.shutdown_kernel(now=True)
                return None, f"no answer within {limit:g} seconds: an endless loop, or Python has ended."
            if reply["status"] == "ok":
                reply = reply["user_expressions"]["value"]
            if reply["status"] == "ok":
                return ast.literal_eval(reply["data"]["text/plain"]), ""
            return None, f"{reply.get('ename')}: {reply.get('evalue')}"

        try:
            run("", "bool(__import__('torch'))", limit=300)  # loading PyTorch is not the student's time
            yield run
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
