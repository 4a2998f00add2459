"""Plain `pytest` runs everything on the sample pictures, with the smallest budgets, and leaves no checkpoint behind."""

import os
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent

# Set before any test or kernel starts: the kernels that run the notebooks inherit these variables.
os.environ.setdefault("COURSE_PROFILE", "ci")
os.environ.setdefault("DATA_DIR", "sample")
os.environ.setdefault("MPLBACKEND", "agg")
# One thread: networks as small as these gain little from more, and threads that wait for each other crawl as soon as
# something else runs on the machine, such as another worker's tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")

CHECKPOINTS = tempfile.TemporaryDirectory(prefix="checkpoints-", ignore_cleanup_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """A folder of checkpoints for each file: a lesson finds the same, whichever lessons its worker ran before."""
    os.environ["CHECKPOINT_DIR"] = str(Path(CHECKPOINTS.name, item.path.stem))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """`quick`: the tests of helpers/NAME.py, or of the folder of that name, are those of tests/test_NAME.py."""
    for item in items:
        place = ROOT / "helpers" / item.path.stem.removeprefix("test_")
        if place.is_dir() or place.with_suffix(".py").is_file():
            item.add_marker("quick")
