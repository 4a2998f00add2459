"""From predictions to understanding. One pass over the images collects logits and features; the rest works on those.

Only `grad_cam` runs a network again. Everything that comes out lies on the CPU, rows in the order of the images.
"""

import math
from contextlib import ExitStack
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
from scipy.optimize import brentq
from torch import nn

from helpers.data import Batches, Images
from helpers.guard import eval_mode
from helpers.utils import figure


@dataclass
class Predictions:
    """What a network answered for `images`: row i of `logits` belongs to image i and label i, always.

    images: the N images with their labels.
    logits: float (N, K) for K classes; kept on the CPU.
    features: float (N, D), what the network's last linear layer was given; None if it has none.

    ValueError: no images, logits of another number of images or classes, or logits that are not finite.
    """

    images: Images
    logits: torch.Tensor
    features: torch.Tensor | None = None

    def __post_init__(self):
        self.logits = self.logits.detach().cpu()
        shape, right = tuple(self.logits.shape), (len(self.images), len(self.images.classes))
        if shape != right or len(self.images) == 0:
            raise ValueError(
                f"Predictions needs logits {right}, a row for each image and a column for each class, and at least one "
                f"image; got {shape}."
            )
        bad = (~self.logits.isfinite()).any(dim=1).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"The logits of {len(bad)} of {shape[0]} images (first: {bad[0]}) are not finite numbers. The network "
                "is damaged: train it again. Or a number was too large for its precision: try model.float()."
            )

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
        """Share of the images whose label was predicted."""
        return self.correct.float().mean().item()

    def at(self, temperature: float) -> "Predictions":
        """The same with logits / temperature: above 1 less confident, below 1 more. No predicted class changes."""
        if not 0 < temperature < math.inf:
            raise ValueError(f"Predictions.at: the temperature must be a finite number above 0, got {temperature}.")
        return Predictions(self.images, self.logits / temperature, self.features)

    def take(self, indices: torch.Tensor) -> "Predictions":
        """The predictions at these positions (a bool mask will do), beside their images."""
        features = None if self.features is None else self.features[indices]
        return Predictions(self.images.take(indices), self.logits[indices], features)


