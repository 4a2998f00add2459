"""Wrong answers that the checks of lesson 01 must refuse, with a part of the words that they must say; and right ones
that are written differently, which they must accept."""

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.transforms.v2 import functional as VF

CHANNEL = (0, 2, 3)  # averaging over these leaves one number a channel


# ---------------------------------------------------------------- channel_statistics


def _statistics(mean, std, scale=255):
    """An answer that looks at all batches at once."""

    def answer(batches):
        x = torch.cat(list(batches)).float() / scale
        return mean(x), std(x)

    return answer


def _mean(x):
    return x.mean(dim=CHANNEL)


def _std(x):
    return x.std(dim=CHANNEL)


def _one_pass(batches, prepare=lambda x: x.double() / 255, finish=torch.sqrt):
    count, total, squares = 0, 0, 0
    for x in batches:
        values = prepare(x)
        count += values.numel() // 3
        total = total + values.sum(dim=CHANNEL)
        squares = squares + (values * values).sum(dim=CHANNEL)
    mean = total / count
    return mean, finish(squares / count - mean * mean)


def _mean_of_batch_means(batches):
    return torch.stack([_mean(x / 255) for x in batches]).mean(dim=0), torch.zeros(3)


def _only_the_last(batches):
    for x in batches:
        mean, std = _mean(x / 255), _std(x / 255)
    return mean, std


def _mean_of_batch_deviations(batches):
    batches = list(batches)
    return _one_pass(batches)[0], torch.stack([_std(x / 255) for x in batches]).mean(dim=0)


def _weighted_batch_deviations(batches):
    batches = list(batches)
    deviations = torch.stack([_std(x / 255) * len(x) for x in batches]).sum(dim=0)
    return _one_pass(batches)[0], deviations / sum(len(x) for x in batches)


def _uint8_squares(batches):
    count, total, squares = 0, 0, 0
    for x in batches:
        count += x.numel() // 3
        total = total + x.sum(dim=CHANNEL) / 255
        squares = squares + (x * x).sum(dim=CHANNEL) / 255**2
    mean = total / count
    return mean, (squares / count - mean * mean).clamp(min=0).sqrt()


