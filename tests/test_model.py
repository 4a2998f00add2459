import pytest
import torch
import torchvision
from torch import nn
from torchsummary import summary

from helpers import model as m

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
RESNETS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
VGGS = [f"vgg{depth}{end}" for depth in (11, 13, 16, 19) for end in ("", "_bn")]


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def norms(network):
    return [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]


# ---------------------------------------------------------------- the custom ResNet


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
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [
        (3, 8), (8, 16), (16, 16), (16, 16), (16, 32), (32, 64), (64, 64), (64, 64),
    ]  # fmt: skip
    assert all(c.bias is None and c.kernel_size == (3, 3) and c.padding == (1, 1) for c in convolutions)
    assert len(norms(network)) == len(convolutions)
    # With a silent branch, a residual layer passes on what came in.
    residual = network.layer1[1].eval()
    nn.init.zeros_(residual.branch[1][1].weight)
    x = torch.rand(2, 16, 8, 8)
    assert torch.equal(residual(x), x)


def test_names_in_checkpoints_of_the_custom_resnet_stay():
    conv, norm = ["0.weight"], ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]

    def names(prefix, place):  # of conv_bn_relu; pooling moves the batch norm by one place
        return [f"{prefix}.{name}" for name in (*conv, *(f"{place}.{name}" for name in norm))]

    expected = names("prep", 1)
    for layer in ("layer1", "layer2", "layer3"):
        residual = layer != "layer2"
        expected += names(f"{layer}.0" if residual else layer, 2)
        expected += [name for i in (0, 1) if residual for name in names(f"{layer}.1.branch.{i}", 1)]
    expected += ["linear.weight", "linear.bias"]
    for options in ({}, {"activation": "gelu"}, {"zero_init_residual": True}):
        assert list(m.CustomResNet(width=4, **options).state_dict()) == expected


@pytest.mark.parametrize("activation", [*m.ACTIVATIONS, nn.Mish])
def test_activation_of_the_custom_resnet(activation):
    network = m.CustomResNet(width=4, activation=activation)
    kind = m.ACTIVATIONS.get(activation, activation)
    assert sum(isinstance(layer, kind) for layer in network.modules()) == 8
    assert sum(isinstance(layer, nn.ReLU) for layer in network.modules()) == (8 if activation == "relu" else 0)
    network(IMAGES).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_each_activation_of_the_custom_resnet_is_its_own():
    assert count(m.CustomResNet(width=4, activation=nn.PReLU)) == count(m.CustomResNet(width=4)) + 8


# ---------------------------------------------------------------- zero-initialised last batch norm


BUILDERS = {
    "custom": lambda **options: m.CustomResNet(width=4, **options),
    "cifar A": lambda **options: m.cifar_resnet(14, **options),
    "cifar B": lambda **options: m.cifar_resnet(14, shortcut="B", **options),
    "resnet18": lambda **options: m.resnet18(stem="small", classes=10, **options),
    "resnet50": lambda **options: m.resnet50(stem="small", classes=10, **options),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_with_zero_init_each_block_starts_as_its_shortcut_and_every_channel_learns(name):
    network = BUILDERS[name](zero_init_residual=True)
    blocks = [x for x in network.modules() if isinstance(x, m.Residual | m.BasicBlock | m.Bottleneck)]
    silent = [norm for norm in norms(network) if (norm.weight == 0).all()]
    assert len(silent) == len(blocks)
    keeps = next(block for block in blocks if getattr(block, "downsample", None) is None)
    x = torch.rand(2, silent[blocks.index(keeps)].num_features, 4, 4)
    assert torch.allclose(keeps(x), x, atol=2e-6)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
    for _ in range(3):  # the first step wakes the last batch norm of each branch, the next ones what lies before it
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(IMAGES), torch.arange(4)).backward()
        optimizer.step()
    assert all((norm.weight != 0).float().mean() > 0.9 for norm in silent)
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_at_exactly_zero_the_branch_of_the_custom_resnet_would_never_learn():
    network = m.CustomResNet(width=4, zero_init_residual=True)
    branch = network.layer3[1].branch
    nn.init.zeros_(branch[1][1].bias)
    network(IMAGES).square().mean().backward()
    assert all((parameter.grad == 0).all() for parameter in branch.parameters())


# ---------------------------------------------------------------- equal to torchvision


