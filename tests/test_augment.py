"""Each operation on a batch equals torchvision's, image by image; each `random_...` function draws for each image."""

import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from helpers import augment, data


def pictures(count=64, seed=0):
    return torch.randint(0, 256, (count, 3, 32, 32), generator=seeded(seed)).to(torch.uint8)


def smooth(count=64, seed=0):
    """Pictures with large even areas and full black and white, as photographs have them."""
    small = torch.randint(-60, 316, (count, 3, 4, 4), generator=seeded(seed)).clamp(0, 255).float()
    return torch.nn.functional.interpolate(small, size=32, mode="bilinear").round().to(torch.uint8)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def one_by_one(function, x, *drawn):
    return torch.stack(
        [function(image, *values) for image, *values in zip(x, *(d.tolist() for d in drawn), strict=True)]
    )


each_kind = pytest.mark.parametrize("x", [pictures(), smooth()], ids=["noise", "smooth"])


@each_kind
@pytest.mark.parametrize(("mode", "theirs"), [("zero", "constant"), ("reflect", "reflect")])
@pytest.mark.parametrize("padding", [0, 4, 7])
def test_crop(x, mode, theirs, padding):
    top, left = torch.randint(0, 2 * padding + 1, (2, len(x)), generator=seeded(1))

    def crop(image, t, n):
        return reference.crop(reference.pad(image, [padding] * 4, padding_mode=theirs), t, n, 32, 32)

    assert torch.equal(augment.crop(x, top, left, padding, mode), one_by_one(crop, x, top, left))


@each_kind
def test_flip(x):
    chosen = torch.rand(len(x), generator=seeded(1)) < 0.5
    expected = one_by_one(lambda image, flip: reference.horizontal_flip(image) if flip else image, x, chosen)
    assert torch.equal(augment.flip(x, chosen), expected)


@each_kind
@pytest.mark.parametrize("limit", [20, 180])
def test_rotate(x, limit):
    degrees = augment._uniform(len(x), -limit, limit, seeded(1))
    degrees[:5] = torch.tensor([0.0, 90.0, -90.0, 180.0, 45.0])
    # Both round the same places to the nearest pixel. Where a place lies half-way between two pixels, a last bit that
    # differs (another order of the same sums on another processor) takes the other one: allow 1 pixel in 1,000.
    different = (augment.rotate(x, degrees) != one_by_one(reference.rotate, x, degrees)).any(dim=1)
    assert different.float().mean() <= 1e-3


@each_kind
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "sharpness"])
def test_adjust(x, name):
    factor = augment._uniform(len(x), 0, 2.5, seeded(1))
    factor[:3] = torch.tensor([0.0, 1.0, 2.0])
    mine = getattr(augment, f"adjust_{name}")(x, factor)
    theirs = one_by_one(getattr(reference, f"adjust_{name}"), x, factor)
    # The result is cut down to a whole number. Sums in another order, or fused with a product, differ in the last bit,
    # and next to a whole number that makes 1 of 255: here none differs, on other processors few may.
    different = (mine.int() - theirs.int()).abs()
    assert different.max() <= 1
    assert (different > 0).float().mean() <= 1e-3


@each_kind
def test_erase(x):
    height, width = torch.randint(0, 25, (2, len(x)), generator=seeded(1))
    top, left = torch.randint(0, 8, (2, len(x)), generator=seeded(2))

    def erase(image, t, n, h, w):
        return reference.erase(image, t, n, h, w, torch.zeros(3, 1, 1, dtype=torch.uint8))

    assert torch.equal(augment.erase(x, top, left, height, width), one_by_one(erase, x, top, left, height, width))


ALL = {
    "crop": augment.random_crop(),
    "crop_reflect": augment.random_crop(4, "reflect"),
    "flip": augment.random_flip(),
    "rotation": augment.random_rotation(),
    "colour": augment.color_jitter(),
    "sharpness": augment.random_sharpness(),
    "erasing": augment.random_erasing(),
    "cutout": augment.cutout(),
}


@pytest.mark.parametrize("name", ALL)
def test_images_of_one_batch_draw_differently_seeded_and_leave_the_input_alone(name):
    x = smooth(1).expand(200, -1, -1, -1).clone()  # one picture 200 times: what differs was drawn
    before = x.clone()
    changed = ALL[name](x, seeded(3))
    assert torch.equal(x, before)
    assert (changed.dtype, changed.shape) == (torch.uint8, x.shape)
    kinds = len(torch.unique(changed.flatten(1), dim=0))
    assert kinds == 2 if name in ("flip", "sharpness") else kinds > 40
    assert torch.equal(changed, ALL[name](x, seeded(3)))
    assert not torch.equal(changed, ALL[name](x, seeded(4)))
    assert ALL[name](x[:0], seeded(3)).shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    ("make", "share"),
    [(augment.random_flip, 0.5), (augment.random_sharpness, 0.5), (augment.random_erasing, 0.75)],
)
def test_the_share_that_is_changed(make, share):
    x = pictures(2000)
    changed = (make()(x, seeded(1)) != x).flatten(1).any(dim=1).float().mean()
    assert abs(changed - share) < 0.05
    for p in (0.0, 1.0):
        options = {"factor": 2.0} if make is augment.random_sharpness else {}
        changed = (make(p=p, **options)(x, seeded(1)) != x).flatten(1).any(dim=1).float().mean()
        assert changed == p


