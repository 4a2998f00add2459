"""helpers/analysis.py: answers worked out by hand, bad input, and the guards against mixed-up predictions."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.optimize
import sklearn.calibration
import sklearn.metrics
import sklearn.neighbors
import torch
import torch.nn.functional as F
import torchvision
from captum.attr import LayerGradCam
from torch import nn

from helpers import analysis
from helpers.data import Batches, Images, random_flip
from helpers.model import CustomResNet, resnet18, vgg11, vgg11_bn

CLASSES = ("cat", "dog", "ship")
STATS = torch.full((3,), 0.5), torch.full((3,), 0.5)
# true        cat  cat  cat  dog  dog  ship
TRUE = [0, 0, 0, 1, 1, 2]
SAID = [0, 1, 1, 1, 0, 2]
SURE = [0.9, 0.6, 0.8, 0.7, 0.95, 0.5]


def made(y, classes=CLASSES, seed=0):
    x = torch.randint(0, 256, (len(y), 3, 32, 32), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    return Images(x, torch.tensor(y, dtype=torch.int64), classes, "made up")


def predictions(true=TRUE, said=SAID, sure=SURE):
    """Predictions with a given answer and confidence: the rest of the probability is spread over the other classes."""
    rows = []
    for label, p in zip(said, sure, strict=True):
        row = [(1 - p) / 2] * 3
        row[label] = p
        rows.append(row)
    return analysis.Predictions(made(true), torch.tensor(rows).log())


def two(true, said, sure):
    """Predictions for two classes, by the probability of the predicted one."""
    p = torch.tensor(sure, dtype=torch.float64)
    said = torch.tensor(said)
    rows = torch.where(F.one_hot(said, 2).bool(), p.unsqueeze(1), 1 - p.unsqueeze(1))
    return analysis.Predictions(made(true, ("no", "yes")), rows.log())


def random(classes=10, count=600, signal=1.5, seed=0):
    """Predictions as of a mediocre network: some right, some wrong, of all degrees of confidence."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (count,), generator=generator)
    logits = torch.randn(count, classes, generator=generator)
    logits[torch.arange(count), y] += signal
    images = Images(torch.zeros(count, 3, 32, 32, dtype=torch.uint8), y, tuple(map(str, range(classes))), "made up")
    return analysis.Predictions(images, 2 * logits)


NONE = analysis.Predictions(made([]), torch.zeros(0, 3))


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


def test_predictions_refuses_whole_numbers():
    with pytest.raises(ValueError, match="floating point; got .*int64"):
        analysis.Predictions(made(TRUE), torch.ones(6, 3, dtype=torch.int64))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_predictions_refuses_what_is_not_finite(value):
    logits = torch.zeros(6, 3)
    logits[2, 1] = logits[4, 0] = value
    with pytest.raises(ValueError, match=r"2 of 6 images \(first: 2\) are not finite"):
        analysis.Predictions(made(TRUE), logits)


@pytest.mark.parametrize("shape", [(5, 4), (6,), (6, 2, 2)])
def test_predictions_refuses_features_of_other_images(shape):
    with pytest.raises(ValueError, match=r"features must be \(6, D\)"):
        analysis.Predictions(made(TRUE), torch.zeros(6, 3), torch.zeros(shape))


def test_predictions_keeps_no_graph():
    p = analysis.Predictions(made(TRUE), torch.randn(6, 3, requires_grad=True))
    assert not p.logits.requires_grad


def test_accuracy_of_no_images_is_refused():
    with pytest.raises(ValueError, match="accuracy of 0 images"):
        _ = NONE.accuracy


def test_at_divides_the_logits():
    p = analysis.Predictions(made(TRUE), torch.randn(6, 3), torch.randn(6, 4))
    warm = p.at(2.0)
    assert torch.equal(warm.logits, p.logits / 2)
    assert torch.equal(warm.predicted, p.predicted)
    assert (warm.confidence < p.confidence).all()
    assert warm.images is p.images
    assert torch.equal(warm.features, p.features)


@pytest.mark.parametrize("temperature", [0, -1.0, math.inf, math.nan])
def test_at_refuses_what_is_no_temperature(temperature):
    with pytest.raises(ValueError, match="finite number above 0"):
        predictions().at(temperature)


@pytest.mark.parametrize("indices", [torch.tensor([4, 0, 4]), torch.tensor([False, True, False, False, True, True])])
def test_take_keeps_images_logits_and_features_together(indices):
    p = analysis.Predictions(made(TRUE), torch.randn(6, 3), torch.randn(6, 4))
    part = p.take(indices)
    assert torch.equal(part.images.x, p.images.x[indices])
    assert torch.equal(part.images.y, p.images.y[indices])
    assert torch.equal(part.logits, p.logits[indices])
    assert torch.equal(part.features, p.features[indices])


def test_take_of_nothing_is_empty():
    p = predictions(TRUE, TRUE)
    assert len(p.take(analysis.most_confident_mistakes(p)).images) == 0
    assert p.take(torch.tensor([1])).features is None


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


@pytest.mark.parametrize("other", ["loader", "list"])
def test_predict_refuses_what_has_no_images(other):
    x, y = torch.zeros(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64)
    batches = [(x, y)] if other == "list" else torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y))
    with pytest.raises(ValueError, match="build Batches"):
        analysis.predict(Brightness(), batches)


