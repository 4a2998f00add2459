"""The lessons where nobody runs them: as HTML pages, as README makes them, and in GitHub's view of a notebook."""

import re

import pytest
from bs4 import BeautifulSoup  # nbconvert brings it
from commands import export_html
from lessons import LESSONS

each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.path.stem)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """file name -> page"""
    folder = tmp_path_factory.mktemp("build")
    export_html(folder)
    return {path.name: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in folder.iterdir()}


@pytest.fixture
def page(lesson, pages):
    return pages[f"{lesson.path.stem}.html"]


def markdown(lesson):
    """The text of a lesson without code: no fenced blocks, no words in backquotes."""
    text = "\n\n".join(cell.source for cell in lesson.cells if cell.kind == "markdown")
    return re.sub(r"(?ms)^```.*?^```$|`[^`]*`", "", text)


def saved_data(lesson):
    """kind -> content, of each saved output; nothing for printed text."""
    return [output.get("data", {}) for cell in lesson.cells for output in cell.raw.get("outputs", [])]


def test_every_lesson_has_a_page_and_nothing_else_is_written(pages):
    assert set(pages) == {f"{lesson.path.stem}.html" for lesson in LESSONS}


@each_lesson
def test_a_page_says_what_it_is_and_asks_nobody_for_anything(lesson, page):
    assert page.title.text == lesson.cells[0].lines[0].removeprefix("# ")
    assert page.html["lang"] == "en"
    assert page.find("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"})
    assert not page.find_all(["script", "link", "iframe"])
    assert not [e["src"][:80] for e in page.find_all(src=True) if not e["src"].startswith("data:")]
    assert not re.search(r"@import|url\(", "".join(style.text for style in page.find_all("style")))


@each_lesson
def test_contents_and_links_of_a_page_lead_somewhere(lesson, page, pages):
    headings = page.find_all(["h2", "h3"])
    assert len(headings) == len(re.findall(r"(?m)^###? ", markdown(lesson)))
    listed = [(a["href"], a.text) for a in page.nav.find_all("a")]
    assert listed == [(f"#{heading['id']}", heading.text.removesuffix("¶")) for heading in headings]
    ids = [element["id"] for element in page.find_all(id=True)]
    assert len(ids) == len(set(ids))
    targets = {a["href"] for a in page.find_all("a") if a.text.strip()}
    assert not [t for t in targets if not (t.startswith("https://") or t in pages or t.removeprefix("#") in ids)]
    neighbours = {f"{name}.html" for name in re.findall(r"\]\((\w+)\.ipynb\)", lesson.cells[0].source)}
    assert set() < neighbours <= targets


@each_lesson
def test_every_figure_says_in_words_what_it_shows(lesson, page):
    words = [image["alt"] for image in page.find_all("img")]
    assert len(words) == sum("image/png" in data for data in saved_data(lesson))
    assert not [alt for alt in words if len(alt) < 20 or re.search("No description|<Figure", alt)]


@each_lesson
def test_formulas_are_mathml(lesson, page):
    formulas = page.find_all("math")
    assert len(formulas) == len(re.findall(r"(?s)\$\$.+?\$\$|\$.+?\$", markdown(lesson)))
    for formula in formulas:
        assert formula.text.strip()
        assert "\\" not in formula.text, "a command that latex2mathml does not know"
    prose = page.find_all(class_="jp-RenderedMarkdown")
    dollars = [sum(element.text.count("$") for element in elements) for elements in (prose, page.find_all("code"))]
    assert dollars[0] == dollars[1]


@each_lesson
def test_solutions_and_setup_are_folded(lesson, page):
    (setup,) = page.find_all(class_="celltag_setup")
    assert setup.details.summary.text.startswith("Setup: ")
    assert "import subprocess" in setup.details.text
    solutions = page.find_all(class_="celltag_solution")
    assert len(solutions) == len(lesson.tagged("solution"))
    for solution in solutions:
        assert solution.parent.name == "details"
        assert not solution.parent.attrs, "it must be closed when the page opens"
        assert solution.parent.text.startswith("Solution\n")
    assert len(page.find_all("details")) == len(page.find_all("summary"))


@each_lesson
def test_github_shows_all_of_a_lesson(lesson):
    """It drops styles, scripts and most HTML. What a picture says, or a table in HTML, is said in text as well."""
    tags = re.findall(r"<[a-zA-Z/!][^<>]*>", markdown(lesson))
    assert set(tags) <= {"<details>", "</details>", "<summary>", "</summary>", "<code>", "</code>"}
    for cell in lesson.cells:
        if cell.kind == "markdown":
            for tag in ("details", "summary"):
                assert cell.source.count(f"<{tag}>") == cell.source.count(f"</{tag}>")
    for data in saved_data(lesson):
        assert set(data) <= {"text/plain", "image/png"}
        assert not data or "text/plain" in data
