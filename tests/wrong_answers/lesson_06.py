"""Answers to the exercises of lesson 06.

WRONG: name of the check -> what is wrong -> (answer, part of what the check must say).
RIGHT: name of the check -> how it is written -> answer.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F


def _transposed(true, predicted, classes):
    return torch.bincount(predicted * classes + true, minlength=classes * classes).view(classes, classes)


def _counts(true, predicted, classes):
    return torch.bincount(true * classes + predicted, minlength=classes * classes).view(classes, classes)


def _row_shares(true, predicted, classes):
    counts = _counts(true, predicted, classes)
    return counts / counts.sum(dim=1, keepdim=True)


def _all_shares(true, predicted, classes):
    return _counts(true, predicted, classes) / len(true)


def _written_once(true, predicted, classes):
    matrix = torch.zeros(classes, classes)
    matrix[true, predicted] += 1
    return matrix


def _only_classes_seen(true, predicted, classes):
    classes = int(max(true.max(), predicted.max())) + 1
    return _counts(true, predicted, classes)


def _mistakes_only(true, predicted, classes):
    return _counts(true, predicted, classes).fill_diagonal_(0)


def _sum_as_number(true, predicted, classes):
    return torch.bincount(true + predicted, minlength=classes * classes).view(classes, classes)


def _product_as_number(true, predicted, classes):
    return torch.bincount(true * predicted, minlength=classes * classes).view(classes, classes)


def _bins(confidence, correct, bins):
    """Weights and gaps of the bins, right."""
    which = (confidence * bins).long().clamp(max=bins - 1)
    inside = [which == b for b in range(bins) if (which == b).any()]
    share = torch.stack([i.double().mean() for i in inside])
    gap = torch.stack([confidence[i].double().mean() - correct[i].double().mean() for i in inside])
    return share, gap


def _last_bin_open(confidence, correct, bins):
    total = 0.0
    for b in range(bins):
        inside = (confidence >= b / bins) & (confidence < (b + 1) / bins)
        if inside.any():
            gap = correct[inside].float().mean() - confidence[inside].mean()
            total += inside.float().mean() * gap.abs()
    return total


def _own_bin_for_one(confidence, correct, bins):
    total = 0.0
    which = (confidence * bins).long()
    for b in which.unique():
        inside = which == b
        total += inside.float().mean() * (correct[inside].float().mean() - confidence[inside].mean()).abs()
    return total


def _unweighted(confidence, correct, bins):
    return _bins(confidence, correct, bins)[1].abs().mean()


def _signed(confidence, correct, bins):
    share, gap = _bins(confidence, correct, bins)
    return (share * gap).sum()


def _largest(confidence, correct, bins):
    return _bins(confidence, correct, bins)[1].abs().max()


def _per_cent(confidence, correct, bins):
    share, gap = _bins(confidence, correct, bins)
    return 100 * (share * gap.abs()).sum()


def _always_ten(confidence, correct, bins):
    share, gap = _bins(confidence, correct, 10)
    return (share * gap.abs()).sum()


def _empty_bins(confidence, correct, bins):
    which = (confidence * bins).long().clamp(max=bins - 1)
    total = 0.0
    for b in range(bins):
        inside = which == b
        total += inside.float().mean() * (correct[inside].float().mean() - confidence[inside].mean()).abs()
    return total


def _closed_bins(confidence, correct, bins):
    total = 0.0
    for b in range(bins):
        inside = (confidence >= b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            gap = correct[inside].float().mean() - confidence[inside].mean()
            total += inside.float().mean() * gap.abs()
    return total


def _open_bins(confidence, correct, bins):
    """Only 1.0 is treated on its own; values on inner edges are lost."""
    total = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence < (b + 1) / bins)
        if b == bins - 1:
            inside |= confidence == 1
        if inside.any():
            gap = correct[inside].float().mean() - confidence[inside].mean()
            total += inside.float().mean() * gap.abs()
    return total


def _not_divided(confidence, correct, bins):
    share, gap = _bins(confidence, correct, bins)
    return (share * gap.abs()).sum() * len(confidence)


def _summed(confidence, correct, bins):
    return _bins(confidence, correct, bins)[1].abs().sum()


def _midpoints(confidence, correct, bins):
    which = (confidence * bins).long().clamp(max=bins - 1)
    share, gap = _bins((which + 0.5) / bins, correct, bins)
    return (share * gap.abs()).sum()


def _matrix_of_ones(true, predicted, classes):
    one_hot = F.one_hot(true, classes).float()
    return one_hot.T @ F.one_hot(predicted, classes).float()


def _matrix_index_put(true, predicted, classes):
    matrix = torch.zeros(classes, classes, dtype=torch.int64)
    return matrix.index_put_((true, predicted), torch.ones_like(true), accumulate=True)


def _matrix_by_comparison(true, predicted, classes):
    names = torch.arange(classes)
    return ((true[:, None, None] == names[:, None]) & (predicted[:, None, None] == names)).sum(0)


def _error_loop(confidence, correct, bins):
    """Edges belong to the bin below."""
    total = 0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            total += (confidence[inside].sum() - correct[inside].sum()).abs()
    return total / len(confidence)


def _error_bincount(confidence, correct, bins):
    which = (confidence * bins).long().clamp(max=bins - 1)
    return torch.bincount(which, confidence - correct.float(), bins).abs().sum() / len(confidence)


def _error_bucketize(confidence, correct, bins):
    which = torch.bucketize(confidence.double(), torch.linspace(0, 1, bins + 1).double()[1:-1], right=True)
    gaps = torch.zeros(bins).scatter_add_(0, which, confidence - correct.float())
    return (gaps.abs().sum() / len(confidence)).item()


def _error_numpy(confidence, correct, bins):
    gap, edges = confidence.double().numpy() - correct.numpy(), np.linspace(0, 1, bins + 1)
    sums, _ = np.histogram(confidence.double().numpy(), bins=edges, weights=gap)
    return np.abs(sums).sum() / len(gap)


def _fitted(logits, y, start=1.0, steps=60, optimizer=torch.optim.LBFGS):
    """Temperature by gradient descent on its logarithm."""
    log = torch.tensor(math.log(start), dtype=torch.float64, requires_grad=True)
    optim = optimizer([log], lr=0.1)

    def loss():
        optim.zero_grad()
        value = F.cross_entropy(logits.double() / log.exp(), y)
        value.backward()
        return value

    for _ in range(steps):
        optim.step(loss)
    return log.exp().item()


def _with_loss(fit, report=None):
    """An answer that fits with `fit(valid_logits, valid_y, test_logits, test_y)` and reports, if not told otherwise,
    the right loss."""

    def answer(valid_logits, valid_y, test_logits, test_y):
        temperature = fit(valid_logits, valid_y, test_logits, test_y)
        if report is not None:
            return temperature, report(temperature, valid_logits, valid_y, test_logits, test_y)
        return temperature, F.cross_entropy(test_logits / abs(temperature), test_y).item()

    return answer


def _grid(low, high, count):
    def fit(v, vy, t, ty):
        grid = torch.linspace(low, high, count)
        losses = torch.stack([F.cross_entropy(v / T, vy) for T in grid])
        return grid[losses.argmin()].item()

    return fit


def _of_valid(v, vy, t, ty):
    return _fitted(v, vy)


def _factor(v, vy, t, ty):
    return 1 / _fitted(v, vy)


def _both(v, vy, t, ty):
    return _fitted(torch.cat([v, t]), torch.cat([vy, ty]))


def _by_accuracy(v, vy, t, ty):
    grid = [1.0, 0.25, 0.5, 2.0, 4.0]
    return max(grid, key=lambda T: ((v / T).argmax(1) == vy).float().mean().item())


def _few_steps(v, vy, t, ty):
    return _fitted(v, vy, steps=3, optimizer=torch.optim.SGD)


def _number_only(valid_logits, valid_y, test_logits, test_y):
    return _fitted(valid_logits, valid_y)


def _temperature_plain(valid_logits, valid_y, test_logits, test_y):
    """As a tensor of one element, with LBFGS on T itself."""
    temperature = torch.ones(1, requires_grad=True)
    optim = torch.optim.LBFGS([temperature], lr=0.1, max_iter=200)

    def loss():
        optim.zero_grad()
        value = F.cross_entropy(valid_logits / temperature, valid_y)
        value.backward()
        return value

    optim.step(loss)
    return temperature, F.cross_entropy(test_logits / temperature, test_y)


def _temperature_newton(valid_logits, valid_y, test_logits, test_y):
    """Newton's method on the factor 1/T."""
    z, s = valid_logits.double(), 0.1
    of_label = z.gather(1, valid_y[:, None]).mean()
    for _ in range(100):
        p = (s * z).softmax(1)
        mean = (p * z).sum(1)
        curve = ((p * z.square()).sum(1) - mean.square()).mean()
        s = s - ((mean.mean() - of_label) / curve).item()
    return np.float64(1 / s), F.cross_entropy(s * test_logits, test_y).numpy()


