import re
from functools import partial

import pytest
import torch
import torchvision
from torch import nn
from torchsummary import summary

from helpers import model as m

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def layers(network, kind):
    return [layer for layer in network.modules() if isinstance(layer, kind)]


def test_custom_resnet_is_what_its_description_says(capsys):
    assert count(m.CustomResNet()) == 6_573_130
    summary(m.CustomResNet().eval(), (3, 32, 32), device="cpu")
    assert "Total params: 6,573,130" in capsys.readouterr().out
    network, x = m.CustomResNet(width=8, classes=7).eval(), IMAGES
    for stage, shape in (("prep", (8, 32)), ("layer1", (16, 16)), ("layer2", (32, 8)), ("layer3", (64, 4))):
        x = getattr(network, stage)(x)
        assert tuple(x.shape) == (4, shape[0], shape[1], shape[1])
    logits = network.linear(x.amax(dim=(2, 3)))
    assert logits.shape == (4, 7)
    assert torch.equal(network(IMAGES), logits)
    convolutions = [(c.in_channels, c.out_channels) for c in layers(network, nn.Conv2d)]
    assert convolutions == [(3, 8), (8, 16), (16, 16), (16, 16), (16, 32), (32, 64), (64, 64), (64, 64)]
    assert all(c.bias is None and c.kernel_size == (3, 3) for c in layers(network, nn.Conv2d))
    assert len(layers(network, nn.BatchNorm2d)) == 8


def test_names_in_checkpoints_of_the_custom_resnet_stay():
    def names(prefix, place):  # of conv_bn_relu; pooling moves the batch norm by one place
        norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return [f"{prefix}.{name}" for name in ("0.weight", *(f"{place}.{name}" for name in norm))]

    expected = names("prep", 1)
    for layer in ("layer1", "layer2", "layer3"):
        residual = layer != "layer2"
        expected += names(f"{layer}.0" if residual else layer, 2)
        expected += [name for i in (0, 1) if residual for name in names(f"{layer}.1.branch.{i}", 1)]
    for options in ({}, {"activation": "gelu"}, {"zero_init_residual": True}):
        assert list(m.CustomResNet(width=4, **options).state_dict()) == [*expected, "linear.weight", "linear.bias"]


def test_activation_of_the_custom_resnet():
    kinds = {"leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "silu": nn.SiLU, "gelu": nn.GELU, nn.Mish: nn.Mish}
    for activation, kind in {"relu": nn.ReLU, **kinds}.items():
        network = m.CustomResNet(width=4, activation=activation)
        assert len(layers(network, kind)) == len(layers(network, nn.ReLU | kind)) == 8
        network(IMAGES).square().mean().backward()
        assert all(parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize("block", [m.Residual, m.BasicBlock, m.Bottleneck])
@pytest.mark.parametrize(
    ("shape", "shortcut"), [((8, 8, 1), "B"), ((8, 16, 2), "A"), ((8, 16, 2), "B"), ((8, 8, 2), "B")]
)
def test_with_a_branch_of_zero_each_block_is_its_shortcut(block, shape, shortcut):
    x = torch.rand(2, 8, 6, 6)
    network = block(*shape, shortcut=shortcut).eval()
    last = network.get_submodule(network.last_norm)
    assert last.num_features == shape[1]
    nn.init.zeros_(last.weight)
    expected = x
    if shape != (8, 8, 1):
        expected = torch.zeros(2, shape[1], 3, 3)
        expected[:, :8] = x[:, :, ::2, ::2]
        if shortcut == "B":
            conv, norm = network.downsample
            expected = nn.functional.conv2d(x, conv.weight, stride=2) / (1 + norm.eps) ** 0.5
    if block is not m.Residual:
        expected = expected.relu()
    assert torch.allclose(network(x), expected, atol=1e-6)


def test_residual_applies_its_activation_before_the_addition_and_none_after_it():
    block, x = m.Residual(4, 4).eval(), torch.randn(2, 4, 5, 5)
    branch = block(x) - x
    assert (branch >= -1e-6).all()
    assert (branch > 0.01).any()
    assert (block(x) < 0).any()


def test_a_plain_block_has_no_addition():
    residual, plain = m.BasicBlock(8, 8), m.BasicBlock(8, 8, residual=False)
    plain.load_state_dict(residual.state_dict())
    nn.init.zeros_(plain.bn2.weight)
    assert (plain(torch.rand(1, 8, 4, 4)) == 0).all()


BUILDERS = {
    "custom": partial(m.CustomResNet, width=4),
    "cifar A": partial(m.CifarResNet, 14),
    "cifar B": partial(m.CifarResNet, 14, shortcut="B"),
    "resnet18": partial(m.resnet18, stem="small", classes=10),
    "resnet50": partial(m.resnet50, stem="small", classes=10),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_with_zero_init_each_block_starts_as_its_shortcut_and_every_channel_learns(name):
    network = BUILDERS[name](zero_init_residual=True)
    blocks = layers(network, m.Residual | m.BasicBlock | m.Bottleneck)
    zero = [norm for norm in layers(network, nn.BatchNorm2d) if not norm.weight.any()]
    assert zero == [block.get_submodule(block.last_norm) for block in blocks]
    x = IMAGES if name == "custom" else IMAGES[:, :, ::2, ::2]  # quicker
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
    for _ in range(3):  # the first step wakes the last batch norm of each branch, the next ones what lies before it
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), torch.arange(4)).backward()
        optimizer.step()
    assert all((norm.weight != 0).float().mean() > 0.9 for norm in zero)
    assert all(parameter.grad.any() for parameter in network.parameters())


def test_zero_init_is_torchvisions_and_leaves_plain_networks_alone():
    for name in ("resnet18", "resnet50"):
        ours = getattr(m, name)(zero_init_residual=True).state_dict()
        theirs = getattr(torchvision.models, name)(zero_init_residual=True).state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours if "bn" in key or "downsample.1" in key)
    assert all(norm.weight.all() for norm in layers(m.CifarResNet(8, False, zero_init_residual=True), nn.BatchNorm2d))


