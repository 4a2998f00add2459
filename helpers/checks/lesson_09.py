"""Checks of the exercises of lesson 09."""

import math

import torch

from helpers.checks.frame import Wrong, call, check, close, require, tensor


def _number(value, what: str) -> float:
    """`value` as a number, or words about its type. A tensor of one number is a number, too."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    good = isinstance(value, int | float) and not isinstance(value, bool)
    require(good, f"{what} must be a number, got {type(value).__name__}.")
    require(math.isfinite(value), f"{what} is {value}.")
    return value


@check
def step_operations(answer) -> str:
    """answer(batch, channels_in, channels_out, kernel, height_out, width_out, first) -> operations of a step."""
    cases = ((11, 7, 13, 5, 17, 19), (4, 16, 2, 1, 9, 8), (7, 5, 17, 7, 11, 13))
    for first in (False, True):  # in this order: what looks like a half there is the way forward here
        for case in cases:
            batch, channels_in, channels_out, kernel, height, width = case
            count = _number(call(answer, *case, first), "the number of operations")
            ways = 2 if first else 3

            def times(forward, ways=ways):
                return 2 * ways * forward

            true = times(batch * channels_out * height * width * channels_in * kernel**2)
            if count == true:
                continue
            forward = true // ways
            said = f"for {(*case, first)} you return {count:,}, expected {true:,}. "
            xor = times(batch * channels_out * height * width * channels_in * (kernel ^ 2))
            require(count != xor, said + "In Python `^` is no power: write `**`.")
            require(
                2 * count != true,
                said + "You return half of that: a multiplication and an addition count as two operations.",
            )
            require(
                count != forward,
                said
                + "That is the way forward only. On the way back the gradient for the weights costs as much again, "
                "and so does the gradient for the input.",
            )
            require(
                first or count != 2 * forward,
                said + "An inner layer goes through its arithmetic three times: forward, for the gradient of its "
                "weights, and for the gradient of its input.",
            )
            require(
                not first or count != 3 * forward,
                said + "`first` changes nothing: nobody asks for the gradient of the images, so the first layer leaves "
                "it out.",
            )
            require(batch * count != true, said + "`batch` is missing: every image goes through all of it.")
            require(
                kernel == 1 or kernel * count != true,
                said + "A filter has kernel rows and kernel columns: kernel squared.",
            )
            require(
                kernel == 1 or kernel**2 * count != true,
                said + "`kernel` is missing: each number is a sum over kernel rows and kernel columns.",
            )
            require(
                height * count != true and width * count != true and height * width * count != true,
                said + "The arithmetic is done at every position: height_out times width_out.",
            )
            require(channels_in * count != true, said + "Each number is made from all input channels.")
            require(channels_out * count != true, said + "Every output channel has numbers of its own.")
            raise Wrong(said + "Count what one output number needs, then how many there are, then the ways through.")
    return "two operations for each product, three ways through an inner layer, two through the first."


@check
def warmed_rate(answer) -> str:
    """answer(step, base_rate, base_batch, batch, warmup_steps) -> learning rate: scaled in proportion, warmed up."""
    for base, base_batch, batch, warmup in ((0.1, 128, 512, 10), (0.05, 128, 320, 4), (0.2, 256, 64, 6)):
        ratio = batch / base_batch
        scaled = base * ratio

        def rate_at(step, base=base, base_batch=base_batch, batch=batch, warmup=warmup):
            return _number(call(answer, step, base, base_batch, batch, warmup), "the learning rate")

        def is_close(rate, other):
            return math.isclose(rate, other, rel_tol=1e-6, abs_tol=1e-9)

        setting = f"base_rate={base}, base_batch={base_batch}, batch={batch}, warmup_steps={warmup}"
        late = warmup + 3
        rate = rate_at(late)
        said = f"with {setting} step {late} has the rate {rate:.4g}, expected {scaled:.4g}. "
        likely = (
            (base, "It does not depend on the batch."),
            (base * math.sqrt(ratio), "It grows in proportion, without a square root."),
            (base / ratio, "It is upside down: a larger batch gets a larger rate."),
            (base * (batch // base_batch), "`//` cuts off: divide with `/`."),
            (base + (scaled - base) * late / warmup, "After the warm-up it must not change any more."),
        )
        for mistake, words in likely:
            require(is_close(rate, scaled) or not is_close(rate, mistake), said + words)
        require(is_close(rate, scaled), said + "After the warm-up it is base_rate * batch / base_batch.")

        rate = rate_at(0)
        said = f"with {setting} step 0 has the rate {rate:.4g}, expected {base:.4g}. "
        require(not is_close(rate, scaled), said + "There is no warm-up: step 0 has the scaled rate already.")
        require(
            not is_close(rate, base + (scaled - base) / warmup),
            said + "That is one step too early: steps count from 0.",
        )
        require(is_close(rate, base), said + f"For you the warm-up begins at {rate:.4g}; it begins at base_rate.")

        for step in (1, warmup // 2, warmup - 1, warmup):
            rate, true = rate_at(step), base + (scaled - base) * step / warmup
            said = f"with {setting} step {step} has the rate {rate:.4g}, expected {true:.4g}. "
            require(
                is_close(rate, true) or not is_close(rate, base * ratio ** (step / warmup)),
                said + "The increments must be equal, not the factors.",
            )
            require(
                is_close(rate, true) or not is_close(rate, base),
                said + "Before the end of the warm-up it stays at base_rate. It must grow in equal increments.",
            )
            require(is_close(rate, true), said + "From step 0 to step warmup_steps it grows in equal increments.")
    rate = _number(call(answer, 0, 0.1, 128, 256, 0), "the learning rate")
    require(math.isclose(rate, 0.2), f"without warm-up, step 0 must have the scaled rate 0.2 at once, got {rate:.4g}.")
    return "in proportion to the batch, after a warm-up in equal increments."


def _filters(covariance: torch.Tensor, scale) -> torch.Tensor:
    """Eigenvectors of `covariance` as rows, the largest eigenvalue first, each times scale(eigenvalue)."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * scale(values.clamp(min=0))).T.flip(0)


