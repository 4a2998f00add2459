"""The form of every lesson."""

import ast
import re

import pytest
from lessons import LESSONS, REPOSITORY

BADGE = (
    "[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{}/blob/main/notebooks/{})"
)
ORDER = [
    "01_dataset_exploration",
    "02_vgg_vs_resnet",
    "03_resnet_from_scratch",
    "04_lr_finder",
    "05_training",
    "06_misclassification_analysis",
]

each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.path.stem)


def code(lesson):
    return [cell for cell in lesson.cells if cell.kind == "code"]


def title(lesson):
    return lesson.cells[0].lines[0].removeprefix("# ")


def test_the_six_lessons_come_first_and_in_order():
    assert [lesson.path.stem for lesson in LESSONS][: len(ORDER)] == ORDER


@each_lesson
def test_kernel_and_no_widget_state(lesson):
    metadata = lesson.raw["metadata"]
    assert lesson.raw["nbformat"] == 4
    assert metadata["kernelspec"] == {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert set(metadata) == {"kernelspec", "language_info"}
    assert "widget-view" not in lesson.path.read_text(encoding="utf-8")


@each_lesson
def test_saved_from_one_complete_run_without_errors(lesson):
    assert [cell.raw["execution_count"] for cell in code(lesson)] == list(range(1, len(code(lesson)) + 1))
    outputs = [output for cell in code(lesson) for output in cell.raw["outputs"]]
    assert outputs
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output["text"] for output in outputs if output.get("name") == "stderr"]


@each_lesson
def test_saved_from_real_images(lesson):
    saved = str([cell.raw["outputs"] for cell in code(lesson)])
    assert "sample shapes" not in saved
    assert "/work/" not in saved
    assert "/home/" not in saved
    about = str(code(lesson)[-1].raw["outputs"])
    assert "torch" in about
    assert "Profile: ci" not in about


@each_lesson
def test_head_has_badge_and_links_to_its_neighbours(lesson):
    place = LESSONS.index(lesson)
    links = []
    if place > 0:
        links.append(f"Previous: [{title(LESSONS[place - 1])}]({LESSONS[place - 1].path.name})")
    if place + 1 < len(LESSONS):
        links.append(f"Next: [{title(LESSONS[place + 1])}]({LESSONS[place + 1].path.name})")
    head = lesson.cells[0].source.split("\n\n")
    assert re.fullmatch(rf"# {lesson.path.stem[:2]} · .+", head[0])
    assert head[1] == BADGE.format(REPOSITORY, lesson.path.name)
    assert head[2] == " | ".join(links)


@each_lesson
def test_links_between_lessons_lead_somewhere(lesson):
    for target in re.findall(r"\]\(([^)#:]+\.ipynb)\)", "".join(cell.source for cell in lesson.cells)):
        assert (lesson.path.parent / target).exists(), target


@each_lesson
def test_goals_requirements_and_minutes_are_told_up_front(lesson):
    text = lesson.cells[1].source
    for part in ("**After this lesson you can**", "**You need**", "**Time**"):
        assert part in text
    assert re.search(r"run in about \S+ (minutes?|seconds)", text)


@each_lesson
def test_setup_cell_is_the_same_everywhere(lesson):
    (setup,) = lesson.tagged("setup")
    assert setup is lesson.cells[2]
    assert setup.source == LESSONS[0].cells[2].source
    assert f'REPOSITORY = "https://github.com/{REPOSITORY}"' in setup.lines


@each_lesson
def test_every_exercise_has_a_task_a_check_hints_and_a_solution(lesson):
    stubs = lesson.tagged("exercise")
    assert stubs
    assert len(lesson.tagged("solution")) == len(stubs)
    for number, stub in enumerate(stubs, start=1):
        at = lesson.cells.index(stub)
        task, hints, solution = lesson.cells[at - 1], lesson.cells[at + 1], lesson.cells[at + 2]
        assert re.search(
            rf"(?m)^### Exercise {number}: .+\n\n?\*Difficulty \d/5 · importance \d/5 · \d+ min", task.source
        )
        assert "<details><summary>" in hints.source
        assert "solution" in solution.tags
        assert solution.raw["metadata"]["jupyter"]["source_hidden"] is True
        assert solution.raw["metadata"]["cellView"] == "form"
        assert solution.lines[0] == "# @title Solution"
        check = re.fullmatch(r"checks\.(\w+)\((\w+)\)", stub.lines[-1])
        assert solution.lines[-1] in (f"checks.{check[1]}({check[2]}{end})" for end in ("_solution", "Solution"))


@each_lesson
def test_every_page_ends_the_same_way(lesson):
    text = "\n".join(cell.source for cell in lesson.cells if cell.kind == "markdown")
    places = [text.index(f"## {heading}\n") for heading in ("What to remember", "Quiz", "References")]
    assert places == sorted(places)
    assert lesson.cells[-1].source.startswith("utils.about(")


@each_lesson
def test_html_details_are_balanced(lesson):
    for cell in lesson.cells:
        if cell.kind == "markdown":
            for tag in ("details", "summary"):
                assert cell.source.count(f"<{tag}>") == cell.source.count(f"</{tag}>")


@each_lesson
def test_check_markers_stand_alone_and_have_a_saved_output(lesson):
    marked = [cell for cell in code(lesson) if "NBVAL_" in cell.source]
    assert marked, "no deterministic output is checked"
    for cell in marked:
        assert "# NBVAL_CHECK_OUTPUT" in cell.lines
        assert cell.source.count("NBVAL_") == 1
        assert "utils.compare(" not in cell.source, "prints the reader's guess: that must not be compared"
        assert cell.raw["outputs"]


@each_lesson
def test_figures_go_through_the_helpers_that_name_the_data(lesson):
    for cell in code(lesson):
        calls = [node.func for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
        names = {ast.unparse(function) for function in calls}
        assert not names & {"plt.subplots", "plt.figure", "plt.plot", "plt.imshow"}


@each_lesson
def test_no_cell_hides_a_failure(lesson):
    for cell in code(lesson):
        assert "raises-exception" not in cell.tags
        assert "NBVAL_SKIP" not in cell.source
        assert not [line for line in cell.lines if line.lstrip().startswith(("!", "%"))]


@each_lesson
def test_size(lesson):
    assert len(lesson.cells) < 60
    assert lesson.path.stat().st_size < 1_000_000
