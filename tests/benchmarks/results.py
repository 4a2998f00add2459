"""The runs behind README's table of results: recipes, widths and seeds, on CIFAR-10.

    .venv/bin/python tests/benchmarks/results.py                        prints README's table of what was measured
    .venv/bin/python tests/benchmarks/results.py published 16 24 0 1 2  trains: recipe, width, epochs, seeds
    .venv/bin/python tests/benchmarks/results.py course 64 24 0
    .venv/bin/python tests/benchmarks/results.py ours 16 7 0 1 2
    .venv/bin/python tests/benchmarks/results.py lesson09 48 9 0 1 2

"published" and "ours" are recipes 1 and 3 of lesson 05 on the course's ResNet, "course" is the recipe of the full-size
run (see training.py), "lesson09" is that lesson's final run (see time_to_accuracy.py). All learn from the same 45,000
images. Nothing is chosen here: each network is the one after the last epoch, and meets the test images once. A run
becomes a row of results/runs.csv when it is done; a run that has a row is not repeated. Those on the course's ResNet
keep each epoch in checkpoints/ and continue from there; of "course" the whole History is kept in results/.
"""

import argparse
import csv
import datetime
import os
import platform
import statistics
import sys
from pathlib import Path

import torch
from time_to_accuracy import FIRST_BATCH, LAST_BATCH, last_rung
from training import trained

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from helpers import data, train, utils

FOLDER = Path(__file__).resolve().parents[2] / "results"
TABLE = FOLDER / "runs.csv"
NAMES = {
    "published": "its recipe, run here",
    "ours": "lesson 05's recipe",
    "course": "the full-size recipe",
    "lesson09": "lesson 09's network, six looks",
}
KEY = ("recipe", "width", "epochs", "seed")
ACCURACIES = ("train", "valid", "best", "test", "one_look", "mirrored")
COLUMNS = (*KEY, "parameters", *ACCURACIES, "seconds", "rate", "machine", "data", "date")


def read(path=TABLE) -> list[dict]:
    """Rows of the table; numbers as numbers. Accuracies in percent."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [{k: v if k in ("recipe", "machine", "data", "date") else float(v or "nan") for k, v in row.items()}
                for row in csv.DictReader(file)]  # fmt: skip


def add(row, path=TABLE) -> None:
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def keep(history: train.History, path: Path) -> None:
    """One line an epoch; loss, accuracy (0 to 1) and gradient norm with five digits, seconds whole."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, train.History.COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in history.rows:
            writer.writerow({key: f"{value:.0f}" if key == "seconds" else f"{value:.5g}" for key, value in row.items()})


def lesson09(width, epochs, seed, device) -> dict:
    """As `training.trained`; "one_look" is the test accuracy with one look at each image, all others are of six."""
    images, test = data.load("cifar10")
    part, valid = images.split(0.1, seed=0)
    seconds, network, looks = last_rung(part, width, epochs, device, seed)
    stats, few = part.mean_std(), part.subset(min(len(part), 5000), seed=0)

    def right(model, images):
        return train.evaluate(model, data.Batches(images, stats, 500, device=device))[1]

    return {
        "train": right(looks, few),
        "valid": right(looks, valid),
        "test": right(looks, test),
        "one_look": right(network, test),
        "seconds": seconds,
        "rate": epochs * (len(part) // LAST_BATCH * LAST_BATCH) / seconds,
        "parameters": sum(p.numel() for p in network.parameters()),
        "data": images.name,
    }


def summary(rows) -> str:
    """README's table: one line a recipe, width and number of epochs; means over the seeds, and standard deviations."""
    lines = [
        "| run | width | parameters | epochs | seeds | train | test | gap | minutes | images/s |",
        "|---|---|---|---|---|---|---|---|---|---|",
        "| published course project | 64 | 6,573,130 | 24 | 1 | 96.55% | 90.56% | 6.0 | – | – |",
    ]
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in KEY[:3]), []).append(row)
    # Wide networks first, lesson 09's last: what is to be compared stands together.
    for recipe, width, epochs in sorted(groups, key=lambda group: (group[0] == "lesson09", -group[1])):
        runs = groups[recipe, width, epochs]

        def mean(column, runs=runs):
            return statistics.mean(run[column] for run in runs)

        def percent(column, runs=runs):
            spread = f" ± {statistics.stdev(run[column] for run in runs):.2f}" if len(runs) > 1 else ""
            return f"{mean(column, runs):.2f}%{spread}"

        cells = [
            *(NAMES[recipe], f"{width:.0f}", f"{mean('parameters'):,.0f}", f"{epochs:.0f}", len(runs)),
            *(percent("train"), percent("test"), f"{mean('train') - mean('test'):.1f}"),
            *(f"{mean('seconds') / 60:.1f}", f"{mean('rate'):,.0f}"),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description="Without arguments: print the table.")
    parser.add_argument("recipe", nargs="?", choices=tuple(NAMES))
    parser.add_argument("numbers", type=int, nargs="*", metavar="WIDTH EPOCHS SEED ...")
    options = parser.parse_args()
    if options.recipe:
        if len(options.numbers) < 3:
            parser.error("a recipe needs a width, a number of epochs and one seed or more: published 16 24 0 1 2")
        width, epochs, *seeds = options.numbers
        device = utils.device()
        kind = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
        machine = f"{kind}, {platform.machine()}, torch {torch.__version__}"
        done = {tuple(row[k] for k in KEY) for row in read()}
        for seed in seeds:
            key = (options.recipe, width, epochs, seed)
            if key in done:
                print(f"{key} has its row already.")
                continue
            if options.recipe == "lesson09":
                run = lesson09(width, epochs, seed, device)
            else:
                run = trained(options.recipe, epochs, width, FIRST_BATCH, device, seed)
            if options.recipe == "course":
                keep(run["history"], FOLDER / f"course_{width}_{epochs}_{seed}.csv")
            for column in ACCURACIES:
                if column in run:
                    run[column] = f"{100 * run[column]:.2f}"
            for column in ("seconds", "rate"):
                run[column] = f"{run[column]:.0f}"
            about = {"machine": machine, "date": datetime.date.today().isoformat()}
            add(dict(zip(KEY, key, strict=True)) | {k: v for k, v in run.items() if k in COLUMNS} | about)
    print(summary(read()))


if __name__ == "__main__":
    main()