@check
def whitening_filters(answer) -> str:
    """answer(patches, eps): (N, D) -> (D, D), rows: eigenvectors / sqrt(eigenvalue + eps), the largest first."""
    for spread, eps in (((5.0, 3.0, 2.0, 1.0, 0.5, 0.2), 0.02), ((2.0, 1.0, 0.3, 0.1), 0.01)):
        size = len(spread)
        turn = torch.linalg.qr(torch.randn(size, size)).Q
        patches = (torch.randn(4000, size) * torch.tensor(spread)) @ turn.T + torch.linspace(-3, 2, size)
        filters = tensor(call(answer, patches, eps), (size, size), "the filters")
        require(bool(filters.isfinite().all()), "some numbers of the filters are not finite.")
        covariance = torch.cov(patches.double().T)
        true = _filters(covariance, lambda value, eps=eps: 1 / (value + eps).sqrt())

        def same(other, filters=filters) -> bool:  # the sign of an eigenvector is free
            return close(filters.abs(), other.abs(), 5e-3)

        values, vectors = torch.linalg.eigh(covariance)
        moment = patches.double().T @ patches.double() / len(patches)
        root = (values + eps).sqrt()
        # In the order in which they are told: the first that fits.
        likely = (
            (true.flip(0), "the smallest eigenvalue comes first: turn the rows round."),
            (true.T, "the filters stand in the columns. Transpose: one filter in each row."),
            (
                true.flip(0).T,
                "the filters stand in the columns, the smallest eigenvalue first. `eigh` gives each eigenvector as a "
                "column: transpose, then turn the rows round.",
            ),
            (
                (vectors.T / root).flip(0),
                "each number was divided by the root of another eigenvalue: divide each whole eigenvector by its own, "
                "`vectors / root`, before you transpose.",
            ),
            (
                _filters(covariance, lambda value, eps=eps: 1 / (value + eps)),
                "divide by the square root of the eigenvalue plus eps.",
            ),
            (_filters(covariance, torch.ones_like), "the eigenvectors are not scaled yet."),
            (
                _filters(covariance, lambda value, eps=eps: (value + eps).sqrt()),
                "that multiplies by the root. Divide: large variances must become smaller.",
            ),
            (_filters(covariance, lambda value: 1 / value.sqrt()), "`eps` is not added."),
            (
                _filters(covariance, lambda value, eps=eps: 1 / (value.sqrt() + eps)),
                "`eps` belongs under the root: (eigenvalue + eps).sqrt().",
            ),
            (
                vectors / root @ vectors.T,
                "that turns the whitened numbers back to where they came from (it is called ZCA). Leave them: each row "
                "is one scaled eigenvector.",
            ),
            (
                _filters(moment, lambda value, eps=eps: 1 / (value + eps).sqrt()),
                "the mean of the patches was not subtracted: the covariance is about the mean. torch.cov does it.",
            ),
        )
        for mistake, words in likely:
            require(same(true) or not same(mistake), words)
        require(same(true), "these are not eigenvectors / sqrt(eigenvalue + eps), one in each row, largest first.")
        require(
            close(filters @ covariance @ filters.T, (true @ covariance @ true.T).diagonal().diag(), 2e-2),
            "the signs inside a filter are wrong. A whole eigenvector may change its sign, single numbers may not.",
        )
    return "projected onto the eigenvectors and divided by the root, all numbers vary alike and independently."


