"""helpers/analysis.py: answers worked out by hand or by other packages, and guards against mixed-up predictions."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.optimize
import sklearn.calibration
import sklearn.metrics
import torch
import torch.nn.functional as F
import torchvision
from captum.attr import LayerGradCam
from torch import nn

from helpers import analysis
from helpers.data import Batches, Images, random_flip
from helpers.model import CustomResNet, resnet18

CLASSES = ("cat", "dog", "ship")
STATS = torch.full((3,), 0.5), torch.full((3,), 0.5)
# true        cat  cat  cat  dog  dog  ship
TRUE = [0, 0, 0, 1, 1, 2]
PREDICTED = [0, 1, 1, 1, 0, 2]
CONFIDENCE = [0.9, 0.6, 0.8, 0.7, 0.95, 0.5]


def made(y, classes=CLASSES, seed=0):
    x = torch.randint(0, 256, (len(y), 3, 32, 32), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    return Images(x, torch.tensor(y, dtype=torch.int64), classes, "made up")


def predictions(true=TRUE, predicted=PREDICTED, confidence=CONFIDENCE, classes=CLASSES):
    """Predictions with a given answer and confidence: the rest of the probability is spread over the other classes."""
    p = torch.tensor(confidence, dtype=torch.float64).unsqueeze(1)
    chosen = F.one_hot(torch.tensor(predicted), len(classes)).bool()
    rows = torch.where(chosen, p, (1 - p) / (len(classes) - 1))
    return analysis.Predictions(made(true, classes), rows.log())


def mediocre(classes=10, count=600, signal=1.5, seed=0):
    """Predictions as of a mediocre network: some right, some wrong, of all degrees of confidence."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, classes, (count,), generator=generator)
    logits = torch.randn(count, classes, generator=generator)
    logits[torch.arange(count), y] += signal
    images = Images(torch.zeros(count, 3, 32, 32, dtype=torch.uint8), y, tuple(map(str, range(classes))), "made up")
    return analysis.Predictions(images, 2 * logits)


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


BATCHES = Batches(dark_and_bright([0, 1, 1]), STATS, 2)  # the last batch is smaller


def test_properties_by_hand():
    p = predictions()
    assert p.predicted.tolist() == PREDICTED
    assert p.confidence.tolist() == pytest.approx(CONFIDENCE)
    assert p.correct.tolist() == [True, False, False, True, False, True]
    assert p.accuracy == pytest.approx(0.5)
    assert torch.allclose(p.probabilities.sum(dim=1), torch.ones(6, dtype=torch.float64))


@pytest.mark.parametrize(("count", "shape"), [(6, (5, 3)), (6, (6, 2)), (6, (6,)), (0, (0, 3))])
def test_predictions_refuses_what_belongs_to_other_images_or_to_none(count, shape):
    with pytest.raises(ValueError, match=rf"needs logits \({count}, 3\).*at least one image; got \({shape[0]},"):
        analysis.Predictions(made(TRUE[:count]), torch.zeros(shape))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_predictions_refuses_what_is_not_finite(value):
    logits = torch.zeros(6, 3)
    logits[2, 1] = logits[4, 0] = value
    with pytest.raises(ValueError, match=r"2 of 6 images \(first: 2\) are not finite"):
        analysis.Predictions(made(TRUE), logits)


def test_at_divides_the_logits():
    p = analysis.Predictions(made(TRUE), torch.randn(6, 3, requires_grad=True), torch.randn(6, 4))
    warm = p.at(2.0)
    assert not p.logits.requires_grad
    assert torch.equal(warm.logits, p.logits / 2)
    assert warm.images is p.images
    assert torch.equal(warm.features, p.features)
    for temperature in (0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="finite number above 0"):
            p.at(temperature)


@pytest.mark.parametrize("indices", [torch.tensor([4, 0, 4]), torch.tensor([False, True, False, False, True, True])])
def test_take_keeps_images_logits_and_features_together(indices):
    p = analysis.Predictions(made(TRUE), torch.randn(6, 3), torch.randn(6, 4))
    part = p.take(indices)
    assert torch.equal(part.images.x, p.images.x[indices])
    assert torch.equal(part.images.y, p.images.y[indices])
    assert torch.equal(part.logits, p.logits[indices])
    assert torch.equal(part.features, p.features[indices])
    assert predictions().take(indices).features is None


