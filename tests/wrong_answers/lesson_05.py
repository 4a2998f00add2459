"""Answers to the exercises of lesson 05.

WRONG: name of the check -> what is wrong -> (answer, words that must come).
RIGHT: name of the check -> how it is written -> answer.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn


def step_without_zero_grad(model, optimizer, x, y, clip):
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.item()


def step_clipped_too_late(model, optimizer, x, y, clip):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    return loss.item()


def step_clipped_too_early(model, optimizer, x, y, clip):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    loss.backward()
    optimizer.step()
    return loss.item()


def step_without_clipping(model, optimizer, x, y, clip):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss.item()


def step_clipped_by_value(model, optimizer, x, y, clip):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    nn.utils.clip_grad_value_(model.parameters(), clip)
    optimizer.step()
    return loss.item()


def step_with_softmax(model, optimizer, x, y, clip):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x).softmax(dim=1), y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.item()


def step_wiped_out(model, optimizer, x, y, clip):
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


def step_returns_tensor(model, optimizer, x, y, clip):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss


def _step(model, optimizer, x, y, clipping):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    clipping()
    optimizer.step()
    return loss.item()


def step_always_rescaled(model, optimizer, x, y, clip):
    def rescale():
        norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
        for p in model.parameters():
            p.grad.mul_(clip / norm)

    return _step(model, optimizer, x, y, rescale)


def step_in_eval_mode(model, optimizer, x, y, clip):
    model.eval()
    return _step(model, optimizer, x, y, lambda: nn.utils.clip_grad_norm_(model.parameters(), clip))


def step_zero_grad_last(model, optimizer, x, y, clip):
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def step_clipped_to_ten(model, optimizer, x, y, clip):
    return _step(model, optimizer, x, y, lambda: nn.utils.clip_grad_norm_(model.parameters(), 10.0))


def step_clipped_to_one(model, optimizer, x, y, clip):
    return _step(model, optimizer, x, y, lambda: nn.utils.clip_grad_norm_(model.parameters(), 1.0))


def step_clipped_one_by_one(model, optimizer, x, y, clip):
    return _step(model, optimizer, x, y, lambda: [nn.utils.clip_grad_norm_(p, clip) for p in model.parameters()])


def step_half_clipped(model, optimizer, x, y, clip):
    return _step(model, optimizer, x, y, lambda: nn.utils.clip_grad_norm_(list(model.parameters())[2:], clip))


def step_taken_twice(model, optimizer, x, y, clip):
    loss = _step(model, optimizer, x, y, lambda: nn.utils.clip_grad_norm_(model.parameters(), clip))
    optimizer.step()
    return loss


def step_with_another_loss(model, optimizer, x, y, clip):
    optimizer.zero_grad()
    loss = F.nll_loss(model(x), y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.item()


def _smoothed(logits, y, smoothing, classes, share, dim=1):
    target = F.one_hot(y, classes) * (1 - smoothing) + share
    return -(target * logits.log_softmax(dim=dim))


def smoothing_classes_guessed(logits, y, smoothing):
    return _smoothed(logits, y, smoothing, -1, smoothing / logits.shape[1]).sum(dim=1).mean()


def smoothing_cut(logits, y, smoothing):
    return F.cross_entropy(logits, y, label_smoothing=smoothing).detach()


def smoothing_mean_of_all(logits, y, smoothing):
    return _smoothed(logits, y, smoothing, logits.shape[1], smoothing / logits.shape[1]).mean()


def smoothing_undivided(logits, y, smoothing):
    return _smoothed(logits, y, smoothing, logits.shape[1], smoothing).sum(dim=1).mean()


def smoothing_over_images(logits, y, smoothing):
    return _smoothed(logits, y, smoothing, logits.shape[1], smoothing / logits.shape[1], dim=0).sum(dim=1).mean()


def smoothing_a_tenth(logits, y, smoothing):
    return F.cross_entropy(logits, y, label_smoothing=0.1)


def smoothing_ignored(logits, y, smoothing):
    return F.cross_entropy(logits, y)


def smoothing_among_others(logits, y, smoothing):
    classes = logits.shape[1]
    target = F.one_hot(y, classes) * (1 - smoothing) + (1 - F.one_hot(y, classes)) * smoothing / (classes - 1)
    return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


def smoothing_added_on_top(logits, y, smoothing):
    target = F.one_hot(y, logits.shape[1]) + smoothing / logits.shape[1]
    return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


def smoothing_summed(logits, y, smoothing):
    return F.cross_entropy(logits, y, label_smoothing=smoothing, reduction="sum")


def smoothing_one_each(logits, y, smoothing):
    return F.cross_entropy(logits, y, label_smoothing=smoothing, reduction="none")


def smoothing_log_of_softmax(logits, y, smoothing):
    target = F.one_hot(y, logits.shape[1]) * (1 - smoothing) + smoothing / logits.shape[1]
    return -(target * logits.softmax(dim=1).log()).sum(dim=1).mean()


def smoothing_given_to_nobody(logits, y, smoothing):
    return (1 - smoothing) * F.cross_entropy(logits, y)


def smoothing_swapped(logits, y, smoothing):
    return F.cross_entropy(logits, y, label_smoothing=1 - smoothing)


def smoothing_of_logits(logits, y, smoothing):
    target = F.one_hot(y, logits.shape[1]) * (1 - smoothing) + smoothing / logits.shape[1]
    return -(target * logits).sum(dim=1).mean()


def groups_by_the_word_bias(model, weight_decay):
    named = list(model.named_parameters())
    return [
        {"params": [p for name, p in named if "bias" not in name], "weight_decay": weight_decay},
        {"params": [p for name, p in named if "bias" in name], "weight_decay": 0.0},
    ]


def groups_swapped(model, weight_decay):
    return [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.0},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": weight_decay},
    ]


def groups_without_linear(model, weight_decay):
    return [
        {"params": [p for p in model.parameters() if p.ndim == 4], "weight_decay": weight_decay},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]


def groups_overlapping(model, weight_decay):
    return [
        {"params": list(model.parameters()), "weight_decay": weight_decay},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]


def groups_decay_not_said(model, weight_decay):
    return [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in model.parameters() if p.ndim == 1]},
    ]


def groups_of_pairs(model, weight_decay):
    named = list(model.named_parameters())
    return [
        {"params": [pair for pair in named if pair[1].ndim > 1], "weight_decay": weight_decay},
        {"params": [pair for pair in named if pair[1].ndim == 1], "weight_decay": 0.0},
    ]


def groups_as_sets(model, weight_decay):
    return [
        {"params": {p for p in model.parameters() if p.ndim > 1}, "weight_decay": weight_decay},
        {"params": {p for p in model.parameters() if p.ndim == 1}, "weight_decay": 0.0},
    ]


def groups_of_a_fixed_decay(model, weight_decay):
    return [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 5e-4},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]


def groups_all_decayed(model, weight_decay):
    return [{"params": list(model.parameters()), "weight_decay": weight_decay}, {"params": [], "weight_decay": 0.0}]


def _share(model, batches):
    hits = seen = 0
    for x, y in batches:
        hits += (model(x).argmax(dim=1) == y).sum().item()
        seen += len(y)
    return hits / seen


def accuracy_in_train_mode(model, batches):
    with torch.inference_mode():
        return _share(model, batches)


def accuracy_left_in_eval_mode(model, batches):
    model.eval()
    with torch.inference_mode():
        return _share(model, batches)


def accuracy_left_in_train_mode(model, batches):
    share = accuracy_left_in_eval_mode(model, batches)
    model.train()
    return share


def accuracy_recorded(model, batches):
    was = model.training
    model.eval()
    share = _share(model, batches)
    model.train(was)
    return share


def accuracy_dropout_only(model, batches):
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.eval()
    with torch.no_grad():
        share = _share(model, batches)
    model.train(model.training)
    return share


def accuracy_batch_norm_only(model, batches):
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.eval()
    with torch.no_grad():
        return _share(model, batches)


def accuracy_of_nothing(model, batches):
    return 40 / 62


def accuracy_as_text(model, batches):
    return f"{_as_it_should_be(_share)(model, batches):.1%}"


def _as_it_should_be(loop):
    def answer(model, batches):
        was = model.training
        model.eval()
        with torch.no_grad():
            share = loop(model, batches)
        model.train(was)
        return share

    return answer


def accuracy_zeroes_gradients(model, batches):
    model.zero_grad()
    return _as_it_should_be(_share)(model, batches)


accuracy_mean_of_batches = _as_it_should_be(
    lambda model, batches: sum((model(x).argmax(1) == y).float().mean().item() for x, y in batches) / len(batches)
)
accuracy_counted = _as_it_should_be(lambda model, batches: _share(model, batches) * sum(len(y) for _, y in batches))
accuracy_in_percent = _as_it_should_be(lambda model, batches: 100 * _share(model, batches))
accuracy_of_errors = _as_it_should_be(lambda model, batches: 1 - _share(model, batches))
accuracy_full_batches_only = _as_it_should_be(
    lambda model, batches: _share(model, [batch for batch in batches if len(batch[1]) == len(batches[0][1])])
)
accuracy_first_batch_only = _as_it_should_be(lambda model, batches: _share(model, batches[:1]))
accuracy_as_tensor = _as_it_should_be(lambda model, batches: torch.tensor(_share(model, batches)))


accuracy_an_int = _as_it_should_be(
    lambda model, batches: sum((model(x).argmax(1) == y).sum().item() for x, y in batches)
)
accuracy_divided_down = _as_it_should_be(lambda model, batches: accuracy_an_int(model, batches) // 62)
accuracy_by_count_of_batches = _as_it_should_be(lambda model, batches: accuracy_an_int(model, batches) / len(batches))
accuracy_percent_of_batches = _as_it_should_be(lambda model, batches: 100 * accuracy_mean_of_batches(model, batches))
accuracy_percent_rounded = _as_it_should_be(lambda model, batches: round(100 * _share(model, batches), 2))


@_as_it_should_be
def accuracy_return_in_loop(model, batches):
    hits = seen = 0
    for x, y in batches:
        hits += (model(x).argmax(dim=1) == y).sum().item()
        seen += len(y)
        return hits / seen


@_as_it_should_be
def accuracy_sums_reset(model, batches):
    for x, y in batches:
        hits = (model(x).argmax(dim=1) == y).sum().item()
        seen = len(y)
    return hits / seen


def accuracy_freezes_weights(model, batches):
    model.requires_grad_(False)
    return _as_it_should_be(_share)(model, batches)


def accuracy_switches_gradients_off(model, batches):
    torch.set_grad_enabled(False)
    return _as_it_should_be(_share)(model, batches)


def accuracy_of_a_copy(model, batches):
    with torch.no_grad():
        return _share(copy.deepcopy(model).eval(), batches)


def accuracy_with_all_images_at_once(model, batches):
    was, x, y = model.training, torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    with torch.no_grad():
        share = (model.eval()(x).max(dim=1).indices == y).double().mean().item()
    model.train(was)
    return share


@torch.inference_mode()
def accuracy_decorated(model, batches):
    was = model.training
    try:
        return _share(model.eval(), batches)
    finally:
        model.train(was)


WRONG = {
    "accuracy": {
        "train mode": (accuracy_in_train_mode, "train mode"),
        "only dropout switched": (accuracy_dropout_only, "batch norm was in train mode"),
        "only batch norm switched": (accuracy_batch_norm_only, "dropout"),
        "never asks the network": (accuracy_of_nothing, "never asked"),
        "text": (accuracy_as_text, "as a float, got str"),
        "left in eval mode": (accuracy_left_in_eval_mode, "came in train mode and goes in eval mode"),
        "left in train mode": (accuracy_left_in_train_mode, "came in eval mode and goes in train mode"),
        "recorded for gradients": (accuracy_recorded, "inference_mode"),
        "wipes gradients": (accuracy_zeroes_gradients, "gradients of the network were changed"),
        "mean over batches": (accuracy_mean_of_batches, "mean over the batches"),
        "a count": (accuracy_counted, "number of right answers"),
        "percent": (accuracy_in_percent, "in percent"),
        "share of errors": (accuracy_of_errors, "share of wrong answers"),
        "full batches only": (accuracy_full_batches_only, "smaller last batch are not counted"),
        "first batch only": (accuracy_first_batch_only, "expected"),
        "a tensor": (accuracy_as_tensor, "not as a tensor"),
        "a count, an int": (accuracy_an_int, "number of right answers"),
        "integer division": (accuracy_divided_down, "not `//`"),
        "divided by the number of batches": (accuracy_by_count_of_batches, "divided by the number of batches"),
        "percent, rounded": (accuracy_percent_rounded, "in percent"),
        "mean over batches, in percent": (accuracy_percent_of_batches, "between 0 and 1"),
        "return inside the loop": (accuracy_return_in_loop, "inside the loop"),
        "sums start anew in each batch": (accuracy_sums_reset, "added up over all batches"),
        "freezes the weights": (accuracy_freezes_weights, "could not be trained further"),
        "gradients stay off": (accuracy_switches_gradients_off, "could not be trained further"),
    },
    "training_step": {
        "no zero_grad": (step_without_zero_grad, "zero_grad() is missing"),
        "clips after the step": (step_clipped_too_late, "clipped after step()"),
        "clips before backward": (step_clipped_too_early, "not clipped"),
        "does not clip": (step_without_clipping, "not clipped"),
        "clips each number": (step_clipped_by_value, "by itself"),
        "softmax before cross_entropy": (step_with_softmax, "softmax before cross_entropy"),
        "zero_grad between backward and step": (step_wiped_out, "did not change"),
        "always rescales": (step_always_rescaled, "as it is"),
        "eval mode": (step_in_eval_mode, "model.eval()"),
        "zero_grad only after step": (step_zero_grad_last, "not only after step()"),
        "clips to 10": (step_clipped_to_ten, "not clipped to `clip`"),
        "clips to 1": (step_clipped_to_one, "clipping"),
        "clips tensor by tensor": (step_clipped_one_by_one, "together"),
        "clips half the parameters": (step_half_clipped, "all parameters"),
        "steps twice": (step_taken_twice, "ran 2 times"),
        "another loss": (step_with_another_loss, "Is the loss F.cross_entropy"),
        "returns a tensor": (step_returns_tensor, "loss.item()"),
    },
    "label_smoothing_loss": {
        "no smoothing": (smoothing_ignored, "no effect"),
        "shares among the wrong classes only": (smoothing_among_others, "all K"),
        "right class keeps its weight": (smoothing_added_on_top, "whole weight"),
        "sum over the batch": (smoothing_summed, "the mean"),
        "one loss an image": (smoothing_one_each, "for each image"),
        "number of classes guessed from y": (smoothing_classes_guessed, "give it K"),
        "cut from the graph": (smoothing_cut, "no gradient"),
        "mean over images and classes": (smoothing_mean_of_all, "divided by K"),
        "smoothing not divided": (smoothing_undivided, "smoothing / K"),
        "softmax over the images": (smoothing_over_images, "dim=1"),
        "always a tenth": (smoothing_a_tenth, "smoothing 0.1"),
        "only the right class": (smoothing_given_to_nobody, "reaches no class"),
        "shares swapped": (smoothing_swapped, "swapped"),
        "logits in place of log-probabilities": (smoothing_of_logits, "not the logits"),
        "log of softmax": (smoothing_log_of_softmax, "log_softmax"),
    },
    "weight_decay_groups": {
        "batch norm's scale decays": (groups_by_the_word_bias, "no decay"),
        "groups swapped": (groups_swapped, "no decay"),
        "linear weights in no group": (groups_without_linear, "every parameter"),
        "parameters in both groups": (groups_overlapping, "both groups"),
        "a group without weight_decay": (groups_decay_not_said, "does not say"),
        "pairs of names and parameters": (groups_of_pairs, "no parameter of the model"),
        "sets": (groups_as_sets, "Let params be a list"),
        "decay fixed at 5e-4": (groups_of_a_fixed_decay, "0.03 as passed, got 0.0005"),
        "everything decays": (groups_all_decayed, "no decay"),
    },
}


RIGHT = {
    "accuracy": {
        "all images at once": accuracy_with_all_images_at_once,
        "a copy in eval mode": accuracy_of_a_copy,
        "inference_mode as a decorator": accuracy_decorated,
        "loop over no_grad": _as_it_should_be(_share),
    },
}
