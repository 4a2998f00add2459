"""Checks of the exercises of lesson 09."""

import math
import random

import numpy as np
import torch

from helpers.checks.frame import Exercise, as_tensor, call, require, seed_all, sizes


def _operations(each=2, ways=lambda first: 2 if first else 3, power=2):
    def answer(batch, channels_in, channels_out, kernel, height_out, width_out, first):
        return each * ways(first) * batch * channels_out * height_out * width_out * channels_in * kernel**power

    return answer


step_operations = Exercise(
    reference=_operations(),
    cases=lambda: [
        (*own, kernel, height, width, first)
        for kernel in (3, 1, 7)
        for *own, height, width in [sizes(5, 8, 24)]
        for first in (False, True)
    ],
    tolerance=1e-6,
    mistakes={
        "you return half of that: a multiplication and an addition count as two operations.": _operations(each=1),
        "an inner layer goes through its arithmetic three times: forward, for the gradient of its weights, and for the "
        "gradient of its input.": (_operations(ways=lambda first: 1), _operations(ways=lambda first: 2)),
        "nobody asks for the gradient of the images: the first layer (`first`) leaves it out.": _operations(
            ways=lambda first: 3
        ),
        "a filter has kernel rows and kernel columns: kernel squared.": (_operations(power=1), _operations(power=0)),
    },
    praise="two operations for each product, three ways through an inner layer, two through the first.",
)


def _rate(ratio=lambda batch, base_batch: batch / base_batch, done=lambda step, steps: min(1, step / steps), start=1):
    """base_rate * start at first, base_rate * ratio at last; `done` of the way at this step."""

    def answer(step, base_rate, base_batch, batch, warmup_steps):
        first, last = base_rate * start, base_rate * ratio(batch, base_batch)
        return first + (last - first) * (done(step, warmup_steps) if warmup_steps else 1)

    return answer