def _cam(score=None, combine=None, after=None, keep_hook=False, keep_gradients=False):
    """Grad-CAM; each argument replaces one step of it."""

    def answer(model, layer, x, target):
        store = {}
        hooks = [
            layer.register_forward_hook(lambda module, inputs, output: store.update(output=output.detach())),
            layer.register_full_backward_hook(lambda module, inputs, outputs: store.update(gradient=outputs[0])),
        ]
        logits = model(x)
        (score or (lambda z, t: z.gather(1, t[:, None]).sum()))(logits, target).backward()
        if not keep_hook:
            for hook in hooks:
                hook.remove()
        if not keep_gradients:
            model.zero_grad()
        maps = (combine or _combined)(store["output"], store["gradient"])
        return after(maps, x) if after else maps

    return answer


def _combined(a, g):
    return (g.mean((2, 3), keepdim=True) * a).sum(1).relu()


def _cam_autograd(model, layer, x, target):
    outputs = []
    hook = layer.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        chosen = model(x)[torch.arange(len(x)), target]
    finally:
        hook.remove()
    (gradient,) = torch.autograd.grad(chosen.sum(), outputs[0])
    return torch.einsum("bc,bchw->bhw", gradient.mean((2, 3)), outputs[0]).clamp(min=0)


def _cam_one_by_one(model, layer, x, target):
    maps = []
    for image, label in zip(x, target.tolist(), strict=True):
        store = []
        hook = layer.register_forward_hook(lambda module, inputs, output, store=store: store.append(output))
        logits = model(image[None])
        hook.remove()
        store[0].retain_grad()
        logits[0, label].backward()
        weights = store[0].grad[0].mean((1, 2))
        maps.append(torch.relu((weights[:, None, None] * store[0][0]).sum(0)))
    model.zero_grad(set_to_none=False)
    return torch.stack(maps)


