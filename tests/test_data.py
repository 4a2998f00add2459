import collections
import os
import time

import pytest
import torch
from PIL import Image

from helpers import data, sample
from helpers.data import Batches, Images

STATS = (torch.zeros(3), torch.ones(3))


def images(counts=(30, 20, 10), seed=0):
    y = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    x = torch.randint(0, 256, (len(y), 3, 32, 32), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    return Images(x, y, tuple("abcdefghij"[: len(counts)]), "test images")


def write_folder(root, parts=("train", "test"), classes=("cat", "dog"), count=3, size=(32, 32)):
    for part in parts:
        for number, name in enumerate(classes):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", size, (40 * number, 10 * i, 200)).save(folder / f"{i}.png")
    return root


# ---------------------------------------------------------------- Images


def test_images_refuse_wrong_types_shapes_and_labels():
    x, y = torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    for bad_x, bad_y in ((x.float(), y), (x[:, :1], y), (x[:, :, :16], y), (x, y.float()), (x, y[:3]), (x, y + 2)):
        with pytest.raises(ValueError, match="Images: "):
            Images(bad_x, bad_y, ("a", "b"), "n")


def test_mean_std_equal_those_of_all_pixels():
    some = images()
    scaled = some.x.double() / 255
    mean, std = some.mean_std()
    assert torch.allclose(mean.double(), scaled.mean(dim=(0, 2, 3)), atol=1e-6)
    assert torch.allclose(std.double(), scaled.std(dim=(0, 2, 3), correction=0), atol=1e-6)


def test_split_keeps_proportions_loses_nothing_and_is_seeded():
    some = images((300, 200, 100))
    rest, part = some.split(0.1, seed=1)
    assert torch.bincount(part.y).tolist() == [30, 20, 10]
    assert torch.bincount(rest.y).tolist() == [270, 180, 90]
    everything = torch.cat([rest.x, part.x]).flatten(1).sum(dim=1).sort().values
    assert torch.equal(everything, some.x.flatten(1).sum(dim=1).sort().values)
    assert torch.equal(part.x, some.split(0.1, seed=1)[1].x)
    assert not torch.equal(part.x, some.split(0.1, seed=2)[1].x)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 1.5, 1e-9])
def test_split_refuses_to_leave_a_side_empty(fraction):
    with pytest.raises(ValueError, match="fraction"):
        images().split(fraction)


def test_subset_is_stratified_and_of_the_size_asked_for():
    assert torch.bincount(images((30, 20, 10)).subset(12, seed=0).y).tolist() == [6, 4, 2]
    assert len(images((33, 33, 34)).subset(10, seed=0)) == 10
    assert images().subset(1000) is not None
    assert len(images().subset(1000)) == 60
    with pytest.raises(ValueError, match="at least 1"):
        images().subset(0)


# ---------------------------------------------------------------- the sample


def test_sample_is_deterministic_balanced_and_fast_enough():
    (x, y), (again, _), (other, _) = sample.draw(200, 1), sample.draw(200, 1), sample.draw(200, 2)
    assert x.dtype == torch.uint8
    assert x.shape == (200, 3, 32, 32)
    assert torch.equal(x, again)
    assert not torch.equal(x, other)
    assert torch.bincount(y).tolist() == [20] * 10


def test_sample_is_said_to_be_the_sample(capsys):
    train, test = data.load("cifar10")
    assert (len(train), len(test)) == (2000, 500)
    assert train.classes == sample.CLASSES
    assert train.name == test.name == "sample shapes"
    assert "sample shapes" in capsys.readouterr().out


# ---------------------------------------------------------------- sources


def test_unknown_name_is_refused():
    with pytest.raises(ValueError, match="'cifar11'.*Known: cifar10, cifar100, fashion_mnist, svhn"):
        data.load("cifar11")


def test_the_sample_stands_in_for_cifar10_only():
    with pytest.raises(ValueError, match="'svhn'.*DATA_DIR=sample"):
        data.load("svhn")


def test_data_dir_that_does_not_exist_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere.*DATA_DIR=sample"):
        data.load("cifar10")


def test_data_dir_that_holds_something_else_is_refused(monkeypatch, tmp_path):
    (tmp_path / "holidays.txt").touch()
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="holds something else: holidays.txt.*cifar-10-batches-py"):
        data.load("cifar10")


