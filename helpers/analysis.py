"""From predictions to understanding. One pass over the images collects logits and features; the rest works on those.

Three functions run a network again, because a collected result cannot answer them: `grad_cam`, `occlusion` and
`cross_validate`. Everything that comes out lies on the CPU, rows in the order of the images.
"""

import contextlib
import itertools
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn

from helpers.data import Batches, Images
from helpers.utils import figure


@dataclass(frozen=True)
class Predictions:
    """What a network said about `images`: row i of `logits` belongs to image i and label i, always.

    images: the N images with their labels.
    logits: float (N, K) for K classes; kept on the CPU.
    features: float (N, D), what the network's last linear layer was given; None if it has none.

    Raises:
        ValueError: logits or features of another number of images or classes; logits that are not finite.
    """

    images: Images
    logits: torch.Tensor
    features: torch.Tensor | None = None

    def __post_init__(self):
        for name in ("logits", "features"):
            if (values := getattr(self, name)) is not None:
                object.__setattr__(self, name, values.detach().cpu())
        expected = (len(self.images), len(self.images.classes))
        if tuple(self.logits.shape) != expected or not self.logits.is_floating_point():
            raise ValueError(
                f"Predictions: logits must be {expected}, one row an image and one column a class, floating point; got "
                f"{tuple(self.logits.shape)}, {self.logits.dtype}. Pass the logits of these images, of a network with "
                "as many outputs."
            )
        if self.features is not None and (self.features.ndim != 2 or len(self.features) != len(self.images)):
            shape = tuple(self.features.shape)
            raise ValueError(f"Predictions: features must be ({len(self.images)}, D), one row an image, got {shape}.")
        _check_finite(self.logits, "Predictions")

    @property
    def probabilities(self) -> torch.Tensor:
        """(N, K), each row sums to 1."""
        return self.logits.softmax(dim=1)

    @property
    def predicted(self) -> torch.Tensor:
        """(N,) the class with the largest logit."""
        return self.logits.argmax(dim=1)

    @property
    def confidence(self) -> torch.Tensor:
        """(N,) the probability of the predicted class."""
        return self.probabilities.amax(dim=1)

    @property
    def correct(self) -> torch.Tensor:
        """(N,) bool."""
        return self.predicted == self.images.y

    @property
    def accuracy(self) -> float:
        """Share of the images whose label was predicted. ValueError for 0 images."""
        _check_not_empty(self, "accuracy")
        return self.correct.float().mean().item()

    def at(self, temperature: float) -> "Predictions":
        """The same with logits / temperature: above 1 less sure, below 1 surer. No predicted class changes."""
        if not 0 < temperature < math.inf:
            raise ValueError(f"Predictions.at: the temperature must be a finite number above 0, got {temperature}.")
        return Predictions(self.images, self.logits / temperature, self.features)

    def take(self, indices: torch.Tensor) -> "Predictions":
        """The predictions at these positions (a bool mask will do), beside their images."""
        features = None if self.features is None else self.features[indices]
        return Predictions(self.images.take(indices), self.logits[indices], features)


def _check_not_empty(predictions: Predictions, name: str) -> None:
    if len(predictions.images) == 0:
        raise ValueError(f"{name} of 0 images is not defined. Pass the predictions of at least one image.")


def _check_finite(logits: torch.Tensor, name: str) -> None:
    bad = (~logits.isfinite()).any(dim=1).nonzero().flatten()
    if len(bad):
        raise ValueError(
            f"{name}: the logits of {len(bad)} of {len(logits)} images (first: {int(bad[0])}) are not finite numbers. "
            "The network is damaged: train it again. Or a number was too large for its precision: try model.float()."
        )


def _check_whole(value: int, name: str, least: int = 1, most: float = math.inf) -> None:
    if not isinstance(value, numbers.Integral) or not least <= value <= most:
        limit = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        raise ValueError(f"{name} must be a whole number {limit}, got {value!r}.")