def test_rotation_is_within_its_limit_to_both_sides():
    bar = torch.zeros(500, 3, 32, 32, dtype=torch.uint8)
    bar[:, :, 15:17, 28] = 255  # a mark at the right edge: turning lifts or lowers it
    row = (augment.random_rotation(20)(bar, seeded(1)).float().sum(dim=(1, 3)) * torch.arange(32)).sum(dim=1)
    row /= 255 * augment.random_rotation(20)(bar, seeded(1)).float().div(255).sum(dim=(1, 2, 3)).clamp(min=1)
    height = 15.5 - row  # positive: counter-clockwise
    assert height.max() > 3
    assert height.min() < -3
    assert height.abs().max() < 12.5 * torch.tensor(20.0).deg2rad().sin() + 1


def test_colour_jitter_draws_factors_from_its_range():
    x = torch.full((500, 3, 32, 32), 100, dtype=torch.uint8)
    bright = augment.color_jitter(0.4, 0, 0)(x, seeded(1))[:, 0, 0, 0]
    assert 60 <= bright.min() < 65
    assert 135 < bright.max() <= 140
    assert torch.equal(augment.color_jitter(0, 0, 0)(x, seeded(1)), x)


def test_erased_rectangles_have_the_area_and_the_shape_asked_for():
    x = torch.full((2000, 3, 32, 32), 255, dtype=torch.uint8)
    black = (augment.random_erasing(p=1.0)(x, seeded(1)) == 0).all(dim=1)
    height, width = black.any(dim=2).sum(dim=1), black.any(dim=1).sum(dim=1)
    area = black.flatten(1).sum(dim=1)
    assert torch.equal(area, height * width)  # whole rectangles, inside the image
    assert area.min() >= 12
    assert area.max() <= 0.36 * 1024
    assert 150 < area.float().mean() < 200  # the mean of 2% to 33% of 1,024 pixels is 179
    ratio = height / width
    assert ratio.min() > 0.2
    assert ratio.max() < 4.7
    assert 0.8 < ratio.median() < 1.25
    assert black[:, 0].any()
    assert black[:, -1].any()
    assert black[:, :, 0].any()
    assert black[:, :, -1].any()
    never = augment.random_erasing(p=1.0, scale=(1.0, 1.0), ratio=(2.0, 2.0))  # fits in none of ten tries
    assert torch.equal(never(x, seeded(1)), x)


def test_cutout_blackens_one_square_an_image():
    x = torch.full((500, 3, 32, 32), 255, dtype=torch.uint8)
    black = (augment.cutout(8, p=1.0)(x, seeded(2)) == 0).all(dim=1)  # (B, 32, 32)
    sizes = black.flatten(1).sum(dim=1)
    assert sizes.max() == 64
    assert sizes.min() >= 16  # a square centred on a corner keeps a quarter
    assert len(sizes.unique()) > 3
    assert torch.equal(augment.cutout(8, p=0.0)(x, seeded(2)), x)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: augment.random_crop(-1), "padding must be a whole number"),
        (lambda: augment.random_crop(4, "mirror"), "mode must be 'zero' or 'reflect', got 'mirror'"),
        (lambda: augment.random_crop(32, "reflect")(pictures(2), seeded(0)), "below the image's 32 pixels"),
        (lambda: augment.random_flip(1.5), "random_flip: p is a probability"),
        (lambda: augment.random_rotation(-20), "degrees must be from 0 to 180, got -20"),
        (lambda: augment.color_jitter(-0.1), "values must be 0 or more"),
        (lambda: augment.random_sharpness(-1), "factor must be 0 or more"),
        (lambda: augment.random_erasing(75), "random_erasing: p is a probability, from 0 to 1, got 75"),
        (lambda: augment.random_erasing(scale=(0.5, 0.2)), "scale must rise"),
        (lambda: augment.cutout(0), "side must be a whole number of pixels"),
    ],
)
def test_bad_settings_are_refused_in_words(call, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        call()


def test_lessons_find_them_in_data():
    for name in ("random_crop", "random_flip", "random_rotation", "color_jitter", "random_sharpness", "random_erasing"):
        assert getattr(data, name) is getattr(augment, name)
    assert data.cutout is augment.cutout