def _cam_tensor_hook(model, layer, x, target):
    store = {}

    def forward(module, inputs, output):
        store["a"] = output
        output.register_hook(lambda gradient: store.update(g=gradient))

    with torch.enable_grad():
        handle = layer.register_forward_hook(forward)
        one_hot = F.one_hot(target, model(x).shape[1])
        (model(x) * one_hot).sum().backward()
        handle.remove()
    for p in model.parameters():
        p.grad = None
    a, g = store["a"].detach(), store["g"]
    return F.relu((a * g.mean(dim=(-2, -1), keepdim=True)).sum(dim=1))


def _cam_left_training(model, layer, x, target):
    maps = _cam()(model, layer, x, target)
    model.train()
    return maps


def _given(logits, y):
    return logits.softmax(dim=1)[torch.arange(len(y)), y]


def _suspects_by_loss(logits, y, count):
    return F.cross_entropy(logits, y, reduction="none").topk(count).indices


def _suspects_list(logits, y, count):
    p = _given(logits, y).tolist()
    return sorted(range(len(p)), key=p.__getitem__)[:count]


def _suspects_numpy(logits, y, count):
    p = logits.log_softmax(1).gather(1, y[:, None]).squeeze(1).numpy()
    return np.argsort(p)[:count].copy()


def _among_mistakes(logits, y, count):
    wrong = logits.argmax(1) != y
    return _given(logits, y)[wrong].argsort()[:count]


def _mistakes_by_confidence(logits, y, count):
    confidence, said = logits.softmax(1).max(1)
    wrong = (said != y).nonzero().flatten()
    return wrong[confidence[wrong].argsort(descending=True)][:count]


def _margin(logits, y, count):
    rows = torch.arange(len(y))
    others = logits.clone()
    others[rows, y] = -math.inf
    return (logits[rows, y] - others.amax(1)).argsort()[:count]


def _suspects_over_images(logits, y, count):
    return logits.softmax(0)[torch.arange(len(y)), y].argsort()[:count]


