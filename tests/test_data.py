"""Images from folders of any kind, and the batches made of them."""

import contextlib
import functools
import os
import subprocess
import sys

import pytest
import torch
from lessons import ROOT
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import data, sample
from helpers.data import Batches, Images

STATS = (torch.zeros(3), torch.ones(3))
AUGMENT = [data.random_crop(4, "reflect"), data.random_crop(), data.random_flip(), data.random_rotation()]
AUGMENT += [data.color_jitter(), data.random_sharpness(), data.random_erasing(), data.cutout()]


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


@contextlib.contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


# ---------------------------------------------------------------- Images


def test_images_refuse_wrong_types_shapes_and_labels():
    x, y = torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    for bad_x, bad_y in ((x.float(), y), (x[:, :1], y), (x[:, :, :16], y), (x, y.float()), (x, y[:3])):
        with pytest.raises(ValueError, match="Images: . must be"):
            Images(bad_x, bad_y, ("a", "b"), "n")
    for bad_y, words in ((y + 2, "from 2 to 2"), (y - 1, "from -1 to -1")):
        with pytest.raises(ValueError, match=f"Images: labels run {words}, but 2 classes are 0 to 1"):
            Images(x, bad_y, ("a", "b"), "n")
    assert len(Images(x[:0], y[:0], ("a", "b"), "n")) == 0


def test_mean_std_equal_those_of_all_pixels():
    scaled = images().x.double() / 255
    mean, std = images().mean_std()
    assert torch.allclose(mean.double(), scaled.mean(dim=(0, 2, 3)), atol=1e-6)
    assert torch.allclose(std.double(), scaled.std(dim=(0, 2, 3), correction=0), atol=1e-6)


def test_split_keeps_proportions_loses_nothing_and_is_seeded():
    some = images((300, 200, 100))
    rest, part = some.split(0.1, seed=1)
    assert torch.bincount(part.y).tolist() == [30, 20, 10]
    assert torch.bincount(rest.y).tolist() == [270, 180, 90]
    everything = torch.cat([rest.x, part.x]).flatten(1).sum(dim=1).sort().values
    assert torch.equal(everything, some.x.flatten(1).sum(dim=1).sort().values)
    label_of = {image.numpy().tobytes(): int(label) for image, label in zip(some.x, some.y, strict=True)}
    for found in (rest, part):  # each image has kept its own label
        assert [label_of[image.numpy().tobytes()] for image in found.x] == found.y.tolist()
    assert torch.equal(part.x, some.split(0.1, seed=1)[1].x)
    assert not torch.equal(part.x, some.split(0.1, seed=2)[1].x)
    for fraction in (0, 1, -0.5, 1.5, 1e-9):
        with pytest.raises(ValueError, match="leaves one side empty"):
            some.split(fraction)


def test_subset_is_stratified_and_of_the_size_asked_for():
    assert torch.bincount(images((30, 20, 10)).subset(12, seed=0).y).tolist() == [6, 4, 2]
    assert torch.bincount(images((33, 33, 34)).subset(10, seed=0).y).tolist() == [3, 3, 4]
    assert len(images().subset(1000)) == 60
    with pytest.raises(ValueError, match="at least 1"):
        images().subset(0)


# ---------------------------------------------------------------- the sample


def test_the_sample_is_deterministic_balanced_and_says_what_it_is(capsys):
    (x, y), (again, _), (other, _) = sample.draw(200, 1), sample.draw(200, 1), sample.draw(200, 2)
    assert (x.dtype, tuple(x.shape)) == (torch.uint8, (200, 3, 32, 32))
    assert torch.equal(x, again)
    assert not torch.equal(x, other)
    assert torch.bincount(y).tolist() == [20] * 10
    train, test = data.load("cifar10")
    assert (len(train), len(test), train.classes) == (2000, 500, sample.CLASSES)
    assert train.name == test.name == "sample shapes"
    known = {image.numpy().tobytes() for image in train.x}
    assert not any(image.numpy().tobytes() in known for image in test.x)
    assert capsys.readouterr().out == (
        "Data: sample shapes, 2,000 training and 500 test images (drawn in code, because DATA_DIR=sample).\n"
    )


