"""Answers to the exercises of lesson 09.

WRONG: name of the check -> what is wrong -> (answer, words that must come).
RIGHT: name of the check -> how it is written -> answer.
"""

import math
import random

import torch


def operations_of_multiply_adds(batch, channels_in, channels_out, kernel, height_out, width_out, first):
    forward = batch * channels_out * height_out * width_out * channels_in * kernel**2
    return (2 if first else 3) * forward


def operations_forward_only(batch, channels_in, channels_out, kernel, height_out, width_out, first):
    return 2 * batch * channels_out * height_out * width_out * channels_in * kernel**2


def operations_twice(batch, channels_in, channels_out, kernel, height_out, width_out, first):
    return 4 * batch * channels_out * height_out * width_out * channels_in * kernel**2


def operations_first_ignored(batch, channels_in, channels_out, kernel, height_out, width_out, first):
    return 6 * batch * channels_out * height_out * width_out * channels_in * kernel**2


def operations_of_one_image(batch, channels_in, channels_out, kernel, height_out, width_out, first):
    return (4 if first else 6) * channels_out * height_out * width_out * channels_in * kernel**2


def operations_kernel_once(batch, channels_in, channels_out, kernel, height_out, width_out, first):
    return (4 if first else 6) * batch * channels_out * height_out * width_out * channels_in * kernel


def operations_without_kernel(batch, channels_in, channels_out, kernel, height_out, width_out, first):
    return (4 if first else 6) * batch * channels_out * height_out * width_out * channels_in


def operations_with_xor(batch, channels_in, channels_out, kernel, height_out, width_out, first):
    return (4 if first else 6) * batch * channels_out * height_out * width_out * channels_in * (kernel ^ 2)


def operations_of_the_weights(batch, channels_in, channels_out, kernel, height_out, width_out, first):
    return (4 if first else 6) * batch * channels_out * channels_in * kernel**2


def operations_without_channels_in(batch, channels_in, channels_out, kernel, height_out, width_out, first):
    return (4 if first else 6) * batch * channels_out * height_out * width_out * kernel**2


def operations_without_channels_out(batch, channels_in, channels_out, kernel, height_out, width_out, first):
    return (4 if first else 6) * batch * channels_in * height_out * width_out * kernel**2


def operations_as_text(batch, channels_in, channels_out, kernel, height_out, width_out, first):
    return f"{batch * channels_in}"


def operations_by_parts(batch, channels_in, channels_out, kernel, height_out, width_out, first):
    way = 2.0 * channels_in * kernel * kernel * batch * channels_out * height_out * width_out
    total = way + way
    if not first:
        total += way
    return total


def rate_unscaled(step, base_rate, base_batch, batch, warmup_steps):
    return base_rate


def rate_by_square_root(step, base_rate, base_batch, batch, warmup_steps):
    scaled = base_rate * math.sqrt(batch / base_batch)
    return scaled if step >= warmup_steps else base_rate + (scaled - base_rate) * step / warmup_steps


def rate_upside_down(step, base_rate, base_batch, batch, warmup_steps):
    scaled = base_rate * base_batch / batch
    return scaled if step >= warmup_steps else base_rate + (scaled - base_rate) * step / warmup_steps


