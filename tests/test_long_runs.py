"""Runs that take their time: killed at seven moments, and trained until something is learned."""

import os
import signal
import subprocess
import sys

import killed_run
import torch
from runs import same

from helpers import data, train
from helpers.model import CustomResNet


def test_a_run_killed_again_and_again_ends_bit_for_bit_as_if_undisturbed(tmp_path):
    """Seven kills in steps, in validation, and before, in and after writing: see tests/killed_run.py."""
    torch.set_num_threads(1)
    (tmp_path / "undisturbed").mkdir()
    expected = killed_run.run(tmp_path / "undisturbed")
    folder = tmp_path / "killed"
    folder.mkdir()
    for moment in (*killed_run.MOMENTS, None):
        command = [sys.executable, killed_run.__file__, str(folder), *([moment] if moment else [])]
        result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert (result.returncode != 0) == bool(moment), f"{moment}: {result.stderr}"
        assert not result.stderr, result.stderr
        if moment and hasattr(signal, "SIGKILL"):
            assert result.returncode == -signal.SIGKILL
        if moment and "half written" in moment:
            assert len(list(folder.glob(".*.tmp"))) == 1
    assert not list(folder.glob(".*.tmp"))  # what the killed ones left is gone
    found = torch.load(folder / "result.pt", weights_only=True)
    for schedule, (state, rows) in expected.items():
        assert same(state, found[schedule][0]), schedule
        assert _without_seconds(rows) == _without_seconds(found[schedule][1]), schedule


def _without_seconds(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_the_ci_network_learns_the_sample_and_leaves_mistakes():
    train_set, test_set = data.load("cifar10")
    stats = train_set.mean_std()
    torch.manual_seed(0)
    model = CustomResNet(width=8)
    loader = data.Batches(train_set, stats, 64, augment=[data.random_crop(), data.random_flip()], shuffle=True)
    test_batches = data.Batches(test_set, stats, 500)
    train.fit(model, loader, test_batches, epochs=8, lr=0.02)
    assert 0.5 <= train.evaluate(model, test_batches)[1] < 1.0
