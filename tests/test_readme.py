"""README.md says what is there."""

import re
import runpy

import pytest
from commands import command
from lessons import LESSONS, REPOSITORY, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(heading, language):
    """The first code block of a language under a heading."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.search(rf"```{language}\n(.+?)\n```", section)[1]


def test_the_two_commands_are_one_line_each_and_set_everything_up():
    for heading, end in (
        ("Start", ".venv/bin/jupyter lab notebooks/01_dataset_exploration.ipynb"),
        ("Test", ".venv/bin/python -m pytest"),
    ):
        steps = block(heading, "sh").split(" && ")
        assert steps == ["python3 -m venv .venv", ".venv/bin/python -m pip install -r requirements.txt", end]
        on_windows = block(heading, "bat").replace("\\", "/").replace("/Scripts/", "/bin/")
        assert on_windows.split(" && ") == ["py -m venv .venv", *steps[1:]]


def test_the_workflow_runs_the_test_command():
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    assert "run: bash .ci/run" in workflow
    assert block("Test", "bat").replace("py -m", "python -m") in workflow


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.path.stem)
def test_every_lesson_is_in_the_table_with_what_it_says_of_itself(lesson):
    title = lesson.cells[0].lines[0].removeprefix("# ")
    (row,) = re.findall(rf"^\| \[{re.escape(title)}\]\(notebooks/{lesson.path.name}\) .+$", README, re.MULTILINE)
    _, exercises, minutes, accuracy, badge = (cell.strip() for cell in row.split("|")[2:7])
    assert int(exercises) == len(lesson.tagged("exercise"))
    number, unit = re.search(r"run in about (\S+) (minutes?|seconds)", lesson.cells[1].source).groups()
    assert float(minutes) == float(number) / (60 if unit == "seconds" else 1)
    assert f"github/{REPOSITORY}/blob/main/notebooks/{lesson.path.name}" in badge
    if accuracy.endswith("%"):
        assert accuracy in saved_text(lesson.path.stem)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^):#]+)\)", README))))
def test_links_into_the_repository_lead_somewhere(link):
    assert (ROOT / link).exists()


def test_files_that_the_text_names_exist():
    for name in re.findall(r"(?:helpers|notebooks|tests)/[\w/]+\.(?:py|ipynb)", README):
        assert (ROOT / name).exists(), name


def saved_text(stem):
    """All that the cells of a lesson have printed."""
    (lesson,) = (lesson for lesson in LESSONS if lesson.path.stem == stem)
    outputs = [output for cell in lesson.cells for output in cell.raw.get("outputs", [])]
    return "\n".join("".join(o.get("text", o.get("data", {}).get("text/plain", ""))) for o in outputs)


def test_the_table_of_results_is_the_one_that_its_benchmark_prints(monkeypatch):
    script = ROOT / command("benchmarks/results.py")[1]
    monkeypatch.syspath_prepend(script.parent)  # where Python finds what the benchmarks share
    results = runpy.run_path(str(script))
    assert results["summary"](results["read"]()) in README


def test_what_the_text_says_of_the_table_holds_for_its_runs(monkeypatch):
    script = ROOT / command("benchmarks/results.py")[1]
    monkeypatch.syspath_prepend(script.parent)
    rows, readme = runpy.run_path(str(script))["read"](), " ".join(README.split())
    groups = {}
    for row in rows:
        groups.setdefault((row["recipe"], row["width"], row["epochs"]), []).append(row)

    def mean(column, key):
        return sum(row[column] for row in groups[key]) / len(groups[key])

    assert f"ends {90.56 - mean('test', ('published', 64, 24)):.1f} points below the published accuracy" in readme
    for width in (16, 32, 64):
        theirs, ours = ("published", width, 24), ("ours", width, 7)
        assert abs(mean("test", ours) - mean("test", theirs)) < 0.7  # two standard errors of 10,000 images
        gaps = [mean("train", key) - mean("test", key) for key in (ours, theirs)]
        assert 0.4 < gaps[0] / gaps[1] < 0.6, "about half of the gap"
    best = max(row["test"] for row in rows)
    assert min(row["test"] for key in groups if key[0] == "lesson09" for row in groups[key]) > mean(
        "test", ("ours", 64, 7)
    )
    assert best < 90.56
    short = [90 - row["valid"] for row in groups["lesson09", 48, 9]]
    assert [f"{value:.1f}" for value in short if value > 0] == ["0.3", "0.3"]
    assert "one passes 90% of the validation images, two miss it by 0.3 points" in readme


def test_the_results_of_lesson_05_are_those_of_its_page():
    text, readme = saved_text("05_training"), " ".join(README.split())
    width, epochs, theirs, ours = re.search(
        r"Lesson 05's own runs, width (\d+), (\d+) epochs each, end at (\S+%) \(published recipe\) and (\S+%)", readme
    ).groups()
    for recipe, test in (("1 published", theirs), ("3 ours", ours)):
        (printed,) = re.findall(rf"^here: {recipe} .+$", text, re.MULTILINE)
        words = printed.split()
        assert (words[3], words[5], words[7]) == (width, epochs, test)


def test_the_mistakes_of_lesson_06_are_those_of_its_page():
    text = saved_text("06_misclassification_analysis")
    pair, number, mistakes = re.search(
        r"confuses (\w+ and \w+) most often: (\d+) of its ([\d,]+) mistakes", README
    ).groups()
    assert f"{mistakes} of them mistakes" in text
    assert f"{pair} {number}" in text


def test_the_last_run_of_lesson_09_is_that_of_its_page():
    text, readme = saved_text("09_speed"), " ".join(README.split())
    valid, test, one_look, seconds, times = re.search(
        r"gets (\S+%) of the validation and (\S+%) of the test images right \((\S+%) with one look\) after (\d+) "
        r"seconds of training\. 24 epochs of the ordinary loop at width 64 take (\d+) times as long",
        readme,
    ).groups()
    assert f"{seconds} seconds of training" in text
    assert f"{valid} of validation images right (six looks)" in text
    assert f"test images: {one_look} with one look at each, {test} with six" in text
    assert f": {times} times" in text