def _cam_grad_inputs(model, layer, x, target):
    store = {}
    hooks = [
        layer.register_forward_hook(lambda module, inputs, output: store.update(a=output.detach())),
        layer.register_full_backward_hook(lambda module, inputs, outputs: store.update(g=inputs[0])),
    ]
    model(x).gather(1, target[:, None]).sum().backward()
    for hook in hooks:
        hook.remove()
    model.zero_grad()
    return _combined(store["a"], store["g"])


def _cam_run_in_training(model, layer, x, target):
    model.train()
    return _cam()(model, layer, x, target)


def _counts_of_unique(true, predicted, classes):
    numbers, counts = torch.unique(true * classes + predicted, return_counts=True)
    matrix = torch.zeros(classes * classes, dtype=torch.long)
    matrix[numbers] = counts
    return matrix.reshape(classes, classes)


def _error_of(bin_of, confidence, correct):
    groups = [bin_of == b for b in bin_of.unique()]
    return sum(g.double().mean() * (correct[g].double().mean() - confidence[g].double().mean()).abs() for g in groups)


def _one_bin_less(confidence, correct, bins):
    return _error_of((confidence * (bins - 1)).long().clamp(max=bins - 2), confidence, correct)


def _error_index_add(confidence, correct, bins):
    place = (torch.ceil(confidence * bins) - 1).clamp(min=0).long()
    gaps = torch.zeros(bins, dtype=torch.double).index_add_(0, place, correct.double() - confidence.double())
    return gaps.abs().sum() / len(confidence)


def _swapped(valid_logits, valid_y, test_logits, test_y):
    temperature = _fitted(valid_logits, valid_y)
    return F.cross_entropy(test_logits / temperature, test_y).item(), temperature


def _golden_section(valid_logits, valid_y, test_logits, test_y):
    low, high = 0.01, 20.0
    for _ in range(80):
        left, right = low + 0.382 * (high - low), low + 0.618 * (high - low)
        if F.cross_entropy(valid_logits / left, valid_y) < F.cross_entropy(valid_logits / right, valid_y):
            high = right
        else:
            low = left
    return [low, F.cross_entropy(test_logits / low, test_y)]