def test_predict_gives_each_module_its_own_mode_back():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(3072, 2)).train()
    model[0].eval()  # frozen batch norm in a network that trains
    analysis.predict(model, Batches(dark_and_bright([0, 1]), STATS))
    assert [module.training for module in model] == [False, True, True, True]


class Failing(nn.Sequential):
    def forward(self, x):
        super().forward(x)
        raise RuntimeError("out of memory")


def test_predict_leaves_no_trace_when_it_fails():
    model = Failing(nn.Flatten(), nn.Linear(3072, 2)).train()
    with pytest.raises(RuntimeError, match="out of memory"):
        analysis.predict(model, Batches(dark_and_bright([0, 1]), STATS))
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_features_are_the_input_of_the_linear_layer_that_runs_last():
    torch.manual_seed(0)
    model = CustomResNet(8, classes=2).train()
    images = dark_and_bright([0, 1, 1, 0, 1])
    p = analysis.predict(model, Batches(images, STATS, 2))
    assert p.features.shape == (5, 64)
    assert not p.features.is_inference()
    assert torch.allclose(model.linear(p.features), p.logits, atol=1e-6)
    assert not model.linear._forward_pre_hooks


class Listed(nn.Module):
    """The linear layer that is listed last runs first, another does not run at all."""

    def __init__(self):
        super().__init__()
        self.head, self.unused, self.body = nn.Linear(5, 2), nn.Linear(7, 2), nn.Linear(3072, 5)

    def forward(self, x):
        return self.head(self.body(x.flatten(1)))


def test_features_go_by_what_runs_and_not_by_what_is_listed():
    model = Listed()
    p = analysis.predict(model, Batches(dark_and_bright([0, 1, 1]), STATS, 2))
    assert p.features.shape == (3, 5)
    assert torch.allclose(model.head(p.features), p.logits, atol=1e-6)


