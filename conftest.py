"""Plain `pytest` runs everything on the sample pictures, with the smallest budgets, and leaves no checkpoint behind."""

import os
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent

# Set before any test or kernel starts: the kernels that run the notebooks inherit these variables.
os.environ.setdefault("COURSE_PROFILE", "ci")
os.environ.setdefault("DATA_DIR", "sample")
os.environ.setdefault("MPLBACKEND", "agg")
# One thread: networks as small as these gain little from more, and threads that wait for each other crawl as soon as
# something else runs on the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CHECKPOINT_DIR"] = tempfile.mkdtemp(prefix="checkpoints-")