def rate_cut_off(step, base_rate, base_batch, batch, warmup_steps):
    scaled = base_rate * (batch // base_batch)
    return scaled if step >= warmup_steps else base_rate + (scaled - base_rate) * step / warmup_steps


def rate_growing_on(step, base_rate, base_batch, batch, warmup_steps):
    scaled = base_rate * batch / base_batch
    return base_rate + (scaled - base_rate) * step / warmup_steps


def rate_without_warmup(step, base_rate, base_batch, batch, warmup_steps):
    return base_rate * batch / base_batch


def rate_from_zero(step, base_rate, base_batch, batch, warmup_steps):
    scaled = base_rate * batch / base_batch
    return scaled if step >= warmup_steps else scaled * step / warmup_steps


def rate_one_early(step, base_rate, base_batch, batch, warmup_steps):
    scaled = base_rate * batch / base_batch
    return scaled if step >= warmup_steps else base_rate + (scaled - base_rate) * (step + 1) / warmup_steps


def rate_by_factors(step, base_rate, base_batch, batch, warmup_steps):
    ratio = batch / base_batch
    return base_rate * ratio ** min(1, step / warmup_steps)


def rate_jumping(step, base_rate, base_batch, batch, warmup_steps):
    return base_rate * batch / base_batch if step >= warmup_steps else base_rate


def rate_dividing_by_zero(step, base_rate, base_batch, batch, warmup_steps):
    scaled = base_rate * batch / base_batch
    return base_rate + (scaled - base_rate) * min(1, step / warmup_steps)


def rate_with_a_share(step, base_rate, base_batch, batch, warmup_steps):
    share = 1.0 if step >= warmup_steps else step / warmup_steps
    return base_rate * (1 - share) + base_rate * batch / base_batch * share


def _eigen(patches):
    return torch.linalg.eigh(torch.cov(patches.T))


def filters_in_columns(patches, eps):
    values, vectors = _eigen(patches)
    return (vectors / (values + eps).sqrt()).flip(1)


def filters_as_eigh_gives_them(patches, eps):
    values, vectors = _eigen(patches)
    return vectors / (values + eps).sqrt()


def filters_smallest_first(patches, eps):
    values, vectors = _eigen(patches)
    return (vectors / (values + eps).sqrt()).T


def filters_without_root(patches, eps):
    values, vectors = _eigen(patches)
    return (vectors / (values + eps)).T.flip(0)


def filters_unscaled(patches, eps):
    return _eigen(patches)[1].T.flip(0)


def filters_multiplied(patches, eps):
    values, vectors = _eigen(patches)
    return (vectors * (values + eps).sqrt()).T.flip(0)


def filters_without_eps(patches, eps):
    values, vectors = _eigen(patches)
    return (vectors / values.sqrt()).T.flip(0)


def filters_eps_outside(patches, eps):
    values, vectors = _eigen(patches)
    return (vectors / (values.sqrt() + eps)).T.flip(0)


def filters_turned_back(patches, eps):
    values, vectors = _eigen(patches)
    return vectors / (values + eps).sqrt() @ vectors.T


def filters_about_zero(patches, eps):
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    return (vectors / (values + eps).sqrt()).T.flip(0)


def filters_divided_crosswise(patches, eps):
    values, vectors = _eigen(patches)
    return (vectors.T / (values + eps).sqrt()).flip(0)


def filters_of_rows(patches, eps):
    values, vectors = torch.linalg.eigh(torch.cov(patches[:50]))
    return (vectors / (values.clamp(min=0) + eps).sqrt()).T.flip(0)


def filters_all_positive(patches, eps):
    values, vectors = _eigen(patches)
    return (vectors / (values + eps).sqrt()).T.flip(0).abs()


def filters_by_svd(patches, eps):
    centred = patches - patches.mean(dim=0)
    _, singular, rows = torch.linalg.svd(centred, full_matrices=False)
    return rows / (singular.square() / len(patches) + eps).sqrt()[:, None]


def shard_shuffled_by_each(count, epoch, rank, processes):
    return torch.randperm(count)[: count // processes * processes][rank::processes]


def shard_of_everything(count, epoch, rank, processes):
    return torch.randperm(count, generator=torch.Generator().manual_seed(epoch))


def shard_uneven(count, epoch, rank, processes):
    return torch.randperm(count, generator=torch.Generator().manual_seed(epoch))[rank::processes]


def shard_unshuffled(count, epoch, rank, processes):
    return torch.arange(count // processes * processes)[rank::processes]


def shard_same_each_epoch(count, epoch, rank, processes):
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[: count // processes * processes][rank::processes]


def shard_seeded_by_rank(count, epoch, rank, processes):
    order = torch.randperm(count, generator=torch.Generator().manual_seed(epoch + rank))
    return order[: count // processes * processes][rank::processes]


def shard_of_own_images(count, epoch, rank, processes):
    own = torch.arange(count // processes * processes)[rank::processes]
    return own[torch.randperm(len(own), generator=torch.Generator().manual_seed(epoch))]


def shard_padded(count, epoch, rank, processes):
    order = torch.randperm(count, generator=torch.Generator().manual_seed(epoch))
    order = torch.cat([order, order[: -count % processes]])
    return order[rank::processes]


def shard_seeding_everything(count, epoch, rank, processes):
    torch.manual_seed(epoch)
    return torch.randperm(count)[: count // processes * processes][rank::processes]


def shard_half_left_out(count, epoch, rank, processes):
    order = torch.randperm(count, generator=torch.Generator().manual_seed(epoch))
    return order[: count // processes * processes][rank::processes][: count // processes // 2]


def shard_as_a_mask(count, epoch, rank, processes):
    return torch.arange(count) % processes == rank


def shard_in_chunks(count, epoch, rank, processes):
    order = list(range(count))
    random.Random(epoch).shuffle(order)
    size = count // processes
    return order[rank * size : (rank + 1) * size]


def gradient_plain_mean(gradients, counts):
    return torch.stack(gradients).mean(dim=0)


def gradient_plain_sum(gradients, counts):
    return torch.stack(gradients).sum(dim=0)


def gradient_sum_over_images(gradients, counts):
    return sum(count * gradient for gradient, count in zip(gradients, counts, strict=True))


def gradient_by_processes(gradients, counts):
    return sum(count * g for g, count in zip(gradients, counts, strict=True)) / len(counts)


def gradient_unweighted(gradients, counts):
    return sum(gradients) / sum(counts)


def gradient_inverse_weights(gradients, counts):
    return sum(gradient / count for gradient, count in zip(gradients, counts, strict=True))


def gradient_of_the_first(gradients, counts):
    return gradients[0]


def gradient_in_place(gradients, counts):
    for gradient, count in zip(gradients, counts, strict=True):
        gradient.mul_(count / sum(counts))
    return sum(gradients[1:], gradients[0])


def gradient_by_einsum(gradients, counts):
    shares = torch.tensor(counts) / sum(counts)
    return torch.einsum("p,p...->...", shares, torch.stack(gradients))


WRONG = {
    "step_operations": {
        "multiply-adds": (operations_of_multiply_adds, "half of that"),
        "forward only": (operations_forward_only, "way forward only"),
        "backward as dear as forward": (operations_twice, "three times"),
        "first layer like the others": (operations_first_ignored, "nobody asks"),
        "one image": (operations_of_one_image, "`batch` is missing"),
        "kernel not squared": (operations_kernel_once, "kernel squared"),
        "no kernel": (operations_without_kernel, "`kernel` is missing"),
        "xor for a power": (operations_with_xor, "no power"),
        "one position": (operations_of_the_weights, "every position"),
        "one input channel": (operations_without_channels_in, "all input channels"),
        "one output channel": (operations_without_channels_out, "numbers of its own"),
        "text": (operations_as_text, "must be a number"),
    },
    "warmed_rate": {
        "not scaled": (rate_unscaled, "does not depend"),
        "square root": (rate_by_square_root, "without a square root"),
        "upside down": (rate_upside_down, "upside down"),
        "whole ratio": (rate_cut_off, "cuts off"),
        "grows for ever": (rate_growing_on, "not change any more"),
        "no warm-up": (rate_without_warmup, "no warm-up"),
        "warm-up from 0": (rate_from_zero, "the warm-up begins at"),
        "one step early": (rate_one_early, "count from 0"),
        "equal factors": (rate_by_factors, "not the factors"),
        "waits, then jumps": (rate_jumping, "stays at base_rate"),
        "division by zero": (rate_dividing_by_zero, "ZeroDivisionError"),
    },
    "whitening_filters": {
        "columns": (filters_in_columns, "filters stand in the columns"),
        "columns, smallest first": (filters_as_eigh_gives_them, "filters stand in the columns"),
        "smallest first": (filters_smallest_first, "the smallest eigenvalue comes first"),
        "no root": (filters_without_root, "square root"),
        "not scaled": (filters_unscaled, "not scaled"),
        "multiplied": (filters_multiplied, "multiplies"),
        "no eps": (filters_without_eps, "`eps` is not added"),
        "eps outside the root": (filters_eps_outside, "under the root"),
        "turned back": (filters_turned_back, "ZCA"),
        "mean not subtracted": (filters_about_zero, "mean of the patches"),
        "divided crosswise": (filters_divided_crosswise, "another eigenvalue"),
        "covariance of the rows": (filters_of_rows, "must have the shape"),
        "absolute values": (filters_all_positive, "signs inside"),
    },
    "shard": {
        "each shuffles by itself": (shard_shuffled_by_each, "is shown by two processes"),
        "everything to all": (shard_of_everything, "is shown by two processes"),
        "seed depends on the rank": (shard_seeded_by_rank, "is shown by two processes"),
        "filled up": (shard_padded, "is shown by two processes"),
        "uneven": (shard_uneven, "different numbers of images"),
        "too few": (shard_half_left_out, "leave out only"),
        "not shuffled": (shard_unshuffled, "not shuffled"),
        "the same each epoch": (shard_same_each_epoch, "every epoch has the same order"),
        "always the same images": (shard_of_own_images, "the same images in every epoch"),
        "seeds the whole process": (shard_seeding_everything, "a generator of its own"),
        "a mask": (shard_as_a_mask, "whole numbers"),
    },
    "averaged_gradient": {
        "plain mean": (gradient_plain_mean, "that is the plain mean"),
        "plain sum": (gradient_plain_sum, "plain sum"),
        "sum over images": (gradient_sum_over_images, "divide by the number of all images"),
        "divided by processes": (gradient_by_processes, "divide by the number of all images"),
        "means divided by images": (gradient_unweighted, "multiply it by its count"),
        "inverse weights": (gradient_inverse_weights, "must weigh more"),
        "only the first": (gradient_of_the_first, "share of all images"),
        "gradients changed": (gradient_in_place, "changed afterwards"),
    },
}


RIGHT = {
    "step_operations": {"by parts, as a float": operations_by_parts},
    "warmed_rate": {"by shares": rate_with_a_share},
    "whitening_filters": {"by singular values": filters_by_svd},
    "shard": {"chunks of a list": shard_in_chunks},
    "averaged_gradient": {"one product": gradient_by_einsum},
}