WRONG = {
    "confusion_matrix": {
        "transposed": (_transposed, "swapped"),
        "shares of each row": (_row_shares, "shares"),
        "shares of all images": (_all_shares, "shares"),
        "indexed assignment, each cell written once": (_written_once, "counted once"),
        "only as many classes as occur": (_only_classes_seen, "shape (5, 5)"),
        "hits left out": (_mistakes_only, "hits are missing"),
        "sum as the pair's number": (_sum_as_number, "share a number"),
        "product as the pair's number": (_product_as_number, "share a number"),
    },
    "calibration_error": {
        "last bin without 1.0": (_last_bin_open, "includes 1.0"),
        "a bin of its own for 1.0": (_own_bin_for_one, "bin of its own"),
        "bins unweighted": (_unweighted, "weigh the same"),
        "no absolute value": (_signed, "cancel"),
        "largest gap": (_largest, "largest gap"),
        "per cent": (_per_cent, "per cent"),
        "always ten bins": (_always_ten, "with 5 bins"),
        "empty bins give nan": (_empty_bins, "nan"),
        "inner edges counted twice": (_closed_bins, "counted twice"),
        "inner edges lost": (_open_bins, "exactly one"),
        "not divided by N": (_not_divided, "Divide by N"),
        "gaps summed": (_summed, "weigh the same"),
        "middle of the bin as confidence": (_midpoints, "mean confidence"),
        "one bin less than asked": (_one_bin_less, "n + 1 edges"),
        "rounded to a bin": (lambda c, h, bins: _error_of((c * bins).round(), c, h), "Round down"),
        "gap of each image": (lambda c, h, bins: (c - h.float()).abs().mean(), "image by image"),
        "all gaps": (lambda c, h, bins: torch.zeros(bins), "of shape"),
    },
    "temperature_scaling": {
        "fitted on the test images": (_with_loss(lambda v, vy, t, ty: _fitted(t, ty)), "fitted on the test images"),
        "fitted on both": (_with_loss(_both), "fitted together"),
        "the factor": (_with_loss(_factor), "divides the logits"),
        "the logarithm": (_with_loss(lambda v, vy, t, ty: math.log(_fitted(v, vy))), "logarithm"),
        "best accuracy": (_with_loss(_by_accuracy), "still 1"),
        "too few steps": (_with_loss(_few_steps), "More steps"),
        "grid above 1 only": (_with_loss(_grid(1.0, 5.0, 1000)), "still 1"),
        "coarse grid": (_with_loss(_grid(0.5, 5.0, 4)), "finer"),
        "probabilities": (_with_loss(lambda v, vy, t, ty: _fitted(v.softmax(1), vy)), "softmax"),
        "temperature alone": (_number_only, "two numbers"),
        "loss of the validation images": (
            _with_loss(_of_valid, lambda T, v, vy, t, ty: F.cross_entropy(v / T, vy)),
            "that of the validation images",
        ),
        "loss without the temperature": (
            _with_loss(_of_valid, lambda T, v, vy, t, ty: F.cross_entropy(t, ty)),
            "without the temperature",
        ),
        "logits multiplied": (_with_loss(_of_valid, lambda T, v, vy, t, ty: F.cross_entropy(t * T, ty)), "multiplied"),
        "summed loss": (
            _with_loss(_of_valid, lambda T, v, vy, t, ty: F.cross_entropy(t / T, ty, reduction="sum")),
            "Take the mean",
        ),
        "the two numbers swapped": (_swapped, "swapped"),
        "fitted on its own answers": (_with_loss(lambda v, vy, t, ty: _fitted(v, v.argmax(1))), "with `valid_y`"),
        "loss of probabilities": (
            _with_loss(_of_valid, lambda T, v, vy, t, ty: F.cross_entropy((t / T).softmax(1), ty)),
            "applies its own",
        ),
        "accuracy reported": (
            _with_loss(_of_valid, lambda T, v, vy, t, ty: (t.argmax(1) == ty).float().mean()),
            "expected",
        ),
    },
    "grad_cam": {
        "gradient of the predicted class": (_cam(lambda z, t: z.amax(1).sum()), "predicted class"),
        "gradient of all classes": (_cam(lambda z, t: z.sum()), "all logits"),
        "gradient of the loss": (_cam(F.cross_entropy), "gradient of the loss"),
        "gradient of the probability": (_cam(lambda z, t: z.softmax(1).gather(1, t[:, None]).sum()), "probability"),
        "gradient of the log-probability": (
            _cam(lambda z, t: z.log_softmax(1).gather(1, t[:, None]).sum()),
            "log-probability",
        ),
        "all targets for each image": (_cam(lambda z, t: z[:, t].sum()), "a whole table"),
        "gradient with respect to the input": (_cam_grad_inputs, "grad_outputs[0]"),
        "run in train mode": (_cam_run_in_training, "train mode"),
        "scaled over the batch": (_cam(after=lambda m, x: m / m.max()), "are scaled"),
        "scaled, zeros too": (_cam(after=lambda m, x: m / (0 * m)), "nan or infinite"),
        "target of the first image": (_cam(lambda z, t: z[:, t[0]].sum()), "first image"),
        "mean over the images": (_cam(lambda z, t: z.gather(1, t[:, None]).mean()), "mean over the images"),
        "hooks left on the network": (_cam(keep_hook=True), "hook(s) are left"),
        "gradients left in the network": (_cam(keep_gradients=True), "gradients are left"),
        "left in train mode": (_cam_left_training, "train mode"),
        "no ReLU": (_cam(combine=lambda a, g: (g.mean((2, 3), keepdim=True) * a).sum(1)), "end with a ReLU"),
        "absolute value": (_cam(combine=lambda a, g: (g.mean((2, 3), keepdim=True) * a).sum(1).abs()), "not with"),
        "each pixel its own weight": (_cam(combine=lambda a, g: (g * a).sum(1).relu()), "own weight"),
        "ReLU before the sum": (
            _cam(combine=lambda a, g: (g.mean((2, 3), keepdim=True) * a).relu().sum(1)),
            "before the channels are added",
        ),
        "channels not added": (
            _cam(combine=lambda a, g: (g.mean((2, 3), keepdim=True) * a).relu()),
            "one map a channel",
        ),
        "channels averaged": (_cam(combine=lambda a, g: (g.mean((2, 3), keepdim=True) * a).mean(1).relu()), "averaged"),
        "weights summed": (_cam(combine=lambda a, g: (g.sum((2, 3), keepdim=True) * a).sum(1).relu()), "Take the mean"),
        "one weight for all images": (
            _cam(combine=lambda a, g: (g.mean((0, 2, 3), keepdim=True) * a).sum(1).relu()),
            "weights of its own",
        ),
        "gradient alone": (_cam(combine=lambda a, g: g.mean(1).relu()), "gradient alone"),
        "outputs alone": (_cam(combine=lambda a, g: a.sum(1)), "outputs alone"),
        "scaled to 1": (
            _cam(after=lambda m, x: m / m.amax((1, 2), keepdim=True).clamp(min=1e-9)),
            "are scaled",
        ),
        "enlarged": (_cam(after=lambda m, x: F.interpolate(m[:, None], x.shape[2:])[:, 0]), "as large as the images"),
        "channel side kept": (_cam(after=lambda m, x: m[:, None]), "keepdim"),
        "one map": (_cam(after=lambda m, x: m.mean(0)), "Each image has its own"),
    },
    "suspected_labels": {
        "least confident answers": (lambda z, y, n: z.softmax(1).amax(1).argsort()[:n], "unsure answers"),
        "most confident answers": (
            lambda z, y, n: z.softmax(1).amax(1).argsort(descending=True)[:n],
            "other way round",
        ),
        "most confident mistakes": (_mistakes_by_confidence, "predicted class"),
        "most believed first": (lambda z, y, n: _given(z, y).argsort(descending=True)[:n], "other way round"),
        "last of the suspects first": (lambda z, y, n: _given(z, y).argsort()[:n].flip(0), "comes last"),
        "in the order of the images": (
            lambda z, y, n: _given(z, y).argsort()[:n].sort().values,
            "order of the positions",
        ),
        "raw logits": (lambda z, y, n: z[torch.arange(len(y)), y].argsort()[:n], "softmax first"),
        "highest entropy": (
            lambda z, y, n: (z.softmax(1) * z.log_softmax(1)).sum(1).argsort()[:n],
            "unsure answers",
        ),
        "gap of probabilities": (lambda z, y, n: (_given(z, y) - z.softmax(1).amax(1)).argsort()[:n], "behind"),
        "a table of probabilities": (lambda z, y, n: z.softmax(1)[:, y].argsort()[:n], "this is a table"),
        "softmax over the images": (_suspects_over_images, "dim=1"),
        "gap of logits": (_margin, "gap between two logits"),
        "classes": (lambda z, y, n: y[_given(z, y).argsort()][:n], "classes, not images"),
        "predicted classes": (lambda z, y, n: z.argmax(1)[_given(z, y).argsort()][:n], "classes, not images"),
        "probabilities": (lambda z, y, n: _given(z, y).sort().values[:n], "not their probabilities"),
        "a mask": (lambda z, y, n: _given(z, y) < 0.1, "mask"),
        "positions among the mistakes": (_among_mistakes, "among all images"),
        "mistakes, not sorted": (lambda z, y, n: (z.argmax(1) != y).nonzero().flatten()[:n], "Sort by"),
        "a column": (lambda z, y, n: _given(z, y).argsort()[:n, None], "one row"),
        "all images": (lambda z, y, n: _given(z, y).argsort(), "positions, got 80"),
    },
}

