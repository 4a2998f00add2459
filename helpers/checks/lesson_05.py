"""Checks of the exercises of lesson 05."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from helpers.checks.frame import Wrong, call, check, close, require, tensor


def _with_old_gradient(model, x, y) -> nn.Module:
    """A copy of `model` that already holds a gradient, that of the batch (x, y)."""
    model = copy.deepcopy(model)
    F.cross_entropy(model(x), y).backward()
    return model


def _steps(model, batches, clip, zero="before", softmax=False, clipping="norm") -> tuple[list[float], torch.Tensor]:
    """A training step for each batch but the first, which leaves only an old gradient; all on a copy of `model`.

    The steps are right ones or have a known fault. Returns (losses, all weights in a row).
    """
    model, losses = _with_old_gradient(model, *batches[0]), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for x, y in batches[1:]:
        if zero == "before":
            optimizer.zero_grad()
        logits = model(x)
        loss = F.cross_entropy(logits.softmax(1) if softmax else logits, y)
        loss.backward()
        if clipping == "norm":
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        elif clipping == "value":
            nn.utils.clip_grad_value_(model.parameters(), clip)
        optimizer.step()
        if zero == "after":
            optimizer.zero_grad()
        losses.append(loss.item())
    return losses, nn.utils.parameters_to_vector(model.parameters()).detach()


@check
def training_step(answer) -> str:
    """answer(model, optimizer, x, y, clip): changes the weights by one step and returns the loss as a float."""
    start = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
    batches = [(3 * torch.randn(6, 3, 2, 2), torch.randint(4, (6,))) for _ in range(4)]

    def run(clip):
        """Losses, weights after each step, the model itself, and its mode at each forward."""
        model, modes, path = _with_old_gradient(start, *batches[0]), [], []
        model[1].register_forward_hook(lambda layer, *_: modes.append(layer.training))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        losses, steps = [], []
        optimizer.register_step_post_hook(lambda *_: steps.append(1))
        for x, y in batches[1:]:
            losses.append(call(answer, model, optimizer, x, y, clip))
            path.append(nn.utils.parameters_to_vector(model.parameters()).detach())
            require(len(steps) <= len(path), f"step() ran {len(steps)} times in one call. One step is wanted.")
        return losses, path, model, modes

    clip = 0.3
    losses, path, model, modes = run(clip)
    weights = path[-1]
    norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    require(not isinstance(losses[0], torch.Tensor), "return the loss as a number, not as a tensor: `loss.item()`.")
    require(isinstance(losses[0], float), f"return the loss as a float, got {type(losses[0]).__name__}.")

    def same(**fault) -> bool:
        return close(weights, _steps(start, batches, clip, **fault)[1], 1e-5)

    before = nn.utils.parameters_to_vector(start.parameters()).detach()
    require(
        not close(weights, before, 1e-7),
        "the weights did not change. Either step() is missing, or zero_grad() stands between backward() and step() "
        "and wipes the gradient out.",
    )
    require(not same(softmax=True), "softmax before cross_entropy: cross_entropy takes the logits as they are.")
    require(not same(zero=None), "gradients of earlier batches are still added: zero_grad() is missing.")
    require(
        not same(zero="after"),
        "a gradient left from before the first step was still added: zero_grad() must come before backward(), not only "
        "after step().",
    )
    if same(clipping=None):
        require(
            not norms or torch.stack(norms).norm() > 1.01 * clip,
            "the gradient is clipped after step(), when the step with the long gradient is already taken.",
        )
        raise Wrong(
            "the gradient was not clipped to `clip`, the argument: clip it after backward() has made it and before "
            "step() uses it."
        )
    require(not same(clipping="value"), "each number was clipped by itself. Clip the norm: clip_grad_norm_.")
    length = (before - path[0]).norm() / 0.1  # the first step of SGD goes lr times the gradient
    require(
        length < 1.01 * clip,
        f"the first step used a gradient of norm {length:.2f}, with clip={clip:g}. The clipping must bring the norm of "
        "all parameters' gradients together down to `clip`.",
    )
    require(all(modes), "the network was in eval mode during training: model.eval() has no place in a training step.")
    require(
        same(),
        "the weights after three steps are not the expected ones. Is the loss F.cross_entropy, is there exactly one "
        "forward, backward and step(), and does the clipping take all parameters?",
    )
    require(
        close(torch.tensor(losses), torch.tensor(_steps(start, batches, clip)[0])),
        "the weights are right, but the loss is not that of this batch before the step.",
    )
    require(
        close(run(100.0)[1][-1], _steps(start, batches, 100.0)[1], 1e-5),
        "with clip=100, more than the norm of the gradient, the clipping must leave the gradient as it is.",
    )
    return "old gradients out, loss, backward, clip, step: in this order."


class _Judged(nn.Module):
    """Its answers depend on the mode: batch norm, dropout and a linear layer."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.linear = nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3)
        with torch.no_grad():
            self.norm.running_mean.copy_(torch.linspace(-2, 2, 6))

    def forward(self, x):
        return self.linear(self.drop(self.norm(x)))