def _fill(network):
    """Weights drawn anew for a network without any (from the meta device); large ones repeat a block, for speed."""
    generator = torch.Generator().manual_seed(int(torch.randint(1 << 30, ())))
    block = torch.randn(1_000_003, generator=generator)
    with torch.no_grad():
        for name, t in network.state_dict().items():
            if t.ndim > 1:
                numbers = block.repeat(t.numel() // len(block) + 1)[: t.numel()].view(t.shape)
                t.copy_(numbers * (2 / t[0].numel()) ** 0.5)
            elif name.endswith("tracked"):
                t.zero_()
            else:
                t.uniform_(0.5, 1.5, generator=generator)


@pytest.mark.parametrize(
    ("name", "mode"),
    [(name, "eval") for name in RESNETS + VGGS] + [(name, "train") for name in ("resnet18", "resnet50", "vgg11_bn")],
)
def test_weights_go_to_and_from_torchvision_and_give_the_same(name, mode):
    with torch.device("meta"):
        ours, theirs = getattr(m, name)(), getattr(torchvision.models, name)()
    ours, theirs = ours.to_empty(device="cpu"), theirs.to_empty(device="cpu")
    _fill(ours)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert [key for key, _ in ours.named_parameters()] == [key for key, _ in theirs.named_parameters()]
    x, results = torch.randn(2, 3, 64, 64), []
    for network in (ours, theirs):
        torch.manual_seed(1)  # dropout in train mode
        logits = network.train(mode == "train")(x)
        logits.square().mean().backward()
        results.append(logits)
    # The same operations in the same order: equal to the last bit, outputs, gradients and running averages.
    assert results[0].isfinite().all()
    assert torch.equal(*results)
    for (key, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad), key
    for (key, a), b in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        assert torch.equal(a, b), key


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032), ("resnet101", 44_549_160),
        ("resnet152", 60_192_808), ("vgg11", 132_863_336), ("vgg13_bn", 133_053_736), ("vgg16", 138_357_544),
        ("vgg19", 143_667_240),
    ],
)  # fmt: skip
def test_published_parameter_counts(name, parameters):
    with torch.device("meta"):
        assert count(getattr(m, name)()) == parameters


# ---------------------------------------------------------------- the CIFAR ResNets