class Tokens(nn.Module):
    """Its linear layer is given (B, 4, 8): features must be flattened."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 2)

    def forward(self, x):
        return self.layer(x.flatten(1)[:, :32].reshape(-1, 4, 8)).mean(dim=1)


def test_features_are_flattened():
    p = analysis.predict(Tokens(), Batches(dark_and_bright([0, 1, 1]), STATS, 2))
    assert p.features.shape == (3, 32)


class Folded(Tokens):
    """Its linear layer is given (4 * B, 8): no row an image, so no features."""

    def forward(self, x):
        return self.layer(x.flatten(1)[:, :32].reshape(-1, 8)).view(-1, 4, 2).mean(dim=1)


@pytest.mark.parametrize("model", [Brightness(), Folded(), nn.Sequential(nn.Conv2d(3, 2, 32), nn.Flatten())])
def test_without_a_row_an_image_there_are_no_features(model):
    p = analysis.predict(model, Batches(dark_and_bright([0, 1, 1]), STATS, 2))
    assert p.features is None
    assert p.logits.shape == (3, 2)


def test_what_was_collected_can_take_part_in_training():
    p = analysis.predict(Listed(), Batches(dark_and_bright([0, 1, 1]), STATS))  # one batch only
    log_t = torch.zeros((), requires_grad=True)
    F.cross_entropy(p.logits / log_t.exp(), p.images.y).backward()
    assert log_t.grad.isfinite()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_predict_follows_the_precision_of_the_network(dtype):
    torch.manual_seed(0)
    model = CustomResNet(8, classes=2)
    batches = Batches(dark_and_bright([0, 1, 1]), STATS, 2)
    exact = analysis.predict(model, batches)
    p = analysis.predict(model.to(dtype), batches)
    assert p.logits.dtype == p.features.dtype == torch.float32
    assert torch.allclose(p.logits, exact.logits, atol=0.05)


class Wrong(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: {"logits": x.mean((2, 3))}, r"must return logits \(B, classes\) for B = 2, got dict"),
        (lambda x: x, r"must return logits \(B, classes\) for B = 2, got \(2, 3, 32, 32\)"),
        (lambda x: torch.zeros(1, 2), r"for B = 2, got \(1, 2\)"),
        (lambda x: torch.zeros(2, 5), r"logits must be \(2, 2\).*as many outputs"),
        (lambda x: torch.full((2, 2), math.nan), "2 of 2 images .* not finite.*train it again"),
    ],
)
def test_predict_says_what_is_wrong_with_the_network(answer, message):
    with pytest.raises(ValueError, match=message):
        analysis.predict(Wrong(answer), Batches(dark_and_bright([0, 1]), STATS))


def test_predict_with_a_network_that_the_course_has_never_seen():
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v3_small(num_classes=100)
    images = Images(made([0] * 3).x, torch.tensor([0, 99, 5]), tuple(map(str, range(100))), "made up")
    p = analysis.predict(model, Batches(images, STATS, 2))
    assert p.logits.shape == (3, 100)
    assert torch.allclose(model.classifier[-1](p.features), p.logits, atol=1e-5)


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


def test_accuracy_interval_counts_hits():
    assert analysis.accuracy_interval(predictions(said=[0, 1, 0, 1, 1, 2])) == analysis.interval(5, 6)
    with pytest.raises(ValueError, match="accuracy_interval of 0 images"):
        analysis.accuracy_interval(NONE)


# ---------------------------------------------------------------- against scikit-learn


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_counts_equal_scikit_learn(classes):
    p = random(classes)
    y, said, labels = p.images.y, p.predicted, range(classes)
    assert analysis.confusion(p).tolist() == sklearn.metrics.confusion_matrix(y, said, labels=labels).tolist()
    theirs = sklearn.metrics.precision_recall_fscore_support(y, said, labels=labels, zero_division=np.nan)
    mine = analysis.per_class(p)
    for name, values in zip(("precision", "recall", "f1", "support"), theirs, strict=True):
        np.testing.assert_allclose(mine[name], values, rtol=1e-6, err_msg=name)
    assert torch.equal(analysis.per_class_accuracy(p).nan_to_num(-1), mine["recall"].nan_to_num(-1))
    for k in {1, 2, min(5, classes), classes}:
        theirs = (p.predicted == y).float().mean()
        if k == classes:
            theirs = 1
        elif k > 1:
            theirs = sklearn.metrics.top_k_accuracy_score(y, p.logits, k=k, labels=labels)
        assert analysis.top_k(p, k) == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize(("classes", "bins"), [(2, 15), (10, 10), (100, 15), (10, 1), (10, 200)])
def test_calibration_equals_scikit_learn(classes, bins):
    p = random(classes)
    table = analysis.calibration(p, bins)
    filled = table["count"] > 0
    accuracy, confidence = sklearn.calibration.calibration_curve(p.correct, p.confidence, n_bins=bins)
    np.testing.assert_allclose(table["accuracy"][filled], accuracy, atol=1e-6)
    np.testing.assert_allclose(table["confidence"][filled], confidence, atol=1e-6)
    assert table["count"].sum() == len(p.images)


def test_nearest_equals_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    features, among = (torch.randn(n, 16, generator=generator) for n in (1203, 700))  # three parts of 500
    theirs = sklearn.neighbors.NearestNeighbors(n_neighbors=7, metric="cosine").fit(among).kneighbors(features)[1]
    assert analysis.nearest(features, among, 7).tolist() == theirs.tolist()


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


def test_per_class_by_hand():
    table = analysis.per_class(predictions())
    assert table["precision"].tolist() == pytest.approx([1 / 2, 1 / 3, 1])
    assert table["recall"].tolist() == pytest.approx([1 / 3, 1 / 2, 1])
    assert table["f1"].tolist() == pytest.approx([2 / 5, 2 / 5, 1])
    assert table["support"].tolist() == [3, 2, 1]
    assert table["support"].dtype == torch.int64


def test_per_class_is_nan_where_nothing_can_be_divided_by():
    table = analysis.per_class(predictions([0, 0], [1, 1], [0.9, 0.9]))  # no dog, no ship; nobody says cat or ship
    assert {name: values.isnan().tolist() for name, values in table.items()} == {
        "precision": [True, False, True],
        "recall": [False, True, True],
        "f1": [False, False, True],
        "support": [False] * 3,
    }
    assert table["f1"][:2].tolist() == [0, 0]


def test_top_k_by_hand():
    logits = torch.tensor([[3.0, 2, 1], [3, 2, 1], [3, 2, 1], [0, 0, 0]])
    p = analysis.Predictions(made([0, 1, 2, 0]), logits)
    # of equal logits the first class counts as larger: for the last image that is 0
    assert [analysis.top_k(p, k) for k in (1, 2, 3)] == [0.5, 0.75, 1]
    assert analysis.top_k(p, 1) == p.accuracy


@pytest.mark.parametrize("k", [0, 4, -1, 1.0])
def test_top_k_refuses_a_k_outside(k):
    with pytest.raises(ValueError, match="k must be a whole number from 1 to 3"):
        analysis.top_k(predictions(), k)


def test_least_confident_hits_by_hand():
    p = predictions()
    assert analysis.least_confident_hits(p).tolist() == [5, 3, 0]
    assert analysis.least_confident_hits(p, 1).tolist() == [5]
    assert analysis.least_confident_hits(predictions([0], [1], [0.9])).tolist() == []


def test_confidence_is_told_apart_where_it_rounds_to_one():
    logits = torch.tensor([[20.0, 0, 0], [30, 0, 0], [25, 0, 0]])
    p = analysis.Predictions(made([1, 1, 1]), logits)
    assert p.confidence.tolist() == [1, 1, 1]
    assert analysis.most_confident_mistakes(p).tolist() == [1, 2, 0]
    hits = analysis.Predictions(made([0, 0, 0]), logits)
    assert analysis.least_confident_hits(hits).tolist() == [0, 2, 1]


GALLERIES = [analysis.most_confused, analysis.most_confident_mistakes, analysis.least_confident_hits, analysis.suspects]


@pytest.mark.parametrize("gallery", GALLERIES)
def test_galleries_of_no_images_are_empty(gallery):
    assert len(gallery(NONE)) == 0


@pytest.mark.parametrize("gallery", GALLERIES)
@pytest.mark.parametrize("count", [0, -3, 2.5])
def test_galleries_refuse_a_count_below_one(gallery, count):
    with pytest.raises(ValueError, match="count must be a whole number of at least 1"):
        gallery(predictions(), count)


def test_galleries_give_what_there_is():
    p = predictions()
    assert [len(gallery(p, 100)) for gallery in GALLERIES] == [2, 3, 3, 6]


def test_one_class_only_works():
    one = analysis.Predictions(made([0, 0], ("cat",)), torch.tensor([[1.0], [-1]]))
    assert one.accuracy == analysis.top_k(one, 1) == 1
    assert analysis.confusion(one).tolist() == [[2]]
    assert analysis.most_confused(one) == []
    assert [float(values[0]) for values in analysis.per_class(one).values()] == [1, 1, 1, 2]
    assert analysis.calibration_error(one) == 0
    with pytest.raises(ValueError, match="no more about the labels than guessing"):
        analysis.fit_temperature(one)


# ---------------------------------------------------------------- suspected wrong labels


def test_suspects_by_hand():
    # the given label's probability: 0.9, 0.2, 0.1, 0.7, 0.025, 0.5
    assert analysis.suspects(predictions()).tolist() == [4, 2, 1, 5, 3, 0]
    assert analysis.suspects(predictions(), 2).tolist() == [4, 2]


def test_suspects_are_told_apart_where_the_probability_is_zero():
    p = analysis.Predictions(made([1, 1, 1]), torch.tensor([[200.0, 0, 0], [400, 0, 0], [300, 0, 0]]))
    assert p.probabilities[:, 1].tolist() == [0, 0, 0]
    assert analysis.suspects(p).tolist() == [1, 2, 0]


def test_suspects_finds_planted_labels():
    p = random(signal=6.0)  # nearly all right
    planted = torch.tensor([3, 77, 500])
    y = p.images.y.clone()
    y[planted] = (y[planted] + 1) % 10
    images = Images(p.images.x, y, p.images.classes, "made up")
    assert set(planted.tolist()) <= set(analysis.suspects(analysis.Predictions(images, p.logits), 6).tolist())


# ---------------------------------------------------------------- calibration


def test_calibration_by_hand():
    p = two([1, 0, 1, 1, 0], [1, 1, 1, 1, 0], [0.55, 0.6, 0.7, 0.9, 0.8])
    table = analysis.calibration(p, 4)  # above 0, 0.25, 0.5, 0.75
    assert table["count"].tolist() == [0, 0, 3, 2]
    assert table["count"].dtype == torch.int64
    assert table["confidence"][2:].tolist() == pytest.approx([1.85 / 3, 0.85])
    assert table["accuracy"][2:].tolist() == pytest.approx([2 / 3, 1])
    assert table["confidence"][:2].isnan().all()
    assert table["accuracy"][:2].isnan().all()
    expected = 3 / 5 * (2 / 3 - 1.85 / 3) + 2 / 5 * 0.15
    assert analysis.calibration_error(p, 4) == pytest.approx(expected)


def test_a_confidence_of_exactly_one_is_in_the_last_bin():
    p = analysis.Predictions(made([0, 0, 1]), torch.tensor([[200.0, 0, 0]] * 3))
    assert p.confidence.tolist() == [1, 1, 1]
    table = analysis.calibration(p, 10)
    assert table["count"].tolist() == [0] * 9 + [3]
    assert analysis.calibration_error(p, 10) == pytest.approx(1 / 3)


def test_a_border_belongs_to_the_bin_below():
    p = two([0, 0], [0, 0], [0.5, 0.6])
    assert p.confidence[0] == 0.5
    assert analysis.calibration(p, 4)["count"].tolist() == [0, 1, 1, 0]


def test_default_is_fifteen_bins():
    assert len(analysis.calibration(predictions())["count"]) == 15
    assert analysis.calibration_error(random()) == analysis.calibration_error(random(), 15)


def test_calibration_error_sees_too_much_and_too_little_confidence():
    p = random(signal=1.0, count=20_000)  # these logits are twice the true log-odds
    error, cool, warm = (analysis.calibration_error(p.at(t)) for t in (1, 0.5, 2 / 1.0))
    assert cool > error > warm
    assert analysis.calibration_error(p.at(20)) > warm
    assert warm < 0.02


def test_calibration_of_no_images():
    table = analysis.calibration(NONE)
    assert table["count"].sum() == 0
    assert table["accuracy"].isnan().all()
    assert table["confidence"].isnan().all()


@pytest.mark.parametrize(
    "measure",
    [
        analysis.calibration_error,
        analysis.fit_temperature,
        lambda p: analysis.reliability_diagram(p, "t"),
        lambda p: analysis.top_k(p, 1),
    ],
)
def test_measures_of_no_images_are_refused(measure):
    with pytest.raises(ValueError, match="of 0 images is not defined"):
        measure(NONE)
    assert not plt.get_fignums()


@pytest.mark.parametrize("bins", [0, -1, 1.5])
def test_calibration_refuses_no_bins(bins):
    with pytest.raises(ValueError, match="bins must be a whole number of at least 1"):
        analysis.calibration(predictions(), bins)


def test_reliability_diagram_draws_the_table(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("a panel is shown by its figure"))
    p = random()
    table = analysis.calibration(p, 10)
    filled = table["count"].nonzero().flatten()
    fig, ax = plt.subplots()
    analysis.reliability_diagram(p, "the panel", bins=10, ax=ax)
    bars = {round(bar.get_x() + bar.get_width() / 2, 4): bar.get_height() for bar in ax.patches}
    assert bars == pytest.approx({round((i + 0.5) / 10, 4): float(table["accuracy"][i]) for i in filled.tolist()})
    marks = ax.lines[0].get_xydata()
    np.testing.assert_allclose(marks, torch.stack([(filled + 0.5) / 10, table["confidence"][filled]], dim=1))
    ranges = ax.collections[0].get_segments()
    for i, segment in zip(filled, ranges, strict=True):
        n = int(table["count"][i])
        expected = analysis.interval(round(float(table["accuracy"][i]) * n), n)
        np.testing.assert_allclose(segment[:, 1], expected, atol=1e-6)
    assert ax.get_title() == "the panel"
    assert ax.get_xlabel() == f"confidence (calibration error {analysis.calibration_error(p, 10):.3f})"
    assert ax.get_ylabel() == "accuracy"
    assert ax.get_legend() is None  # one legend serves all panels of a figure: the caller's
    assert ax.get_legend_handles_labels()[1] == [
        "mean confidence",
        "accuracy = confidence",
        "accuracy, with its 95% range",
    ]
    plt.close(fig)


def test_reliability_diagram_makes_and_shows_a_figure(monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    analysis.reliability_diagram(predictions(), "All is told")
    assert len(shown) == 1
    assert shown[0].get_suptitle() == "All is told"
    assert "made up" in shown[0].get_supxlabel()
    shown[0].draw_without_rendering()
    (ax,) = shown[0].axes
    legend = ax.get_legend().get_window_extent()
    others = [ax.patch, *shown[0].texts, ax.xaxis.label]
    assert not any(legend.overlaps(other.get_window_extent()) for other in others)  # it hides nothing
    assert legend.x1 <= shown[0].bbox.x1  # and is not cut off
    plt.close("all")


# ---------------------------------------------------------------- temperature


def loss(p, temperature):
    return F.cross_entropy(p.logits.double() / temperature, p.images.y).item()


def test_fit_temperature_by_hand():
    # Two classes, a logit of 3 for the right one in 3 of 4 images: the best probability is 3/4, so 3 / T = log 3.
    logits = torch.tensor([[3.0, 0], [3, 0], [0, 3], [3, 0]])
    p = analysis.Predictions(made([0, 0, 1, 1], ("no", "yes")), logits)
    assert analysis.fit_temperature(p) == pytest.approx(3 / math.log(3), rel=1e-6)


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("scale", [1e-3, 0.1, 1, 30, 1e5])
def test_fit_temperature_equals_a_minimiser_of_scipy(classes, scale):
    p = random(classes)
    scaled = analysis.Predictions(p.images, scale * p.logits)
    fitted = analysis.fit_temperature(scaled)
    best = scipy.optimize.minimize_scalar(
        lambda t: loss(scaled, math.exp(t) * scale), bounds=(-5, 5), method="bounded", options={"xatol": 1e-8}
    )
    assert fitted == pytest.approx(math.exp(best.x) * scale, rel=1e-4)


def test_fit_temperature_of_what_is_fitted_is_one():
    p = random()
    assert analysis.fit_temperature(p.at(analysis.fit_temperature(p))) == pytest.approx(1, rel=1e-5)


def test_fit_temperature_ignores_what_the_softmax_ignores():
    p = random()
    moved = analysis.Predictions(p.images, p.logits.double() + torch.randn(len(p.images), 1) * 100)
    assert analysis.fit_temperature(moved) == pytest.approx(analysis.fit_temperature(p), rel=1e-6)


def test_fit_temperature_without_a_mistake_says_that_there_is_no_best():
    with pytest.raises(ValueError, match="all 6 images are right.*more validation images"):
        analysis.fit_temperature(predictions(TRUE, TRUE))


@pytest.mark.parametrize("logits", [torch.zeros(6, 3), -5.0 * F.one_hot(torch.tensor(TRUE), 3)])
def test_fit_temperature_without_a_signal_says_that_there_is_no_best(logits):
    with pytest.raises(ValueError, match="no more about the labels than guessing"):
        analysis.fit_temperature(analysis.Predictions(made(TRUE), logits))


# ---------------------------------------------------------------- neighbours


def test_nearest_by_hand():
    among = torch.tensor([[0.0, 1], [5, 0], [1, 1], [-1, 0]])
    assert analysis.nearest(torch.tensor([[1.0, 0], [0, 9]]), among, 3).tolist() == [[1, 2, 0], [0, 2, 1]]


def test_nearest_takes_the_earlier_of_equals():
    row = torch.randn(64, generator=torch.Generator().manual_seed(0))
    among = torch.stack([-row, *[row * scale for scale in (1, 2, 0.25, 8)] * 50])
    assert analysis.nearest(row.unsqueeze(0), among, 200).tolist() == [list(range(1, 201))]


def test_nearest_to_what_is_among_them_is_itself():
    features = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    assert analysis.nearest(features, features, 1).flatten().tolist() == list(range(40))


def test_nearest_works_with_zeros_and_half_precision():
    among = torch.tensor([[0.0, 0], [1, 0], [-1, 0]]).half()
    assert analysis.nearest(torch.tensor([[2.0, 0]]), among, 3).tolist() == [[1, 0, 2]]
    assert analysis.nearest(torch.zeros(0, 2), among, 2).shape == (0, 2)


@pytest.mark.parametrize(
    ("features", "among", "count", "message"),
    [
        (None, torch.zeros(3, 2), 1, "without nn.Linear"),
        (torch.zeros(3, 2), None, 1, "without nn.Linear"),
        (torch.zeros(2), torch.zeros(3, 2), 1, r"got \(2,\) and \(3, 2\)"),
        (torch.zeros(1, 4), torch.zeros(3, 2), 1, "from the same network"),
        (torch.zeros(1, 2), torch.zeros(3, 2), 4, "from 1 to 3, got 4"),
        (torch.zeros(1, 2), torch.zeros(3, 2), 0, "from 1 to 3, got 0"),
        (torch.full((1, 2), math.nan), torch.zeros(3, 2), 1, "not finite"),
        (torch.zeros(1, 2), torch.full((3, 2), math.inf), 1, "not finite"),
    ],
)
def test_nearest_says_what_is_wrong(features, among, count, message):
    with pytest.raises(ValueError, match=message):
        analysis.nearest(features, among, count)


# ---------------------------------------------------------------- Grad-CAM


def shaken(build):
    """The network that `build` makes, always the same, in eval mode; batch norm as after a training, nothing silent."""
    torch.manual_seed(0)
    model = build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


NETWORKS = {
    "CustomResNet": (lambda: CustomResNet(8), ("layer1", "layer2", "layer3", "prep.0", "layer3.1.branch.0.1")),
    "resnet18": (resnet18, ("layer1", "layer2", "layer3", "bn1", "layer2.0.conv1")),
    "vgg11": (lambda: vgg11(head="small", classes=10), ("features.0", "features.3")),
    "vgg11_bn": (lambda: vgg11_bn(head="small"), ("features.1", "features.8")),
    "torchvision": (lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=7), ("conv1", "stage2")),
}
X = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_grad_cam_equals_captum(name):
    build, layers = NETWORKS[name]
    model = shaken(build)
    speaking = 0
    for layer in map(model.get_submodule, layers):
        for target in (0, 5, torch.tensor([6, 2, 1])):
            theirs = LayerGradCam(model, layer).attribute(X, target, relu_attributions=True)[:, 0]
            mine = analysis.grad_cam(model, layer, X, target)
            assert mine[0].numel() > 1
            assert not mine.requires_grad
            torch.testing.assert_close(mine, theirs.detach(), rtol=1e-4, atol=1e-7)
            speaking += bool(mine.any())
    assert speaking > len(layers)  # zeros everywhere would prove nothing


class Counting(nn.Module):
    """Two channels, each with a weight for each class: Grad-CAM can be worked out by hand."""

    def __init__(self):
        super().__init__()
        self.stage = nn.Conv2d(1, 2, 1, bias=False)
        self.stage.weight.data = torch.tensor([1.0, -1]).view(2, 1, 1, 1)  # channels: the image, its negative
        self.bend = nn.ReLU(inplace=True)
        self.head = nn.Linear(2, 2, bias=False)
        self.head.weight.data = torch.tensor([[4.0, 0], [0, 4]])

    def forward(self, x):
        return self.head(self.bend(self.stage(x)).mean(dim=(2, 3)))


def test_grad_cam_by_hand_before_a_relu_in_place():
    x = torch.tensor([[1.0, -2], [3, 0]]).view(1, 1, 2, 2)
    model = Counting()
    # Class 0 sees channel 0 where it is above 0: 2 of 4 pixels, each with gradient 4 / 4; their mean is 1/2.
    # The channel itself is shown as it was before the ReLU: 1, -2, 3, 0.
    assert analysis.grad_cam(model, model.stage, x, 0).tolist() == [[[0.5, 0], [1.5, 0]]]
    # Class 1 sees channel 1, where -x is above 0: 1 of 4 pixels; -x is -1, 2, -3, 0.
    assert analysis.grad_cam(model, model.stage, x, 1).tolist() == [[[0, 0.5], [0, 0]]]
    # After the ReLU every pixel counts.
    assert analysis.grad_cam(model, model.bend, x, 0).tolist() == [[[1, 0], [3, 0]]]


def hooks(model):
    return [module for module in model.modules() if module._forward_hooks or module._backward_hooks]


@pytest.mark.parametrize("training", [True, False])
def test_grad_cam_leaves_the_network_as_it_was(training):
    model = CustomResNet(8).train(training)
    model.prep.eval()
    F.cross_entropy(model(X), torch.tensor([0, 1, 2])).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    x = X.clone()
    analysis.grad_cam(model, model.layer2, x, 1)
    assert model.training is training
    assert model.layer2.training is training
    assert not model.prep.training
    assert all(torch.equal(p.grad, gradients[name]) for name, p in model.named_parameters())
    assert all(torch.equal(b, buffers[name]) for name, b in model.named_buffers())
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(x, X)
    assert not x.requires_grad
    assert not hooks(model)


def test_grad_cam_leaves_no_hook_when_it_fails():
    model = CustomResNet(8).train()
    for layer, target in ((model.linear, 0), (model.layer1, 10), (model.layer1, -1)):
        with pytest.raises(ValueError, match="grad_cam"):
            analysis.grad_cam(model, layer, X, target)
        assert not hooks(model)
        assert model.training


def test_grad_cam_of_a_frozen_network_and_under_no_grad():
    model, target = shaken(lambda: CustomResNet(8)), torch.tensor([4, 0, 7])
    expected = analysis.grad_cam(model, model.layer2, X, target)
    assert expected.any()
    with torch.no_grad():
        torch.testing.assert_close(analysis.grad_cam(model, model.layer2, X, target), expected)
    with torch.inference_mode():
        x, target_there = X.clone(), target.clone()
        torch.testing.assert_close(analysis.grad_cam(model, model.layer2, x, target_there), expected)
    torch.testing.assert_close(analysis.grad_cam(model, model.layer2, x, target_there), expected)
    model.requires_grad_(False)
    torch.testing.assert_close(analysis.grad_cam(model, model.layer2, X, target), expected)


def test_grad_cam_of_one_image_does_not_depend_on_the_others():
    model = shaken(lambda: CustomResNet(8)).train()
    whole = analysis.grad_cam(model, model.layer1, X, torch.tensor([4, 0, 7]))
    for i, target in enumerate((4, 0, 7)):
        torch.testing.assert_close(analysis.grad_cam(model, model.layer1, X[i : i + 1], target)[0], whole[i])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_grad_cam_and_occlusion_follow_the_precision_of_the_network(dtype):
    torch.manual_seed(0)
    model = Twice()
    cam, drops = analysis.grad_cam(model, model.conv, X, 1), analysis.occlusion(model, X, 1, 16, 16)
    model.to(dtype)
    mine = analysis.grad_cam(model, model.conv, X, 1)
    assert mine.dtype == torch.float32
    assert torch.allclose(mine, cam, atol=0.02 * float(cam.max()))
    assert torch.allclose(analysis.occlusion(model, X, 1, 16, 16), drops, atol=0.01)


class Twice(nn.Module):
    """One module runs twice, another not at all, and a third is listed but leads nowhere."""

    def __init__(self):
        super().__init__()
        self.conv, self.unused, self.lost = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        self.lost(x)
        return self.head(self.conv(self.conv(x)).mean(dim=(2, 3)))


def test_grad_cam_of_a_module_that_runs_twice_is_of_its_last_run():
    torch.manual_seed(0)
    model = Twice()
    output = model.conv(model.conv(X)).detach()
    expected = (model.head.weight[1].view(1, 3, 1, 1) * output).sum(dim=1).relu() / (32 * 32)
    torch.testing.assert_close(analysis.grad_cam(model, model.conv, X, 1), expected.detach())


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("layer", ["unused", "lost"])
def test_grad_cam_of_a_layer_that_the_logits_do_not_depend_on(layer, frozen):
    model = Twice().requires_grad_(not frozen)
    with pytest.raises(ValueError, match="do not depend on this layer"):
        analysis.grad_cam(model, getattr(model, layer), X, 0)


def test_grad_cam_of_a_network_without_convolutions():
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.ReLU(), nn.Linear(8, 2))
    for layer in model:
        with pytest.raises(ValueError, match="without convolutions has no places to show"):
            analysis.grad_cam(model, layer, X, 0)


BAD_IMAGES = [X[0], X[:0], X.byte(), X.numpy(), None]
BAD_TARGETS = [2, -1, torch.tensor([0, 1]), torch.tensor([0, 1, 2]), torch.zeros(3, 1, dtype=torch.int64), 0.5]


@pytest.mark.parametrize("x", BAD_IMAGES)
def test_maps_refuse_what_are_no_images(x):
    model = Twice()
    for call in (lambda: analysis.grad_cam(model, model.conv, x, 0), lambda: analysis.occlusion(model, x, 0)):
        with pytest.raises(ValueError, match=r"float \(B, C, H, W\) with B at least 1"):
            call()


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_maps_refuse_what_are_no_targets(target):
    model = Twice()
    for call in (lambda: analysis.grad_cam(model, model.conv, X, target), lambda: analysis.occlusion(model, X, target)):
        with pytest.raises(ValueError, match="target must be a class from 0 to 1, or a tensor of 3"):
            call()


@pytest.mark.parametrize("layer", [None, "layer1"])
def test_grad_cam_refuses_what_is_no_layer(layer):
    with pytest.raises(ValueError, match="layer must be a module"):
        analysis.grad_cam(Twice(), layer, X, 0)


def test_maps_refuse_a_damaged_network():
    model = Twice()
    model.head.weight.data[0] = math.nan
    for call in (lambda: analysis.grad_cam(model, model.conv, X, 0), lambda: analysis.occlusion(model, X, 0)):
        with pytest.raises(ValueError, match="not finite"):
            call()


# ---------------------------------------------------------------- occlusion


class Corner(nn.Module):
    """The logit of class 1 is twice the pixel in row 5, column 9 of the first channel; class 0 has 0."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        logit = self.drop(2 * x[:, 0, 5, 9])
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