DTYPES = [functools.partial(default_dtype, dtype) for dtype in (torch.float64, torch.float16, torch.bfloat16)]


@pytest.mark.parametrize("defaults", [*DTYPES, lambda: torch.device("meta"), torch.inference_mode])
def test_the_caller_s_defaults_change_no_image_and_no_batch(defaults, tmp_path):
    write_folder(tmp_path, count=10)

    def everything():
        drawn = Images(*sample.draw(60, 1), sample.CLASSES, "sample")
        rest, part = drawn.split(0.5)
        batches = Batches(rest, rest.mean_std(), 8, augment=AUGMENT, shuffle=True)
        return [part.x, part.subset(7).x, *rest.mean_std(), data.load(tmp_path)[0].x, *(t for b in batches for t in b)]

    usual = everything()
    with defaults():
        odd = everything()
    assert [a.dtype for a in odd] == [a.dtype for a in usual]
    assert all(a.device == b.device and a.equal(b) for a, b in zip(odd, usual, strict=True))


# ---------------------------------------------------------------- sources


def test_what_is_no_source_is_refused(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="'cifar11'.*Known: cifar10, cifar100, fashion_mnist, svhn"):
        data.load("cifar11")
    with pytest.raises(ValueError, match="'svhn'.*DATA_DIR=sample"):
        data.load("svhn")
    with pytest.raises(ValueError, match="neither a known data set nor a folder"):
        data.load("x" * 5000)
    for nowhere in (str(tmp_path / "nowhere"), "x" * 5000):
        monkeypatch.setenv("DATA_DIR", nowhere)
        with pytest.raises(FileNotFoundError, match=f"there is no folder .*{nowhere}.*DATA_DIR=sample"):
            data.load("cifar10")
    (tmp_path / "holidays.txt").touch()
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="holds something else: holidays.txt.*cifar-10-batches-py"):
        data.load("cifar10")


def test_image_folder_in_data_dir_which_counts_from_the_repository(monkeypatch, tmp_path, capsys):
    write_folder(tmp_path / "cifar10")
    monkeypatch.setattr(data, "ROOT", tmp_path.parent)
    monkeypatch.setenv("DATA_DIR", tmp_path.name)
    monkeypatch.chdir(tmp_path / "cifar10")
    train, test = data.load("cifar10")
    assert (len(train), len(test), train.classes) == (6, 6, ("cat", "dog"))
    assert train.name == "CIFAR-10 (image folder)"
    assert train.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert train.x[4, :, 0, 0].tolist() == [40, 10, 200]
    assert f"6 training and 6 test images (image folder {tmp_path.name}/cifar10)" in capsys.readouterr().out


def test_the_profile_ci_keeps_a_part_of_a_large_set_and_says_so(monkeypatch, tmp_path, capsys):
    write_folder(tmp_path)
    monkeypatch.setenv("COURSE_PROFILE", "ci")
    monkeypatch.setattr(data, "CI_SIZES", (4, 2))
    train, test = data.load(tmp_path)
    assert (train.y.tolist(), test.y.tolist()) == ([0, 0, 1, 1], [0, 1])
    assert "4 training and 2 test images (a part of it, since the profile is ci; " in capsys.readouterr().out
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    assert list(map(len, data.load(tmp_path))) == [6, 6]


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG"])
def test_a_copy_in_jpeg_files_is_called_so(monkeypatch, tmp_path, suffix):
    write_folder(tmp_path / "cifar10")
    for path in (tmp_path / "cifar10").rglob("*.png"):
        Image.open(path).convert("RGB").save(path.with_suffix(suffix))
        path.unlink()
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    assert {images.name for images in data.load("cifar10")} == {"CIFAR-10 (JPEG copy)"}


# ---------------------------------------------------------------- pictures