def filled(network, seed=0):
    """A network of the meta device, on the CPU, with weights, averages and biases drawn from the seed."""
    generator = torch.Generator().manual_seed(seed)
    network = network.to_empty(device="cpu")
    with torch.no_grad():
        for name, t in network.state_dict().items():
            if t.ndim > 1:
                t.normal_(std=(2 / t[0].numel()) ** 0.5, generator=generator)
            elif name.endswith("tracked"):
                t.zero_()
            else:
                t.uniform_(0.5, 1.5, generator=generator)
    return network


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet18", 11_689_512), ("resnet34", 21_797_672), ("resnet50", 25_557_032)]
)
def test_weights_go_to_and_from_torchvision_and_give_the_same(name, parameters, mode):
    with torch.device("meta"):
        ours, theirs = getattr(m, name)(), getattr(torchvision.models, name)()
    ours, theirs = filled(ours), theirs.to_empty(device="cpu")
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert count(ours) == parameters
    assert [key for key, _ in ours.named_parameters()] == [key for key, _ in theirs.named_parameters()]
    x, results = torch.randn(2, 3, 64, 64), []
    for network in (ours, theirs):
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


def test_first_weights_are_drawn_as_torchvision_draws_them():
    ours, theirs = m.resnet18().state_dict(), torchvision.models.resnet18().state_dict()
    for name, t in ours.items():
        if t.ndim == 4:
            assert t.std().item() == pytest.approx(theirs[name].std().item(), rel=0.05), name


@pytest.mark.parametrize(("depth", "millions"), [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.73")])
def test_cifar_resnets_have_the_papers_sizes_with_and_without_shortcuts(depth, millions):
    with torch.device("meta"):
        a, b, plain = m.CifarResNet(depth), m.CifarResNet(depth, shortcut="B"), m.CifarResNet(depth, residual=False)
    assert f"{count(a) / 1e6:.2f}" == millions  # the paper's table 6; it rounds the last one to 1.7
    assert count(plain) == count(a)
    assert list(plain.state_dict()) == list(a.state_dict())
    # Two projections with their batch norms: 16 to 32 channels and 32 to 64.
    assert count(b) == count(a) + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert len(layers(a, nn.Conv2d | nn.Linear)) == depth


def test_shapes_with_the_small_stem_at_every_stage():
    network = m.CifarResNet(8, classes=7).eval()
    x = network.bn1(network.conv1(IMAGES)).relu()
    for stage, shape in (("layer1", (16, 32)), ("layer2", (32, 16)), ("layer3", (64, 8))):
        x = getattr(network, stage)(x)
        assert tuple(x.shape) == (4, shape[0], shape[1], shape[1])
    assert torch.allclose(network(IMAGES), network.fc(x.mean(dim=(2, 3))), atol=1e-6)
    assert m.resnet18(stem="small", classes=10)(IMAGES).shape == (4, 10)


def test_images_of_another_shape_get_one_clear_error():
    for shape in ((3, 32, 32), (1, 3, 64, 64), (1, 1, 32, 32)):
        with pytest.raises(ValueError, match=rf"takes \(B, 3, 32, 32\), got {re.escape(str(shape))}.*unsqueeze\(0\)"):
            m.CustomResNet(4)(torch.zeros(shape))


def test_unknown_options_are_refused():
    for depth in (0, 2, 18, 21, 57, -4):
        with pytest.raises(ValueError, match=rf"depth must be 6n \+ 2 .*got {depth}"):
            m.CifarResNet(depth)
    for build, option, allowed in (
        (m.CustomResNet, "activation", "'relu', 'leaky_relu'"),
        (m.resnet50, "stem", "'imagenet', 'small'"),
        (partial(m.CifarResNet, 8), "shortcut", "'A', 'B'"),
    ):
        for value in ("tanhh", None):
            with pytest.raises(ValueError, match=f"{option} must be one of {allowed}.*got {value!r}"):
                build(**{option: value})