def test_predict_keeps_logits_beside_their_images():
    labels = torch.randint(0, 2, (23,), generator=torch.Generator().manual_seed(3)).tolist()
    images = dark_and_bright(labels)
    p = analysis.predict(Brightness(), Batches(images, STATS, 5))
    assert p.images is images
    assert p.predicted.tolist() == labels
    assert p.features is None


@pytest.mark.parametrize("options", [{"shuffle": True}, {"augment": [random_flip()]}, {"drop_last": True}, None])
def test_predict_refuses_what_loses_the_order(options):
    x, y = torch.zeros(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64)
    batches = [(x, y)] if options is None else Batches(dark_and_bright([0, 1] * 5), STATS, 4, **options)
    with pytest.raises(ValueError, match="each image once, in order: Batches without"):
        analysis.predict(Brightness(), batches)


class Failing(nn.Sequential):
    def forward(self, x):
        super().forward(x)
        raise RuntimeError("out of memory")


@pytest.mark.parametrize("kind", [nn.Sequential, Failing])
def test_predict_runs_in_eval_mode_without_gradients_and_leaves_no_trace(kind):
    layers = nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(3072, 2)
    model = kind(*layers).train()
    model[0].eval()  # frozen batch norm in a network that trains
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    modes = []
    hook = model.register_forward_pre_hook(
        lambda model, _: modes.append([torch.is_grad_enabled(), *(module.training for module in model.modules())])
    )
    if kind is Failing:
        with pytest.raises(RuntimeError, match="out of memory"):
            analysis.predict(model, BATCHES)
    else:
        first, second = (analysis.predict(model, BATCHES).logits for _ in range(2))
        assert torch.equal(first, second)  # dropout would differ
    hook.remove()
    assert modes
    assert not any(map(any, modes))
    assert [module.training for module in model.modules()] == [True, False, True, True, True]
    assert all(torch.equal(b, buffers[name]) for name, b in model.named_buffers())
    assert not any(module._forward_pre_hooks for module in model.modules())


class Listed(nn.Module):
    """The linear layer that is listed last runs first, another does not run at all."""

    def __init__(self):
        super().__init__()
        self.head, self.unused, self.body = nn.Linear(5, 2), nn.Linear(7, 2), nn.Linear(3072, 5)

    def forward(self, x):
        return self.head(self.body(x.flatten(1)))


class Tokens(nn.Module):
    """Its linear layer is given (B, 4, 8), to be flattened, or with `fold` (4 * B, 8): no row an image."""

    def __init__(self, fold=False):
        super().__init__()
        self.layer, self.shape = nn.Linear(8, 2), (-1, 8) if fold else (-1, 4, 8)

    def forward(self, x):
        return self.layer(x.flatten(1)[:, :32].reshape(self.shape)).view(-1, 4, 2).mean(dim=1)


def test_features_are_the_input_of_the_linear_layer_that_runs_last_a_row_an_image():
    torch.manual_seed(0)
    for model, name, size in ((CustomResNet(8, classes=2), "linear", 64), (Listed(), "head", 5)):
        p = analysis.predict(model.eval(), BATCHES)
        assert p.features.shape == (3, size)
        assert torch.allclose(getattr(model, name)(p.features), p.logits, atol=1e-6)
        assert p.features.is_contiguous()
        assert p.logits.is_contiguous()
        scale = torch.ones((), requires_grad=True)  # what was collected can take part in training
        F.cross_entropy(p.logits * scale, p.images.y).backward()
        assert scale.grad.isfinite()
    assert analysis.predict(Tokens(), BATCHES).features.shape == (3, 32)
    for model in (Tokens(fold=True), nn.Sequential(nn.Conv2d(3, 2, 32), nn.Flatten())):
        assert analysis.predict(model, BATCHES).features is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_predict_follows_the_precision_of_the_network(dtype):
    torch.manual_seed(0)
    model = CustomResNet(8, classes=2)
    exact = analysis.predict(model, BATCHES)
    p = analysis.predict(model.to(dtype), BATCHES)
    assert p.logits.dtype == p.features.dtype == torch.float32
    assert torch.allclose(p.logits, exact.logits, atol=0.05)