@check
def accuracy(answer) -> str:
    """answer(model, batches) -> share of right answers, a float from 0 to 1; leaves the network as it was."""
    model = _Judged().eval()
    x = 2 * torch.randn(62, 6)
    with torch.no_grad():
        y = model(x).argmax(1)
    wrong = torch.arange(62).lt(20) | torch.arange(62).ge(60)  # among them all of the last batch, which is smaller
    y[wrong] = (y[wrong] + 1) % 3
    batches = list(zip(x.split(6), y.split(6), strict=True))
    expected = 40 / 62

    def run(training):
        model.train(training)
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        before = {name: t.clone() for name, t in model.state_dict().items()}
        recorded = []
        hook = model.register_forward_hook(lambda m, _, out: recorded.append((m.drop.training, out.requires_grad)))
        try:
            share = call(answer, model, batches)
            recording = torch.is_grad_enabled()
        finally:
            hook.remove()
            torch.set_grad_enabled(True)
        require(
            recording and all(p.requires_grad for p in model.parameters()),
            "after it nothing is recorded for gradients any more, so the network could not be trained further. Use "
            "`with torch.inference_mode():`, which ends with its block.",
        )
        return share, before, recorded

    share, before, recorded = run(training=True)
    if isinstance(share, torch.Tensor) and share.numel() == 1:
        raise Wrong("return the share as a number, not as a tensor: `.item()` makes one.")
    require(isinstance(share, int | float), f"return the share as a float, got {type(share).__name__}.")
    require(bool(recorded), "the network was never asked: call model(x) for each batch.")
    moved = [name for name, t in model.state_dict().items() if not torch.equal(t, before[name])]
    require(
        not any(training for training, _ in recorded),
        "the share is that of train mode: batch norm used, and changed, the statistics of these batches, and dropout "
        "was at work. Call model.eval() first.",
    )
    require(not moved, f"batch norm was in train mode and changed {', '.join(moved)}. Call model.eval() first.")
    require(
        not any(recording for _, recording in recorded),
        "the answers were recorded for gradients, which costs memory. Put the loop under torch.inference_mode() or "
        "torch.no_grad().",
    )
    by_batches = sum((model.eval()(x).argmax(1) == y).float().mean().item() for x, y in batches) / len(batches)
    model.train()
    require(abs(share - 40) > 1e-6, "that is the number of right answers. Divide it by the number of images.")
    require(not isinstance(share, int), f"return the share as a float, got the int {share}. Divide with `/`, not `//`.")
    require(
        abs(share - 40 / len(batches)) > 1e-6,
        "that is the number of right answers divided by the number of batches. Divide it by the number of images.",
    )
    require(abs(share - 100 * expected) > 0.5, "that is in percent. Return the share, from 0 to 1.")
    require(share <= 1, f"a share lies between 0 and 1, got {share:.2f}. Percent and counts are no shares.")
    require(abs(share - 1 + expected) > 1e-6, "that is the share of wrong answers.")
    require(
        abs(share - by_batches) > 1e-6,
        "that is the mean over the batches: the smaller last batch counts too much. Add up hits and images, and divide "
        "once.",
    )
    full = sum(len(y) for _, y in batches[:-1])
    require(abs(share - 40 / full) > 1e-6, "the images of the smaller last batch are not counted.")
    good, words = abs(share - expected) < 1e-6, f"the share is {share:.4f}, expected {expected:.4f} (40 of 62 images)."
    require(good or len(recorded) > 1, f"{words} Only one batch was used: does `return` stand inside the loop?")
    require(good, f"{words} Are hits and images added up over all batches?")
    for training, name in ((True, "train"), (False, "eval")):
        share, _, _ = run(training)
        words = f"asked again, in {name} mode, the share is {share:.4f}, not {expected:.4f}."
        require(abs(share - expected) < 1e-6, words)
        require(
            all(m.training == training for m in model.modules()),
            f"the network came in {name} mode and goes in {'train' if not training else 'eval'} mode. Note "
            "`model.training` first, and set it back with `model.train(...)`.",
        )
        require(
            all(p.grad is not None and bool((p.grad == 1).all()) for p in model.parameters()),
            "the gradients of the network were changed. An evaluation leaves them alone.",
        )
    return "eval mode, no gradients, every image counted once, and the network as it came."