def _indices(value, count: int) -> list[int]:
    if isinstance(value, torch.Tensor):
        require(value.ndim == 1, f"return a row of indices, got a tensor of shape {tuple(value.shape)}.")
        value = value.tolist()
    require(hasattr(value, "__iter__") and not isinstance(value, str), f"return indices, got {type(value).__name__}.")
    value = list(value)
    value = [i.item() if isinstance(i, torch.Tensor) and i.numel() == 1 else i for i in value]
    whole = all(isinstance(i, int) and not isinstance(i, bool) for i in value)
    require(whole, "indices must be whole numbers.")
    outside = [i for i in value if not 0 <= i < count]
    require(not outside, f"with count={count} the indices go from 0 to {count - 1}, got {outside[:1]}.")
    return value


@check
def shard(answer) -> str:
    """answer(count, epoch, rank, processes) -> indices of this process: all together each image once, equally many."""
    touched = []

    def shares(count, epoch, processes) -> list[list[int]]:
        found = []
        for rank in range(processes):
            torch.manual_seed(100 + rank)  # each process has random numbers of its own
            before = torch.get_rng_state()
            found.append(_indices(call(answer, count, epoch, rank, processes), count))
            touched.append(not torch.equal(before, torch.get_rng_state()))
        return found

    for count, processes in ((12, 3), (11, 2), (21, 4), (7, 1)):
        found, setting = shares(count, 0, processes), f"count={count}, processes={processes}"
        for rank, own in enumerate(found):
            for i in own:
                require(own.count(i) == 1, f"with {setting} process {rank} shows image {i} twice.")
        everything = [i for own in found for i in own]
        for i in everything:
            require(
                everything.count(i) == 1,
                f"with {setting} image {i} is shown by two processes. All must shuffle alike, with a generator made "
                "from the epoch, and take different places of the same order.",
            )
        lengths = [len(own) for own in found]
        require(
            len(set(lengths)) == 1,
            f"with {setting} the processes get different numbers of images, {lengths}. The one with more would wait "
            "for the others for ever.",
        )
        require(
            lengths[0] == count // processes,
            f"with {setting} each process gets {lengths[0]} images, expected {count // processes}: leave out only the "
            "few that cannot be shared out evenly.",
        )
        require(shares(count, 0, processes) == found, "asked again for the same epoch, it gives other images.")
    epochs = [shares(40, epoch, 2) for epoch in range(6)]
    require(any(own != sorted(own) for own in epochs[0]), "the images are not shuffled.")
    require(
        any(epoch != epochs[0] for epoch in epochs),
        "every epoch has the same order: make the generator from `epoch`.",
    )
    require(
        len({tuple(sorted(epoch[0])) for epoch in epochs}) > 1,
        "process 0 gets the same images in every epoch, only in another order. Shuffle all of them first, then share "
        "them out.",
    )
    require(
        not any(touched),
        "your function changes the random numbers of the whole process. Draw from a generator of its own: "
        "torch.Generator().manual_seed(epoch).",
    )
    return "one order for all, made from the epoch, and different places in it for each process."


@check
def averaged_gradient(answer) -> str:
    """answer(gradients, counts): gradients of mean losses over counts[i] images -> that of the mean over all images."""
    for counts in ([60, 4, 16], [5, 10]):
        own = [torch.randn(3, 2) for _ in counts]
        given = [g.clone() for g in own]
        result = tensor(call(answer, given, list(counts)), (3, 2), "the gradient")
        stacked, weights = torch.stack(own).double(), torch.tensor(counts).double().view(-1, 1, 1)
        total = (weights * stacked).sum(dim=0)
        true = total / sum(counts)
        shown = f"with counts={counts}: "
        require(
            not close(result, stacked.mean(dim=0)),
            shown + "that is the plain mean. It is right only if all processes have equally many images.",
        )
        require(not close(result, stacked.sum(dim=0)), shown + "that is the plain sum of the gradients.")
        require(
            not close(result, total), shown + "that is the sum over all images: divide by the number of all images."
        )
        require(
            not close(result, total / len(counts)),
            shown + "you divide by the number of processes: divide by the number of all images.",
        )
        require(
            not close(result, stacked.sum(dim=0) / sum(counts)),
            shown + "each gradient is a mean over its own images: multiply it by its count before you add up.",
        )
        inverse = (1 / weights) / (1 / weights).sum()
        require(
            not close(result, (inverse * stacked).sum(dim=0)) and not close(result, (stacked / weights).sum(dim=0)),
            shown + "you divide each gradient by its count: a process with more images must weigh more.",
        )
        require(close(result, true), shown + "weigh each gradient by its share of all images.")
        require(
            all(torch.equal(a, b) for a, b in zip(given, own, strict=True)),
            "the gradients that were passed are changed afterwards. Compute new ones.",
        )
    equal = [torch.randn(2) for _ in range(4)]
    result = tensor(call(answer, equal, [8] * 4), (2,), "the gradient")
    require(close(result, torch.stack(equal).double().mean(dim=0)), "with equal counts it must be the plain mean.")
    return "every image weighs the same, wherever it was shown."