class Answers(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.forward = forward


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x, r"needs logits \(3, 2\).*got \(3, 3, 32, 32\)"),
        (lambda x: torch.zeros(1, 2), r"got \(2, 2\)"),
        (lambda x: torch.zeros(len(x), 5), r"got \(3, 5\)"),
        (lambda x: torch.full((len(x), 2), math.nan), "3 of 3 images .* not finite.*train it again"),
    ],
)
def test_predict_says_what_is_wrong_with_the_network(answer, message):
    with pytest.raises(ValueError, match=message):
        analysis.predict(Answers(answer), BATCHES)


def test_interval_known_values():
    for correct, count, low, high in (
        (0, 10, 0, 1.96**2 / (10 + 1.96**2)),
        (10, 10, 10 / (10 + 1.96**2), 1),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),  # the example of Newcombe 1998
    ):
        assert analysis.interval(correct, count) == pytest.approx((low, high), abs=5e-5)
    for correct, count in ((-1, 5), (6, 5), (0, 0)):
        with pytest.raises(ValueError, match=f"0 <= correct <= count and count >= 1, got {correct} and {count}"):
            analysis.interval(correct, count)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_counts_equal_scikit_learn(classes):
    p = mediocre(classes)
    y, labels = p.images.y, range(classes)
    mine = analysis.confusion(p)
    assert mine.dtype == torch.int64
    assert mine.tolist() == sklearn.metrics.confusion_matrix(y, p.predicted, labels=labels).tolist()
    recall = sklearn.metrics.recall_score(y, p.predicted, labels=labels, average=None, zero_division=np.nan)
    np.testing.assert_allclose(analysis.per_class_accuracy(p), recall, rtol=1e-6)


def test_confusion_by_hand_with_a_class_that_never_comes():
    assert analysis.confusion(predictions()).tolist() == [[1, 2, 0], [1, 1, 0], [0, 0, 1]]  # rows are true
    p = predictions([0, 1], [1, 1], [0.9, 0.9])
    assert analysis.confusion(p).tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert analysis.per_class_accuracy(p).nan_to_num(-1).tolist() == [0, 1, -1]


@pytest.mark.parametrize(("classes", "bins"), [(2, 15), (10, 10), (100, 15), (10, 1), (10, 200)])
def test_calibration_equals_scikit_learn(classes, bins):
    p = mediocre(classes)
    table = analysis.calibration(p, bins)
    filled = table["count"] > 0
    accuracy, confidence = sklearn.calibration.calibration_curve(p.correct, p.confidence, n_bins=bins)
    np.testing.assert_allclose(table["accuracy"][filled], accuracy, atol=1e-6)
    np.testing.assert_allclose(table["confidence"][filled], confidence, atol=1e-6)
    assert table["count"].sum() == len(p.images)


def test_calibration_by_hand():
    p = predictions([1, 0, 1, 1, 0], [1, 1, 1, 1, 0], [0.55, 0.6, 0.7, 0.9, 0.8], ("no", "yes"))
    table = analysis.calibration(p, 4)  # above 0, 0.25, 0.5, 0.75
    assert table["count"].tolist() == [0, 0, 3, 2]
    assert table["confidence"][2:].tolist() == pytest.approx([1.85 / 3, 0.85])
    assert table["accuracy"][2:].tolist() == pytest.approx([2 / 3, 1])
    assert table["confidence"][:2].isnan().all()
    assert table["accuracy"][:2].isnan().all()
    assert analysis.calibration_error(p, 4) == pytest.approx(3 / 5 * (2 / 3 - 1.85 / 3) + 2 / 5 * 0.15)


def test_borders_of_the_bins():
    certain = analysis.Predictions(made([0, 0, 1]), torch.tensor([[200.0, 0, 0]] * 3))
    assert certain.confidence.tolist() == [1, 1, 1]
    assert analysis.calibration(certain, 10)["count"].tolist() == [0] * 9 + [3]
    assert analysis.calibration_error(certain, 10) == pytest.approx(1 / 3)
    half = predictions([0, 0], [0, 0], [0.5, 0.6], ("no", "yes"))
    assert analysis.calibration(half, 4)["count"].tolist() == [0, 1, 1, 0]
    assert len(analysis.calibration(half)["count"]) == 15
    assert analysis.calibration_error(mediocre()) == analysis.calibration_error(mediocre(), 15)