def test_occlusion_by_hand():
    model = Corner().train()
    x = torch.ones(2, 3, 32, 32)
    x[1] = -1
    drops = analysis.occlusion(model, x, 1)
    assert drops.shape == (2, 7, 7)
    covers = torch.zeros(7, 7)
    covers[0:2, 1:3] = 1  # rows 0-7 and 4-11 hold row 5; columns 4-11 and 8-15 hold column 9
    surely, hardly = torch.tensor([2.0, -2]).sigmoid()
    torch.testing.assert_close(drops[0], covers * (surely - 0.5))
    torch.testing.assert_close(drops[1], covers * (hardly - 0.5))  # below 0: covering helps
    torch.testing.assert_close(analysis.occlusion(model, x, torch.tensor([1, 0]))[1], covers * (0.5 - hardly))
    assert model.training
    assert bool((x[0] == 1).all())


def test_occlusion_of_images_that_are_no_square():
    x = torch.ones(1, 3, 12, 20)
    drops = analysis.occlusion(Corner(), x, 1, size=5, stride=3)
    assert drops.shape == (1, 3, 6)  # rows 0, 3, 6; columns 0, 3, ..., 15
    assert (drops[0] != 0).nonzero().tolist() == [[1, 2], [1, 3]]  # row 5 is in 3-7, column 9 in 6-10 and 9-13
    assert analysis.occlusion(Corner(), x, 1, size=12, stride=50).shape == (1, 1, 1)


