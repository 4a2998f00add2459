"""How nbconvert writes the lessons as HTML pages that need no network and no JavaScript.

For `jupyter nbconvert --config notebooks/html/config.py`; README says the whole command. What
stands around the cells is in page.html.j2, how it looks in page.css.
"""

import re
from pathlib import Path

from latex2mathml.converter import convert
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

HERE = Path(__file__).parent


class Renderer(IPythonRenderer):
    """Markdown to HTML whose formulas, links and pictures need nothing but the folder of pages."""

    def inline_math(self, body):
        return convert(body)  # to MathML, which browsers draw themselves

    def block_math(self, body):
        return convert(body, display="block")

    def link(self, text, url, title=None):
        """A link to another lesson leads to its HTML page."""
        return super().link(text, re.sub(r"^([\w-]+)\.ipynb", r"\1.html", url), title)

    def image(self, text, url, title=None):
        """Words instead of a picture that would have to be fetched, such as the Colab badge."""
        return text if "://" in url else super().image(text, url, title)


def markdown_to_html(source):
    return MarkdownWithMath(Renderer(escape=False)).render(source)


def contents(notebook):
    """(level, anchor, title) of each section and its parts, as nbconvert made them."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    html = "".join(markdown_to_html(text) for text in texts)
    return re.findall(r'<h([23]) id="(.+?)">(.+?)<a class="anchor-link"', html)


c = get_config()  # noqa: F821 (nbconvert defines it)
c.HTMLExporter.template_file = str(HERE / "page.html.j2")
c.HTMLExporter.filters = {"markdown2html": markdown_to_html, "contents": contents}
c.HTMLExporter.exclude_input_prompt = True
c.HTMLExporter.exclude_output_prompt = True
c.CSSHTMLHeaderPreprocessor.style = "default"