# ---------------------------------------------------------------- one pass


@contextlib.contextmanager
def _eval_mode(model: nn.Module):
    """Eval mode inside. Whatever happens, each module is afterwards in the mode in which it came."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _logits(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """float32 (B, K): what the network says of the images x, wherever it is and whatever its precision."""
    weights = itertools.chain(model.parameters(), model.buffers())
    home = next((value for value in weights if value.is_floating_point()), x)
    logits = model(x.to(home.device, home.dtype))
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != len(x):
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"{type(model).__name__} must return logits (B, classes) for B = {len(x)}, got {got}.")
    _check_finite(logits, type(model).__name__)
    return logits.float()


def predict(model: nn.Module, batches: Batches) -> Predictions:
    """Run `model` once over `batches`, in eval mode, and keep each logit beside the image that it belongs to.

    Features are what goes into the nn.Linear that runs last, flattened to (N, D): in most networks the pooled output
    of the last stage. The images go to the network's device; the network is left in the mode in which it came.

    Raises:
        ValueError: batches are shuffled, augmented or leave images out, so that logits would not belong to the images;
            the network does not return finite logits (B, K) with K the number of classes.
    """
    if not isinstance(batches, Batches) or batches.shuffle or batches.augment or batches.drop_last:
        raise ValueError(
            "predict needs every image once, in order and unchanged: "
            "build Batches without shuffle, augment and drop_last."
        )
    last = []  # the input of the linear layer that ran last

    def keep(_layer, inputs):
        last[:] = inputs[:1]

    hooks = [layer.register_forward_pre_hook(keep) for layer in model.modules() if isinstance(layer, nn.Linear)]
    logits, features = [], []
    try:
        with _eval_mode(model), torch.inference_mode():
            for x, _ in batches:
                logits.append(_logits(model, x).cpu())
                if last and len(last[0]) == len(x):
                    # clone: a part of a larger tensor would keep all of that in memory
                    features.append(last[0].flatten(1).float().cpu().clone())
    finally:
        for hook in hooks:
            hook.remove()
    # Joined out here: what is made in inference mode can never take part in training, and a temperature is trained.
    return Predictions(batches.dataset, torch.cat(logits), torch.cat(features) if features else None)


# ---------------------------------------------------------------- how often it errs


def interval(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Range that covers the true accuracy behind `hits` of `count` in 95 of 100 cases (Wilson 1927).

    Unlike hits/count plus or minus two standard errors it stays within 0 and 1 and is honest for small counts.
    """
    if not 0 <= hits <= count or count < 1:
        raise ValueError(f"interval needs 0 <= hits <= count and count >= 1, got hits={hits} and count={count}.")
    share = hits / count
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return (centre - spread) / scale, (centre + spread) / scale


def accuracy_interval(predictions: Predictions) -> tuple[float, float]:
    """(low, high): the `interval` of the accuracy. ValueError for 0 images."""
    _check_not_empty(predictions, "accuracy_interval")
    return interval(int(predictions.correct.sum()), len(predictions.images))


def top_k(predictions: Predictions, k: int) -> float:
    """Share of the images whose label is among the k classes with the largest logits; k=1 is the accuracy.

    Of equal logits the class that comes first counts as larger, as in `predicted`. ValueError: k is not in 1 to K.
    """
    _check_not_empty(predictions, "top_k")
    _check_whole(k, "top_k: k", most=len(predictions.images.classes))
    best = predictions.logits.argsort(dim=1, descending=True, stable=True)[:, :k]
    return (best == predictions.images.y.unsqueeze(1)).any(dim=1).float().mean().item()


