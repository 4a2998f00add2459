"""Every command that README.md and CONTRIBUTING.md print is run by a test."""

import json
import re
import runpy
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest
from commands import command, printed
from lessons import ROOT

RUN_BY = {  # part of a command's last step -> the test, or the file of tests, that runs it; the first that fits
    "jupyter lab": "test_commands.py::test_the_start_command_opens_the_first_lesson",
    "--to html": "test_paper.py",
    "--execute --inplace": "test_commands.py::test_the_command_that_saves_a_lesson_runs_and_saves_it",
    "save.py": "test_save.py",
    "results.py": "test_readme.py::test_the_table_of_results_is_the_one_that_its_benchmark_prints",
    "repository.py": "test_repository.py",
    "remove_cell_tags=solution": "test_class.py",
    "-m helpers.checks": "test_class.py",
    "--no-index": "test_commands.py::test_without_a_network_pip_takes_what_it_has",
    "benchmarks/": "test_commands.py::test_the_benchmarks_are_where_the_command_says",
    "-m browser": "../.github/workflows/tests.yml",  # wants a browser
    "playwright install": "../.github/workflows/tests.yml",  # wants the internet
    "-m slow": "../.github/workflows/tests.yml",
    "-m pytest": "../.ci/run",  # this run itself
}


def run(words, **options):
    return subprocess.run(words, check=True, capture_output=True, text=True, encoding="utf-8", **options)


@pytest.mark.parametrize("line", printed())
def test_each_command_has_its_test(line):
    last = line.split(" && ")[-1]
    fitting = [place for part, place in RUN_BY.items() if part in last]
    assert fitting, f"RUN_BY names no test that runs: {last}"
    file, _, name = fitting[0].partition("::")
    text = (ROOT / "tests" / file).read_text(encoding="utf-8")
    assert f"def {name}(" in text if name else text


def page_at(address, server):
    """The page, once the server listens: it names its address a moment before."""
    while True:
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                return answer.read()
        except urllib.error.URLError:
            assert server.poll() is None, "the server ended"


def test_the_start_command_opens_the_first_lesson():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root"]
    words = [*command("jupyter lab"), *options]
    server = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, encoding="utf-8")
    try:
        opened = next((line.strip() for line in server.stderr if line.strip().startswith("file://")), None)
        assert opened, "the server ended before it was ready"
        # The page that it hands to the browser, here for a person to open, forwards to the lesson.
        page = Path(url2pathname(urlsplit(opened).path))
        forward = page.with_name(page.name.replace("jpserver-", "jpserver-file-to-run-")).read_text(encoding="utf-8")
        (address,) = set(re.findall(r"http://[^\"' ]+/01_dataset_exploration\.ipynb[^\"' ]*", forward))
        assert b"JupyterLab" in page_at(address, server)
    finally:
        server.terminate()
        server.communicate()


def test_the_command_that_saves_a_lesson_runs_and_saves_it(tmp_path):
    *words, pages = command("--execute --inplace")
    page = tmp_path / pages.replace("*", "05_training")
    page.parent.mkdir()
    cell = {
        "cell_type": "code",
        "id": "a",
        "metadata": {},
        "source": "print(6 * 7)",
        "outputs": [],
        "execution_count": None,
    }
    page.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}), encoding="utf-8")
    run([*words, str(page)], cwd=tmp_path)
    (cell,) = json.loads(page.read_text(encoding="utf-8"))["cells"]
    assert cell["execution_count"] == 1
    assert cell["metadata"] == {}, "times of the run would make every saved page differ"
    assert "".join(cell["outputs"][0]["text"]).strip() == "42"


def test_the_pictures_of_the_readme_are_those_of_the_lessons():
    script = runpy.run_path(str(ROOT / ".github" / "pictures.py"))
    shown = set(re.findall(r"!\[.+?\]\(\.github/pictures/([\w.]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert shown == set(script["PICTURES"])
    for name, place in script["PICTURES"].items():
        saved = script["FOLDER"] / name
        assert saved.read_bytes() == script["drawn"](*place), f"run .github/pictures.py: {name} is of an older run"
        assert saved.stat().st_size < 100_000


def test_without_a_network_pip_takes_what_it_has(tmp_path):
    (tmp_path / "wheels").mkdir()
    *words, last = command("--no-index")
    assert last == "requirements.txt"
    assert "already satisfied" in run([*words, str(ROOT / last)], cwd=tmp_path).stdout


@pytest.mark.parametrize("name", ["batches", "results", "time_to_accuracy", "training"])
def test_the_benchmarks_are_where_the_command_says(name, monkeypatch):
    """Not run to the end: they measure for minutes, and want a machine of their own."""
    script = ROOT / command(f"benchmarks/{name}.py")[1]
    monkeypatch.syspath_prepend(script.parent)  # where Python finds what they share
    assert callable(runpy.run_path(str(script))["main"])