@check
def label_smoothing_loss(answer) -> str:
    """answer(logits, y, smoothing): logits (B, K), y (B,) -> mean cross-entropy with smoothed labels, a scalar."""
    logits, y, smoothing = 2 * torch.randn(6, 5), torch.tensor([4, 0, 2, 1, 3, 2]), 0.3

    def parts(y, dim=1):
        """For each image: minus the log-probability of the right class, and of the mean class."""
        log_p = logits.double().log_softmax(dim)
        return -log_p[torch.arange(6), y], -log_p.mean(1)

    hit, uniform = parts(y)
    each = (1 - smoothing) * hit + smoothing * uniform
    result = call(answer, logits.clone().requires_grad_(), y, smoothing)
    if isinstance(result, torch.Tensor) and result.shape == (6,):
        raise Wrong("that is one loss for each image. Return their mean.")
    cut = isinstance(result, torch.Tensor) and not result.requires_grad
    result = tensor(result, (), "the loss")
    others = (1 - smoothing) * hit + smoothing * (uniform * 5 - hit) / 4
    require(not close(result, hit.mean()), "that is the plain cross-entropy: the smoothing has no effect.")
    require(not close(result, each.sum()), "that is the sum over the batch. Return the mean.")
    require(not close(result, -each.mean()), "the sign is wrong: cross-entropy is minus the mean log-probability.")
    require(
        not close(result, others.mean()),
        "smoothing was shared among the wrong classes only. It is shared among all K, the right one included.",
    )
    require(
        not close(result, (hit + smoothing * uniform).mean()),
        "the right class kept its whole weight. It gives away `smoothing` first: (1 - smoothing) is left.",
    )
    hit_0, uniform_0 = parts(y, dim=0)
    bare = -logits.double()
    likely = (
        (
            each / 5,
            "that is the right loss divided by K. Sum over the classes first, then take the mean over the images.",
        ),
        ((1 - smoothing) * hit + smoothing * 5 * uniform, "each class gets smoothing / K, not the whole `smoothing`."),
        (
            (1 - smoothing) * hit_0 + smoothing * uniform_0,
            "log_softmax ran over the images (dim=0): classes are dim=1.",
        ),
        (
            (1 - smoothing) * hit,
            "the share that the right class gives away reaches no class: add smoothing / K for each.",
        ),
        (
            smoothing * hit + (1 - smoothing) * uniform,
            "the two shares are swapped: the right class keeps 1 - smoothing, all classes together get `smoothing`.",
        ),
        (
            (1 - smoothing) * bare[torch.arange(6), y] + smoothing * bare.mean(1),
            "the target must meet the log-probabilities, not the logits: logits.log_softmax(dim=1).",
        ),
        (0.9 * hit + 0.1 * uniform, "that is the loss with smoothing 0.1. Use the argument `smoothing`."),
    )
    for mistake, words in likely:
        require(not close(result, mistake.mean()), words)
    require(close(result, each.mean()), f"the loss is {result:.4f}, expected {each.mean():.4f}.")
    require(
        not cut,
        "the number is right, but it has no gradient: detach(), item(), no_grad() or torch.tensor(...) cut the loss "
        "from the graph, and backward() would fail.",
    )
    few, problem = torch.tensor([0, 3, 2, 1, 3, 2]), "in a batch without an image of the last class"
    try:
        value = tensor(call(answer, logits, few, smoothing), (), "the loss")
    except Wrong as wrong:
        raise Wrong(f"{problem}: {wrong} If you use F.one_hot, give it K.") from None
    hit_few, uniform_few = parts(few)
    expected = ((1 - smoothing) * hit_few + smoothing * uniform_few).mean()
    require(close(value, expected), f"{problem} the loss is {value:.4f}, expected {expected:.4f}.")
    plain = tensor(call(answer, logits, y, 0.0), (), "the loss")
    require(close(plain, hit.mean()), "with smoothing=0 it must be the plain cross-entropy.")
    far = tensor(call(answer, 300 * logits, y, smoothing), (), "the loss")
    require(far.isfinite(), "with large logits the loss is not finite. Use log_softmax, not the log of a softmax.")
    return "the smoothed target against the log-probabilities, averaged over the batch."