def confusion(predictions: Predictions) -> torch.Tensor:
    """int64 (K, K): row = true class, column = predicted class, entry = number of images."""
    classes = len(predictions.images.classes)
    pairs = predictions.images.y * classes + predictions.predicted
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def per_class(predictions: Predictions) -> dict[str, torch.Tensor]:
    """Tensors (K,): "precision" (NaN for a class never predicted), "recall" (NaN for a class without images), "f1",
    their harmonic mean 2 hits / (images + predictions) (NaN for a class without either), "support" (int64, images).
    """
    matrix = confusion(predictions)
    hits, support, said = matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)
    return {"precision": hits / said, "recall": hits / support, "f1": 2 * hits / (support + said), "support": support}


def per_class_accuracy(predictions: Predictions) -> torch.Tensor:
    """(K,) share of each true class that was predicted as such (recall); NaN for a class without images."""
    return per_class(predictions)["recall"]


# ---------------------------------------------------------------- which images


def most_confused(predictions: Predictions, count: int = 5) -> list[tuple[str, str, int]]:
    """The (up to `count`) most frequent mistakes as (true class, predicted class, images), most frequent first."""
    _check_whole(count, "most_confused: count")
    matrix = confusion(predictions).fill_diagonal_(0)
    names = predictions.images.classes
    order = matrix.flatten().argsort(descending=True, stable=True)[:count]
    cells = [divmod(int(cell), len(names)) for cell in order]
    return [(names[true], names[said], int(matrix[true, said])) for true, said in cells if matrix[true, said]]


def most_confident_mistakes(predictions: Predictions, count: int = 10) -> torch.Tensor:
    """Positions of the (up to `count`) misclassified images of highest confidence, most confident first."""
    _check_whole(count, "most_confident_mistakes: count")
    return _by_confidence(predictions, ~predictions.correct, descending=True)[:count]


def least_confident_hits(predictions: Predictions, count: int = 10) -> torch.Tensor:
    """Positions of the (up to `count`) rightly classified images of lowest confidence, least confident first."""
    _check_whole(count, "least_confident_hits: count")
    return _by_confidence(predictions, predictions.correct, descending=False)[:count]


def _by_confidence(predictions: Predictions, mask: torch.Tensor, descending: bool) -> torch.Tensor:
    """Positions where `mask` holds, sorted by confidence; equal ones keep the order of the images."""
    positions = mask.nonzero().flatten()
    # in 64 bits: with 32 every confidence above 0.99999997 is 1, and the surest of all could not be told
    confidence = predictions.logits[positions].double().softmax(dim=1).amax(dim=1)
    return positions[confidence.argsort(descending=descending, stable=True)]


def suspects(predictions: Predictions, count: int | None = None) -> torch.Tensor:
    """Positions of the images whose given label gets the least probability, most suspicious first; None: all images.

    Only for images that the network did not train on (held out, or from `cross_validate`): it may have learned wrong
    labels by heart. Suspected is not proved: a hard image with the right label looks the same. Northcutt et al. 2019
    call the probability of the given label self-confidence.
    """
    if count is not None:
        _check_whole(count, "suspects: count")
    given = predictions.logits.double().log_softmax(dim=1).gather(1, predictions.images.y.unsqueeze(1))
    return given.flatten().argsort(stable=True)[:count]


# ---------------------------------------------------------------- can its confidence be believed?


def calibration(predictions: Predictions, bins: int = 15) -> dict[str, torch.Tensor]:
    """The images in `bins` of equal width by confidence (Guo et al. 2017, section 2), as tensors (bins,).

    Bin i holds the confidences above i/bins, up to and including (i+1)/bins; so 1.0 is in the last one.
    "count" (int64): images in it; "confidence": their mean; "accuracy": share of them that is right. NaN if empty.
    """
    _check_whole(bins, "calibration: bins")
    confidence = predictions.confidence
    place = torch.bucketize(confidence, torch.arange(1, bins) / bins)  # the inner borders; each belongs to its left
    count = torch.bincount(place, minlength=bins)
    totals = {"confidence": confidence.double(), "accuracy": predictions.correct.double()}
    means = {name: torch.bincount(place, value, minlength=bins) / count for name, value in totals.items()}
    return {"count": count} | {name: mean.float() for name, mean in means.items()}


