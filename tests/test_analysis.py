"""helpers/analysis.py: answers worked out by hand, bad input, and the guards against mixed-up predictions."""

import math

import pytest
import torch
from torch import nn

from helpers import analysis
from helpers.data import Batches, Images, random_flip

CLASSES = ("cat", "dog", "ship")
STATS = torch.full((3,), 0.5), torch.full((3,), 0.5)
# true        cat  cat  cat  dog  dog  ship
TRUE = [0, 0, 0, 1, 1, 2]
SAID = [0, 1, 1, 1, 0, 2]
SURE = [0.9, 0.6, 0.8, 0.7, 0.95, 0.5]


def made(y, classes=CLASSES, seed=0):
    x = torch.randint(0, 256, (len(y), 3, 32, 32), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    return Images(x, torch.tensor(y), classes, "made up")


def predictions(true=TRUE, said=SAID, sure=SURE):
    """Predictions with a given answer and confidence: the rest of the probability is spread over the other classes."""
    rows = []
    for label, p in zip(said, sure, strict=True):
        row = [(1 - p) / 2] * 3
        row[label] = p
        rows.append(row)
    return analysis.Predictions(made(true), torch.tensor(rows).log())


class Brightness(nn.Module):
    """Class 0 for dark images, 1 for bright ones: its answer can be read off the image."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(10.0))
        self.drop = nn.Dropout(0.5)  # makes train mode visible

    def forward(self, x):
        level = self.drop(self.gain * x.mean(dim=(1, 2, 3)))
        return torch.stack([-level, level], dim=1)


def dark_and_bright(labels):
    x = torch.stack([torch.full((3, 32, 32), 255 * label, dtype=torch.uint8) for label in labels])
    return Images(x, torch.tensor(labels), ("dark", "bright"), "made up")


# ---------------------------------------------------------------- Predictions


def test_properties_by_hand():
    p = predictions()
    assert p.predicted.tolist() == SAID
    assert p.confidence.tolist() == pytest.approx(SURE, abs=1e-6)
    assert p.correct.tolist() == [True, False, False, True, False, True]
    assert p.accuracy == pytest.approx(0.5)
    assert torch.allclose(p.probabilities.sum(dim=1), torch.ones(6))


@pytest.mark.parametrize("shape", [(5, 3), (6, 2), (6,), (7, 3)])
def test_predictions_refuses_logits_of_other_images(shape):
    with pytest.raises(ValueError, match="logits must be"):
        analysis.Predictions(made(TRUE), torch.zeros(shape))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_predictions_refuses_what_is_not_finite(value):
    logits = torch.zeros(6, 3)
    logits[2, 1] = value
    with pytest.raises(ValueError, match="not finite"):
        analysis.Predictions(made(TRUE), logits)


# ---------------------------------------------------------------- predict


def test_predict_keeps_logits_beside_their_images():
    labels = torch.randint(0, 2, (23,), generator=torch.Generator().manual_seed(3)).tolist()
    images = dark_and_bright(labels)
    p = analysis.predict(Brightness(), Batches(images, STATS, 5))  # the last batch is smaller
    assert p.images is images
    assert p.predicted.tolist() == labels
    assert p.accuracy == 1
    assert p.logits.device.type == "cpu"


@pytest.mark.parametrize("training", [True, False])
def test_predict_is_in_eval_mode_and_gives_the_mode_back(training):
    model = Brightness().train(training)
    batches = Batches(dark_and_bright([0, 1] * 20), STATS, 8)
    first, second = (analysis.predict(model, batches).logits for _ in range(2))
    assert torch.equal(first, second)  # dropout would differ
    assert model.training is training
    assert not first.requires_grad


@pytest.mark.parametrize("options", [{"shuffle": True}, {"augment": [random_flip()]}, {"drop_last": True}])
def test_predict_refuses_batches_that_lose_the_order(options):
    batches = Batches(dark_and_bright([0, 1] * 5), STATS, 4, **options)
    with pytest.raises(ValueError, match="every image once, in order and unchanged"):
        analysis.predict(Brightness(), batches)


# ---------------------------------------------------------------- interval


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [
        (0, 10, 0, 1.96**2 / (10 + 1.96**2)),
        (10, 10, 10 / (10 + 1.96**2), 1),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),  # the example of Newcombe 1998
    ],
)
def test_interval_known_values(hits, count, low, high):
    assert analysis.interval(hits, count) == pytest.approx((low, high), abs=5e-5)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    draws = torch.rand(4000, 50, generator=torch.Generator().manual_seed(0)) < 0.9
    covered = [low <= 0.9 <= high for low, high in (analysis.interval(int(k), 50) for k in draws.sum(dim=1))]
    assert 0.92 < sum(covered) / len(covered) < 0.98


@pytest.mark.parametrize(("hits", "count"), [(-1, 5), (6, 5), (0, 0), (0, -2)])
def test_interval_refuses_impossible_counts(hits, count):
    with pytest.raises(ValueError, match="0 <= hits <= count"):
        analysis.interval(hits, count)


# ---------------------------------------------------------------- what goes wrong


def test_confusion_by_hand_rows_are_true():
    matrix = analysis.confusion(predictions())
    assert matrix.dtype == torch.int64
    assert matrix.tolist() == [[1, 2, 0], [1, 1, 0], [0, 0, 1]]


def test_confusion_has_a_row_for_a_class_without_images():
    matrix = analysis.confusion(predictions([0, 1], [1, 1], [0.9, 0.9]))
    assert matrix.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_per_class_accuracy_by_hand():
    assert analysis.per_class_accuracy(predictions()).tolist() == pytest.approx([1 / 3, 1 / 2, 1])
    missing = analysis.per_class_accuracy(predictions([0, 1], [1, 1], [0.9, 0.9]))
    assert missing[:2].tolist() == [0, 1]
    assert missing[2].isnan()


def test_most_confused_by_hand():
    p = predictions()
    assert analysis.most_confused(p) == [("cat", "dog", 2), ("dog", "cat", 1)]  # pairs that never occur are left out
    assert analysis.most_confused(p, 1) == [("cat", "dog", 2)]


def test_most_confident_mistakes_by_hand():
    p = predictions()
    assert analysis.most_confident_mistakes(p).tolist() == [4, 2, 1]
    assert analysis.most_confident_mistakes(p, 2).tolist() == [4, 2]


def test_without_a_mistake_there_is_none_to_show():
    p = predictions(TRUE, TRUE)
    assert p.accuracy == 1
    assert analysis.most_confused(p) == []
    assert analysis.most_confident_mistakes(p).tolist() == []


def test_equal_confidence_keeps_the_order_of_the_images():
    p = predictions([0] * 5, [1] * 5, [0.8] * 5)
    assert analysis.most_confident_mistakes(p).tolist() == [0, 1, 2, 3, 4]
