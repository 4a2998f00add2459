"""Every lesson in a real browser: JupyterLab as README starts it, and the HTML pages on a phone.

Asked for by name only, since it needs Playwright and minutes:

    python -m pip install playwright && python -m playwright install chromium
    python -m pytest -m browser tests/test_browser.py

The variable CHROMIUM names another browser to use. Pictures of every page are left in build/screenshots/.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request

import pytest
from commands import command, export_html
from lessons import LESSONS, ROOT

pytestmark = pytest.mark.browser

SCREENSHOTS = ROOT / "build" / "screenshots"
SILENCE = 30  # seconds that a cell may run without a sign of life
LESSON = 600  # seconds that a lesson may run
READABLE = 2.5  # least contrast of text and ground; black on white has 21, black on black 1
QUIET = ["--disable-background-networking", "--disable-component-update", "--no-first-run", "--disable-sync"]

each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.path.stem)


# ---------------------------------------------------------------- asked inside the page

# What each code cell shows: the number or star beside it, its printed text, its figures' widths.
CELLS = """() => [...document.querySelectorAll('.jp-Notebook .jp-Cell')].map(cell => ({
    prompt: cell.querySelector('.jp-InputPrompt')?.textContent ?? '',
    text: cell.querySelector('.jp-OutputArea')?.textContent.trim() ?? '',
    figures: [...cell.querySelectorAll('.jp-OutputArea img')].map(img => img.naturalWidth),
}))"""

# Texts whose colour is too close to the ground they stand on. A canvas turns any way to write a colour into numbers.
UNREADABLE = """([root, least]) => {
    const dot = Object.assign(document.createElement('canvas'), {width: 1, height: 1})
        .getContext('2d', {willReadFrequently: true});
    const known = {};
    const rgba = colour => {
        if (!known[colour]) {
            dot.clearRect(0, 0, 1, 1);
            dot.fillStyle = colour;
            dot.fillRect(0, 0, 1, 1);
            known[colour] = [...dot.getImageData(0, 0, 1, 1).data];
        }
        return known[colour];
    };
    const luminance = colour => colour.slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = element => {
        for (let e = element; e; e = e.parentElement) {
            const colour = rgba(getComputedStyle(e).backgroundColor);
            if (colour[3] > 127) return colour;
        }
        return [255, 255, 255, 255];
    };
    const walker = document.createTreeWalker(document.querySelector(root), NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
        const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
        if (!text || !element.checkVisibility({checkVisibilityCSS: true, checkOpacity: true})) continue;
        const lights = [rgba(getComputedStyle(element).color), ground(element)].map(luminance);
        const contrast = (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
        if (contrast < least) found.push([text.slice(0, 40), contrast]);
    }
    return found;
}"""

# Figures that let the page's ground through: black words on a dark theme.
TRANSPARENT = """root => [...document.querySelectorAll(root + ' img')].filter(img => {
    const size = {width: img.naturalWidth, height: img.naturalHeight};
    const canvas = Object.assign(document.createElement('canvas'), size);
    const context = canvas.getContext('2d');
    context.drawImage(img, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height).data.some((v, i) => i % 4 === 3 && v < 255);
}).length"""

# Scroll to a part of a lesson, a window high, and let it be drawn; true if the last cell ends in it.
SCROLL = """part => {
    const panel = document.querySelector('.jp-WindowedPanel-outer') ?? document.scrollingElement;
    panel.scrollTop = part * panel.clientHeight;
    const last = [...document.querySelectorAll('.jp-Notebook .jp-Cell')].pop();
    return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() =>
        done(last.getBoundingClientRect().bottom <= innerHeight))));
}"""


# ---------------------------------------------------------------- the server and the browser


def wait_until(condition, seconds, what):
    """Ask again and again until the condition holds; fail after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.2)


def answers(url):
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