def calibration_error(predictions: Predictions, bins: int = 15) -> float:
    """Expected calibration error, 0 to 1 (Guo et al. 2017, equation 3; table 1 has 15 bins). ValueError for 0 images.

    The mean distance of accuracy and confidence, each bin of `calibration` weighted by its number of images.
    """
    _check_not_empty(predictions, "calibration_error")
    table = calibration(predictions, bins)
    gap = (table["accuracy"] - table["confidence"]).abs()
    return ((table["count"] * gap).nansum() / len(predictions.images)).item()


def reliability_diagram(predictions: Predictions, title: str, bins: int = 15, ax=None) -> None:
    """Draw accuracy (bars, with their `interval`) and mean confidence (marks) of each bin; ValueError for 0 images.

    Without `ax` it makes and shows a figure of its own, with a legend beside it. With `ax` it draws there, `title` is
    that panel's, and the legend is left to the caller: one serves all panels.
    """
    error = calibration_error(predictions, bins)
    table = calibration(predictions, bins)
    own = ax is None
    if own:
        _, ax = figure(title, predictions.images.name, size=(7.5, 4.5))
    else:
        ax.set_title(title)
    filled = table["count"].nonzero().flatten()
    middle = (filled.numpy() + 0.5) / bins
    count, confidence, accuracy = (table[name][filled].numpy() for name in ("count", "confidence", "accuracy"))
    hits = (accuracy * count).round()
    low, high = zip(*map(interval, hits.tolist(), count.tolist()), strict=True)
    ax.bar(middle, accuracy, 0.9 / bins, color="tab:blue", alpha=0.5, label="accuracy, with its 95% range")
    ax.vlines(middle, low, high, color="tab:blue")
    ax.plot(middle, confidence, "D", color="tab:orange", markersize=5, label="mean confidence")
    ax.plot([0, 1], [0, 1], "--", color="grey", linewidth=1, label="accuracy = confidence")
    ax.set(xlabel=f"confidence (calibration error {error:.3f})", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    if own:
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9, frameon=False)
        plt.show()


def fit_temperature(predictions: Predictions) -> float:
    """The temperature T > 0 at which the cross-entropy of logits / T is smallest (Guo et al. 2017, section 4.2).

    Fit it on validation images and use it on test images, `test_predictions.at(T)`. ValueError if there is no such T:
    no image, no mistake among them, or logits that say nothing about the labels.
    """
    _check_not_empty(predictions, "fit_temperature")
    logits = predictions.logits.double()
    logits = logits - logits.amax(dim=1, keepdim=True)  # the softmax stays the same, sums get more exact
    given = logits.gather(1, predictions.images.y.unsqueeze(1)).flatten()

    def slope(b):
        """How the cross-entropy changes with b = 1/T: mean logit under the softmax, minus the label's logit."""
        return ((logits * (b * logits).softmax(dim=1)).sum(dim=1) - given).mean().item()

    if slope(0.0) >= 0:
        raise ValueError(
            "fit_temperature: these logits tell no more about the labels than guessing, so the larger T, the better. "
            "Is the network trained, and do the labels belong to the images?"
        )
    if (given == 0).all():
        raise ValueError(
            f"fit_temperature: all {len(given)} images are right, so the smaller T, the better. "
            "Pass more validation images, with mistakes among them; images that were trained on will not do."
        )
    # The slope only ever rises with b: below 0 left of the minimum, above 0 right of it. Enclose it, then halve.
    low, high = 0.0, 1.0
    while slope(high) < 0:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / high


# ---------------------------------------------------------------- what is alike for the network?


