"""Checks of the exercises of lesson 05."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from helpers.checks.frame import Exercise, call, gradient, require, sizes
from helpers.checks.networks import Nested
from helpers.model import CustomResNet


def _step(model, optimizer, x, y, clip, order="zero loss backward clip step", loss=F.cross_entropy):
    """A training step that does what `order` says."""
    for action in order.split():
        if action == "loss":
            value = loss(model(x), y)
        elif action == "backward":
            value.backward()
        elif action == "clip":
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        else:
            {"zero": optimizer.zero_grad, "step": optimizer.step}[action]()
    return value.item()


def _stepped(answer, model, optimizer, xs, ys, clip):
    """Some steps of a network that holds an old gradient."""
    F.cross_entropy(model(xs[0]), ys[0]).backward()
    passes = model.body[1]["norm"].num_batches_tracked
    before, losses, weights = passes.item(), [], [nn.utils.parameters_to_vector(model.parameters()).detach()]
    for x, y in zip(xs, ys, strict=True):
        losses.append(call(answer, model, optimizer, x, y, clip))
        require(not isinstance(losses[0], torch.Tensor), "return a number, not a tensor: `loss.item()`.")
        weights.append(nn.utils.parameters_to_vector(model.parameters()).detach())
    return {
        "the number of forward passes in train mode": passes - before,
        "the norm of the weights' change, by step,": torch.stack(weights).diff(dim=0).norm(dim=1),
        "the loss, by step,": losses,
        "the weights, by step,": weights,
    }


def _before_steps():
    for clip in (0.3, 100.0, torch.rand(()).item()):
        model = Nested()
        xs = [2 * torch.randn(count, 3, 4, 4) for count in sizes(3)]
        ys = [torch.randint(3, (len(x),)) for x in xs]
        yield model, torch.optim.SGD(model.groups(), lr=0.3, momentum=0.9), xs, ys, clip


training_step = Exercise(
    reference=_step,
    cases=_before_steps,
    run=_stepped,
    changes=("model", "optimizer"),
    mistakes={
        words: partial(_step, order=order)
        for order, words in {
            "loss backward clip step": "gradients of earlier batches are still added: zero_grad() before backward().",
            "zero loss backward step": "the gradient was not clipped: clip it between backward() and step().",
            "loss backward clip zero step": "the weights do not change: step() is missing, or zero_grad() before it.",
        }.items()
    }
    | {
        "softmax before cross_entropy: cross_entropy takes the logits as they are.": (
            partial(_step, loss=lambda logits, y: F.cross_entropy(logits.softmax(1), y))
        ),
    },
    praise="old gradients out, loss, backward, clip, step: in this order.",
    tolerance=1e-5,
)


def _accuracy(model, batches, of=torch.cat, mode=False, leave=None):
    was = model.training
    model.train(was and mode)
    with torch.no_grad():
        hits = of([(model(x).argmax(1) == y).double() for x, y in batches])
    model.train(was if leave is None else leave)
    return hits.mean().item()


def _shared(answer, model, batches):
    share = call(answer, model, batches)
    require(not isinstance(share, torch.Tensor), "return a number, not a tensor: `.item()` makes one.")
    return {"the accuracy": share}


def _networks_to_judge():
    for training, (size, count) in ((True, (6, 61)), (False, sizes(2, 9, 40)), (True, sorted(sizes(2, 3, 40)))):
        model, x = Nested(), 2 * torch.randn(count, 3, 4, 4)
        model(3 * x + 1)  # running averages unlike the statistics of the batches
        y = model.eval()(x).argmax(1)
        F.cross_entropy(model(x), y).backward()  # gradients that are to stay
        y = (y + (torch.rand(count) < torch.rand(()))) % 3
        yield model.train(training), DataLoader(TensorDataset(x, y), size)  # as Batches: one after the other, no index


accuracy = Exercise(
    reference=_accuracy,
    cases=_networks_to_judge,
    run=_shared,
    mistakes={
        "the share is that of train mode. Call model.eval() first.": partial(_accuracy, mode=True),
        "the network must go in the mode in which it came: note `model.training` first, and set it back.": (
            partial(_accuracy, leave=False),
            partial(_accuracy, leave=True),
        ),
        "that is the mean over the batches: the smaller last batch counts too much. Add up hits and images.": (
            partial(_accuracy, of=lambda hits: torch.stack([h.mean() for h in hits]))
        ),
        "only one batch counts: does `return` stand inside the loop?": partial(_accuracy, of=lambda hits: hits[0]),
    },
    praise="eval mode, every image counted once, and the network as it came.",
    tolerance=1e-6,
)


def _groups(model, weight_decay, decays=lambda name, p: p.ndim > 1, rest=0.0):
    groups = [{"params": [], "weight_decay": decay} for decay in (rest, weight_decay)]
    for name, p in model.named_parameters():
        groups[decays(name, p)]["params"].append(p)
    return groups


def _grouped(answer, model, weight_decay):
    """How often each parameter is listed, and its decay; that of a group which says nothing about it is 1."""
    groups = torch.optim.SGD(call(answer, model, weight_decay), lr=0.1, weight_decay=1.0).param_groups
    decays = [(id(p), group["weight_decay"]) for group in groups for p in group["params"]]
    own = {id(p) for p in model.parameters()}
    require(
        all(key in own for key, _ in decays) and not any("param_names" in group for group in groups),
        "list the parameters themselves: no copies, and no pairs as named_parameters() gives them.",
    )
    seen = {"the number of groups": len(groups)}
    for name, p in model.named_parameters():
        found = [decay for key, decay in decays if key == id(p)]
        seen[f"the number of times that `{name}` is listed"] = len(found)
        seen[f"the weight decay of `{name}`"] = found[0] if found else None
    return seen


def _networks_to_group():
    tied = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    tied[2].weight = tied[0].weight
    return [(model, 0.1 * torch.rand(()).item()) for model in (Nested(), CustomResNet(width=2), tied)]


weight_decay_groups = Exercise(
    reference=_groups,
    cases=_networks_to_group,
    run=_grouped,
    mistakes={
        "one-dimensional parameters (biases, batch norm) must have no decay. Their names do not tell, p.ndim does.": (
            partial(_groups, decays=lambda name, p: "bias" not in name),
            partial(_groups, decays=lambda name, p: True),
        ),
        "a group does not say its weight_decay: the optimiser's own would apply to it.": partial(_groups, rest=1.0),
    },
    praise="every parameter once, and only the weights of convolutions and linear layers are pulled towards 0.",
)


def _shared_among_the_wrong(logits, y, smoothing):
    k = logits.shape[1]
    right = F.one_hot(y, k)
    return F.cross_entropy(logits, (1 - smoothing) * right + smoothing / (k - 1) * (1 - right))


def _fragile(logits, y, smoothing):
    log_p = logits.softmax(1).log()
    return (1 - smoothing) * F.nll_loss(log_p, y) - smoothing * log_p.mean()


def _with_gradient(answer, logits, y, smoothing):
    loss = call(answer, logits.requires_grad_(), y, smoothing)
    return {"the loss": loss, "the gradient": gradient(loss, logits)}


label_smoothing_loss = Exercise(
    reference=lambda logits, y, smoothing: F.cross_entropy(logits, y, label_smoothing=smoothing),
    cases=lambda: [
        (scale * torch.randn(b, k), torch.randint(k - missing, (b,)), s)  # large logits, classes that do not occur
        for scale, s, missing in ((1, 0.1, 0), (2, 0.4, 1), (50, 0.3, 1), (2, 0.0, 0), (2, 1.0, 2))
        for b, k in [sizes(2, 3, 12)]
    ],
    run=_with_gradient,
    mistakes={
        "there is no smoothing in it: the target is 1 for the right class.": lambda x, y, s: F.cross_entropy(x, y),
        "smoothing was shared among the wrong classes only. It is shared among all K, the right one included.": (
            _shared_among_the_wrong
        ),
        "that is the sum over the batch. Return the mean.": (
            lambda x, y, s: F.cross_entropy(x, y, label_smoothing=s, reduction="sum")
        ),
        "with large logits the loss is not finite. Use log_softmax, not the log of a softmax.": _fragile,
    },
    praise="the smoothed target against the log-probabilities, averaged over the batch.",
)