def _logits(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """float32 (B, K): what the network answers to the images x, wherever it is and whatever its precision."""
    home = next(model.parameters(), x)
    return model(x.to(home.device, home.dtype)).float()


@torch.no_grad()
def predict(model: nn.Module, batches: Batches) -> Predictions:
    """Run `model` once over `batches`, in eval mode, and keep each logit beside the image that it belongs to.

    Features are the input of the nn.Linear that runs last, flattened to (N, D): mostly the pooled output of the last
    stage. The images go to the network's device. The network is left in the modes in which it came.

    Raises:
        ValueError: batches are shuffled, augmented or leave images out, so that logits would not belong to the images;
            the network does not return finite logits, one for each class.
    """
    if not isinstance(batches, Batches) or batches.shuffle or batches.augment or batches.drop_last:
        raise ValueError("predict needs each image once, in order: Batches without shuffle, augment and drop_last.")
    rows, classes, last = [], 0, []  # last: the input of the linear layer that ran last

    def keep(_layer, inputs):
        last[:] = inputs[:1]

    with ExitStack() as hooks, eval_mode(model):
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                hooks.enter_context(layer.register_forward_pre_hook(keep))
        for x, _ in batches:
            logits = _logits(model, x)
            features = [value.flatten(1).float() for value in last if len(value) == len(x)]
            rows.append(torch.cat([logits, *features], dim=1))
            classes = logits.shape[1]
    table = torch.cat(rows).cpu()  # the one wait for the device
    logits, features = (part.contiguous() for part in table.tensor_split([classes], dim=1))
    return Predictions(batches.dataset, logits, features if features.shape[1] else None)


def interval(correct: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Range that covers the true accuracy behind `correct` of `count` in 95 of 100 cases (Wilson 1927).

    Unlike correct/count plus or minus two standard errors it stays within 0 and 1 and is honest for small counts.
    """
    if not 0 <= correct <= count or count < 1:
        raise ValueError(f"interval needs 0 <= correct <= count and count >= 1, got {correct} and {count}.")
    share = correct / count
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return (centre - spread) / scale, (centre + spread) / scale


def confusion(predictions: Predictions) -> torch.Tensor:
    """int64 (K, K): row = true class, column = predicted class, entry = number of images."""
    classes = len(predictions.images.classes)
    pairs = predictions.images.y * classes + predictions.predicted
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def per_class_accuracy(predictions: Predictions) -> torch.Tensor:
    """(K,) share of each true class that was predicted as such (recall); NaN for a class without images."""
    matrix = confusion(predictions)
    return matrix.diagonal() / matrix.sum(dim=1)


def calibration(predictions: Predictions, bins: int = 15) -> dict[str, torch.Tensor]:
    """The images in `bins` of equal width by confidence (Guo et al. 2017, section 2), as tensors (bins,).

    Bin i holds the confidences above i/bins, up to and including (i+1)/bins; so 1.0 is in the last one.
    "count" (int64): images in it; "confidence": their mean; "accuracy": share of them that is correct. NaN if empty.
    """
    confidence = predictions.confidence
    place = torch.bucketize(confidence, torch.arange(1, bins) / bins)  # the inner borders; each belongs to its left
    count = torch.bincount(place, minlength=bins)
    totals = {"confidence": confidence.double(), "accuracy": predictions.correct.double()}
    means = {name: torch.bincount(place, value, minlength=bins) / count for name, value in totals.items()}
    return {"count": count} | {name: mean.float() for name, mean in means.items()}


def calibration_error(predictions: Predictions, bins: int = 15) -> float:
    """Expected calibration error, 0 to 1 (Guo et al. 2017, equation 3; table 1 has 15 bins).

    The mean distance of accuracy and confidence, each bin of `calibration` weighted by its number of images.
    """
    table = calibration(predictions, bins)
    gap = (table["accuracy"] - table["confidence"]).abs()
    return ((table["count"] * gap).nansum() / len(predictions.images)).item()


def reliability_diagram(predictions: Predictions, title: str, bins: int = 15, ax=None) -> None:
    """Draw accuracy (bars, with their `interval`) and mean confidence (marks) of each bin.

    Without `ax` it makes and shows a figure of its own, with a legend beside it. With `ax` it draws there, `title` is
    that panel's, and the legend is left to the caller: one serves all panels.
    """
    error, table = calibration_error(predictions, bins), calibration(predictions, bins)
    panel = ax or figure(title, predictions.images.name, size=(7.5, 4.5))[1]
    filled = table["count"].nonzero().flatten()
    middle = (filled.numpy() + 0.5) / bins
    count, confidence, accuracy = (table[name][filled].numpy() for name in ("count", "confidence", "accuracy"))
    low, high = zip(*map(interval, (accuracy * count).round().tolist(), count.tolist()), strict=True)
    panel.bar(middle, accuracy, 0.9 / bins, color="tab:blue", alpha=0.5, label="accuracy, with its 95% range")
    panel.vlines(middle, low, high, color="tab:blue")
    panel.plot(middle, confidence, "D", color="tab:orange", markersize=5, label="mean confidence")
    panel.plot([0, 1], [0, 1], "--", color="grey", linewidth=1, label="accuracy = confidence")
    panel.set(xlabel=f"confidence (calibration error {error:.3f})", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    if ax:
        ax.set_title(title)
    else:
        panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9, frameon=False)
        plt.show()


def fit_temperature(predictions: Predictions) -> float:
    """The temperature T > 0 at which the cross-entropy of logits / T is smallest (Guo et al. 2017, section 4.2).

    Fit it on validation images and use it on test images, `test_predictions.at(T)`. ValueError if there is no such T:
    no mistake among the images, or logits that tell nothing about the labels.
    """
    logits = predictions.logits.double()
    logits = logits - logits.amax(dim=1, keepdim=True)  # the softmax stays the same, sums get more exact
    given = logits.gather(1, predictions.images.y.unsqueeze(1)).flatten()

    def slope(b):
        """How the cross-entropy changes with b = 1/T: mean logit under the softmax, minus the label's logit."""
        return ((logits * (b * logits).softmax(dim=1)).sum(dim=1) - given).mean().item()

    if slope(0.0) >= 0:
        raise ValueError("There is no best T: these logits tell no more than guessing. Is the network trained?")
    if (given == 0).all():
        raise ValueError(f"There is no best T: all {len(given)} images are correct. Pass more, not trained on.")
    high = 1.0
    while slope(high) < 0:  # it only ever rises with b: below 0 left of the minimum, above 0 right of it
        high *= 2
    return 1 / brentq(slope, 0.0, high, xtol=1e-300)


def grad_cam(model: nn.Module, layer: nn.Module, x: torch.Tensor, target: int | torch.Tensor) -> torch.Tensor:
    """float (B, h, w), at least 0: which places of `layer`'s output speak for the target class.

    Grad-CAM (Selvaraju et al. 2016, section 3, equations 1 and 2): the channels, each times the mean over its pixels of
    the gradient of the target's logit, are added; what is below 0 becomes 0. Neither enlarged nor normalised.

    Args:
        model: returns logits; runs in eval mode. Its modes, gradients and hooks are left as they were.
        layer: a module of it whose output is (B, C, h, w), else ValueError; of several runs the last one counts.
        x: float (B, C, H, W), normalised.
        target: a class, or int64 (B,), one for each image.
    """
    kept = []

    def keep(_layer, _inputs, output):
        kept[:] = [output.detach().requires_grad_()]  # gradients are followed back to here, and no further
        return kept[0].clone()  # a ReLU that works in place changes the clone, not what is kept

    with layer.register_forward_hook(keep), eval_mode(model), torch.inference_mode(False), torch.enable_grad():
        logits = _logits(model, x.detach().clone()).cpu()  # on a GPU, a class that is not there kills the process
        if not kept or kept[0].ndim != 4:
            raise ValueError(
                f"grad_cam: {type(model).__name__} runs no such layer with an output (B, C, h, w), but got "
                f"{type(layer).__name__}. Pass one of its convolutions, or a stage such as model.layer3."
            )
        target = torch.as_tensor(target).cpu().expand(len(x)).unsqueeze(1).clone()
        (slope,) = torch.autograd.grad(logits.gather(1, target).sum(), kept)
    weights = slope.float().mean(dim=(2, 3), keepdim=True)
    return (weights * kept[0].detach().float()).sum(dim=1).relu().cpu()
