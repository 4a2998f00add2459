"""From predictions to understanding. One pass over the images collects all logits; the rest works on that result."""

import math
from dataclasses import dataclass

import torch

from helpers.data import Batches, Images


@dataclass(frozen=True)
class Predictions:
    """What a network said about `images`: row i of `logits` belongs to image i and label i, always.

    images: the N images with their labels.
    logits: float (N, K), on the CPU.
    """

    images: Images
    logits: torch.Tensor

    def __post_init__(self):
        expected = (len(self.images), len(self.images.classes))
        if tuple(self.logits.shape) != expected:
            raise ValueError(f"Predictions: logits must be {expected}, got {tuple(self.logits.shape)}.")
        if not self.logits.isfinite().all():
            raise ValueError("Predictions: some logits are not finite numbers. The network is damaged: train it again.")

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
        return self.correct.float().mean().item()


def predict(model: torch.nn.Module, batches: Batches) -> Predictions:
    """Run `model` once over `batches`, in eval mode, and keep each logit beside the image that it belongs to.

    Raises:
        ValueError: batches are shuffled, augmented or leave images out, so that logits would not belong to the images.
    """
    if batches.shuffle or batches.augment or batches.drop_last:
        raise ValueError(
            "predict needs every image once, in order and unchanged: "
            "build Batches without shuffle, augment and drop_last."
        )
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    with torch.inference_mode():
        logits = torch.cat([model(x.to(device)).float().cpu() for x, _ in batches])
    model.train(was_training)
    return Predictions(batches.dataset, logits)


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


def confusion(predictions: Predictions) -> torch.Tensor:
    """int64 (K, K): row = true class, column = predicted class, entry = number of images."""
    classes = len(predictions.images.classes)
    pairs = predictions.images.y * classes + predictions.predicted
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def per_class_accuracy(predictions: Predictions) -> torch.Tensor:
    """(K,) share of each true class that was predicted as such (recall); NaN for a class without images."""
    matrix = confusion(predictions)
    return matrix.diagonal() / matrix.sum(dim=1)


def most_confused(predictions: Predictions, count: int = 5) -> list[tuple[str, str, int]]:
    """The `count` most frequent mistakes as (true class, predicted class, images), most frequent first."""
    matrix = confusion(predictions).fill_diagonal_(0)
    names = predictions.images.classes
    order = matrix.flatten().argsort(descending=True, stable=True)[:count]
    cells = [divmod(int(cell), len(names)) for cell in order]
    return [(names[true], names[said], int(matrix[true, said])) for true, said in cells if matrix[true, said]]


def most_confident_mistakes(predictions: Predictions, count: int = 10) -> torch.Tensor:
    """Positions of the (up to `count`) misclassified images of highest confidence, most confident first."""
    wrong = (~predictions.correct).nonzero().flatten()
    return wrong[predictions.confidence[wrong].argsort(descending=True, stable=True)][:count]