RIGHT = {
    "confusion_matrix": {
        "a product of one-hot rows": _matrix_of_ones,
        "index_put_ that accumulates": _matrix_index_put,
        "every pair compared": _matrix_by_comparison,
        "counts of unique numbers": _counts_of_unique,
    },
    "calibration_error": {
        "a loop, edges to the bin below": _error_loop,
        "bincount with weights": _error_bincount,
        "bucketize and scatter": _error_bucketize,
        "numpy's histogram": _error_numpy,
        "gaps added up by bin": _error_index_add,
    },
    "temperature_scaling": {
        "steps on the logarithm": _with_loss(_of_valid),
        "a fine grid": _with_loss(_grid(0.05, 8.0, 4000)),
        "LBFGS, tensors": _temperature_plain,
        "golden section": _golden_section,
        "Newton's method, numpy's numbers": _temperature_newton,
    },
    "grad_cam": {
        "two hooks": _cam(),
        "autograd.grad": _cam_autograd,
        "one image at a time, retain_grad": _cam_one_by_one,
        "a hook on the tensor": _cam_tensor_hook,
    },
    "suspected_labels": {
        "the largest losses": _suspects_by_loss,
        "a list": _suspects_list,
        "the smallest by topk": lambda z, y, n: _given(z, y).topk(n, largest=False).indices,
        "numpy": _suspects_numpy,
        "the lowest probability": lambda z, y, n: _given(z, y).sort(stable=True).indices[:n],
    },
}
