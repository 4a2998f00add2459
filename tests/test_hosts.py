"""A lesson starts wherever it is opened: in Colab, on Kaggle, in JupyterLab anywhere in the course's folder.

Colab and Kaggle are staged. The disk is an empty folder. Git finds this working tree where GitHub would be. Python has
everything that this one has but torchsummary, which pip finds as a wheel in a folder instead of the internet.
"""

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


def git(*words, **variables):
    subprocess.run(["git", *words], check=True, capture_output=True, env=os.environ | variables)


@pytest.fixture(scope="session")
def origin(tmp_path_factory):
    """A repository whose one commit holds the helpers and lessons as they are in this working tree."""
    if shutil.which("git") is None:
        pytest.skip("there is no git here")
    folder = tmp_path_factory.mktemp("origin") / ".git"
    place = {"GIT_DIR": str(folder), "GIT_WORK_TREE": str(ROOT)}
    author = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    git("init", "--quiet", **place)
    git("-C", str(ROOT), "add", "helpers", "notebooks", **place)
    git("-C", str(ROOT), *author, "commit", "--quiet", "--message=the working tree", **place)
    return folder


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """A folder with the missing package as a wheel, packed from the files that are installed here."""
    folder, package = tmp_path_factory.mktemp("wheels"), metadata.distribution(MISSING)
    name = f"{MISSING}-{package.version}"
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
        for file in package.files:
            if file.suffix == ".py" or file.name in ("METADATA", "WHEEL"):
                wheel.write(file.locate(), file.as_posix())
        wheel.writestr(f"{name}.dist-info/RECORD", "".join(f"{entry},,\n" for entry in wheel.namelist()))
    return folder