def test_image_folder_in_data_dir(monkeypatch, tmp_path, capsys):
    write_folder(tmp_path / "cifar10")
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    train, test = data.load("cifar10")
    assert (len(train), len(test), train.classes) == (6, 6, ("cat", "dog"))
    assert train.name == "CIFAR-10 (image folder)"
    assert train.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.x[4, :, 0, 0].tolist() == [40, 10, 200]
    assert "6 training and 6 test images" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG"])
def test_a_copy_in_jpeg_files_is_called_so(monkeypatch, tmp_path, suffix):
    write_folder(tmp_path / "cifar10")
    for path in (tmp_path / "cifar10").rglob("*.png"):
        Image.open(path).convert("RGB").save(path.with_suffix(suffix))
        path.unlink()
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    assert {images.name for images in data.load("cifar10")} == {"CIFAR-10 (JPEG copy)"}


def test_relative_data_dir_counts_from_the_repository(monkeypatch, tmp_path):
    write_folder(tmp_path / "cifar10")
    monkeypatch.setattr(data, "ROOT", tmp_path.parent)
    monkeypatch.setenv("DATA_DIR", tmp_path.name)
    monkeypatch.chdir(tmp_path / "cifar10")
    assert len(data.load("cifar10")[0]) == 6


def test_any_image_folder_of_any_size_and_mode(tmp_path):
    write_folder(tmp_path, parts=(".",), count=10, size=(50, 40))
    Image.new("L", (20, 31), 7).save(tmp_path / "cat" / "grey.png")
    Image.new("P", (32, 32), 0).save(tmp_path / "dog" / "palette.gif")
    Image.new("RGBA", (64, 64), (1, 2, 3, 128)).save(tmp_path / "dog" / "alpha.png")
    (tmp_path / "cat" / "notes.txt").touch()
    (tmp_path / "cat" / "._0.png").write_bytes(b"what macOS leaves behind")
    train, test = data.load(tmp_path)
    assert len(train) + len(test) == 23
    assert len(test) == 5
    assert train.x.shape[1:] == (3, 32, 32)