def nearest(features: torch.Tensor, among: torch.Tensor, count: int = 5) -> torch.Tensor:
    """int64 (Q, count): for each row of `features` (Q, D) the most similar rows of `among` (N, D), nearest first.

    Similar: a large cosine of the angle between them; of equal ones the earlier comes first. A row that is in `among`
    finds itself: ask for one more. ValueError: features None, not finite or of different D, fewer than `count` rows.
    """
    if features is None or among is None:
        raise ValueError("nearest got None for features: `predict` finds none in a network without nn.Linear.")
    if features.ndim != 2 or among.ndim != 2 or features.shape[1] != among.shape[1]:
        shapes = f"{tuple(features.shape)} and {tuple(among.shape)}"
        raise ValueError(f"nearest needs features (Q, D) and among (N, D) from the same network, got {shapes}.")
    if not (features.isfinite().all() and among.isfinite().all()):
        raise ValueError("nearest: some features are not finite numbers. The network is damaged: train it again.")
    _check_whole(count, "nearest: count (rows of `among`)", most=len(among))
    among = F.normalize(among.double(), dim=1)
    found = []
    for part in features.split(500):  # (500, N) similarities at a time
        # Summed in 64 bits, then rounded to 32: equal rows get equal similarities, in whatever order they were summed.
        similarity = (F.normalize(part.double(), dim=1) @ among.T).float()
        found.append(similarity.argsort(dim=1, descending=True, stable=True)[:, :count])
    return torch.cat(found)


# ---------------------------------------------------------------- where does the network look?


def _check_images(x: torch.Tensor, name: str) -> None:
    if not isinstance(x, torch.Tensor) or x.ndim != 4 or len(x) == 0 or not x.is_floating_point():
        got = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise ValueError(
            f"{name}: x must be normalised images, float (B, C, H, W) with B at least 1, as Batches yields; got {got}. "
            "A single image needs a batch dimension: x.unsqueeze(0)."
        )


def _of_target(values: torch.Tensor, target: int | torch.Tensor, name: str) -> torch.Tensor:
    """(B,) from `values` (B, K): in each row the entry of the target class, one for all rows or one for each."""
    target = torch.as_tensor(target, device=values.device)
    count, classes = values.shape
    one_or_each = not target.is_floating_point() and target.shape in ((), (count,))
    if not one_or_each or not ((target >= 0) & (target < classes)).all():
        raise ValueError(
            f"{name}: target must be a class from 0 to {classes - 1}, or a tensor of {count} such classes, one an "
            f"image; got {target.tolist()}."
        )
    # clone: a target made in inference mode could not take part in a backward pass
    return values.gather(1, target.long().expand(count).clone().unsqueeze(1)).flatten()


def grad_cam(model: nn.Module, layer: nn.Module, x: torch.Tensor, target: int | torch.Tensor) -> torch.Tensor:
    """float (B, h, w), at least 0: which places of `layer`'s output speak for the target class.

    Grad-CAM (Selvaraju et al. 2016, section 3, equations 1 and 2): the channels, each times the mean over its pixels of
    the gradient of the target's logit, are added; what is below 0 becomes 0. Neither enlarged nor normalised.

    Args:
        model: returns logits; runs in eval mode. Its mode, gradients and hooks are left as they were.
        layer: a module of it whose output is (B, C, h, w); one that runs more than once counts with its last run.
        x: float (B, C, H, W), normalised.
        target: a class, or int64 (B,), one for each image.

    Raises:
        ValueError: the layer's output has no height and width, the logits do not depend on it, bad x or target.
    """
    _check_images(x, "grad_cam")
    if not isinstance(layer, nn.Module):
        raise ValueError(f"grad_cam: layer must be a module of the network, such as model.layer3, got {layer!r}.")
    kept = []

    def keep(_layer, _inputs, output):
        if not isinstance(output, torch.Tensor) or output.ndim != 4:
            got = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise ValueError(
                f"grad_cam needs a layer whose output is (B, C, h, w), but {type(layer).__name__} returned {got}. Pass "
                "a convolutional stage; a network without convolutions has no places to show: use `occlusion`."
            )
        kept.append(output.detach().requires_grad_())  # gradients are followed back to here, and no further
        return kept[-1].clone()  # a ReLU that works in place changes the clone, not what is kept

    hook = layer.register_forward_hook(keep)
    try:
        with _eval_mode(model), torch.inference_mode(False), torch.enable_grad():
            score = _of_target(_logits(model, x.detach().clone()), target, "grad_cam").sum()
            followed = kept and score.requires_grad
            slope = torch.autograd.grad(score, kept[-1], allow_unused=True)[0] if followed else None
    finally:
        hook.remove()
    if slope is None:
        raise ValueError(
            f"grad_cam: the logits of {type(model).__name__} do not depend on this layer ({type(layer).__name__})."
            " Pass a module of this same network that its forward pass uses."
        )
    weights = slope.float().mean(dim=(2, 3), keepdim=True)
    return (weights * kept[-1].detach().float()).sum(dim=1).relu().cpu()