@pytest.fixture(scope="session")
def other_python(tmp_path_factory):
    """The folder of a Python that has all packages of this one, as links, but not the missing one."""
    if os.name == "nt":
        pytest.skip("Colab and Kaggle are Linux machines")
    if find_spec("pip") is None:
        pytest.skip("there is no pip here")
    home = tmp_path_factory.mktemp("python")
    venv.create(home, symlinks=True, with_pip=False)
    packages = packages_of(home)
    for folder in (Path(folder) for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages")):
        for entry in folder.iterdir():
            link = packages / entry.name
            if not entry.name.startswith((MISSING, "__pycache__")) and not os.path.lexists(link):
                try:
                    link.symlink_to(entry)
                except OSError:
                    pytest.skip("this system refuses symbolic links")
    kernel = home / "share" / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    command = [str(home / "bin" / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    return home


def packages_of(home):
    return Path(sysconfig.get_path("purelib", "venv", vars={"base": str(home), "platbase": str(home)}))


class Machine:
    """A machine of Colab ("/content") or Kaggle ("/kaggle/working") as a reader gets it: that folder is empty."""

    def __init__(self, folder, python, origin, wheels, disk="/content"):
        self.python, self.packages, self.disk = python / "bin" / "python", packages_of(python), disk
        self.here = folder / "disk"
        self.course = self.here / "cifar10-resnet"
        self.here.mkdir()
        ours = ("GIT_", "JUPYTER", "KAGGLE_", "PIP_", "PYTHON")
        self.variables = {key: value for key, value in os.environ.items() if not key.startswith(ours)} | {
            "LC_ALL": "C",
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

    def run(self, *cells):
        """Run cells one after another in one new Python."""
        command = [self.python, "-c", "\n".join(self.staged(cell) for cell in cells)]
        return subprocess.run(command, cwd=self.here, env=self.variables, capture_output=True, text=True)

    def passes(self, *cells):
        """What cells print that end well."""
        result = self.run(*cells)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def message(self, *cells):
        """What the error says with which cells must end. There is no other error behind it."""
        result = self.run(*cells)
        assert result.returncode == 1
        assert result.stderr.count("Traceback") == 1
        return result.stderr.partition("Error: ")[2]

    def installed(self):
        """Name and version of every package."""
        packages = metadata.distributions(path=[str(self.packages)])
        return {(package.metadata["Name"], package.version) for package in packages}


@pytest.fixture
def machine(other_python, origin, wheels, tmp_path):
    """Starts a machine. One at a time: they share the Python, from which everything new is removed afterwards."""
    packages = packages_of(other_python)
    before = set(packages.iterdir())
    yield lambda disk="/content": Machine(tmp_path, other_python, origin, wheels, disk)
    for added in set(packages.iterdir()) - before:
        shutil.rmtree(added)


# ---------------------------------------------------------------- Colab and Kaggle


@pytest.mark.parametrize("disk", ["/content", "/kaggle/working"])
def test_an_empty_machine_gets_the_course_and_the_one_missing_package(machine, disk):
    assert SETUP.count(f'"{disk}"') == 1
    empty = machine(disk)
    before = empty.installed()
    result = empty.run(SETUP, WHERE)
    assert (result.stdout, result.stderr) == (f"{empty.course / 'helpers' / 'model.py'}\n", "")
    assert empty.installed() == before | {(MISSING, metadata.version(MISSING))}
    assert os.listdir(empty.here) == ["cifar10-resnet"]


def test_setup_may_run_again_and_needs_no_network_then(machine):
    colab = machine()
    colab.passes(SETUP)
    (colab.course / "mine.txt").write_text("the reader's")
    before = colab.installed()
    colab.variables |= {"GIT_CONFIG_KEY_0": NOWHERE, "PIP_FIND_LINKS": str(colab.here / "nothing")}
    again = "import helpers; first, path = helpers, list(sys.path)", SETUP, "import helpers", "print(path == sys.path)"
    assert colab.passes(SETUP, *again, "print(first is helpers)") == "True\nTrue\n"
    assert (colab.course / "mine.txt").read_text() == "the reader's"
    assert colab.installed() == before
    assert os.listdir(colab.here) == ["cifar10-resnet"]


def test_without_network_one_message_tells_it_and_nothing_is_left(machine):
    colab = machine()
    before, reachable = colab.installed(), colab.variables["GIT_CONFIG_KEY_0"]
    colab.variables["GIT_CONFIG_KEY_0"] = NOWHERE
    said = colab.message(SETUP)
    assert said.startswith(f"Could not fetch {URL}:\nfatal: ")
    assert said.endswith("Then run this cell again.\n")
    assert os.listdir(colab.here) == []
    assert colab.installed() == before
    colab.variables["GIT_CONFIG_KEY_0"] = reachable
    assert str(colab.course) in colab.passes(SETUP, WHERE)


def test_a_clone_that_is_killed_leaves_no_half_course(machine):
    colab = machine()
    program = colab.here.parent / "git"
    program.write_text(
        "#!/bin/sh\nfor target; do :; done\n"  # the last argument
        'mkdir -p "$target/helpers" && touch "$target/helpers/model.py"\nkill -9 $$\n'
    )
    program.chmod(0o755)
    path = colab.variables["PATH"]
    colab.variables["PATH"] = f"{program.parent}{os.pathsep}{path}"
    assert f"Could not fetch {URL}" in colab.message(SETUP)
    assert os.listdir(colab.here) == []
    colab.variables["PATH"] = path
    assert str(colab.course) in colab.passes(SETUP, WHERE)


def test_a_package_that_cannot_be_fetched_is_named(machine):
    colab = machine()
    before = colab.installed()
    colab.variables["PIP_FIND_LINKS"] = str(colab.here)
    said = colab.message(SETUP)
    assert said.startswith("Could not fetch packages from PyPI:\nERROR: ")
    assert MISSING in said
    assert said.endswith("Then run this cell again.\n")
    assert colab.installed() == before


def opening(lesson):
    """The setup cell and the cells after it, up to the one that says which machine it runs on."""
    sources = [cell.source for cell in lesson.cells[2:] if cell.kind == "code"]
    start = next(place for place, source in enumerate(sources) if "utils.start()" in source)
    return sources[: start + 1]


def test_every_lesson_starts_on_an_empty_machine(machine):
    colab = machine()
    cells = []
    for lesson in LESSONS:  # each with names of its own, as in a notebook of its own
        cells.append("names = {'__name__': '__main__'}")
        cells.extend(f"exec({colab.staged(source)!r}, names)" for source in opening(lesson))
    printed = colab.passes(*cells, WHERE)
    assert printed.count("Device: ") == len(LESSONS)
    assert printed.endswith(f"{colab.course / 'helpers' / 'model.py'}\n")


def test_a_whole_lesson_runs_on_an_empty_machine(machine):
    colab = machine()
    (lesson,) = (lesson for lesson in LESSONS if lesson.path.stem == "03_resnet_from_scratch")
    page = json.loads(lesson.path.read_text(encoding="utf-8"))
    page["cells"][2]["source"] = colab.staged(SETUP)
    (colab.here / lesson.path.name).write_text(json.dumps(page), encoding="utf-8")
    execute = f"page = nbformat.read({lesson.path.name!r}, 4); nbclient.execute(page)"
    printed = colab.passes("import nbclient, nbformat", execute, "print(page.cells[-1].outputs[0].text)")
    assert "Data: sample shapes." in printed
    assert sorted(os.listdir(colab.here)) == [lesson.path.name, "cifar10-resnet"]


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
@pytest.mark.parametrize("files", [["__init__.py", "model.py"], ["model.py"]])
def test_another_package_of_the_name_helpers_does_not_win(other_python, files, before):
    foreign = packages_of(other_python) / "helpers"
    foreign.mkdir()
    try:
        for name in files:
            (foreign / name).write_text("FOREIGN = True\n")
        result = at_home(ROOT / "notebooks", before, SETUP, WHERE, python=other_python / "bin" / "python")
    finally:
        shutil.rmtree(foreign)
    assert (result.stdout, result.stderr) == (f"{ROOT / 'helpers' / 'model.py'}\n", "")
