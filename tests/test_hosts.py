"""A lesson starts wherever it is opened: in Colab, on Kaggle, in JupyterLab anywhere in the course's folder.

Colab and Kaggle are staged. The disk is an empty folder. Git finds this working tree where GitHub would be. Python has
everything that this one has but torchsummary, which pip finds as a wheel in a folder instead of the internet.
"""

import copy
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
from lessons import LESSONS, REPOSITORY, ROOT

SETUP = LESSONS[0].cells[2].source
URL = f"https://github.com/{REPOSITORY}"
MISSING = "torchsummary"  # the package that the staged Python has not
NOWHERE = "url.file:///no/such/place.insteadOf"  # sends git there
WHERE = "from importlib.util import find_spec; print(find_spec('helpers.model').origin)"


# ---------------------------------------------------------------- the stage


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A repository whose one commit holds the helpers and lessons as they are in this working tree."""
    folder = tmp_path_factory.mktemp("origin") / ".git"
    place = os.environ | {"GIT_DIR": str(folder), "GIT_WORK_TREE": str(ROOT)}
    author = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    for words in (["init"], ["-C", ROOT, "add", "helpers", "notebooks"], ["-C", ROOT, *author, "commit", "-m", "all"]):
        subprocess.run(["git", *words], check=True, capture_output=True, env=place)
    return folder


def pack(folder, name, version, files):
    """A wheel of `files` (name in the wheel -> content)."""
    files[f"{name}-{version}.dist-info/RECORD"] = "".join(f"{file},,\n" for file in files)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for file, content in files.items():
            wheel.writestr(file, content)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """A folder with a wheel of the missing package, and of newer versions of packages that must stay as they are."""
    folder, package = tmp_path_factory.mktemp("wheels"), metadata.distribution(MISSING)
    wanted = [file for file in package.files if file.suffix == ".py" or file.name in ("METADATA", "WHEEL")]
    pack(folder, MISSING, package.version, {file.as_posix(): file.read_binary() for file in wanted})
    kind = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    for name in ("torch", "ipykernel"):
        facts = f"Metadata-Version: 2.1\nName: {name}\nVersion: 999\n"
        pack(folder, name, 999, {f"{name}-999.dist-info/METADATA": facts, f"{name}-999.dist-info/WHEEL": kind})
    return folder


class Machine:
    """A machine of Colab ("/content") or Kaggle ("/kaggle/working") as a reader gets it: that folder is empty."""

    def __init__(self, folder, origin, wheels, disk):
        home, self.here, self.disk = folder / "python", folder / "disk", disk
        self.python, self.course = home / "bin" / "python", self.here / "cifar10-resnet"
        venv.create(home, symlinks=True, with_pip=False)
        base = {"base": str(home), "platbase": str(home)}
        self.packages = Path(sysconfig.get_path("purelib", "venv", vars=base))
        for place in (Path(place) for place in sys.path if Path(place).name in ("site-packages", "dist-packages")):
            for entry in place.iterdir():  # all packages of this Python, as links, but not the missing one
                link = self.packages / entry.name
                if not entry.name.startswith((MISSING, "__pycache__")) and not os.path.lexists(link):
                    link.symlink_to(entry)
        self.here.mkdir()
        ours = ("GIT_", "JUPYTER", "KAGGLE_", "PIP_", "PYTHON")
        self.variables = {key: value for key, value in os.environ.items() if not key.startswith(ours)} | {
            "LC_ALL": "C.UTF-8",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheels),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{origin.as_uri()}.insteadOf",
            "GIT_CONFIG_VALUE_0": URL,
        }
        if disk == "/content":  # a kernel of Colab has this module from its start
            colab = folder / "stand-in" / "google" / "colab"
            colab.mkdir(parents=True)
            (colab / "__init__.py").touch()
            (folder / "stand-in" / "sitecustomize.py").write_text("import google.colab\n")
            self.variables["PYTHONPATH"] = str(folder / "stand-in")
        else:
            self.variables["KAGGLE_KERNEL_RUN_TYPE"] = "Interactive"

    def staged(self, cell):
        """A cell's text with the folder of this machine in the place of the real one."""
        return cell.replace(f'"{self.disk}"', f'"{self.here}"')

    def run(self, *cells, **variables):
        """Run cells one after another in one new Python."""
        command = [self.python, "-c", "\n".join(self.staged(cell) for cell in cells)]
        return subprocess.run(command, cwd=self.here, env=self.variables | variables, capture_output=True, text=True)

    def message(self, *cells, **variables):
        """What the error says with which cells must end. There is no other error behind it."""
        result = self.run(*cells, **variables)
        assert result.returncode == 1
        assert result.stderr.count("Traceback") == 1
        return result.stderr.partition("Error: ")[2]

    def installed(self):
        """Name and version of every package."""
        return {(package.metadata["Name"], package.version) for package in metadata.distributions(path=[self.packages])}