def copy_of_the_course(folder):
    """The lessons without outputs, and the library: what is typed and saved there changes no file of the repository."""
    shutil.copytree(ROOT / "helpers", folder / "helpers")
    (folder / "notebooks").mkdir()
    for lesson in LESSONS:
        notebook = json.loads(lesson.path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell |= {"outputs": [], "execution_count": None}
        (folder / "notebooks" / lesson.path.name).write_text(json.dumps(notebook), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Address of a JupyterLab that was started as README says, in a copy of the course."""
    home = tmp_path_factory.mktemp("jupyter")
    settings = home / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    # Answers the question about news, which would lie over the page.
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}', encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", f"--ServerApp.port={port}", "--IdentityProvider.token="]
    environment = {**os.environ, "JUPYTER_CONFIG_DIR": str(home)}
    environment.pop("MPLBACKEND", None)  # conftest.py's would keep figures off the page
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [*command("jupyter lab"), *options],
            cwd=copy_of_the_course(tmp_path_factory.mktemp("course")),
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{address}/api/status"), 120, f"JupyterLab; its log is {home / 'log'}")
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip(
        "playwright.sync_api",
        reason="needs `python -m pip install playwright` and `python -m playwright install chromium`",
    )
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=os.environ.get("CHROMIUM"), args=[*QUIET, *(["--no-sandbox"] if root else [])]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, server):
    context = chromium.new_context(viewport={"width": 1280, "height": 1000}, base_url=server)
    context.set_default_timeout(120_000)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield context.new_page()
    context.close()


# ---------------------------------------------------------------- what a reader does


def open_lesson(page, lesson):
    page.goto(f"/lab/tree/{lesson.path.name}?reset")  # reset: without the lesson that was open before
    page.wait_for_function(f"document.querySelectorAll('.jp-Notebook .jp-Cell').length == {len(lesson.cells)}")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")


def choose(page, *path):
    """Click through the menus: `choose(page, "Run", "Run All Cells")`."""
    page.locator(f".lm-MenuBar-itemLabel:text-is('{path[0]}')").click()
    for label in path[1:]:
        page.locator(f".lm-Menu-itemLabel:text-is('{label}')").click()


def run_all(page):
    """Run all cells to the end and return the longest silence: (seconds, cell)."""
    choose(page, "Run", "Run All Cells")
    begun = news = time.monotonic()
    longest, before = (0, None), None
    while True:
        cells = page.evaluate(CELLS)
        running = next((i for i, cell in enumerate(cells) if "*" in cell["prompt"]), None)
        now = running, cells[running or 0]["text"]
        if now != before:
            before, news = now, time.monotonic()
        longest = max(longest, (time.monotonic() - news, running or 0))
        if re.search(r"\d", cells[-1]["prompt"]) or page.locator("[data-mime-type$=error]").count():
            page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
            return longest
        assert time.monotonic() - begun < LESSON, f"cell {running} has not ended"
        page.wait_for_timeout(500)


def answer(page, number, source, expected):
    """Put an answer into an exercise's cell, run it, wait for the verdict."""
    cell = page.locator(".jp-Notebook .jp-Cell").nth(number)
    cell.locator(".cm-content").click()
    page.keyboard.press("ControlOrMeta+A")
    page.evaluate("text => navigator.clipboard.writeText(text)", source)  # typed, the editor would indent it again
    page.keyboard.press("ControlOrMeta+V")
    page.keyboard.press("Shift+Enter")
    cell.locator(".jp-OutputArea-output", has_text=re.compile(rf"^\s*{expected}: \S")).wait_for()


def shoot(page, name):
    """Pictures of the whole lesson, from top to bottom."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for old in SCREENSHOTS.glob(f"{name}_*.png"):
        old.unlink()
    page.set_viewport_size({"width": page.viewport_size["width"], "height": 4000})
    part, ended = 0, False
    while not ended:
        ended = page.evaluate(SCROLL, part)
        part += 1
        page.screenshot(path=SCREENSHOTS / f"{name}_{part:02}.png")


# ---------------------------------------------------------------- JupyterLab


@each_lesson
def test_a_reader_runs_a_lesson_and_does_its_exercises(page, lesson):
    open_lesson(page, lesson)
    for i, cell in enumerate(lesson.cells):
        if "solution" in cell.tags:
            shown = page.locator(".jp-Notebook .jp-Cell").nth(i)
            assert shown.locator(".jp-InputPlaceholder").count() == 1, "the solution lies open"
            assert shown.locator(".cm-content").count() == 0

    silence, at = run_all(page)
    assert page.locator("[data-mime-type$=error]").all_inner_texts() == []
    assert page.locator("[data-mime-type$=stderr]").all_inner_texts() == []
    assert silence < SILENCE, f"cell {at} ran {silence:.0f} s without a sign of life"
    for saved, shown in zip(lesson.cells, page.evaluate(CELLS), strict=True):
        if "image/png" in str(saved.raw.get("outputs")):
            assert shown["figures"] or "is not here" in shown["text"], saved.source  # a data set, told in words
        assert 0 not in shown["figures"]

    for _, stub, solution in lesson.exercises():
        at = lesson.cells.index(stub)
        wrong = re.sub(r"(?m)(?<=\s)\.\.\.$", "return 0", stub.source)
        assert wrong != stub.source
        answer(page, at, wrong, "Not yet")
        name, theirs = (cell.lines[-1].rstrip(")").partition("(")[2] for cell in (stub, solution))
        answer(page, at, solution.source.replace(theirs, name), "Right")

    for theme in ("Light", "Dark"):
        choose(page, "Settings", "Theme", f"JupyterLab {theme}")
        page.wait_for_selector(f"body[data-jp-theme-name='JupyterLab {theme}']", state="attached")
        page.wait_for_selector("#jupyterlab-splash", state="detached")
        assert page.evaluate(UNREADABLE, [".jp-Notebook", READABLE]) == []
        assert page.evaluate(TRANSPARENT, ".jp-OutputArea") == 0
        shoot(page, f"{lesson.path.stem}_{theme.lower()}")
    page.set_viewport_size({"width": 700, "height": 1000})
    sideways = "outer => outer.scrollWidth - outer.clientWidth"
    assert page.locator(".jp-WindowedPanel-outer").evaluate(sideways) <= 0
    shoot(page, f"{lesson.path.stem}_narrow")
    choose(page, "Kernel", "Shut Down Kernel")


# ---------------------------------------------------------------- HTML pages


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The lessons as HTML pages."""
    folder = tmp_path_factory.mktemp("build")
    export_html(folder)
    return folder


@each_lesson
@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_can_be_read_on_a_phone_and_on_a_desk(chromium, folder, lesson, width):
    page = chromium.new_page(viewport={"width": width, "height": 844}, device_scale_factor=1)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((folder / f"{lesson.path.stem}.html").as_uri())
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = "all => all.filter(e => e.textContent.trim()).map(e => parseFloat(getComputedStyle(e).fontSize))"
    assert min(page.locator("p, li, td, pre, summary, p code").evaluate_all(sizes)) >= 15
    assert page.locator("img").evaluate_all("all => all.map(img => img.naturalWidth).filter(w => w == 0)") == []
    assert page.evaluate(UNREADABLE, ["main", READABLE]) == []
    assert page.locator(".celltag_solution:visible").count() == 0
    flat = "all => all.filter(m => !m.closest('details') && m.getBoundingClientRect().width == 0).length"
    assert page.locator("math").evaluate_all(flat) == 0
    shoot(page, f"{lesson.path.stem}_html_{width}")
    page.close()