def _two_walks(batches):
    count = sum(x.numel() // 3 for x in batches)
    mean = sum((x / 255).sum(dim=CHANNEL) for x in batches) / max(count, 1)
    spread = sum((x / 255 - mean.view(3, 1, 1)).square().sum(dim=CHANNEL) for x in batches)
    return mean, (spread / count).sqrt()


def _by_length(batches):
    return _statistics(_mean, _std)([batches[i] for i in range(len(batches))])


def _with_numpy(batches):
    x = np.concatenate([batch.numpy() for batch in batches]) / 255
    return torch.from_numpy(x.mean(axis=CHANNEL)), torch.from_numpy(x.std(axis=CHANNEL))


def _kept(keep, join=torch.cat):
    """Right numbers, but every batch is kept until the end."""

    def answer(batches):
        return _statistics(_mean, _std)([join([keep(batch) for batch in batches])])

    return answer


def _one_growing_tensor(batches):
    x = torch.zeros(0, 3, 8, 8, dtype=torch.uint8)
    for batch in batches:
        x = torch.cat([x, batch])
    return _statistics(_mean, _std)([x])


def _list_of_values(batches):
    values = [batch.movedim(1, 0).flatten(1) / 255 for batch in batches]
    mean = sum(v.sum(dim=1) for v in values) / sum(v.shape[1] for v in values)
    squares = sum(v.square().sum(dim=1) for v in values) / sum(v.shape[1] for v in values)
    return mean, (squares - mean**2).sqrt()


def _counting(count_of):
    """One pass with another count than B * H * W."""

    def answer(batches):
        count, total, squares = 0, 0, 0
        for x in batches:
            values = x.double() / 255
            count = count_of(count, x)
            total, squares = total + values.sum(dim=CHANNEL), squares + values.square().sum(dim=CHANNEL)
        return total / count, (squares / count).sqrt()

    return answer


def _return_inside_the_loop(batches):
    for x in batches:
        return _mean(x / 255), _std(x / 255)


def _with_batch_means(batches, combine):
    """combine(counts (K, 1), means (K, 3), variances (K, 3)) -> std; the mean is right."""
    counts, means, variances = [], [], []
    for x in batches:
        counts.append(x[:, 0].numel())
        means.append(_mean(x / 255))
        variances.append((x / 255).var(dim=CHANNEL))
    counts = torch.tensor(counts).float().view(-1, 1)
    means, variances = torch.stack(means), torch.stack(variances)
    share = counts / counts.sum()
    return (share * means).sum(dim=0), combine(share, means, variances)


def _first_by_next(batches):
    x = next(batches).double() / 255
    count, total, squares = x[:, 0].numel(), x.sum(dim=CHANNEL), x.square().sum(dim=CHANNEL)
    for x in batches:
        x = x.double() / 255
        count, total, squares = (
            count + x[:, 0].numel(),
            total + x.sum(dim=CHANNEL),
            squares + x.square().sum(dim=CHANNEL),
        )
    return total / count, (squares / count - (total / count).square()).sqrt()


def _small_sums_in_lists(batches):
    sums = [
        (x[:, 0].numel(), x.sum(dim=CHANNEL), x.double().square().sum(dim=CHANNEL), [image.sum() for image in x])
        for x in batches
    ]
    count = sum(row[0] for row in sums)
    mean = sum(row[1] for row in sums) / count / 255
    return mean, (sum(row[2] for row in sums) / count / 255**2 - mean**2).sqrt()


def _many_names(batches):
    count, total, squares = 0, 0, 0
    for x in batches:
        as_float = x.to(torch.float64)
        scaled = as_float / 255
        rows = scaled.permute(1, 0, 2, 3).reshape(3, -1)
        squared = rows * rows
        count, total, squares = count + rows.shape[1], total + rows.sum(1), squares + squared.sum(1)
    return total / count, torch.sqrt(squares / count - (total / count) ** 2)


def _with_numpy_sums(batches):
    count, total, squares = 0, np.zeros(3), np.zeros(3)
    for x in batches:
        values = x.numpy().astype(np.float64) / 255
        count += values[:, 0].size
        total += values.sum(axis=CHANNEL)
        squares += (values**2).sum(axis=CHANNEL)
    mean = total / count
    return torch.from_numpy(mean), torch.from_numpy(np.sqrt(squares / count - mean**2))


def _with_a_loop_over_channels(batches):
    sums = [[0.0, 0.0, 0] for _ in range(3)]
    for x in batches:
        for channel in range(3):
            values = x[:, channel].float() / 255
            sums[channel][0] += values.sum().item()
            sums[channel][1] += values.pow(2).sum().item()
            sums[channel][2] += values.numel()
    mean = [total / count for total, _, count in sums]
    std = [(squares / count - m**2) ** 0.5 for (_, squares, count), m in zip(sums, mean, strict=True)]
    return torch.tensor(mean), torch.tensor(std)


def _by_counting(batches):
    counts = torch.zeros(3, 256, dtype=torch.float64)
    for x in batches:
        for channel in range(3):
            counts[channel] += torch.bincount(x[:, channel].flatten(), minlength=256)
    share, value = counts / counts.sum(dim=1, keepdim=True), torch.arange(256, dtype=torch.float64) / 255
    mean = share @ value
    return mean, (share @ value**2 - mean**2).sqrt()


def _running_mean(batches):
    count, mean, spread = 0, torch.zeros(3), torch.zeros(3)
    for x in batches:
        values = x.float().movedim(1, 0).flatten(1) / 255
        new, n = values.mean(dim=1), values.shape[1]
        step = new - mean
        spread = spread + values.var(dim=1, correction=0) * n + step.square() * count * n / (count + n)
        mean, count = mean + step * n / (count + n), count + n
    return [mean, (spread / count).sqrt()]


# ---------------------------------------------------------------- find_duplicate


def _rows(x):
    rows = x.flatten(1).float()
    return F.normalize(rows - rows.mean(dim=1, keepdim=True))


def _table(x):
    table = _rows(x) @ _rows(x).T
    return table.fill_diagonal_(-1)


def _undivided(x, dim=None):
    """Products of rows that are not divided by their length; with dim=0 each column is, in vain."""
    rows = x.flatten(1).float()
    rows = rows - rows.mean(dim=1, keepdim=True)
    rows = rows if dim is None else F.normalize(rows, dim=dim)
    return rows @ rows.T


def _closest(distances):
    """Row and column of the smallest entry off the diagonal."""
    distances = distances.clone().fill_diagonal_(float("inf"))
    return divmod(int(distances.argmin()), len(distances))


def _by_two_loops(x):
    best, pair = -2.0, None
    for i in range(len(x)):
        for j in range(i):
            a, b = x[i].double().flatten(), x[j].double().flatten()
            a, b = a - a.mean(), b - b.mean()
            alike = float(a @ b / (a.norm() * b.norm()))
            if alike > best:
                best, pair = alike, (i, j)
    return pair


def _with_numpy_corrcoef(x):
    table = np.corrcoef(x.flatten(1).numpy())
    np.fill_diagonal(table, -1)
    return np.unravel_index(table.argmax(), table.shape)


def _upper_triangle(x):
    table = torch.corrcoef(x.flatten(1).float())
    rows, columns = torch.triu_indices(len(x), len(x), 1)
    best = table[rows, columns].argmax()
    return torch.stack([rows[best], columns[best]])


def _each_image_by_its_own_spread(x):
    rows = x.flatten(1).float()
    return _closest(torch.cdist(*[(rows - rows.mean(1, keepdim=True)) / rows.std(1, keepdim=True)] * 2))


def _best_of_each_row(x):
    best, partner = _table(x).max(dim=1)
    return [best.argmax(), partner[best.argmax()]]


# ---------------------------------------------------------------- stratified_split


def _by_class(y, fraction, order=lambda members: members[torch.randperm(len(members))], swap=False):
    rest, part = [], []
    for label in y.unique():
        members = order((y == label).nonzero().flatten())
        count = round(fraction * len(members))
        part.append(members[:count])
        rest.append(members[count:])
    return (torch.cat(part), torch.cat(rest)) if swap else (torch.cat(rest), torch.cat(part))


def _not_stratified(y, fraction):
    order = torch.randperm(len(y))
    return order[len(y) // 4 :], order[: len(y) // 4]


def _overlapping(y, fraction):
    return torch.arange(len(y)), _by_class(y, fraction)[1]


def _masks(y, fraction):
    part = torch.zeros(len(y), dtype=torch.bool)
    part[_by_class(y, fraction)[1]] = True
    return ~part, part


def _wheres(y, fraction):
    rest, part = _masks(y, fraction)
    return torch.where(rest), torch.where(part)


def _joined_to_an_empty_tensor(y, fraction):
    rest, part = torch.tensor([]), torch.tensor([])
    for label in y.unique():
        members = (y == label).nonzero().flatten()
        members = members[torch.randperm(len(members))]
        count = round(fraction * len(members))
        part, rest = torch.cat([part, members[:count]]), torch.cat([rest, members[count:]])
    return rest, part


def _same_number_of_each(y, fraction):
    chosen = torch.cat([(y == label).nonzero().flatten()[torch.randperm(10)] for label in range(4)])
    chosen = torch.cat([chosen, (y == 3).nonzero().flatten()[-10:]])
    return torch.tensor(sorted(set(range(len(y))) - set(chosen.tolist()))), chosen


def _in_rising_order(y, fraction):
    return tuple(positions.sort().values for positions in _by_class(y, fraction))


def _with_a_seed(y, fraction):
    generator = torch.Generator().manual_seed(0)
    return _by_class(y, fraction, order=lambda members: members[torch.randperm(len(members), generator=generator)])


def _with_lists(y, fraction):
    import random

    rest, part = [], []
    for label in range(int(y.max()) + 1):
        members = [i for i, other in enumerate(y.tolist()) if other == label]
        random.Random(label).shuffle(members)
        cut = int(len(members) * fraction)
        part.extend(members[:cut])
        rest.extend(members[cut:])
    return torch.tensor(rest), torch.tensor(part)


def _with_numpy_choice(y, fraction):
    labels, random = y.numpy(), np.random.default_rng(0)
    part = [
        random.choice(np.flatnonzero(labels == label), int((labels == label).sum() * fraction), replace=False)
        for label in np.unique(labels)
    ]
    part = np.concatenate(part)
    return [torch.from_numpy(np.setdiff1d(np.arange(len(labels)), part)), torch.from_numpy(part)]


def _shuffle_all_then_sort_by_class(y, fraction):
    order = torch.randperm(len(y))
    order = order[y[order].argsort(stable=True)]
    place = torch.cat([torch.arange(count) / count for count in torch.bincount(y)])
    return order[place >= fraction], order[place < fraction]


# ---------------------------------------------------------------- crop_batch


def _loop(x, top, left, padding, pad=lambda x, p: F.pad(x, [p] * 4)):
    height, width = x.shape[2:]
    padded = pad(x, padding)
    places = zip(range(len(x)), top, left, strict=True)
    return torch.stack([padded[i, :, t : t + height, n : n + width] for i, t, n in places])


def _rolled(x, top, left, padding):
    shifts = zip(x, top.tolist(), left.tolist(), strict=True)
    return torch.stack([image.roll((padding - t, padding - n), (1, 2)) for image, t, n in shifts])


def _with_indices(x, top, left, padding):
    padded = F.pad(x, (padding, padding, padding, padding))
    rows = top[:, None] + torch.arange(x.shape[2])
    columns = left[:, None] + torch.arange(x.shape[3])
    images, channels = torch.arange(len(x)), torch.arange(x.shape[1])
    return padded[
        images[:, None, None, None], channels[:, None, None], rows[:, None, :, None], columns[:, None, None, :]
    ]


def _with_gather(x, top, left, padding):
    count, channels, height, width = x.shape
    padded = F.pad(x, [padding] * 4)
    rows = (top[:, None] + torch.arange(height)).view(count, 1, height, 1)
    columns = (left[:, None] + torch.arange(width)).view(count, 1, 1, width)
    padded = padded.gather(2, rows.expand(-1, channels, -1, padded.shape[3]))
    return padded.gather(3, columns.expand(-1, channels, height, -1))


def _into_zeros(x, top, left, padding):
    result = torch.zeros_like(x)
    height, width = x.shape[2:]
    for i in range(len(x)):
        down, right = padding - int(top[i]), padding - int(left[i])
        to_rows, from_rows = slice(max(down, 0), height + min(down, 0)), slice(max(-down, 0), height - max(down, 0))
        to_columns = slice(max(right, 0), width + min(right, 0))
        from_columns = slice(max(-right, 0), width - max(right, 0))
        result[i, :, to_rows, to_columns] = x[i, :, from_rows, from_columns]
    return result


def _uint8_zeros(x, top, left, padding):
    count, channels, height, width = x.shape
    padded = torch.zeros(count, channels, height + 2 * padding, width + 2 * padding, dtype=torch.uint8)
    padded[:, :, padding : padding + height, padding : padding + width] = x
    places = zip(padded, top, left, strict=True)
    return torch.stack([image[:, t : t + height, n : n + width] for image, t, n in places])


def _numpy_zeros(x, top, left, padding):
    count, channels, height, width = x.shape
    padded = np.zeros((count, channels, height + 2 * padding, width + 2 * padding), np.uint8)
    padded[:, :, padding:-padding, padding:-padding] = x.numpy()
    places = zip(padded, top.tolist(), left.tolist(), strict=True)
    return torch.from_numpy(np.stack([image[:, t : t + height, n : n + width] for image, t, n in places]))


def _with_torchvision(x, top, left, padding):
    height, width = x.shape[2:]
    places = zip(VF.pad(x, padding), top.tolist(), left.tolist(), strict=True)
    return torch.stack([VF.crop(image, t, n, height, width) for image, t, n in places])


def _unfolded(x, top, left, padding):
    windows = F.pad(x, [padding] * 4).unfold(3, x.shape[3], 1).unfold(2, x.shape[2], 1)
    return torch.stack([windows[i, :, top[i], left[i]].mT for i in range(len(x))])


WRONG = {
    "channel_statistics": {
        "not scaled to 0..1": (_statistics(_mean, _std, scale=1), "scale 0 to 255"),
        "divided by 256": (_statistics(_mean, _std, scale=256), "expected"),
        "deviation not scaled": (_statistics(_mean, lambda x: 255 * _std(x)), "deviation is on the scale 0 to 255"),
        "one number for all channels": (_statistics(torch.mean, torch.std), "one number for all channels"),
        "one number for each image": (
            _statistics(lambda x: x.mean(dim=(2, 3)), lambda x: x.std(dim=(2, 3))),
            "must have the shape (3,)",
        ),
        "swapped": (_statistics(_std, _mean), "swapped"),
        "the usual constants": (lambda batches: (torch.full((3,), 0.5), torch.full((3,), 0.5)), "expected"),
        "average of the batches' means": (_mean_of_batch_means, "last batch is smaller"),
        "the last batch alone": (_only_the_last, "last batch alone"),
        "average of the batches' deviations": (_mean_of_batch_deviations, "how one batch differs"),
        "weighted average of the batches' deviations": (_weighted_batch_deviations, "how one batch differs"),
        "average of each image's deviation": (
            _statistics(_mean, lambda x: x.std(dim=(2, 3)).mean(dim=0)),
            "how one image differs",
        ),
        "variance": (lambda batches: _one_pass(batches, finish=lambda variance: variance), "square root"),
        "squares in uint8": (_uint8_squares, "before you square"),
        "root of something negative": (
            _statistics(_mean, lambda x: (_mean(x * x) / 255 - _mean(x).square()).sqrt()),
            "something negative",
        ),
        "whole numbers averaged": (lambda batches: (list(batches)[0].mean(dim=CHANNEL), None), "could not infer"),
        "all batches joined": (_statistics(_mean, _std), "you keep all batches"),
        "all batches joined in numpy": (_with_numpy, "you keep all batches"),
        "all batches kept as floats": (_kept(lambda batch: batch.float()), "you keep all batches"),
        "all batches kept as views": (
            _kept(lambda batch: batch.flatten(2), lambda x: torch.cat(x).unflatten(2, (8, 8))),
            "you keep all batches",
        ),
        "one growing tensor": (_one_growing_tensor, "you keep all batches"),
        "a list of all values": (_list_of_values, "you keep all batches"),
        "counted with numel": (_counting(lambda count, x: count + x.numel()), "0.3333 times as large"),
        "images not counted": (_counting(lambda count, x: count + 64), "B * H * W"),
        "batches not counted": (_counting(lambda count, x: x[:, 0].numel()), "B * H * W"),
        "images counted, not pixels": (_counting(lambda count, x: count + len(x)), "64 times as large"),
        "not divided": (_counting(lambda count, x: 1), "B * H * W"),
        "return inside the loop": (_return_inside_the_loop, "inside the loop"),
        "squared mean not subtracted": (
            _counting(lambda count, x: count + x[:, 0].numel()),
            "Subtract the square of the mean",
        ),
        "mean of the batches' variances": (
            lambda b: _with_batch_means(b, lambda share, means, variances: variances.mean(dim=0).sqrt()),
            "how one batch differs",
        ),
        "weighted mean of the batches' variances": (
            lambda b: _with_batch_means(b, lambda share, means, variances: (share * variances).sum(dim=0).sqrt()),
            "how one batch differs",
        ),
        "squares of the batches' means": (
            lambda b: _with_batch_means(
                b,
                lambda share, means, _: (
                    ((share * means**2).sum(dim=0) - (share * means).sum(dim=0) ** 2).clamp(min=0).sqrt()
                ),
            ),
            "spread of the batches' means",
        ),
        "deviation of the batches' means": (
            lambda b: _with_batch_means(b, lambda share, means, variances: means.std(dim=0)),
            "spread of the batches' means",
        ),
        "two walks": (_two_walks, "walked through only once"),
        "needs a length": (_by_length, "walked through only once"),
        "one result": (lambda batches: _one_pass(batches)[0], "return two tensors"),
    },
    "find_duplicate": {
        "smallest distance of the pixels": (lambda x: _closest(torch.cdist(*[x.flatten(1).float()] * 2)), "pale"),
        "mean not subtracted": (
            lambda x: _closest(-F.normalize(x.flatten(1).float()) @ F.normalize(x.flatten(1).float()).T),
            "its own mean",
        ),
        "closest brightness": (lambda x: _closest(torch.cdist(*[x.float().mean(dim=(1, 2, 3))[:, None]] * 2)), "pale"),
        "diagonal left in": (lambda x: divmod(int((_rows(x) @ _rows(x).T).argmax()), len(x)), "diagonal"),
        "least alike": (lambda x: divmod(int(_table(x).fill_diagonal_(1).argmin()), len(x)), "least alike"),
        "place in the flat table": (lambda x: (int(_table(x).argmax()), 0), "divmod"),
        "one position": (lambda x: int(_table(x).argmax()) // len(x), "two positions"),
        "best partner of every image": (lambda x: _table(x).argmax(dim=1), "Got 12 values"),
        "always the same two": (lambda x: (2, 3), "different pictures"),
        "not divided by the length": (
            lambda x: _closest(-torch.cov(x.flatten(1).float())),
            "by its own length, dim=1",
        ),
        "not divided, after the mean": (
            lambda x: divmod(int(_undivided(x).fill_diagonal_(-torch.inf).argmax()), len(x)),
            "by its own length, dim=1",
        ),
        "columns divided, not rows": (
            lambda x: divmod(int(_undivided(x, 0).fill_diagonal_(-torch.inf).argmax()), len(x)),
            "by its own length, dim=1",
        ),
        "counted from 1": (lambda x: [place + 1 for place in _by_two_loops(x)], "Count from 0"),
        "halves": (lambda x: [place + 0.5 for place in _by_two_loops(x)], "whole numbers"),
        "texts": (lambda x: [str(place) for place in _by_two_loops(x)], "whole numbers"),
        "the similarity instead of the positions": (lambda x: _table(x).max(), "two positions"),
    },
    "stratified_split": {
        "not stratified": (_not_stratified, "the share 0.25 of each"),
        "not the same share of each class": (_same_number_of_each, "the share 0.25 of each"),
        "overlap": (_overlapping, "occurs twice"),
        "the first of each class": (lambda y, f: _by_class(y, f, order=lambda members: members), "not random"),
        "the last of each class": (lambda y, f: _by_class(y, f, order=lambda members: members.flip(0)), "not random"),
        "swapped": (lambda y, f: _by_class(y, f, swap=True), "swapped"),
        "images lost": (lambda y, f: (_by_class(y, f)[0][:-3], _by_class(y, f)[1][:0]), "positions together"),
        "positions inside the class": (
            lambda y, f: _by_class(y, f, order=lambda members: torch.randperm(len(members))),
            "inside each class",
        ),
        "always a quarter": (lambda y, f: _by_class(y, 0.25), "Does your code use `fraction`?"),
        "joined to an empty tensor": (_joined_to_an_empty_tensor, "`torch.tensor([])` is float"),
        "lists of tensors": (lambda y, f: tuple(list(part.split(7)) for part in _by_class(y, f)), "`torch.cat` joins"),
        "tuples of where": (_wheres, "torch.where(mask)[0]"),
        "arrays": (lambda y, f: tuple(part.numpy() for part in _by_class(y, f)), "torch.from_numpy"),
        "lists": (lambda y, f: tuple(part.tolist() for part in _by_class(y, f)), "got list"),
        "masks": (_masks, "must hold positions"),
        "columns": (lambda y, f: tuple(part.view(-1, 1) for part in _by_class(y, f)), "must hold positions"),
        "labels instead of positions": (lambda y, f: tuple(y[part] for part in _by_class(y, f)), "these are labels"),
    },
    "crop_batch": {
        "rows and columns swapped": (lambda x, top, left, p: _loop(x, left, top, p), "swapped"),
        "one place for all": (
            lambda x, top, left, p: _loop(x, top[:1].expand(len(x)), left[:1].expand(len(x)), p),
            "first one's place",
        ),
        "unchanged": (lambda x, top, left, p: x, "unchanged"),
        "places ignored": (lambda x, top, left, p: _loop(x, top * 0, left * 0, p), "is not the window"),
        "mirrored border": (
            lambda x, top, left, p: _loop(x, top, left, p, lambda x, p: F.pad(x.float(), [p] * 4, mode="reflect")),
            "padded with zeros",
        ),
        "moved the wrong way": (lambda x, top, left, p: _loop(x, 2 * p - top, 2 * p - left, p), "wrong way"),
        "comes back on the other side": (_rolled, "comes back on the other"),
        "all pairs": (
            lambda x, top, left, p: F.pad(x, [p] * 4).unfold(2, 10, 1).unfold(3, 12, 1)[:, :, top, left],
            "must have the shape",
        ),
        "padding always 2": (lambda x, top, left, p: _loop(x, top, left, 2), "raised RuntimeError"),
        "padded but not cut": (lambda x, top, left, p: F.pad(x, [p] * 4), "must have the shape"),
    },
}

RIGHT = {
    "channel_statistics": {
        "sums in float64": _one_pass,
        "sums in float32": lambda batches: _one_pass(batches, prepare=lambda x: x.float() / 255),
        "first batch by next": _first_by_next,
        "sums kept in lists": _small_sums_in_lists,
        "a name for every step": _many_names,
        "numpy": _with_numpy_sums,
        "a loop over channels, in Python numbers": _with_a_loop_over_channels,
        "counting the 256 values": _by_counting,
        "merging means and spreads": _running_mean,
    },
    "find_duplicate": {
        "two loops": _by_two_loops,
        "numpy": _with_numpy_corrcoef,
        "upper triangle of torch.corrcoef": _upper_triangle,
        "distance of standardised images": _each_image_by_its_own_spread,
        "best of each row": _best_of_each_row,
        "an array of numpy numbers": lambda x: np.array(_with_numpy_corrcoef(x)),
        "floats that are whole": lambda x: tuple(float(place) for place in _by_two_loops(x)),
        "flat place taken apart": lambda x: divmod(int(_table(x).argmax()), len(x)),
    },
    "stratified_split": {
        "class by class": _by_class,
        "in rising order": _in_rising_order,
        "with a seed of its own": _with_a_seed,
        "Python lists": _with_lists,
        "numpy": _with_numpy_choice,
        "one shuffle, then sorted by class": _shuffle_all_then_sort_by_class,
    },
    "crop_batch": {
        "loop": _loop,
        "unfold": _unfolded,
        "advanced indexing": _with_indices,
        "gather": _with_gather,
        "copied into zeros": _into_zeros,
        "uint8 zeros": _uint8_zeros,
        "numpy zeros of uint8": _numpy_zeros,
        "as floats": lambda x, top, left, p: _loop(x.float(), top, left, p),
        "torchvision": _with_torchvision,
    },
}