@pytest.fixture(scope="module")
def start(request, tmp_path_factory):
    """Starts a machine; "/content" or "/kaggle/working" says whose."""
    if os.name == "nt" or not shutil.which("git") or not find_spec("pip"):
        pytest.skip("Colab and Kaggle are Linux machines with git and pip")
    stage = request.getfixturevalue("origin"), request.getfixturevalue("wheels")
    return lambda disk: Machine(tmp_path_factory.mktemp("machine"), *stage, disk)


@pytest.fixture(scope="module")
def colab(start):
    """A machine of Colab on which one lesson's setup cell has run, and what that did."""
    machine = start("/content")
    machine.before = machine.installed()
    machine.first = machine.run(SETUP, WHERE)
    return machine


# ---------------------------------------------------------------- Colab and Kaggle


def test_colab_gets_the_course_and_the_one_missing_package(colab):
    assert (colab.first.stdout, colab.first.stderr) == (f"{colab.course / 'helpers' / 'model.py'}\n", "")
    assert colab.installed() == colab.before | {(MISSING, metadata.version(MISSING))}
    assert os.listdir(colab.here) == ["cifar10-resnet"]


def test_setup_may_run_again_and_needs_no_network_then(colab):
    (colab.course / "mine.txt").write_text("the reader's")
    before = colab.installed()
    first = "import helpers; first, path = helpers, list(sys.path)"
    again = "import helpers; print(first is helpers, path == sys.path, sys.path.count(str(root)))"
    result = colab.run(SETUP, first, SETUP, again, GIT_CONFIG_KEY_0=NOWHERE, PIP_FIND_LINKS=str(colab.here))
    assert (result.stdout, result.stderr) == ("True True 1\n", "")
    assert (colab.course / "mine.txt").read_text() == "the reader's"
    assert colab.installed() == before