@pytest.mark.parametrize(("depth", "millions"), [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.73")])
def test_cifar_resnets_have_the_papers_sizes_with_and_without_shortcuts(depth, millions):
    with torch.device("meta"):
        a, b, plain = m.cifar_resnet(depth), m.cifar_resnet(depth, shortcut="B"), m.cifar_resnet(depth, residual=False)
    assert f"{count(a) / 1e6:.2f}" == millions  # the paper's table 6; it rounds the last one to 1.7
    assert count(plain) == count(a)
    assert list(plain.state_dict()) == list(a.state_dict())
    # Two projections with their batch norms: 16 to 32 channels and 32 to 64.
    assert count(b) == count(a) + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    layers = [x for x in a.modules() if isinstance(x, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth


def test_shortcut_a_thins_out_and_pads_and_shortcut_b_projects():
    x = torch.rand(2, 16, 8, 8)
    for option in ("A", "B"):
        block = m.cifar_resnet(8, shortcut=option).layer2[0].eval()
        nn.init.zeros_(block.bn2.weight)  # a silent branch shows the shortcut
        expected = torch.zeros(2, 32, 4, 4)
        expected[:, :16] = x[:, :, ::2, ::2]
        if option == "B":
            conv, norm = block.downsample
            nn.init.zeros_(norm.bias)
            expected = nn.functional.conv2d(x, conv.weight, stride=2).relu() / (1 + norm.eps) ** 0.5
        assert torch.allclose(block(x), expected, atol=1e-6)


def test_a_plain_network_has_no_addition():
    residual, plain = m.cifar_resnet(8), m.cifar_resnet(8, residual=False)
    plain.load_state_dict(residual.state_dict())
    assert not torch.allclose(residual.eval()(IMAGES), plain.eval()(IMAGES))
    silent = plain.layer1[0].eval()
    nn.init.zeros_(silent.bn2.weight)
    assert (silent(torch.rand(1, 16, 8, 8)) == 0).all()


@pytest.mark.parametrize(
    "network",
    [
        lambda: m.resnet18(stem="small", classes=10),
        lambda: m.resnet50(stem="small", classes=10),
        lambda: m.vgg16(head="small", classes=10),
        lambda: m.vgg16_bn(head="small", classes=10),
        lambda: m.cifar_resnet(20),
        lambda: m.cifar_resnet(20, shortcut="B"),
        lambda: m.cifar_resnet(20, residual=False),
    ],
)
def test_networks_for_small_images(network):
    assert network()(IMAGES).shape == (4, 10)


# ---------------------------------------------------------------- bad input

SMALL = {
    "custom": lambda: m.CustomResNet(4),
    "cifar": lambda: m.cifar_resnet(8),
    "resnet18 small": lambda: m.resnet18(stem="small", classes=10),
    "resnet18": lambda: m.resnet18(classes=10),
    "vgg11": lambda: m.vgg11(head="small", classes=10),
}


@pytest.mark.parametrize("network", SMALL)
def test_input_that_no_network_can_take_gets_one_clear_error(network):
    network = SMALL[network]()
    for shape in ((2, 1, 32, 32), (2, 4, 32, 32), (3, 32, 32), (2, 3, 2, 2), (2, 3, 32, 2), (2, 32, 32, 3), (2, 3072)):
        with pytest.raises(ValueError, match=r"input must be \(B, 3, H, W\) with H and W at least"):
            network(torch.zeros(shape))
    for dtype in (torch.uint8, torch.int64):
        with pytest.raises(ValueError, match="must be floating point"):
            network(torch.zeros(2, 3, 32, 32, dtype=dtype))
    with pytest.raises(ValueError, match="must be a tensor"):
        network(IMAGES.numpy())


@pytest.mark.parametrize(
    ("network", "smallest"), [("resnet18", 32), ("vgg11", 32), ("resnet18 small", 8), ("cifar", 4)]
)
def test_the_smallest_image_passes_and_a_smaller_one_is_refused(network, smallest):
    network = SMALL[network]().eval()
    assert network(torch.zeros(1, 3, smallest, smallest)).shape == (1, 10)
    with pytest.raises(ValueError, match=f"at least {smallest}"):
        network(torch.zeros(1, 3, smallest, smallest - 1))


def test_the_custom_resnet_refuses_larger_images():
    with pytest.raises(ValueError, match="32x32"):
        m.CustomResNet(4)(torch.zeros(1, 3, 32, 64))


@pytest.mark.parametrize("depth", [0, 2, 18, 21, 57, -4, 20.0, True, "20"])
def test_a_depth_that_is_not_6n_plus_2_is_refused(depth):
    with pytest.raises(ValueError, match=r"depth must be"):
        m.cifar_resnet(depth)


NO_WHOLE_NUMBERS = (0, -1, 2.5, 10.0, True, "10", None)
NO_FLAGS = (None, "no", 1, 0.0, torch.tensor(True))


@pytest.mark.parametrize(
    ("build", "option", "values"),
    [
        (m.CustomResNet, "width", NO_WHOLE_NUMBERS),
        (m.CustomResNet, "classes", NO_WHOLE_NUMBERS),
        (m.CustomResNet, "activation", ("tanhh", None, 3, nn.GELU(), torch.relu, [])),
        (m.CustomResNet, "zero_init_residual", NO_FLAGS),
        (m.resnet18, "classes", NO_WHOLE_NUMBERS),
        (m.resnet50, "stem", ("tiny", None, 3, [])),
        (m.resnet18, "zero_init_residual", NO_FLAGS),
        (lambda **options: m.cifar_resnet(8, **options), "classes", NO_WHOLE_NUMBERS),
        (lambda **options: m.cifar_resnet(8, **options), "residual", NO_FLAGS),
        (lambda **options: m.cifar_resnet(8, **options), "shortcut", ("a", "C", None, True)),
        (lambda **options: m.cifar_resnet(8, **options), "zero_init_residual", NO_FLAGS),
        (lambda **options: m.cifar_resnet(8, residual=False, **options), "zero_init_residual", (True,)),
        (m.VGG, "depth", (12, 16.0, "16", None, [])),
        (lambda **options: m.VGG(11, **options), "batch_norm", NO_FLAGS),
        (m.vgg16, "classes", NO_WHOLE_NUMBERS),
        (m.vgg16_bn, "head", ("tiny", None, [])),
    ],
)
def test_wrong_options_are_refused_by_name(build, option, values):
    for value in values:
        with pytest.raises(ValueError, match=f"{option} must be"):
            build(**{option: value})