def two_halves(mode, left, right, size=(32, 32), **options):
    picture = Image.new(mode, size, right)
    picture.paste(left, (0, 0, size[0] // 2, size[1]))
    return picture, options


def big_endian():
    values = torch.full((32, 32), 65535, dtype=torch.int32)
    values[:, :16] = 514
    return Image.frombytes("I;16B", (32, 32), values.numpy().astype(">u2").tobytes()), {}


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
    "big_endian.tif": (big_endian(), [2] * 3, WHITE),
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
    assert (x.dtype, tuple(x.shape), x.is_contiguous()) == (torch.uint8, (3, 32, 32), True)
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


GOOD = next(iter(MODES.values()))[0][0]
UNREADABLE = {  # how a file comes to be, what is said of it
    "gone.png": (lambda path: None, "No such file"),
    "dangling.png": (lambda path: path.symlink_to("nowhere"), "No such file"),
    "itself.png": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    "pipe.png": (os.mkfifo if hasattr(os, "mkfifo") else None, "no regular file"),
    "device.png": (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
    "text.png": (lambda path: path.write_bytes(b"not a picture"), "cannot identify image file"),
    "empty.png": (lambda path: path.touch(), "cannot identify image file"),
    "cut.png": (lambda path: (GOOD.save(path), path.write_bytes(path.read_bytes()[:60])), "truncated|broken"),
}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes and links of this kind")
@pytest.mark.parametrize("name", UNREADABLE)
def test_a_picture_that_cannot_be_read_is_named_with_the_reason(tmp_path, name):
    make, words = UNREADABLE[name]
    folder = write_folder(tmp_path) / "train" / "cat"
    make(folder / name)
    with pytest.raises(ValueError, match=rf"{name} cannot be read as an image \(.*({words}).*Replace or remove"):
        data.read_image(folder / name)
    if name != "gone.png":
        with pytest.raises(ValueError, match=rf"{name} cannot be read as an image"):
            data.load(tmp_path)


# ---------------------------------------------------------------- folders


def test_any_image_folder_of_any_size_and_mode(tmp_path, capsys):
    write_folder(tmp_path, parts=(".",), count=10, size=(50, 40))
    Image.new("L", (20, 31), 7).save(tmp_path / "cat" / "grey.png")
    Image.new("P", (32, 32), 0).save(tmp_path / "dog" / "palette.gif")
    (tmp_path / "cat" / "._0.png").write_bytes(b"what macOS leaves behind")
    (tmp_path / ".git").mkdir()
    train, test = data.load(tmp_path)
    assert (len(train), len(test), train.x.shape[1:]) == (18, 4, (3, 32, 32))
    assert "left out" not in capsys.readouterr().out


def test_image_folder_with_faults_is_refused(tmp_path):
    write_folder(tmp_path / "one", classes=("cat",))
    with pytest.raises(ValueError, match=r"1 class folder\(s\) \(cat\)"):
        data.load(tmp_path / "one")
    write_folder(tmp_path / "part", parts=("train",))
    with pytest.raises(ValueError, match="only train/. An image folder needs both"):
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
    write_folder(tmp_path, parts=("few",), count=2)
    with pytest.raises(ValueError, match="few holds 4 pictures. It needs at least 5"):
        data.load(tmp_path / "few")
    write_folder(tmp_path / "parts", parts=("train", "test"), count=1)
    with pytest.raises(ValueError, match="train holds 2 pictures. It needs at least 3"):
        data.load(tmp_path / "parts")


def labels(folder):
    """How many pictures of each class `load` finds."""
    return torch.bincount(torch.cat([part.y for part in data.load(folder)])).tolist()


def test_folders_in_a_class_belong_to_it_and_what_is_left_out_is_told(tmp_path, capsys):
    folder = write_folder(tmp_path, parts=("pets",)) / "pets"
    (folder / "cat" / "old" / "older").mkdir(parents=True)
    (folder / "cat" / "0.png").rename(folder / "cat" / "old" / "older" / "Größe 0.PNG")
    assert labels(folder) == [3, 3]
    assert "left out" not in capsys.readouterr().out

    for name in ("notes.txt", "1.HEIC", "no_ending", ".DS_Store"):
        (folder / "cat" / name).write_bytes(b"")
    (folder / "cat" / ".hidden").mkdir()
    (folder / "cat" / "2.png").rename(folder / "cat" / ".hidden" / "2.png")
    GOOD.save(folder / "loose.png")
    assert labels(folder) == [2, 3]
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first == "pets: left out, because they lie in no class's folder: 1 (loose.png)."
    assert second == "pets: left out, because by their names they are no pictures: 3 (.HEIC, .txt, no ending)."

    write_folder(tmp_path / "parts", parts=("train", "test", "valid"))
    data.load(tmp_path / "parts")
    told = "parts: left out, because they lie beside train/ and test/: 1 (valid)."
    assert capsys.readouterr().out.splitlines()[0] == told


@pytest.mark.skipif(os.name == "nt", reason="Windows lets only some make links")
def test_links_count_and_loops_are_gone_through_once(tmp_path):
    folder = write_folder(tmp_path, parts=("pets",)) / "pets"
    elsewhere = write_folder(tmp_path, parts=("more",), count=5) / "more"
    (folder / "cat" / "linked").symlink_to(elsewhere / "cat")
    (folder / "dog" / "linked.png").symlink_to(elsewhere / "dog" / "0.png")
    (folder / "cow").symlink_to(elsewhere / "dog")
    for name, aim in (("up", ".."), ("self", "."), ("same", "linked"), ("here", "here")):
        (folder / "cat" / name).symlink_to(aim)
    (elsewhere / "cat" / "back").symlink_to(folder / "cat")
    assert labels(folder) == [8, 5, 4]
    (folder / "all").symlink_to(folder)
    with pytest.raises(ValueError, match="all holds no image"):
        data.load(folder)


def test_pixels_and_labels_are_those_that_the_folder_holds_now(tmp_path):
    folder = write_folder(tmp_path)
    for path in folder.rglob("*.png"):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    x = data.load(folder)[0].x
    torch.save({"key": "", "crc": 0, "x": x}, folder / "train" / ".decoded-32x32.pt")  # as an older edition kept them

    def kept(path, change):
        """Change a file or folder so that its name, size and time stay as they were."""
        before = path.stat()
        change(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    kept(folder / "train" / "cat" / "0.bmp", lambda path: Image.new("RGB", (32, 32), (9, 9, 9)).save(path))
    assert data.load(folder)[0].x[0].unique().tolist() == [9]
    cat, dog = folder / "train" / "cat", folder / "train" / "dog"
    kept(folder / "train", lambda _: (cat.rename(folder / "aside"), dog.rename(cat), (folder / "aside").rename(dog)))
    train, _ = data.load(folder)
    assert train.x[:3].equal(x[3:])
    assert train.x[3].unique().tolist() == [9]


@pytest.mark.skipif(os.name == "nt", reason="file names are no bytes there")
def test_names_that_are_no_text_or_that_the_terminal_lacks_are_printed_escaped(tmp_path):
    names = [os.fsdecode(b"gr\xf6n"), "猫"]
    folder = write_folder(tmp_path / "图", parts=(".",), classes=names)
    assert data.load(folder)[0].classes == (r"gr\udcf6n", "猫")
    (folder / names[0] / os.fsdecode(b"\xff.\xff")).touch()
    code = "import sys; from helpers import data; print(*data.load(sys.argv[1])[0].classes)"
    variables = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = subprocess.run([sys.executable, "-c", code, folder], cwd=ROOT, env=variables, capture_output=True)
    assert result.returncode == 0, result.stderr
    assert rb"no pictures: 1 (.\udcff)" in result.stdout
    assert result.stdout.endswith(rb"gr\udcf6n \u732b" + os.linesep.encode())


# ---------------------------------------------------------------- Batches


def test_batches_yield_every_image_once_normalised():
    some = images((30, 20, 13))
    batches = Batches(some, some.mean_std(), 16, shuffle=True)
    passed = list(batches)
    assert [len(y) for _, y in passed] == [16, 16, 16, 15]
    assert len(batches) == 4
    x, y = torch.cat([x for x, _ in passed]), torch.cat([y for _, y in passed])
    assert x.dtype == torch.float32
    assert torch.bincount(y).tolist() == [30, 20, 13]
    assert torch.allclose(x.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-3)
    assert torch.allclose(x.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-3)
    assert [len(y) for _, y in Batches(images(), STATS, 16, drop_last=True)] == [16, 16, 16]


def test_order_and_pairs_are_kept_and_augmentation_belongs_to_the_image():
    some = images()
    x = torch.cat([x for x, _ in Batches(some, STATS, 16)])
    assert torch.equal((x * 255).round().to(torch.uint8), some.x)

    changes = [lambda x, _: x // 2, lambda x, _: x + 1]  # in this order
    x = torch.cat([x for x, _ in Batches(some, STATS, 16, augment=changes)])
    assert torch.equal((x * 255).round().to(torch.uint8), some.x // 2 + 1)

    marked = Images(some.x.clone(), torch.arange(60), tuple(map(str, range(60))), "marked")
    marked.x[:] = torch.arange(60, dtype=torch.uint8).view(-1, 1, 1, 1)
    for x, y in Batches(marked, STATS, 16, augment=[data.random_flip(), data.random_crop()], shuffle=True):
        assert torch.equal((x * 255).round().amax(dim=(1, 2, 3)).long(), y)


def test_batches_depend_on_seed_and_epoch_only_also_after_a_resume():
    def noise(x, generator):
        return x + torch.randint(3, x.shape, generator=generator).to(torch.uint8)

    def epochs(seed, places, augment):
        batches = Batches(images(), STATS, 16, augment=augment, shuffle=True, seed=seed)
        for place in places:
            torch.rand(5)  # random numbers drawn elsewhere do not matter
            if place is not None:
                batches.set_epoch(place)
            yield torch.cat([x for x, _ in batches])

    for augment in (AUGMENT, [*AUGMENT, noise], [noise, data.random_flip()]):
        first, second, third = epochs(3, [None] * 3, augment)
        assert not torch.equal(first, second)
        assert all(map(torch.equal, epochs(3, [2, 0, None], augment), [third, first, second]))
        assert not torch.equal(first, next(epochs(4, [0], augment)))
    drawn = [torch.cat([x for x, _ in Batches(images(), STATS, size, augment=AUGMENT)]) for size in (16, 60)]
    assert torch.equal(*drawn)  # each image's draw, whatever the size of the batches


class Copies(TorchDispatchMode):
    """Counts copies between devices and reads of values, and refuses float64, which Apple's GPUs lack."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        tensors = [value for value in (*args, result) if isinstance(value, torch.Tensor)]
        self.count += name == "_local_scalar_dense" or len({value.device for value in tensors}) > 1
        assert not any(value.dtype == torch.float64 for value in tensors), f"{name} in float64"
        return result


def test_an_epoch_s_draws_are_moved_at_once_and_nothing_else_is():
    some = images()
    batches = Batches(some, STATS, 8, augment=AUGMENT, shuffle=True, device="meta")
    with Copies() as copies:
        steps = iter(batches)
        x, y = next(steps)
        assert x.device.type == y.device.type == "meta"
        assert copies.count == 1 + 2 + 2 + 1 + 1 + 3 + 1 + 4 + 4  # the order, and what each augmentation draws
        assert len(list(steps)) == 7
        assert copies.count == 19
        data.random_flip()(some.x.to("meta"), torch.Generator())
        assert copies.count == 21  # the images and one draw: this counter can count


def test_batches_refuse_what_gives_no_batch():
    with pytest.raises(ValueError, match="batch_size"):
        Batches(images(), STATS, 0)
    with pytest.raises(ValueError, match="60 images give no batch of 64"):
        Batches(images(), STATS, 64, drop_last=True)
    with pytest.raises(ValueError, match="random_crop: reflection needs padding below the image's 32"):
        next(iter(Batches(images(), STATS, augment=[data.random_crop(32, "reflect")])))


def test_torch_lr_finder_takes_batches():
    from torch_lr_finder import TrainDataLoaderIter

    iterator = TrainDataLoaderIter(Batches(images(), STATS, 50))
    assert [len(next(iterator)[1]) for _ in range(3)] == [50, 10, 50]