def test_on_kaggle_failures_are_told_in_one_message_and_leave_nothing(start, tmp_path):
    kaggle = start("/kaggle/working")
    before = kaggle.installed()

    said = kaggle.message(SETUP, GIT_CONFIG_KEY_0=NOWHERE)  # no network
    assert said.startswith(f"Could not fetch {URL}:\nfatal: ")
    assert said.endswith("Then run this cell again.\n")
    assert os.listdir(kaggle.here) == []

    program = tmp_path / "git"  # git is killed in the middle: it can't clean up, as it does else
    half = 'mkdir -p "$target/helpers" && touch "$target/helpers/model.py"'
    program.write_text(f"#!/bin/sh\nfor target; do :; done\n{half}\nkill -9 $$\n")  # the target is the last argument
    program.chmod(0o755)
    said = kaggle.message(SETUP, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert said.startswith(f"Could not fetch {URL}:\n")
    assert os.listdir(kaggle.here) == []

    (kaggle.course / "notes").mkdir(parents=True)  # a folder of that name that is not the course
    said = kaggle.message(SETUP)
    assert said.startswith("[Errno ")
    assert f"'{kaggle.course}'" in said
    assert os.listdir(kaggle.course) == ["notes"]
    (kaggle.course / "notes").rmdir()  # but an empty one is in nobody's way

    said = kaggle.message(SETUP, PIP_FIND_LINKS=str(tmp_path))  # the package index has not what is asked for
    assert said.startswith(f"Could not fetch the package {MISSING} from PyPI:\nERROR: ")
    assert kaggle.installed() == before

    result = kaggle.run(SETUP, WHERE)
    assert (result.stdout, result.stderr) == (f"{kaggle.course / 'helpers' / 'model.py'}\n", "")
    assert kaggle.installed() == before | {(MISSING, metadata.version(MISSING))}


def test_every_lesson_starts_in_colab(colab):
    """Setup, imports, and the call that says which machine it runs on, each with names of its own."""
    cells = []
    for lesson in LESSONS:
        text = "\n".join(cell.source for cell in lesson.cells if cell.kind == "code")
        opening = "".join(text.partition("utils.start()")[:2])
        cells.append(f"exec({colab.staged(opening)!r}, {{'__name__': '__main__'}})")
    result = colab.run(*cells, WHERE)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Device: ") == len(LESSONS)
    assert result.stdout.endswith(f"{colab.course / 'helpers' / 'model.py'}\n")


@pytest.mark.slow
def test_a_whole_lesson_runs_in_colab(colab):
    (lesson,) = (lesson for lesson in LESSONS if lesson.path.stem == "03_resnet_from_scratch")
    page = copy.deepcopy(lesson.raw)
    page["cells"][2]["source"] = colab.staged(SETUP)
    (colab.here / lesson.path.name).write_text(json.dumps(page), encoding="utf-8")
    execute = f"page = nbclient.execute(nbformat.read({lesson.path.name!r}, 4))"
    result = colab.run("import nbclient, nbformat", execute, "print(page.cells[-1].outputs[0].text)")
    assert result.returncode == 0, result.stderr
    assert "Data: sample shapes." in result.stdout


# ---------------------------------------------------------------- JupyterLab


def at_home(folder, *cells, python=sys.executable):
    """Run cells in a new Python that was started in `folder`, neither on Colab nor on Kaggle."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("KAGGLE_", "PYTHONPATH"))}
    return subprocess.run([python, "-c", "\n".join(cells)], cwd=folder, env=variables, capture_output=True, text=True)


@pytest.mark.parametrize("folder", [".", "notebooks", "helpers/checks"])
def test_jupyterlab_may_start_anywhere_in_the_course(folder):
    result = at_home(ROOT / folder, SETUP, "path = sys.path", SETUP, WHERE, "print(path == sys.path)")
    assert (result.stdout, result.stderr) == (f"{ROOT / 'helpers' / 'model.py'}\nTrue\n", "")


def test_elsewhere_a_message_says_where_to_open_the_lesson(tmp_path):
    result = at_home(tmp_path, SETUP)
    assert result.returncode == 1
    said = result.stderr.partition("Error: ")[2]
    assert said.startswith(f"The course is not in {tmp_path.resolve()} or above. Open this lesson from")
    assert said.endswith(f"git clone {URL}\n")


@pytest.mark.parametrize("before", ["", "import helpers.model; assert helpers.model.FOREIGN"])
def test_another_package_of_the_name_helpers_does_not_win(colab, before):
    foreign = colab.packages / "helpers"
    foreign.mkdir()
    try:
        for name in ("__init__.py", "model.py"):
            (foreign / name).write_text("FOREIGN = True\n")
        in_colab = colab.run(before, SETUP, WHERE)
        here = at_home(ROOT / "notebooks", before, SETUP, WHERE, python=colab.python)
    finally:
        shutil.rmtree(foreign)
    assert (in_colab.stdout, in_colab.stderr) == (f"{colab.course / 'helpers' / 'model.py'}\n", "")
    assert (here.stdout, here.stderr) == (f"{ROOT / 'helpers' / 'model.py'}\n", "")
