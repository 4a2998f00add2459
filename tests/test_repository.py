"""Badges, links and setup cells lead to the repository that CITATION.cff names, and one command changes them all."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lessons import PATHS, REPOSITORY, ROOT

SCRIPT = Path(".github") / "repository.py"
PAGES = [ROOT / "README.md", ROOT / "CITATION.cff", *PATHS]
OTHER = "jane-doe/My.course_2"


@pytest.fixture
def course(tmp_path):
    """A copy of all files that name the repository."""
    for path in (*PAGES, ROOT / SCRIPT):
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
    return tmp_path


def call(root, *arguments):
    return subprocess.run([sys.executable, root / SCRIPT, *arguments], capture_output=True, text=True)


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*.*")) if path.is_file()}


def break_once(path, right, wrong):
    text = path.read_bytes().decode()
    assert right in text
    path.write_bytes(text.replace(right, wrong, 1).encode())


def test_all_links_lead_to_the_repository_that_the_citation_names():
    result = call(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("file", "before"),
    [
        ("README.md", "https://colab.research.google.com/github/"),
        ("notebooks/03_resnet_from_scratch.ipynb", "https://colab.research.google.com/github/"),
        ("notebooks/05_training.ipynb", 'REPOSITORY = \\"https://github.com/'),
        ("CITATION.cff", 'repository-code: "https://github.com/'),
    ],
)
def test_one_link_that_differs_is_found(course, file, before):
    break_once(course / file, before + REPOSITORY, before + OTHER)
    result = call(course)
    assert result.returncode == 1
    if file == "CITATION.cff":  # then all the others differ
        assert re.search(rf"^README.md, line \d+: {REPOSITORY}$", result.stdout, re.MULTILINE)
    else:
        assert result.stdout.startswith(f"{file}, line ")
        assert result.stdout.count(OTHER) == 1
        assert "otherwise: 1." in result.stdout


@pytest.mark.parametrize(
    "link",
    [
        "https://kaggle.com/kernels/welcome?src=https://github.com/{}/blob/main/notebooks/01_dataset_exploration.ipynb",
        "https://codespaces.new/{}",
        "`git clone https://github.com/{}`",
        "git clone https://github.com/{}.",
    ],
)
def test_links_to_other_hosts_are_found_and_renamed(course, link):
    readme = course / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(text + link.format("someone/else"), encoding="utf-8")
    assert call(course).stdout.count("someone/else") == 1
    assert call(course, REPOSITORY).returncode == 0
    assert readme.read_text(encoding="utf-8") == text + link.format(REPOSITORY)


def test_one_command_renames_everything_and_nothing_else(course):
    before = contents(course)
    assert call(course, OTHER).returncode == 0
    after = contents(course)
    assert call(course).returncode == 0
    for path, content in before.items():
        if path == SCRIPT:
            assert after[path] == content
        else:
            assert OTHER.encode() in after[path]
            assert after[path] == content.replace(REPOSITORY.encode(), OTHER.encode())


def test_links_to_other_repositories_stay(course):
    others = f"https://github.com/pytorch/vision x-{REPOSITORY} {REPOSITORY}-2 {REPOSITORY}.wiki"
    (course / "CONTRIBUTING.md").write_text(f"{others} https://github.com/{REPOSITORY}/issues.", encoding="utf-8")
    assert call(course, OTHER).returncode == 0
    text = (course / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert text == f"{others} https://github.com/{OTHER}/issues."


@pytest.mark.parametrize(
    "name",
    [
        "",
        "owner",
        "owner/",
        "/name",
        "a/b/c",
        "https://github.com/a/b",
        "-a/b",
        "a/b c",
        "ä/b",
        "a/b\n",
        "a/b.git",
        "a/..",
    ],
)
def test_a_malformed_name_is_refused_and_nothing_changes(course, name):
    if not name.isascii() and sys.getfilesystemencoding() == "ascii":
        pytest.skip("no shell of this locale can hand the name over")
    before = contents(course)
    result = call(course, name)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "is not owner/name" in result.stderr
    assert contents(course) == before