def two_halves(mode, left, right, size=(32, 32), **options):
    picture = Image.new(mode, size, right)
    picture.paste(left, (0, 0, size[0] // 2, size[1]))
    return picture, options


def palette_picture():
    picture = Image.new("P", (32, 32), 0)
    picture.putpalette([10, 20, 30, 200, 0, 0])
    picture.paste(1, (0, 0, 16, 32))
    return picture, {"transparency": 0}


WHITE = [255] * 3
MODES = {  # file name: (picture, options of save), expected colours of its left and its right half
    "grey.png": (two_halves("L", 7, 200), [7] * 3, [200] * 3),
    "bits.png": (two_halves("1", 1, 0), WHITE, [0] * 3),
    "16_bit.png": (two_halves("I;16", 514, 65535), [2] * 3, WHITE),
    "16_bit.tif": (two_halves("I;16", 514, 65535), [2] * 3, WHITE),
    "32_bit.tif": (two_halves("I", 514, 65535), [2] * 3, WHITE),
    "floats.tif": (two_halves("F", -1.5, 0.5), [0] * 3, WHITE),
    "transparent.png": (two_halves("RGBA", (10, 20, 30, 255), (1, 2, 3, 0)), [10, 20, 30], WHITE),
    "half_transparent.png": (two_halves("RGBA", (0, 0, 0, 128), (0, 0, 0, 255)), [127] * 3, [0] * 3),
    "grey_alpha.png": (two_halves("LA", (9, 255), (9, 0)), [9] * 3, WHITE),
    "palette.gif": (palette_picture(), [200, 0, 0], WHITE),
    "cmyk.tif": (two_halves("CMYK", (255, 0, 0, 0), (0, 0, 0, 0)), [0, 255, 255], WHITE),
    "wide.png": (two_halves("RGB", (9, 9, 9), (50, 60, 70), size=(640, 64)), [9] * 3, [50, 60, 70]),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_of_picture_becomes_rgb(tmp_path, name):
    (picture, options), left, right = MODES[name]
    picture.save(tmp_path / name, **options)
    x = data.read_image(tmp_path / name)
    assert (x.dtype, tuple(x.shape)) == (torch.uint8, (3, 32, 32))
    assert x[:, 16, 2].tolist() == left
    assert x[:, 16, 29].tolist() == right


def test_a_picture_is_turned_upright_and_its_centre_is_kept(tmp_path):
    picture, _ = two_halves("RGB", (255, 0, 0), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn a quarter to the right to see it upright"
    picture.save(tmp_path / "phone.png", exif=exif)
    x = data.read_image(tmp_path / "phone.png")
    assert x[:, 2, 16].tolist() == [255, 0, 0]
    assert x[:, 29, 16].tolist() == [0, 0, 255]

    picture = Image.new("RGB", (96, 32), (0, 255, 0))
    picture.paste((255, 0, 0), (32, 0, 64, 32))
    picture.save(tmp_path / "centre.png")
    assert (data.read_image(tmp_path / "centre.png") == torch.tensor([255, 0, 0]).view(3, 1, 1)).all()


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.png cannot be read as an image \(.*No such file"):
        data.read_image(tmp_path / "gone.png")


def test_image_folder_with_faults_is_refused(tmp_path):
    write_folder(tmp_path / "one", classes=("cat",))
    with pytest.raises(ValueError, match=r"1 class folder\(s\) \(cat\)"):
        data.load(tmp_path / "one")
    write_folder(tmp_path / "part", parts=("train",))
    with pytest.raises(ValueError, match="no folder 'test'"):
        data.load(tmp_path / "part")
    other = write_folder(tmp_path / "other")
    (other / "test" / "dog").rename(other / "test" / "wolf")
    with pytest.raises(ValueError, match="differ in: dog, wolf"):
        data.load(other)
    empty = write_folder(tmp_path / "empty")
    for path in (empty / "train" / "cat").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="cat holds no image"):
        data.load(empty)
    broken = write_folder(tmp_path / "broken")
    (broken / "train" / "cat" / "1.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"1\.png cannot be read as an image"):
        data.load(broken)
    good = (broken / "train" / "cat" / "0.png").read_bytes()
    (broken / "train" / "cat" / "1.png").write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError, match=r"1\.png cannot be read as an image"):
        data.load(broken)


def test_a_folder_of_too_few_pictures_to_split_is_refused(tmp_path):
    write_folder(tmp_path, parts=("few",), count=2)
    with pytest.raises(ValueError, match="few holds 4 pictures. It needs at least 5"):
        data.load(tmp_path / "few")
    (tmp_path / "parts").mkdir()
    write_folder(tmp_path / "parts", parts=("train", "test"), count=1)
    with pytest.raises(ValueError, match="train holds 2 pictures. It needs at least 3"):
        data.load(tmp_path / "parts")


def test_folders_in_a_class_belong_to_it_and_what_is_left_out_is_told(tmp_path, capsys):
    folder = write_folder(tmp_path, parts=("pets",)) / "pets"
    (folder / "cat" / "old" / "older").mkdir(parents=True)
    (folder / "cat" / "0.png").rename(folder / "cat" / "old" / "older" / "Größe 0.PNG")
    sizes = [torch.bincount(torch.cat([part.y for part in data.load(folder)]))]
    assert "left out" not in capsys.readouterr().out
    for name in ("notes.txt", "1.HEIC", "no_ending", ".DS_Store"):
        (folder / "cat" / name).write_bytes(b"")
    (folder / "cat" / ".hidden").mkdir()
    (folder / "cat" / "2.png").rename(folder / "cat" / ".hidden" / "2.png")
    sizes.append(torch.bincount(torch.cat([part.y for part in data.load(folder)])))
    assert "pets: left out, because by their names they are no pictures: 3 (.HEIC, .txt, no" in capsys.readouterr().out
    assert [size.tolist() for size in sizes] == [[3, 3], [2, 3]]


def test_decoded_pictures_are_kept_and_a_change_or_damage_is_noticed(monkeypatch, tmp_path):
    folder = write_folder(tmp_path)
    train, _ = data.load(folder)
    reads = collections.Counter()
    read = data.read_image
    monkeypatch.setattr(data, "read_image", lambda path: reads.update([path.name]) or read(path))

    assert torch.equal(data.load(folder)[0].x, train.x)
    assert not reads

    changed = folder / "train" / "cat" / "0.png"
    Image.new("RGB", (32, 32), (9, 9, 9)).save(changed)
    os.utime(changed, ns=(time.time_ns(), time.time_ns() + 1))
    assert data.load(folder)[0].x[0, 0, 0, 0] == 9
    assert sum(reads.values()) == 6

    cache = folder / "train" / ".decoded-32x32.pt"
    whole = cache.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole.replace(bytes([9] * 200), bytes([8] * 200))):
        cache.write_bytes(damaged)
        assert data.load(folder)[0].x[0, 0, 0, 0] == 9


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (torch.zeros(5, 32, 32, 3, dtype=torch.uint8).numpy(), (5, 3, 32, 32)),
        (torch.zeros(5, 3, 32, 32, dtype=torch.uint8).numpy(), (5, 3, 32, 32)),
        (torch.zeros(5, 28, 28, dtype=torch.uint8), (5, 3, 32, 32)),
    ],
)
def test_arrays_of_each_torchvision_set_become_rgb_of_32x32(x, expected):
    assert tuple(data._as_rgb32(x).shape) == expected


# ---------------------------------------------------------------- Batches


def test_batches_yield_every_image_once_normalised():
    some = images((30, 20, 13))
    mean, std = some.mean_std()
    batches = Batches(some, (mean, std), 16, shuffle=True)
    walked = list(batches)
    assert len(walked) == len(batches) == 4
    assert [len(y) for _, y in walked] == [16, 16, 16, 15]
    x, y = torch.cat([x for x, _ in walked]), torch.cat([y for _, y in walked])
    assert x.dtype == torch.float32
    assert torch.bincount(y).tolist() == [30, 20, 13]
    assert torch.allclose(x.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-3)
    assert torch.allclose(x.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-3)


def test_batches_without_shuffle_keep_order_and_pairs():
    some = images()
    x = torch.cat([x for x, _ in Batches(some, STATS, 16)])
    assert torch.equal((x * 255).round().to(torch.uint8), some.x)


def test_drop_last():
    assert [len(y) for _, y in Batches(images(), STATS, 16, drop_last=True)] == [16, 16, 16]


def test_batches_depend_on_seed_and_epoch_only():
    def epochs(seed, count=2):
        batches = Batches(
            images(), STATS, 16, augment=[data.random_crop(), data.random_flip()], shuffle=True, seed=seed
        )
        return [torch.cat([x for x, _ in batches]) for _ in range(count)]

    first, second = epochs(1)
    assert not torch.equal(first, second)
    assert torch.equal(second, epochs(1)[1])
    assert not torch.equal(first, epochs(2)[0])
    batches = Batches(images(), STATS, 16, augment=[data.random_crop(), data.random_flip()], shuffle=True, seed=1)
    batches.set_epoch(1)
    assert torch.equal(torch.cat([x for x, _ in batches]), second)


def test_everything_drawn_depends_on_seed_and_epoch_only_also_after_a_resume():
    augment = [data.random_crop(4, "reflect"), data.random_flip(), data.random_rotation(), data.color_jitter()]
    augment += [data.random_sharpness(), data.random_erasing(), data.cutout()]

    def batches():
        return Batches(images(), STATS, 16, augment=augment, shuffle=True, seed=3)

    through = batches()
    epochs = [torch.cat([x for x, _ in through]) for _ in range(3)]
    for epoch in (2, 0, 1):
        torch.rand(5)  # random numbers drawn elsewhere do not matter
        again = batches()
        again.set_epoch(epoch)
        assert torch.equal(torch.cat([x for x, _ in again]), epochs[epoch])
    assert not torch.equal(epochs[1], epochs[2])


def test_batches_refuse_what_gives_no_batch():
    with pytest.raises(ValueError, match="batch_size"):
        Batches(images(), STATS, 0)
    with pytest.raises(ValueError, match="60 images give no batch of 64"):
        Batches(images(), STATS, 64, drop_last=True)


def test_torch_lr_finder_takes_batches():
    from torch_lr_finder import TrainDataLoaderIter

    iterator = TrainDataLoaderIter(Batches(images(), STATS, 50))
    sizes = [len(next(iterator)[1]) for _ in range(3)]
    assert sizes == [50, 10, 50]