def test_reliability_diagram_draws_the_table(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("a panel is shown by its figure"))
    p = mediocre()
    table = analysis.calibration(p, 10)
    filled = table["count"].nonzero().flatten()
    fig, ax = plt.subplots()
    analysis.reliability_diagram(p, "the panel", bins=10, ax=ax)
    bars = {round(bar.get_x() + bar.get_width() / 2, 4): bar.get_height() for bar in ax.patches}
    assert bars == pytest.approx({round((i + 0.5) / 10, 4): float(table["accuracy"][i]) for i in filled.tolist()})
    marks = ax.lines[0].get_xydata()
    np.testing.assert_allclose(marks, torch.stack([(filled + 0.5) / 10, table["confidence"][filled]], dim=1))
    for i, segment in zip(filled, ax.collections[0].get_segments(), strict=True):
        n = int(table["count"][i])
        expected = analysis.interval(round(float(table["accuracy"][i]) * n), n)
        np.testing.assert_allclose(segment[:, 1], expected, atol=1e-6)
    assert ax.get_title() == "the panel"
    assert ax.get_xlabel() == f"confidence (calibration error {analysis.calibration_error(p, 10):.3f})"
    assert ax.get_legend() is None  # one legend serves all panels of a figure: the caller's
    assert len(ax.get_legend_handles_labels()[1]) == 3
    plt.close(fig)


def test_reliability_diagram_makes_and_shows_a_figure(monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    analysis.reliability_diagram(predictions(), "All is told")
    assert [fig.get_suptitle() for fig in shown] == ["All is told"]
    assert "made up" in shown[0].get_supxlabel()
    shown[0].draw_without_rendering()
    (ax,) = shown[0].axes
    legend = ax.get_legend().get_window_extent()
    others = [ax.patch, *shown[0].texts, ax.xaxis.label]
    assert not any(legend.overlaps(other.get_window_extent()) for other in others)  # it hides nothing
    assert legend.x1 <= shown[0].bbox.x1  # and is not cut off
    plt.close("all")


def test_fit_temperature_by_hand():
    # Two classes, a logit of 3 for the right one in 3 of 4 images: the best probability is 3/4, so 3 / T = log 3.
    logits = torch.tensor([[3.0, 0], [3, 0], [0, 3], [3, 0]])
    p = analysis.Predictions(made([0, 0, 1, 1], ("no", "yes")), logits)
    assert analysis.fit_temperature(p) == pytest.approx(3 / math.log(3), rel=1e-6)


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("scale", [1e-3, 1, 1e5])
def test_fit_temperature_equals_a_minimiser_of_scipy(classes, scale):
    p = mediocre(classes)
    shifted = scale * p.logits.double() + torch.randn(len(p.images), 1)  # which the softmax ignores
    fitted = analysis.fit_temperature(analysis.Predictions(p.images, shifted))

    def loss(log_t):
        return F.cross_entropy(p.logits.double() / math.exp(log_t), p.images.y).item()

    best = scipy.optimize.minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-8})
    assert fitted == pytest.approx(math.exp(best.x) * scale, rel=1e-4)


def test_fit_temperature_says_where_there_is_no_best():
    with pytest.raises(ValueError, match="all 6 images are correct. Pass more"):
        analysis.fit_temperature(predictions(TRUE, TRUE))
    for logits in (torch.zeros(6, 3), -5.0 * F.one_hot(torch.tensor(TRUE), 3)):
        with pytest.raises(ValueError, match="no more than guessing"):
            analysis.fit_temperature(analysis.Predictions(made(TRUE), logits))


def shaken(build):
    """The network that `build` makes, always the same, in eval mode; batch norm as after a training, no branch at 0."""
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
    "torchvision": (lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=7), ("conv1", "stage2")),
}
X = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NETWORKS)
def test_grad_cam_equals_captum(name):
    build, layers = NETWORKS[name]
    model = shaken(build)
    not_zero = 0
    for layer in map(model.get_submodule, layers):
        for target in (0, 5, torch.tensor([6, 2, 1])):
            theirs = LayerGradCam(model, layer).attribute(X, target, relu_attributions=True)[:, 0]
            mine = analysis.grad_cam(model, layer, X, target)
            assert mine[0].numel() > 1
            assert not mine.requires_grad
            torch.testing.assert_close(mine, theirs.detach(), rtol=1e-4, atol=1e-7)
            not_zero += bool(mine.any())
    assert not_zero > len(layers)  # zeros everywhere would prove nothing


