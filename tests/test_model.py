import pytest
import torch
import torchvision
from torchsummary import summary

from helpers import model as m

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_custom_resnet_has_exactly_the_published_number_of_parameters(capsys):
    network = m.CustomResNet().eval()
    assert count(network) == 6_573_130
    summary(network, (3, 32, 32), device="cpu")
    assert "Total params: 6,573,130" in capsys.readouterr().out


def test_custom_resnet_shapes_at_every_stage():
    network, x = m.CustomResNet(width=8).eval(), IMAGES
    for stage, shape in (("prep", (8, 32)), ("layer1", (16, 16)), ("layer2", (32, 8)), ("layer3", (64, 4))):
        x = getattr(network, stage)(x)
        assert tuple(x.shape) == (4, shape[0], shape[1], shape[1])
    assert network(IMAGES).shape == (4, 10)
    assert m.CustomResNet(width=8, classes=7)(IMAGES).shape == (4, 7)


def test_custom_resnet_returns_logits_not_probabilities():
    sums = m.CustomResNet(width=8)(IMAGES).exp().sum(dim=1)
    assert not torch.allclose(sums, torch.ones(4), atol=1e-2)


def test_custom_resnet_is_what_its_description_says():
    network = m.CustomResNet(width=8)
    convolutions = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    norms = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [
        (3, 8), (8, 16), (16, 16), (16, 16), (16, 32), (32, 64), (64, 64), (64, 64),
    ]  # fmt: skip
    assert all(c.bias is None and c.kernel_size == (3, 3) and c.padding == (1, 1) for c in convolutions)
    assert len(norms) == len(convolutions)
    # With a silent branch, a residual layer passes on what came in.
    residual = network.layer1[1].eval()
    torch.nn.init.zeros_(residual.branch[1][1].weight)
    x = torch.rand(2, 16, 8, 8)
    assert torch.equal(residual(x), x)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_weights_go_to_and_from_torchvision_and_give_the_same(name):
    ours, theirs = getattr(m, name)(), getattr(torchvision.models, name)()
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert [key for key, _ in ours.named_parameters()] == [key for key, _ in theirs.named_parameters()]
    x = torch.randn(2, 3, 64, 64)
    results = []
    for network in (ours.eval(), theirs.eval()):
        logits = network(x)
        logits.square().mean().backward()
        results.append((logits, [parameter.grad for parameter in network.parameters()]))
    # The same operations in the same order: equal to the last bit.
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


def test_vgg_features_equal_torchvisions():
    ours = m.vgg11_bn(head="small").features.eval()
    with torch.device("meta"):  # its linear layers, not needed here, would take seconds to fill with numbers
        theirs = torchvision.models.vgg11_bn().features
    theirs = theirs.to_empty(device="cpu").eval()
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours(IMAGES), theirs(IMAGES))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032), ("resnet101", 44_549_160),
        ("resnet152", 60_192_808), ("vgg11", 132_863_336), ("vgg13_bn", 133_053_736), ("vgg16", 138_357_544),
        ("vgg19", 143_667_240),
    ],
)  # fmt: skip
def test_published_parameter_counts_and_torchvisions_names_and_shapes(name, parameters):
    with torch.device("meta"):
        ours, theirs = getattr(m, name)(), getattr(torchvision.models, name)()
    assert count(ours) == parameters
    shapes = [[(key, value.shape) for key, value in network.state_dict().items()] for network in (ours, theirs)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("depth", "millions"), [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.73")])
def test_cifar_resnets_have_the_papers_sizes_with_and_without_shortcuts(depth, millions):
    assert f"{count(m.cifar_resnet(depth)) / 1e6:.2f}" == millions
    assert count(m.cifar_resnet(depth, residual=False)) == count(m.cifar_resnet(depth))


def test_a_plain_network_has_no_addition():
    residual, plain = m.cifar_resnet(8), m.cifar_resnet(8, residual=False)
    plain.load_state_dict(residual.state_dict())
    assert not torch.allclose(residual.eval()(IMAGES), plain.eval()(IMAGES))
    silent = plain.layer1[0].eval()
    torch.nn.init.zeros_(silent.bn2.weight)
    assert (silent(torch.rand(1, 16, 8, 8)) == 0).all()


@pytest.mark.parametrize(
    "network",
    [
        lambda: m.resnet18(stem="small", classes=10),
        lambda: m.resnet50(stem="small", classes=10),
        lambda: m.vgg16_bn(head="small", classes=10),
        lambda: m.cifar_resnet(20),
    ],
)
def test_networks_for_small_images(network):
    assert network()(IMAGES).shape == (4, 10)


@pytest.mark.parametrize(
    "network",
    [lambda: m.CustomResNet(8), lambda: m.cifar_resnet(8), m.resnet18, lambda: m.VGG(11, head="small", classes=10)],
)
@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (3, 32, 32), (2, 3, 2, 2), (2, 32, 32, 3)])
def test_input_of_another_shape_gets_one_clear_error(network, shape):
    with pytest.raises(ValueError, match=r"input must be \(B, 3, H, W\)"):
        network()(torch.zeros(shape))


def test_the_custom_resnet_refuses_larger_images():
    with pytest.raises(ValueError, match="32x32"):
        m.CustomResNet(8)(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("depth", [0, 2, 18, 21, 57, -4])
def test_a_depth_that_is_not_6n_plus_2_is_refused(depth):
    with pytest.raises(ValueError, match=r"depth must be"):
        m.cifar_resnet(depth)


def test_wrong_options_are_refused():
    for build in (
        lambda: m.CustomResNet(width=0),
        lambda: m.CustomResNet(classes=0),
        lambda: m.CustomResNet(width=2.5),
        lambda: m.resnet18(stem="tiny"),
        lambda: m.VGG(12),
        lambda: m.vgg16(head="tiny"),
    ):
        with pytest.raises(ValueError, match="must be|not known"):
            build()
