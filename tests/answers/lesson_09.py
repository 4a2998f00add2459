"""Answers to the exercises of lesson 09, that the tables of its checks do not hold.

RIGHT and WRONG: name of the check -> how it is written, or what is wrong -> answer.
"""

import random

import numpy as np
import torch
from torch.utils.data import DistributedSampler


def _steps(batch, c_in, c_out, kernel, height, width, first):
    return (4 if first else 6) * batch * c_out * height * width * c_in * kernel**2


def rate(step, base_rate, base_batch, batch, warmup_steps):
    done = 1.0 if step >= warmup_steps else step / warmup_steps
    return base_rate * (1 - done) + base_rate * batch / base_batch * done


def rate_in_whole_multiples(step, base_rate, base_batch, batch, warmup_steps):
    return rate(step, base_rate, 1, batch // base_batch, warmup_steps)


def filters_by_svd(patches, eps):
    centred = patches - patches.mean(dim=0)
    _, singular, rows = torch.linalg.svd(centred, full_matrices=False)
    return rows / (singular.square() / len(patches) + eps).sqrt()[:, None]


def _eig(patches):
    values, vectors = torch.linalg.eig(torch.cov(patches.T))
    return values.real, vectors.real


def filters_by_eig(patches, eps):
    values, vectors = _eig(patches)
    order = values.argsort(descending=True)
    return (vectors / (values + eps).sqrt()).T[order]


def filters_by_numpy(patches, eps):
    values, vectors = np.linalg.eigh(np.cov(patches.numpy().astype(np.float64), rowvar=False))
    return -(vectors / np.sqrt(values + eps)).T[::-1].copy()


def filters_unsorted(patches, eps):
    values, vectors = _eig(patches)
    return (vectors / (values + eps).sqrt()).T


def _order(count, seed):
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def _cut(order, rank, processes):
    return order[: len(order) // processes * processes][rank::processes]


def shard_in_chunks(count, epoch, rank, processes):
    order = list(range(count))
    random.Random(epoch).shuffle(order)
    size = count // processes
    return order[rank * size : (rank + 1) * size]


def shard_of_numpy(count, epoch, rank, processes):
    return _cut(np.random.default_rng(epoch).permutation(count), rank, processes)


def shard_in_a_fork(count, epoch, rank, processes):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(epoch)
        return tuple(_cut(torch.randperm(count), rank, processes))


def shard_one_by_one(count, epoch, rank, processes):
    order = _order(count, epoch)
    for i in range(count // processes):
        yield order[i * processes + rank]


def shard_of_the_sampler(count, epoch, rank, processes):
    sampler = DistributedSampler(range(count), processes, rank, drop_last=True)
    sampler.set_epoch(epoch)
    return sampler


def shard_of_python(count, epoch, rank, processes):
    random.seed(epoch)
    return _cut(random.sample(range(count), count), rank, processes)


def shard_of_all_numpy(count, epoch, rank, processes):
    np.random.seed(epoch)  # noqa: NPY002
    return _cut(np.random.permutation(count), rank, processes)  # noqa: NPY002


def shard_by_turns(count, epoch, rank, processes, calls=[0]):  # noqa: B006
    calls[0] += 1
    return _cut(_order(count, calls[0] // processes), rank, processes)


def gradient(gradients, counts):
    shares = torch.tensor(counts) / sum(counts)
    return torch.einsum("p,p...->...", shares, torch.stack(gradients))


def gradient_with_edited_counts(gradients, counts):
    total = sum(counts)
    for i in range(len(counts)):
        counts[i] /= total
    return sum(g * n for g, n in zip(gradients, counts, strict=True))


RIGHT = {
    "step_operations": {
        "numpy": lambda *case: np.int64(_steps(*case)),
    },
    "warmed_rate": {
        "float32": lambda *case: np.float32(rate(*case)),
    },
    "whitening_filters": {"svd": filters_by_svd, "eig, sorted": filters_by_eig, "numpy": filters_by_numpy},
    "shard": {
        "chunks of a list": shard_in_chunks,
        "numpy": shard_of_numpy,
        "a fork, as a tuple": shard_in_a_fork,
        "one by one": shard_one_by_one,
        "torch's own": shard_of_the_sampler,
    },
    "averaged_gradient": {
        "einsum": gradient,
    },
}


def _weighted_in_place(gradients, counts):
    for gradient, count in zip(gradients, counts, strict=True):
        gradient *= count / sum(counts)
    return sum(gradients)


WRONG = {
    "step_operations": {
        "xor": lambda b, i, o, k, h, w, first: (4 if first else 6) * b * o * h * w * i * (k ^ 2),
        "3x3 only": lambda b, i, o, k, h, w, first: _steps(b, i, o, 3, h, w, first),
        "with a bias": lambda b, i, o, k, h, w, first: _steps(b, i, o, k, h, w, first) + b * o * h * w,
    },
    "warmed_rate": {
        "whole multiples": rate_in_whole_multiples,
    },
    "whitening_filters": {
        "unsorted": filters_unsorted,
        "covariance of the rows": lambda patches, eps: filters_by_svd(patches[:50].T, eps),
    },
    "shard": {
        "python's random numbers": shard_of_python,
        "numpy's random numbers": shard_of_all_numpy,
        "counts its calls": shard_by_turns,
        "two processes": lambda count, epoch, rank, n: _cut(_order(count, epoch), rank, 2),
    },
    "averaged_gradient": {
        "gradients changed": _weighted_in_place,
        "counts edited": gradient_with_edited_counts,
        "the first count for all": lambda gradients, counts: gradient(gradients, [counts[0]] * len(counts)),
    },
}