class Counting(nn.Module):
    """Two channels, each with a weight for each class: Grad-CAM can be worked out by hand."""

    def __init__(self):
        super().__init__()
        self.stage = nn.Conv2d(1, 2, 1, bias=False)
        self.stage.weight.data = torch.tensor([1.0, -1]).view(2, 1, 1, 1)  # channels: the image, its negative
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(2, 2, bias=False)
        self.head.weight.data = torch.tensor([[4.0, 0], [0, 4]])

    def forward(self, x):
        return self.head(self.relu(self.stage(x)).mean(dim=(2, 3)))


def test_grad_cam_by_hand_before_a_relu_in_place():
    x = torch.tensor([[1.0, -2], [3, 0]]).view(1, 1, 2, 2)
    model = Counting()
    # Class 0 sees channel 0 where it is above 0: 2 of 4 pixels, each with gradient 4 / 4; their mean is 1/2.
    # The channel itself is shown as it was before the ReLU: 1, -2, 3, 0.
    assert analysis.grad_cam(model, model.stage, x, 0).tolist() == [[[0.5, 0], [1.5, 0]]]
    # Class 1 sees channel 1, where -x is above 0: 1 of 4 pixels; -x is -1, 2, -3, 0.
    assert analysis.grad_cam(model, model.stage, x, 1).tolist() == [[[0, 0.5], [0, 0]]]
    # After the ReLU every pixel counts.
    assert analysis.grad_cam(model, model.relu, x, 0).tolist() == [[[1, 0], [3, 0]]]


def test_grad_cam_leaves_the_network_as_it_was():
    model = CustomResNet(8).train()
    model.prep.eval()
    modes = [module.training for module in model.modules()]
    F.cross_entropy(model(X), torch.tensor([0, 1, 2])).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    x = X.clone()
    analysis.grad_cam(model, model.layer2, x, 1)
    for layer, target in ((model.linear, 0), (model.layer1, 10), (model.layer1, -1), (CustomResNet(8).layer1, 0)):
        with pytest.raises((ValueError, RuntimeError), match="with an output|out of bounds"):
            analysis.grad_cam(model, layer, x, target)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(p.grad, gradients[name]) for name, p in model.named_parameters())
    assert all(torch.equal(b, buffers[name]) for name, b in model.named_buffers())
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(x, X)
    assert not x.requires_grad
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())


def test_grad_cam_of_a_frozen_network_and_without_gradients():
    model, target = shaken(lambda: CustomResNet(8)), torch.tensor([4, 0, 7])
    expected = analysis.grad_cam(model, model.layer2, X, target)
    assert expected.any()
    with torch.no_grad():
        torch.testing.assert_close(analysis.grad_cam(model, model.layer2, X, target), expected)
    with torch.inference_mode():
        x, target_there = X.clone(), target.clone()
        torch.testing.assert_close(analysis.grad_cam(model, model.layer2, x, target_there), expected)
    torch.testing.assert_close(analysis.grad_cam(model, model.layer2, x, target_there), expected)
    model.requires_grad_(False).train()
    torch.testing.assert_close(analysis.grad_cam(model, model.layer2, X, target), expected)


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
    expected = (model.head.weight[1].view(1, 3, 1, 1) * output).sum(dim=1).relu().detach() / (32 * 32)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-6), (torch.bfloat16, 0.02)):
        mine = analysis.grad_cam(model.to(dtype), model.conv, X, 1)
        assert mine.dtype == torch.float32
        assert torch.allclose(mine, expected, atol=tolerance * float(expected.max()))


def test_grad_cam_says_what_is_wrong():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3072, 2))
    model = Twice()
    for network, layer in ((flat, flat[1]), (model, model.unused)):
        with pytest.raises(ValueError, match=r"runs no such layer with an output \(B, C, h, w\)"):
            analysis.grad_cam(network, layer, X, 0)
    with pytest.raises(RuntimeError, match="not have been used"):
        analysis.grad_cam(model, model.lost, X, 0)
    with pytest.raises(RuntimeError, match=r"expanded size"):
        analysis.grad_cam(model, model.conv, X, torch.tensor([0, 1]))