def _settings():
    for base_rate, base_batch, batch, steps in ((0.1, 128, 512, 10), (0.05, 128, 320, 4), (0.2, 256, 64, 6)):
        for step in (steps + 3, 0, 1, steps // 2, steps - 1, steps, 50 * steps):
            yield step, base_rate, base_batch, batch, steps
        yield 0, base_rate, base_batch, batch, 0
        yield 2, base_rate, base_batch, batch, 0


warmed_rate = Exercise(
    reference=_rate(),
    cases=_settings,
    tolerance=1e-6,
    mistakes={
        "it grows in proportion, without a square root.": _rate(
            lambda batch, base_batch: math.sqrt(batch / base_batch)
        ),
        "after the warm-up it must not change any more.": _rate(done=lambda step, steps: step / steps),
        "there is no warm-up: step 0 has the scaled rate already.": _rate(done=lambda step, steps: 1),
        "the warm-up begins at 0. It must begin at base_rate.": _rate(start=0),
        "that is one step too early: steps count from 0.": _rate(done=lambda step, steps: min(1, (step + 1) / steps)),
    },
    praise="in proportion to the batch, after a warm-up in equal increments.",
)


def _whitening(scale=lambda values, eps: 1 / (values + eps).sqrt(), about_mean=True, rows=lambda v: v.T.flip(0)):
    def answer(patches, eps):
        covariance = torch.cov(patches.T) if about_mean else patches.T @ patches / len(patches)
        values, vectors = torch.linalg.eigh(covariance)
        return rows(vectors * scale(values, eps))

    return answer


def _patches():
    """Patches (N, D) of known variances, in random directions, about a mean that is not 0."""
    for size, eps in zip(sizes(4, 3, 8), (0.02, 0.3, 0.01, 0.1), strict=True):
        spread = 4 * 0.6 ** torch.arange(size)
        turn = torch.linalg.qr(torch.randn(size, size)).Q
        yield (turn * spread @ torch.randn(size, 4000)).T + torch.linspace(-3, 2, size), eps


def _without_signs(answer, patches, eps):
    """An eigenvector may change its sign, but only as a whole."""
    filters = as_tensor(call(answer, patches, eps))
    products = filters[:, :, None] * filters[:, None, :] if filters.ndim == 2 else None
    return {"the array of filters, without signs,": filters.abs(), "the products of the numbers of a filter": products}


whitening_filters = Exercise(
    reference=_whitening(),
    cases=_patches,
    run=_without_signs,
    tolerance=5e-3,  # whether variances are divided by N or N - 1
    mistakes={
        "the smallest eigenvalue comes first: turn the rows round.": _whitening(rows=lambda v: v.T),
        "the filters stand in the columns: `eigh` gives each eigenvector as a column. Transpose, and let the largest "
        "eigenvalue come first.": (_whitening(rows=lambda v: v.flip(1)), _whitening(rows=lambda v: v)),
        "divide each eigenvector by the root of its eigenvalue plus eps: `(values + eps).sqrt()`.": (
            _whitening(lambda values, eps: torch.ones(len(values))),
            _whitening(lambda values, eps: 1 / (values + eps)),
            _whitening(lambda values, eps: 1 / values.sqrt()),
            _whitening(lambda values, eps: 1 / (values.sqrt() + eps)),
        ),
        "the mean of the patches was not subtracted: the covariance is about the mean. torch.cov does it.": _whitening(
            about_mean=False
        ),
    },
    praise="projected onto the eigenvectors and divided by the root, all numbers vary alike and independently.",
)


def _next_draws():
    return random.random(), np.random.random(), torch.rand(()).item()  # noqa: NPY002


def _indices(value, count) -> list[int]:
    numbers = as_tensor(value if hasattr(value, "shape") else list(value), "the row of indices")
    require(numbers.ndim == 1, f"return a row of indices, got the shape {tuple(numbers.shape)}.")
    wrong = [i for i in numbers.tolist() if i != int(i) or not 0 <= i < count]
    require(not wrong, f"with count={count} the indices are whole numbers from 0 to {count - 1}, got {wrong[:1]}.")
    return [int(i) for i in numbers]


def _shared_out(answer, count, epoch, rank, processes):
    """The images of all processes, in six epochs. Each process has random numbers of its own, and keeps them."""

    def images(epoch, rank, seed):
        seed_all(seed)
        expected = _next_draws()
        seed_all(seed)
        found = _indices(call(answer, count, epoch, rank, processes), count)
        drew.append(_next_draws() != expected)
        return found

    drew = []
    epochs = [[images(e, rank, 100 + rank) for rank in range(processes)] for e in range(epoch, epoch + 6)]
    shown = [sum(shares, []) for shares in epochs]
    enough = count > 30  # for no order to come by chance
    return {
        "the number of images of each process": [len(share) for share in epochs[0]],
        "whether an image is shown twice": any(len(images) > len(set(images)) for images in shown),
        "whether another call gives other images": images(epoch, 0, 7) != epochs[0][0],
        "whether the images are in order": any(share == sorted(share) for share in epochs[0]) if enough else None,
        "the number of different orders in six epochs": len(set(map(tuple, shown))) if enough else None,
        "the number of different selections of process 0 in six epochs": (
            len({frozenset(shares[0]) for shares in epochs}) if enough else None
        ),
        "whether it draws from the random numbers of the whole process": any(drew),
    }


def _sharing(order=lambda count, epoch, rank: _order(count, epoch), cut=lambda order, n: order[: len(order) // n * n]):
    return lambda count, epoch, rank, processes: cut(order(count, epoch, rank), processes)[rank::processes]


def _order(count, seed):
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _seeding_everything(count, epoch, rank):
    torch.default_generator.manual_seed(epoch)
    return torch.randperm(count)


shard = Exercise(
    reference=_sharing(),
    cases=lambda: [
        (40, 0, None, 2),
        (12, 5, None, 3),
        (11, 1, None, 2),
        (7, 0, None, 1),
        (*sizes(1, 50, 90), 3, None, 4),
    ],
    run=_shared_out,
    mistakes={
        "an image is shown by two processes. All must shuffle alike, with a generator made from the epoch, "
        "`torch.Generator().manual_seed(epoch)`, and take different places of the same order.": (
            _sharing(lambda count, epoch, rank: torch.randperm(count)),
            _sharing(lambda count, epoch, rank: _order(count, epoch + 1000 * rank)),
        ),
        "the processes get different numbers of images: the one with more would wait for the others for ever.": (
            _sharing(cut=lambda order, processes: order)
        ),
        "images are shown twice to share them out evenly. Leave out the few that remain.": (
            _sharing(cut=lambda order, processes: torch.cat([order, order[: -len(order) % processes]]))
        ),
        "every epoch has the same order: shuffle, with a generator made from `epoch`.": (
            _sharing(lambda count, epoch, rank: torch.arange(count)),
            _sharing(lambda count, epoch, rank: _order(count, 0)),
        ),
        "it changes the random numbers of the whole process. Draw from a generator of its own: "
        "torch.Generator().manual_seed(epoch).": _sharing(_seeding_everything),
    },
    praise="one order for all, made from the epoch, and different places in it for each process.",
)


def _averaged(weights, total=sum):
    """Gradients times weights(counts), added up, divided by total(counts)."""

    def answer(gradients, counts):
        return sum(w * g for w, g in zip(weights(counts), gradients, strict=True)) / total(counts)

    return answer


def _gradients():
    for shape, counts in (((3, 2), [60, 4, 16]), ((5,), [5, 10]), ((), sizes(4, 1, 50)), ((2, 3, 1, 2), [8] * 4)):
        yield [torch.randn(shape) for _ in counts], counts


averaged_gradient = Exercise(
    reference=_averaged(lambda counts: counts),
    cases=_gradients,
    mistakes={
        "that is the plain mean. It is right only if all processes have equally many images.": _averaged(
            lambda counts: [1] * len(counts), len
        ),
        "that is a sum: divide by the number of all images.": (
            _averaged(lambda counts: counts, lambda counts: 1),
            _averaged(lambda counts: [1] * len(counts), lambda counts: 1),
        ),
        "you divide by the number of processes: divide by the number of all images.": _averaged(
            lambda counts: counts, len
        ),
        "each gradient is a mean over its own images: multiply it by its count before you add up.": _averaged(
            lambda counts: [1] * len(counts)
        ),
    },
    praise="every image weighs the same, wherever it was shown.",
)
