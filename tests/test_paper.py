"""The lessons where nobody runs them: as HTML pages, as README makes them, and in GitHub's view of a notebook."""

import html.parser
import re
from dataclasses import dataclass, field

import pytest
from commands import export_html
from lessons import LESSONS

EMPTY = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.path.stem)


@dataclass(eq=False)
class Element:
    tag: str
    attributes: dict
    inside: list  # the elements around it, outermost first
    texts: list = field(default_factory=list)

    @property
    def text(self):
        return "".join(self.texts)

    def has_class(self, name):
        return name in self.attributes.get("class", "").split()


class Page(html.parser.HTMLParser):
    """All elements of a page, each with its attributes, its text and the elements around it."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        element = Element(tag, dict(attributes), list(self.open))
        self.elements.append(element)
        if tag not in EMPTY:
            self.open.append(element)

    def handle_endtag(self, tag):
        if tag not in EMPTY:
            assert self.open.pop().tag == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        for element in self.open:
            element.texts.append(data)

    def all(self, tag):
        return [element for element in self.elements if element.tag == tag]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """file name -> Page"""
    folder = tmp_path_factory.mktemp("build")
    export_html(folder)
    return {path.name: Page(path.read_text(encoding="utf-8")) for path in folder.iterdir()}


@pytest.fixture
def page(lesson, pages):
    return pages[f"{lesson.path.stem}.html"]


def markdown(lesson):
    """The text of a lesson without code: no fenced blocks, no words in backquotes."""
    text = "\n\n".join(cell.source for cell in lesson.cells if cell.kind == "markdown")
    return re.sub(r"(?ms)^```.*?^```$|`[^`]*`", "", text)


def saved_outputs(lesson):
    return [output for cell in lesson.cells for output in cell.raw.get("outputs", [])]


# ---------------------------------------------------------------- HTML


def test_every_lesson_has_a_page_and_nothing_else_is_written(pages):
    assert set(pages) == {f"{lesson.path.stem}.html" for lesson in LESSONS}


@each_lesson
def test_a_page_says_its_title_language_and_width(lesson, page):
    assert page.all("title")[0].text == lesson.cells[0].lines[0].removeprefix("# ")
    assert page.all("html")[0].attributes["lang"] == "en"
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in [
        meta.attributes for meta in page.all("meta")
    ]


@each_lesson
def test_a_page_asks_nobody_for_anything(page, lesson):
    assert not page.all("script")
    assert not page.all("link")
    assert not page.all("iframe")
    for element in page.elements:
        source = element.attributes.get("src", "data:")
        assert source.startswith("data:"), source[:80]
    for style in page.all("style"):
        assert "@import" not in style.text
        assert "url(" not in style.text


@each_lesson
def test_contents_lead_to_every_section(lesson, page):
    (nav,) = page.all("nav")
    listed = [(a.attributes["href"], a.text) for a in page.all("a") if nav in a.inside]
    headings = [heading for heading in page.elements if heading.tag in ("h2", "h3")]
    assert listed == [(f"#{heading.attributes['id']}", heading.text.removesuffix("¶")) for heading in headings]
    written = re.findall(r"(?m)^###? (.+)$", markdown(lesson))
    assert len(written) == len(headings)


@each_lesson
def test_links_on_a_page_lead_somewhere(page, pages, lesson):
    ids = [element.attributes["id"] for element in page.elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for a in page.all("a"):
        target = a.attributes["href"]
        assert a.text.strip()
        assert target.startswith("https://") or target in pages or target.removeprefix("#") in ids, target


@each_lesson
def test_lessons_are_linked_to_their_pages(lesson, page):
    neighbours = set(re.findall(r"\]\((\w+)\.ipynb\)", lesson.cells[0].source))
    assert neighbours
    assert {f"{name}.html" for name in neighbours} <= {a.attributes["href"] for a in page.all("a")}


@each_lesson
def test_every_figure_says_in_words_what_it_shows(lesson, page):
    figures = [output for output in saved_outputs(lesson) if "image/png" in output.get("data", {})]
    assert len(page.all("img")) == len(figures)
    for image in page.all("img"):
        words = image.attributes["alt"]
        assert len(words) > 20
        assert "No description" not in words
        assert "<Figure" not in words


@each_lesson
def test_formulas_are_mathml(lesson, page):
    formulas = re.findall(r"(?s)\$\$.+?\$\$|\$.+?\$", markdown(lesson))
    assert len(page.all("math")) == len(formulas)
    for formula in page.all("math"):
        assert formula.text.strip()
        assert "\\" not in formula.text, "a command that latex2mathml does not know"
    prose = [element.text for element in page.elements if element.has_class("jp-RenderedMarkdown")]
    code = "".join(element.text for element in page.all("code"))
    assert "".join(prose).count("$") == code.count("$")


@each_lesson
def test_solutions_are_folded(lesson, page):
    solutions = [element for element in page.elements if element.has_class("celltag_solution")]
    assert len(solutions) == len(lesson.tagged("solution"))
    for solution in solutions:
        folded = solution.inside[-1]
        assert (folded.tag, folded.attributes) == ("details", {}), "it must be closed when the page opens"
        assert folded.text.startswith("Solution\n")


@each_lesson
def test_nothing_else_of_a_lesson_is_folded_away(lesson, page):
    asked = sum(cell.source.count("<details>") for cell in lesson.cells)
    assert len(page.all("details")) == asked + len(lesson.tagged("solution"))
    assert len(page.all("summary")) == len(page.all("details"))


# ---------------------------------------------------------------- GitHub


@each_lesson
def test_markdown_uses_only_html_that_github_shows(lesson):
    """No styles, no scripts, and nothing that is said by looks alone: GitHub drops all of it."""
    tags = re.findall(r"<[a-zA-Z/!][^<>]*>", markdown(lesson))
    assert set(tags) <= {"<details>", "</details>", "<summary>", "</summary>", "<code>", "</code>"}


@each_lesson
def test_outputs_are_text_and_pictures(lesson):
    kinds = {kind for output in saved_outputs(lesson) for kind in output.get("data", {})}
    assert kinds <= {"text/plain", "image/png"}
    for output in saved_outputs(lesson):
        assert "text/plain" in output.get("data", {"text/plain": ""})