def occlusion(
    model: nn.Module, x: torch.Tensor, target: int | torch.Tensor, size: int = 8, stride: int = 4
) -> torch.Tensor:
    """float (B, rows, columns): how far the target's probability drops when a square covers that place, -1 to 1.

    Occlusion sensitivity (Zeiler & Fergus 2013, section 4.2); model, x and target as for `grad_cam`. Entry (i, j) is
    for the square of `size` pixels with its upper left corner at (i * stride, j * stride), filled with 0, the mean
    colour of normalised images; squares that do not fit are left out. Below 0: covering helps. The network runs
    1 + rows * columns times. ValueError: a square larger than the image, a stride below 1, bad x or target.
    """
    _check_images(x, "occlusion")
    _check_whole(size, "occlusion: size", most=min(x.shape[2:]))
    _check_whole(stride, "occlusion: stride")

    def probability(images):
        return _of_target(_logits(model, images).softmax(dim=1), target, "occlusion").cpu()

    tops, lefts = (range(0, side - size + 1, stride) for side in x.shape[2:])
    drops = torch.empty(len(x), len(tops), len(lefts))
    with _eval_mode(model), torch.inference_mode():
        whole = probability(x)
        for (row, top), (column, left) in itertools.product(enumerate(tops), enumerate(lefts)):
            covered = x.clone()
            covered[:, :, top : top + size, left : left + size] = 0
            drops[:, row, column] = whole - probability(covered)
    return drops


# ---------------------------------------------------------------- predictions of images that were not trained on


def cross_validate(
    make_and_train: Callable[[Images], tuple], images: Images, folds: int = 5, seed: int = 0
) -> Predictions:
    """Every image predicted by a network that did not train on it. Trains `folds` networks.

    `make_and_train` is given all images but those of one fold and returns (network, stats): a new network trained on
    them, and the mean and standard deviation that its images are normalised with. The folds are drawn at random, of
    equal size (give or take one), the classes spread evenly. The result has no features: those of different networks
    cannot be compared. ValueError: folds is not in 2 to the number of images, or a network comes twice.
    """
    _check_whole(folds, "cross_validate: folds (2 to the number of images)", least=2, most=len(images))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    order = order[images.y[order].argsort(stable=True)]  # class after class, at random within a class,
    fold = torch.empty(len(images), dtype=torch.int64)
    fold[order] = torch.arange(len(images)) % folds  # dealt out one by one, like cards
    logits = torch.empty(len(images), len(images.classes))
    model = None
    for number in range(folds):
        held_out, previous = fold == number, model
        model, stats = make_and_train(images.take(~held_out))
        if model is previous:
            raise ValueError(
                "cross_validate: make_and_train returned the network of the fold before, which has trained on images "
                "that are held out now. Build a new network in each call."
            )
        logits[held_out] = predict(model, Batches(images.take(held_out), stats, 500)).logits
    return Predictions(images, logits)