@check
def weight_decay_groups(answer) -> str:
    """answer(model, weight_decay) -> two parameter groups: two or more dimensions with decay, the others without."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4, 2)
    )
    names = {id(p): name for name, p in model.named_parameters()}
    groups = call(answer, model, 0.03)
    good = isinstance(groups, list | tuple) and all(isinstance(g, dict) and "params" in g for g in groups)
    require(good, 'return a list of dicts: [{"params": [...], "weight_decay": ...}, ...].')
    require(len(groups) == 2, f"return two groups, got {len(groups)}.")
    got, kept = [], []
    for group in groups:
        require(
            "weight_decay" in group, "a group does not say its weight_decay: the optimiser's own would apply to it."
        )
        members = list(group["params"])
        kept.append(group if isinstance(group["params"], set) else {**group, "params": members})
        require(
            all(id(p) in names for p in members),
            "a group holds something that is no parameter of the model. model.parameters() gives the parameters, "
            "named_parameters() pairs of a name and one.",
        )
        got += [(names[id(p)], p.ndim, group["weight_decay"]) for p in members]
    listed = [name for name, _, _ in got]
    require(len(listed) == len(set(listed)), "some parameters are in both groups. Each must be in one.")
    missing = ", ".join(set(names.values()) - set(listed))
    require(not missing, f"every parameter must be in a group, or it is never trained. Missing: {missing}.")
    wrong = [name for name, ndim, decay in got if ndim == 1 and decay != 0]
    require(not wrong, f"one-dimensional parameters (biases, batch norm) must have no decay, but these do: {wrong}.")
    for name, ndim, decay in got:
        words = f"weights of convolutions and linear layers must have the decay 0.03 as passed, got {decay} for {name}."
        require(ndim == 1 or decay == 0.03, words)
    try:
        torch.optim.SGD(kept, lr=0.1)
    except (TypeError, ValueError) as error:
        raise Wrong(f"torch.optim.SGD refuses these groups ({error}). Let params be a list.") from None
    return "every parameter once, and only the weights of convolutions and linear layers are pulled towards 0."
