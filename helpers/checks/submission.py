"""One submitted notebook: which lesson it is, and the verdict of each of that lesson's exercises.

The exercises and their checks are those of the course's own page. Of a submission only the answers count: not what it
prints, nor what became of its check lines. Of its cells those are run that the answers build on.
"""

import ast
import contextlib
import os
import re
import subprocess
import symtable
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
SHORT = {"Right": "right", "Not yet": "not yet", "Not solved yet": "not solved"}
# A copy of the checks for the judge alone, so that it does not matter what the submission does to its own.
BEFORE = """import sys, torch, helpers.checks as _course
for _name in [name for name in sys.modules if name.partition(".")[0] == "helpers"]: del sys.modules[_name]"""
JUDGE = "(lambda verdict: (verdict.status, verdict.words))(_course.{}({}))"


def grade(path: Path, limit: float) -> tuple[str, dict[str, tuple[str, str]]]:
    """(the lesson's name, {check: (verdict, words)}), the verdict right, not yet, not solved, missing or error.

    The submission is only read; each cell and each check may take `limit` seconds.
    Raises ValueError if it cannot be read, or is of no lesson; the message goes on after the file's name.
    """
    cells = _read(path)
    lesson = _lesson(path, cells)
    asked = exercises(lesson)
    title = "# @title Solution"  # on Colab, tags may be gone
    own = [(source, tags) for kind, source, tags in cells if kind == "code" and not source.startswith(title)]
    sources = [source for source, tags in own if "solution" not in tags]
    steps = [("", BEFORE)]
    for source, bound in needed(sources, set(asked.values())):
        steps += [("", source), *((check, JUDGE.format(check, name)) for check, name in asked.items() if name in bound)]
    verdicts = {check: ("missing", f"no cell defines `{name}`.") for check, name in asked.items()}
    for (check, _), (value, error) in zip(steps, _execute([source for _, source in steps], limit), strict=True):
        if not check:
            trouble = error
        elif value:
            status, words = ast.literal_eval(value)
            verdicts[check] = SHORT[status], words
        else:
            verdicts[check] = "error", trouble or error
    return lesson.stem, verdicts


def _execute(sources: list[str], limit: float) -> list[tuple[str, str]]:
    """(value of the last line as text, what went wrong) of each cell, run in a fresh kernel. "" for none."""
    seen = [("", "not reached: in this cell or one before it, Python ended or could not be stopped.")] * len(sources)
    stopped = {"ename": "TimeoutError", "evalue": f"no answer within {limit:g} seconds.", "traceback": []}

    def note(cell, cell_index, execute_reply):
        reply, outputs = execute_reply["content"], {output.output_type: output for output in cell.outputs}
        if reply.get("evalue") == stopped["evalue"] and "error" not in outputs:  # no KeyboardInterrupt: it runs on
            raise DeadKernelError
        value = outputs["execute_result"].data["text/plain"] if "execute_result" in outputs else ""
        seen[cell_index] = value, f"{reply['ename']}: {reply['evalue']}" if reply["status"] == "error" else ""

    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    (ROOT / "build").mkdir(exist_ok=True)  # below the course, where the setup cell finds helpers/
    with tempfile.TemporaryDirectory(dir=ROOT / "build", ignore_cleanup_errors=True) as folder:
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            allow_errors=True,
            timeout_func=lambda cell: limit if cell.source != BEFORE else 300,  # importing is not the student's time
            interrupt_on_timeout=True,
            error_on_timeout=stopped,
            on_cell_executed=note,
        )
        variables = {"COURSE_PROFILE": "ci", "DATA_DIR": "sample"} | os.environ  # those that are set override
        variables |= {"PYTHONPATH": str(ROOT), "CHECKPOINT_DIR": folder}
        with contextlib.suppress(DeadKernelError):
            client.execute(env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return seen


def _read(path: Path) -> list[tuple[str, str, set]]:
    """(kind, source, tags) of each cell of a notebook. ValueError says what is wrong with the file."""
    try:
        notebook = nbformat.read(path, as_version=4)
        return [(cell.cell_type, cell.source, set(cell.metadata.get("tags", ()))) for cell in notebook.cells]
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}.") from None
    except Exception:  # nbformat raises many kinds
        raise ValueError("is no notebook, or not the whole of one.") from None


def _lesson(path: Path, cells: list) -> Path:
    text = "\n".join(source for kind, source, _ in cells if kind == "markdown")
    number = re.search(r"^# (\d\d) ·", text, re.MULTILINE) or re.match(r"(\d\d)_", path.name)
    lessons = sorted((ROOT / "notebooks").glob(f"{number[1]}_*.ipynb")) if number else []
    if not lessons:
        raise ValueError("is of no lesson: neither a heading nor its name begins with the number of one.")
    return lessons[0]


def exercises(lesson: Path) -> dict[str, str]:
    """{name of the check: name of the answer}, from the last lines of the lesson's exercise cells."""
    stubs = [source.splitlines()[-1] for _, source, tags in _read(lesson) if "exercise" in tags]
    return dict(re.fullmatch(r"checks\.(\w+)\((\w+)\)", stub).groups() for stub in stubs)


def needed(sources: list[str], wanted: set[str]) -> list[tuple[str, set[str]]]:
    """Those cells, in order, that bind one of the wanted names, or what these build on; with all names they bind."""
    found, wanted = [], wanted | {"*"}
    for source in reversed(sources):
        bound, used = names(source)
        if bound & wanted:
            found.insert(0, (source, bound))
            wanted |= used
    return found


def names(source: str) -> tuple[set[str], set[str]]:
    """Names that a cell binds, and names that it uses. If it is not plain Python, every word in it may be either."""
    try:
        tables = [symtable.symtable(source, "cell", "exec")]
    except (SyntaxError, ValueError):
        words = set(re.findall(r"\w+", source))
        return words, words
    bound = {s.get_name() for s in tables[0].get_symbols() if s.is_assigned() or s.is_imported()}
    used = set()
    for table in tables:  # that of the cell, then all that are nested in it
        tables += table.get_children()
        used |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and s.is_global()}
    return bound | ({"*"} if "import *" in source else set()), used
