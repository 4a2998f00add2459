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
    "random_crop(padding=4, mode='zero')": augment.random_crop(),
    "random_crop(padding=4, mode='reflect')": augment.random_crop(4, "reflect"),
    "random_flip(p=0.5)": augment.random_flip(),
    "random_rotation(degrees=20)": augment.random_rotation(),
    "color_jitter(brightness=0.4, contrast=0.4, saturation=0.4)": augment.color_jitter(),
    "random_sharpness(factor=2.0, p=0.5)": augment.random_sharpness(),
    "random_erasing(p=0.75, scale=(0.02, 0.33), ratio=(0.3, 3.3))": augment.random_erasing(),
    "cutout(side=8, p=0.5)": augment.cutout(),
}


@pytest.mark.parametrize("name", ALL)
def test_images_of_one_batch_draw_differently_seeded_and_leave_the_input_alone(name):
    x = smooth(1).expand(200, -1, -1, -1).clone()  # one picture 200 times: what differs was drawn
    before, change = x.clone(), ALL[name]
    changed = change(x, seeded(3))
    assert torch.equal(x, before)
    assert (changed.dtype, changed.shape) == (torch.uint8, x.shape)
    kinds = len(torch.unique(changed.flatten(1), dim=0))
    assert kinds == 2 if "flip" in name or "sharpness" in name else kinds > 40
    assert torch.equal(changed, change(x, seeded(3)))
    assert not torch.equal(changed, change(x, seeded(4)))
    assert change(x[:0], seeded(3)).shape == (0, 3, 32, 32)


@pytest.mark.parametrize("name", ALL)
def test_what_is_drawn_at_once_may_be_applied_in_parts_and_the_name_makes_it_again(name):
    x, change = smooth(50), ALL[name]
    drawn = change.draw(50, x.shape[1:], seeded(3))
    assert all(len(values) == 50 and values.device.type == "cpu" for values in drawn)
    parts = [change.apply(x[i : i + 20], *(values[i : i + 20] for values in drawn)) for i in (0, 20, 40)]
    assert torch.equal(torch.cat(parts), change(x, seeded(3)))
    assert repr(change) == name
    assert torch.equal(change(x, seeded(3)), eval(name, vars(augment))(x, seeded(3)))


SHAPE = (3, 32, 32)


@pytest.mark.parametrize("name", ["random_flip", "random_sharpness", "random_erasing", "cutout"])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_the_share_of_images_that_is_changed(name, p):
    x = pictures(1000)
    changed = (getattr(augment, name)(p=p)(x, seeded(1)) != x).flatten(1).any(dim=1).float().mean()
    assert abs(changed - p) < (0.05 if p == 0.3 else 1e-9)


def test_numbers_are_drawn_from_the_ranges_asked_for():
    for change, low, high in (
        (augment.random_crop(4), 0, 8),
        (augment.random_rotation(20), -20, 20),
        (augment.color_jitter(0.3, 0.3, 0.3), 0.7, 1.3),
        (augment.color_jitter(2.0, 2.0, 2.0), 0, 3),
    ):
        for values in change.draw(2000, SHAPE, seeded(1)):
            assert low <= values.min() <= low + 0.02 * (high - low)
            assert high - 0.02 * (high - low) <= values.max() <= high
    x = pictures()
    assert torch.equal(augment.color_jitter(0, 0, 0)(x, seeded(1)), x)


def test_erased_rectangles_have_the_area_and_the_shape_asked_for():
    top, left, height, width = augment.random_erasing(p=1.0).draw(2000, SHAPE, seeded(1))
    for begin, size in ((top, height), (left, width)):
        assert begin.min() == 0
        assert (begin + size).max() == 32
    area, ratio = (height * width).float(), height / width
    assert area.min() >= 12
    assert area.max() <= 0.36 * 1024
    assert 150 < area.mean() < 200  # the mean of 2% to 33% of 1,024 pixels is 179
    assert ratio.min() > 0.2
    assert ratio.max() < 4.7
    assert 0.8 < ratio.median() < 1.25
    never = augment.random_erasing(p=1.0, scale=(1.0, 1.0), ratio=(2.0, 2.0))  # fits in none of ten tries
    assert never.draw(100, SHAPE, seeded(1))[2].max() == 0


def test_cutout_blackens_one_square_whose_centre_lies_anywhere():
    top, left, height, width = augment.cutout(8, p=1.0).draw(2000, SHAPE, seeded(2))
    assert height.unique().tolist() == width.unique().tolist() == [8]
    assert top.unique().tolist() == left.unique().tolist() == list(range(-4, 28))


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


def test_color_jitter_changes_brightness_then_contrast_then_saturation():
    x = torch.randint(0, 256, (8, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    factors = [torch.full((8,), factor) for factor in (1.4, 0.6, 1.3)]
    expected = augment.adjust_contrast(augment.adjust_brightness(x, factors[0]), factors[1])
    expected = augment.adjust_saturation(expected, factors[2])
    assert torch.equal(augment.color_jitter().apply(x, *factors), expected)
