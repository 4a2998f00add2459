"""Answers to the exercises of lesson 01."""

import random

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as VF

CHANNEL = (0, 2, 3)  # averaging over these leaves one number a channel


# ---------------------------------------------------------------- channel_statistics


def one_pass(batches, prepare=lambda x: x.double() / 255, counted=lambda x: x.numel() // 3):
    count, total, squares = 0, 0, 0
    for x in batches:
        values = prepare(x)
        count, total = count + counted(x), total + values.sum(dim=CHANNEL)
        squares = squares + (values * values).sum(dim=CHANNEL)
    mean = total / count
    return mean, torch.sqrt(squares / count - mean * mean)


def first_by_next(batches):
    first = next(batches).double() / 255
    rest = [(first[:, 0].numel(), first.sum(CHANNEL), first.square().sum(CHANNEL))]
    for x in batches:
        rest.append((x[:, 0].numel(), (x.double() / 255).sum(CHANNEL), (x.double() / 255).square().sum(CHANNEL)))
    count, total, squares = (sum(column) for column in zip(*rest, strict=True))
    return total / count, (squares / count - (total / count) ** 2).sqrt()


def small_sums_in_lists(batches):
    sums = [(x[:, 0].numel(), x.sum(CHANNEL), x.double().square().sum(CHANNEL), [i.sum() for i in x]) for x in batches]
    count, total, squares = (sum(row[place] for row in sums) for place in range(3))
    return total / count / 255, (squares / count / 255**2 - (total / count / 255) ** 2).sqrt()


def numpy_sums(batches):
    count, total, squares = 0, np.zeros(3), np.zeros(3)
    for x in batches:
        values = x.numpy().astype(np.float64) / 255
        count, total = count + values[:, 0].size, total + values.sum(axis=CHANNEL)
        squares += (values**2).sum(axis=CHANNEL)
    return total / count, np.sqrt(squares / count - (total / count) ** 2)


def by_counting(batches):
    counts = torch.zeros(3, 256, dtype=torch.float64)
    for x in batches:
        for channel in range(3):
            counts[channel] += torch.bincount(x[:, channel].flatten(), minlength=256)
    share, value = counts / counts.sum(dim=1, keepdim=True), torch.arange(256, dtype=torch.float64) / 255
    return share @ value, (share @ value**2 - (share @ value) ** 2).sqrt()


def merged(batches):
    count, mean, spread = 0, torch.zeros(3), torch.zeros(3)
    for x in batches:
        values = x.float().movedim(1, 0).flatten(1) / 255
        n, step = values.shape[1], values.mean(dim=1) - mean
        spread = spread + values.var(dim=1, correction=0) * n + step.square() * count * n / (count + n)
        mean, count = mean + step * n / (count + n), count + n
    return [mean, (spread / count).sqrt()]


def kept(keep, join=torch.cat):
    """Right numbers, but every batch is kept until the end."""

    def answer(batches):
        x = torch.as_tensor(join([keep(x) for x in batches]))
        return x.double().mean(CHANNEL), x.double().std(CHANNEL)

    return answer


def twice(batches):
    mean, _ = one_pass(batches)
    return mean, (sum(((x / 255 - mean.view(3, 1, 1)) ** 2).sum(CHANNEL) for x in batches) / 1000).sqrt()


totals = [0, 0, 0]


def kept_between_calls(batches):
    for x in batches:
        totals[0] += x[:, 0].numel()
        totals[1] = totals[1] + (x.double() / 255).sum(CHANNEL)
        totals[2] = totals[2] + (x.double() / 255).square().sum(CHANNEL)
    return totals[1] / totals[0], (totals[2] / totals[0] - (totals[1] / totals[0]) ** 2).sqrt()


# ---------------------------------------------------------------- find_duplicate


def table(x, centred=True):
    rows = x.flatten(1).float()
    rows = F.normalize(rows - rows.mean(dim=1, keepdim=True) if centred else rows)
    return (rows @ rows.T).fill_diagonal_(-1)


def best_of_each_row(x):
    best, partner = table(x).max(dim=1)
    return [best.argmax(), partner[best.argmax()]]


def two_loops(x):
    best, pair = -2.0, None
    for i in range(len(x)):
        for j in range(i):
            a, b = x[i].double().flatten(), x[j].double().flatten()
            a, b = a - a.mean(), b - b.mean()
            if float(a @ b / (a.norm() * b.norm())) > best:
                best, pair = float(a @ b / (a.norm() * b.norm())), (i, j)
    return pair


def numpy_corrcoef(x):
    alike = np.corrcoef(x.flatten(1).numpy())
    np.fill_diagonal(alike, -1)
    return np.unravel_index(alike.argmax(), alike.shape)


def upper_triangle(x):
    rows, columns = torch.triu_indices(len(x), len(x), 1)
    best = torch.corrcoef(x.flatten(1).float())[rows, columns].argmax()
    return torch.stack([rows[best], columns[best]])


def nearest_of(prepare):
    def answer(x):
        rows = prepare(x.flatten(1).float())
        return divmod(int(torch.cdist(rows, rows).fill_diagonal_(torch.inf).argmin()), len(x))

    return answer


# ---------------------------------------------------------------- stratified_split


def by_class(y, fraction, order=lambda m: m[torch.randperm(len(m))], classes=torch.unique):
    rest, part = [], []
    for label in classes(y):
        members = order((y == label).nonzero().flatten())
        count = round(fraction * len(members))
        part.append(members[:count])
        rest.append(members[count:])
    return torch.cat(rest), torch.cat(part)


def each(change):
    return lambda y, fraction: tuple(change(positions) for positions in by_class(y, fraction))


def seeded(y, fraction):
    generator = torch.Generator().manual_seed(0)
    return by_class(y, fraction, lambda members: members[torch.randperm(len(members), generator=generator)])


def python_lists(y, fraction):
    rest, part = [], []
    for label in range(int(y.max()) + 1):
        members = [i for i, other in enumerate(y.tolist()) if other == label]
        random.Random(label).shuffle(members)
        cut = round(len(members) * fraction)
        part.extend(members[:cut])
        rest.extend(members[cut:])
    return torch.tensor(rest), torch.tensor(part)


def numpy_choice(y, fraction):
    labels, rng = y.numpy(), np.random.default_rng()
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    part = np.concatenate([rng.choice(group, round(len(group) * fraction), replace=False) for group in groups])
    return [np.setdiff1d(np.arange(len(labels)), part), part]


def one_shuffle(y, fraction):
    order = torch.randperm(len(y))
    order = order[y[order].argsort(stable=True)]
    place = torch.cat([torch.arange(count) / count for count in torch.bincount(y)])
    return order[place >= fraction], order[place < fraction]


def with_ceil(y, fraction):
    rest, part = [], []
    for label in y.unique():
        members = (y == label).nonzero().flatten()
        members, cut = members[torch.randperm(len(members))], -int(-fraction * len(members) // 1)
        part, rest = [*part, members[:cut]], [*rest, members[cut:]]
    return torch.cat(rest), torch.cat(part)


def not_stratified(y, fraction):
    order = torch.randperm(len(y))
    return order.tensor_split([round(fraction * len(y))])[::-1]


# ---------------------------------------------------------------- crop_batch


def loop(x, top, left, padding, width=None):
    padded, (height, own_width) = F.pad(x, [padding] * 4), x.shape[2:]
    width = width or own_width
    places = zip(padded, top, left, strict=True)
    return torch.stack([image[:, t : t + height, n : n + width] for image, t, n in places])


def advanced_indices(x, top, left, padding):
    padded, (count, channels, height, width) = F.pad(x, (padding, padding, padding, padding)), x.shape
    images, channels = torch.arange(count).view(-1, 1, 1, 1), torch.arange(channels).view(-1, 1, 1)
    rows, columns = top[:, None] + torch.arange(height), left[:, None] + torch.arange(width)
    return padded[images, channels, rows[:, None, :, None], columns[:, None, None, :]]


def gathered(x, top, left, padding):
    count, channels, height, width = x.shape
    padded = F.pad(x, [padding] * 4)
    rows = (top[:, None] + torch.arange(height)).view(count, 1, height, 1)
    columns = (left[:, None] + torch.arange(width)).view(count, 1, 1, width)
    padded = padded.gather(2, rows.expand(-1, channels, -1, padded.shape[3]))
    return padded.gather(3, columns.expand(-1, channels, height, -1))


def numpy_zeros(x, top, left, padding):
    count, channels, height, width = x.shape
    padded = np.zeros((count, channels, height + 2 * padding, width + 2 * padding), np.uint8)
    padded[:, :, padding:-padding, padding:-padding] = x.numpy()
    places = zip(padded, top.tolist(), left.tolist(), strict=True)
    return np.stack([image[:, t : t + height, n : n + width] for image, t, n in places])


def with_torchvision(x, top, left, padding):
    places = zip(VF.pad(x, padding), top.tolist(), left.tolist(), strict=True)
    return torch.stack([VF.crop(image, t, n, *x.shape[2:]) for image, t, n in places])


def unfolded(x, top, left, padding):
    windows = F.pad(x, [padding] * 4).unfold(3, x.shape[3], 1).unfold(2, x.shape[2], 1)
    return torch.stack([windows[i, :, top[i], left[i]].mT for i in range(len(x))])


def all_pairs(x, top, left, padding):
    return F.pad(x, [padding] * 4).unfold(2, x.shape[2], 1).unfold(3, x.shape[3], 1)[:, :, top, left]


def in_place(x, top, left, padding):
    x[:] = loop(x, top, left, padding)
    return x


RIGHT = {
    "channel_statistics": {
        "sums in float64": one_pass,
        "sums in float32": lambda batches: one_pass(batches, prepare=lambda x: x.float() / 255),
        "first batch by next": first_by_next,
        "sums kept in lists": small_sums_in_lists,
        "numpy": numpy_sums,
        "counting the 256 values": by_counting,
        "merging means and spreads": merged,
    },
    "find_duplicate": {
        "two loops": two_loops,
        "numpy": numpy_corrcoef,
        "an array of numpy numbers": lambda x: np.array(numpy_corrcoef(x)),
        "upper triangle of torch.corrcoef": upper_triangle,
        "distance of standardised images": nearest_of(lambda r: (r - r.mean(1, keepdim=True)) / r.std(1, keepdim=True)),
        "best of each row": lambda x: [
            (best := table(x).max(dim=1)).values.argmax(),
            best.indices[best.values.argmax()],
        ],
        "floats that are whole": lambda x: tuple(float(place) for place in two_loops(x)),
    },
    "stratified_split": {
        "class by class": by_class,
        "in rising order": each(lambda positions: positions.sort().values),
        "with a seed of its own": seeded,
        "Python lists": python_lists,
        "numpy, without a seed": numpy_choice,
        "one shuffle, then sorted by class": one_shuffle,
        "int32": each(lambda positions: positions.int()),
        "lists of numbers": each(torch.Tensor.tolist),
    },
    "crop_batch": {
        "loop": loop,
        "unfold": unfolded,
        "advanced indexing": advanced_indices,
        "gather": gathered,
        "numpy zeros of uint8": numpy_zeros,
        "as floats": lambda x, top, left, padding: loop(x.float(), top, left, padding),
        "torchvision": with_torchvision,
    },
}

WRONG = {
    "channel_statistics": {
        "square images only": lambda batches: one_pass(batches, counted=lambda x: len(x) * x.shape[2] ** 2),
        "divided by 256": lambda batches: one_pass(batches, prepare=lambda x: x.double() / 256),
        "sums in half precision": lambda batches: one_pass(batches, prepare=lambda x: x.half() / 255),
        "all batches kept as floats": kept(lambda x: x / 255),
        "all batches kept as numpy copies": kept(lambda x: x.numpy() / 255, np.concatenate),
        "all batches kept as Python numbers": kept(lambda x: (x / 255).tolist(), lambda parts: sum(parts, [])),
        "two walks": twice,
        "needs a length": lambda batches: one_pass([batches[i] for i in range(len(batches))]),
        "sums kept between calls": kept_between_calls,
        "one result": lambda batches: one_pass(batches)[0],
        "one number for all channels": lambda batches: (torch.tensor(0.3), torch.tensor(0.2)),
    },
    "find_duplicate": {
        "centred, not divided": nearest_of(lambda rows: rows - rows.mean(1, keepdim=True)),
        "twelve images only": lambda x: divmod(int(table(x[:12]).argmax()), 12),
        "place in the flat table": lambda x: (int(table(x).argmax()), 0),
        "one position": lambda x: int(table(x).argmax()) // len(x),
        "the best partner of every image": lambda x: table(x).argmax(dim=1),
        "halves": lambda x: [place + 0.5 for place in two_loops(x)],
        "texts": lambda x: [str(place) for place in two_loops(x)],
    },
    "stratified_split": {
        "not stratified": not_stratified,
        "rounded up": with_ceil,
        "always a quarter": lambda y, fraction: by_class(y, 0.25),
        "the last of each class": lambda y, fraction: by_class(y, fraction, lambda members: members.flip(0)),
        "overlap": lambda y, fraction: (torch.arange(len(y)), by_class(y, fraction)[1]),
        "images lost": lambda y, fraction: (by_class(y, fraction)[0][3:], by_class(y, fraction)[1]),
        "masks": lambda y, fraction: [torch.isin(torch.arange(len(y)), p) for p in by_class(y, fraction)],
        "floats": each(torch.Tensor.float),
        "columns": each(lambda positions: positions.view(-1, 1)),
        "lists of tensors": each(lambda positions: list(positions.split(7))),
        "counted from 1": each(lambda positions: positions + 1),
    },
    "crop_batch": {
        "places ignored": lambda x, top, left, padding: loop(x, top * 0, left * 0, padding),
        "as wide as high": lambda x, top, left, padding: loop(x, top, left, padding, width=x.shape[2]),
        "three channels": lambda x, top, left, padding: loop(x[:, :3], top, left, padding),
        "padding always 3": lambda x, top, left, padding: loop(x, top, left, 3),
        "all pairs": all_pairs,
        "padded but not cut": lambda x, top, left, padding: F.pad(x, [padding] * 4),
        "x overwritten": in_place,
    },
}

WORDS = {
    "channel_statistics": {
        "two walks": "walked through only once",
        "one result": "return 2 values: `return mean, std`",
        "all batches kept as numpy copies": "you keep all batches",
    },
    "stratified_split": {"counted from 1": "counted from 0", "masks": "whole numbers in one dimension"},
    "crop_batch": {"x overwritten": "it changes `x`"},
}