@pytest.mark.parametrize(("size", "stride"), [(33, 4), (0, 4), (8, 0), (8, -1), (2.5, 1)])
def test_occlusion_refuses_squares_that_do_not_fit(size, stride):
    with pytest.raises(ValueError, match="occlusion: (size|stride) must be a whole number"):
        analysis.occlusion(Corner(), X, 1, size, stride)


# ---------------------------------------------------------------- cross-validation


class Memory(nn.Module):
    """Knows the images that it was made from by heart and gives their label; says class 0 to all others."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):
        same = equal(((x * 0.5 + 0.5) * 255).round(), self.part.x)
        said = torch.where(same.any(dim=1), self.part.y[same.int().argmax(dim=1)], 0)
        return 9.0 * F.one_hot(said, len(self.part.classes))


def equal(some, others):
    """bool (N, M): which images of two sets are the same."""
    return (some.unsqueeze(1) == others.unsqueeze(0)).flatten(2).all(dim=2)


def folded(y, folds, **options):
    """The Predictions, and for each fold the positions of the images that its network was made from."""
    images, parts = made(y), []

    def make_and_train(part):
        parts.append(equal(images.x, part.x).any(dim=1))
        return Memory(part).train(), STATS

    return analysis.cross_validate(make_and_train, images, folds, **options), parts


def test_cross_validate_never_asks_a_network_that_saw_the_image():
    y = [1, 2] * 20  # a network that saw an image says 1 or 2, one that did not says 0
    p, parts = folded(y, 5)
    assert p.predicted.tolist() == [0] * 40
    assert len(parts) == 5
    held_out = ~torch.stack(parts)
    assert (held_out.sum(dim=0) == 1).all()  # every image in exactly one fold
    assert p.images.y.tolist() == y
    assert p.features is None


def test_cross_validate_spreads_the_classes_evenly():
    y = [0] * 11 + [1] * 7 + [2] * 5
    _, parts = folded(y, 4)
    held_out = ~torch.stack(parts)
    sizes = torch.stack([held_out[:, torch.tensor(y) == label].sum(dim=1) for label in range(3)])
    assert (sizes.amax(dim=1) - sizes.amin(dim=1) <= 1).all()
    assert held_out.sum(dim=1).sort().values.tolist() == [5, 6, 6, 6]


def test_cross_validate_depends_on_its_seed_alone():
    y = [0, 1] * 10
    first = torch.stack(folded(y, 4)[1])
    torch.manual_seed(99)
    assert torch.equal(torch.stack(folded(y, 4)[1]), first)
    assert not torch.equal(torch.stack(folded(y, 4, seed=1)[1]), first)


def test_cross_validate_puts_logits_back_where_their_images_are():
    images = dark_and_bright([0, 1, 1, 0, 1, 0, 0, 1, 1])
    p = analysis.cross_validate(lambda part: (Brightness(), STATS), images, 3)
    assert torch.equal(p.logits, analysis.predict(Brightness(), Batches(images, STATS)).logits)
    assert p.accuracy == 1
    assert p.images is images


def test_cross_validate_uses_the_statistics_of_each_fold():
    images = dark_and_bright([1] * 6)
    means = iter((0.0, 0.5))
    p = analysis.cross_validate(lambda part: (Brightness(), (torch.full((3,), next(means)), STATS[1])), images, 2)
    assert sorted(p.logits[:, 1].tolist()) == pytest.approx([10] * 3 + [20] * 3)


@pytest.mark.parametrize("folds", [0, 1, 7, 2.5])
def test_cross_validate_refuses_folds_without_images(folds):
    with pytest.raises(ValueError, match="folds .* must be a whole number from 2 to 6"):
        analysis.cross_validate(lambda part: pytest.fail("trained"), made(TRUE), folds)


def test_cross_validate_refuses_a_network_that_trains_on_and_on():
    model = Brightness()
    with pytest.raises(ValueError, match="Build a new network in each call"):
        analysis.cross_validate(lambda part: (model, STATS), dark_and_bright([0, 1] * 4), 2)


def test_cross_validate_leaves_one_out():
    p, parts = folded([1, 2, 1], 3)
    assert p.predicted.tolist() == [0, 0, 0]
    assert sorted((~part).nonzero().item() for part in parts) == [0, 1, 2]
