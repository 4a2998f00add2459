"""Files from servers that fail in every way that we know of, to disks that are full, in runs that are killed."""

import contextlib
import errno
import gzip
import hashlib
import os
import random
import re
import signal
import socket
import sys
import tarfile
import threading
import unittest.mock

import fake_sets
import numpy as np
import pytest
import torch
from faulty_server import FaultyServer
from torchvision.datasets import CIFAR10

from helpers import data, download

BODY = b"\x1f\x8b" + random.Random(0).randbytes(300_000)
MD5 = hashlib.md5(BODY).hexdigest()
NAME, PATIENCE = "cifar-10-python.tar.gz", download.PATIENCE
needs_unix = pytest.mark.skipif(os.name == "nt", reason="needs signals and limits of Unix")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 1.0)
    monkeypatch.setattr(download, "WINDOW", 0.2)
    monkeypatch.setattr(download, "MIN_RATE", 20_000)  # far below what a busy machine serves to itself


@pytest.fixture
def serve():
    servers = []

    def start(body, filename="file.tar.gz"):
        servers.append(FaultyServer(body, filename))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def server(serve):
    return serve(BODY)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data" / "file.tar.gz"


@contextlib.contextmanager
def small_disk(size):
    """No file can grow beyond `size` bytes."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def left(folder):
    """What lies there, but for the empty files of locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_four_dead_sources_cost_half_a_minute():
    assert (len(download.MIRRORS[NAME]) + 1) * PATIENCE <= 30


# ---------------------------------------------------------------- sources


@pytest.mark.parametrize("kind", ["good", "no_length", "length_abc", "no_ranges"])
def test_a_good_source_is_asked_once_and_nothing_else_is_left(server, target, capsys, kind):
    download.fetch([server.url(kind), server.url("503")], target, MD5)
    assert target.read_bytes() == BODY
    assert left(target.parent) == ["file.tar.gz"]
    assert server.asked == [(kind, None)]
    assert "0.3 MB, MD5 sum verified" in capsys.readouterr().out


# fault, words of the printed line, whether the next source is asked for the rest only
FAULTS = [
    (403, "HTTP Error 403", False),
    (404, "HTTP Error 404", False),
    (416, "HTTP Error 416", False),
    (503, "HTTP Error 503", False),
    ("web_page", "a web page", False),
    ("truncated", "broke off after 0.2 of 0.3 MB", True),
    ("wrong_bytes", "MD5", False),
    ("endless", "more bytes than the file has", False),
    ("redirect_loop", "infinite loop", False),
    ("silent", "silent for 1 s", False),
    ("slow_headers", "silent for 1 s", False),
    ("slow_chunks", "silent for 1 s", False),
    ("stalls_after_headers", "silent for 1 s", False),
    ("stalls_half_way", "silent for 1 s", True),
    ("trickles", "too slow", True),
    ("hangs_up", "closed connection", False),
]


@pytest.mark.parametrize(("fault", "words", "goes_on"), FAULTS, ids=[str(fault) for fault, _, _ in FAULTS])
def test_a_bad_source_is_left_for_the_next_one_with_one_line_saying_why(
    server, target, capsys, monkeypatch, fault, words, goes_on
):
    monkeypatch.setattr(download, "LARGEST", 10**6)
    download.fetch([server.url(fault), server.url("good")], target, MD5)
    assert target.read_bytes() == BODY
    assert left(target.parent) == ["file.tar.gz"]
    first, second = capsys.readouterr().out.splitlines()
    assert words in first
    assert "verified" in second
    assert server.asked[-1][0] == "good"
    assert (server.asked[-1][1] is not None) == goes_on
    if fault == "endless":  # nobody goes on receiving it
        for thread in [thread for thread in threading.enumerate() if "(receive)" in thread.name]:
            thread.join(timeout=30)
            assert not thread.is_alive()


def test_a_host_that_nobody_knows_a_closed_port_and_a_name_server_that_hangs(server, target, capsys, monkeypatch):
    ask = socket.getaddrinfo

    def lookup(host, *arguments, **options):
        return server.closing.wait() if "hangs" in host else ask(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    urls = ["http://nowhere.invalid/f", "http://127.0.0.1:1/f", "http://hangs.invalid/f", server.url("good")]
    download.fetch(urls, target, MD5)
    assert target.read_bytes() == BODY
    assert [
        next(word for word in ("silent", "refused", "verified", "nowhere") if word in line)
        for line in capsys.readouterr().out.splitlines()
    ] == ["nowhere", "refused", "silent", "verified"]


@pytest.mark.parametrize("second", ["no_ranges", "other_range"])
def test_a_source_that_cannot_continue_begins_anew_or_is_left(server, target, capsys, second):
    download.fetch([server.url(kind) for kind in ("truncated", second, "good")], target, MD5)
    assert target.read_bytes() == BODY
    assert len(server.asked) == (2 if second == "no_ranges" else 3)
    assert ("another part of the file" in capsys.readouterr().out) == (second == "other_range")


def test_wrong_bytes_of_one_source_do_not_spoil_the_rest_of_another(server, target):
    download.fetch([server.url("wrong_first_half"), server.url("good")], target, MD5)
    assert target.read_bytes() == BODY
    assert [asked for _, asked in server.asked] == [None, f"bytes={len(BODY) // 2}-", None]


def test_the_error_names_every_source_its_reason_and_the_remedy(server, target):
    urls = [server.url(404), server.url("wrong_bytes"), server.url("trickles")]
    with pytest.raises(ConnectionError) as caught:
        download.fetch(urls, target, MD5)
    for words in ("Error 404", "MD5", "too slow", "MIN_RATE = 0", "goes on where it stopped", urls[0], str(target)):
        assert words in str(caught.value)
    assert str(caught.value).count("127.0.0.1") == 4
    assert not target.exists()


def test_no_source_is_too_slow_where_the_reader_says_so(server, target, monkeypatch):
    monkeypatch.setattr(download, "MIN_RATE", 0)
    server.body = BODY[:300]  # 30 pieces: longer than the window
    download.fetch([server.url("trickles")], target, hashlib.md5(BODY[:300]).hexdigest())
    assert target.read_bytes() == BODY[:300]


def test_progress_needs_no_console(server, target, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw
    download.fetch([server.url("good")], target, MD5)
    assert target.read_bytes() == BODY


# ---------------------------------------------------------------- runs that fail, are killed, or share a folder


def test_a_failed_run_leaves_its_bytes_to_the_next_one(server, target):
    with pytest.raises(ConnectionError, match="silent"):
        download.fetch([server.url("stalls_half_way")], target, MD5)
    download.fetch([server.url("good")], target, MD5)
    assert server.asked[-1] == ("good", f"bytes={len(BODY) // 2}-")
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("part", [BODY, BODY + b"more", bytes(1000), b"x" * len(BODY)])
@pytest.mark.parametrize("kind", ["good", "no_ranges"])
def test_whatever_an_earlier_run_left_the_file_is_right_in_the_end(server, target, part, kind):
    target.parent.mkdir()
    (target.parent / ".file.tar.gz.part").write_bytes(part)
    download.fetch([server.url(kind)], target, MD5)
    assert target.read_bytes() == BODY
    assert left(target.parent) == ["file.tar.gz"]
    assert (server.asked == []) == (part == BODY)


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def killed(action):
    """Do this in another process, which must die of it."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@needs_unix
def test_a_killed_download_is_not_trusted_and_goes_on_where_it_stopped(server, target):
    def run():
        download.Live.show = die
        download.fetch([server.url("stalls_half_way")], target, MD5)

    killed(run)
    assert not target.exists()
    size = (target.parent / ".file.tar.gz.part").stat().st_size
    assert size > 0
    download.fetch([server.url("good")], target, MD5)
    assert server.asked[-1] == ("good", f"bytes={size}-")
    assert target.read_bytes() == BODY
    assert left(target.parent) == ["file.tar.gz"]


def test_of_two_runs_at_once_one_downloads_and_the_other_waits(server, target, monkeypatch):
    go, printed = threading.Event(), []

    def note(text):
        printed.append(text)
        go.set()  # the second one waits: now the first may end

    class Slow(download.Live):
        def close(self, text):
            assert go.wait(30)

    monkeypatch.setattr(download, "Live", Slow)
    monkeypatch.setattr(download, "print", note, raising=False)
    errors = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    runs = [threading.Thread(target=download.fetch, args=([server.url("good")], target, MD5)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(timeout=60)
    assert not errors
    assert printed == ["  Another run is busy with file.tar.gz. Waiting for it ..."]
    assert target.read_bytes() == BODY
    assert server.asked == [("good", None)]


@needs_unix
def test_a_full_disk_is_no_fault_of_the_source_and_takes_no_room(server, target):
    with small_disk(100_000), pytest.raises(OSError, match="File too large"):
        download.fetch([server.url("good"), server.url("good")], target, MD5)
    assert len(server.asked) == 1
    assert left(target.parent) == []


# ---------------------------------------------------------------- whole data sets


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def cifar10(monkeypatch, folder, serve):
    """A server with a small CIFAR-10. The original host, tried last, serves nothing unless a test says so."""
    server = serve(fake_sets.cifar10(monkeypatch)[NAME], NAME)
    monkeypatch.setitem(download.MIRRORS, NAME, (server.url("good"),))
    monkeypatch.setattr(CIFAR10, "url", server.url(404))
    return server


def notice(capsys):
    """What was printed, the lines of the box joined; the sample stands in, and nothing is half-written."""
    assert data.load("cifar10")[0].name == "sample shapes"
    out = " ".join(line.strip("| ") for line in capsys.readouterr().out.splitlines())
    assert "CIFAR-10 could not be loaded, so this lesson runs on DRAWN SAMPLE PICTURES." in out
    return out


def test_it_is_downloaded_once_verified_and_found_again(cifar10, folder, capsys, monkeypatch):
    monkeypatch.setattr(CIFAR10, "download", lambda self: pytest.fail("torchvision downloads"))
    train, test = data.load("cifar10")
    assert (len(train), len(test), train.name, len(train.classes)) == (100, 20, "CIFAR-10", 10)
    first = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)  # as fake_sets draws them
    assert torch.equal(train.x[:20], torch.from_numpy(first))
    assert f"{NAME} is not there. Downloading it:" in capsys.readouterr().out
    assert data.load("cifar10")[0].x.equal(train.x)
    assert "archive in" in capsys.readouterr().out
    assert cifar10.asked == [("good", None)]
    assert left(folder) == ["cifar-10-batches-py", NAME]


def test_an_archive_put_there_by_hand_needs_no_network_and_a_damaged_one_is_fetched_again(cifar10, folder, capsys):
    (folder / NAME).write_bytes(cifar10.body)
    assert data.load("cifar10")[0].name == "CIFAR-10"
    assert cifar10.asked == []
    (folder / NAME).write_bytes(cifar10.body[:1000])
    (folder / "cifar-10-batches-py" / "test_batch").unlink()
    assert data.load("cifar10")[0].name == "CIFAR-10"
    assert f"{NAME} is damaged" in capsys.readouterr().out


def test_without_any_source_the_sample_stands_in_and_says_why(cifar10, monkeypatch, folder, capsys):
    monkeypatch.setitem(download.MIRRORS, NAME, (cifar10.url("web_page"), cifar10.url("hangs_up")))
    out = notice(capsys)
    for words in ("a web page", "closed connection", "Error 404", f"put it at {folder / NAME}"):
        assert words in out
    assert [fault for fault, _ in cifar10.asked] == ["web_page", "hangs_up", "404"]  # the original host is the last


@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_half_unpacked_files_are_unpacked_again_without_the_network(cifar10, folder, damage):
    train, _ = data.load("cifar10")
    batch = folder / "cifar-10-batches-py" / "data_batch_3"
    content = batch.read_bytes()
    batch.unlink()
    if damage != "missing":
        batch.write_bytes(content[: len(content) // 2] if damage == "cut" else content[:-9] + b"x" + content[-8:])
    again, _ = data.load("cifar10")
    assert again.x.equal(train.x)
    assert again.y.equal(train.y)
    assert len(cifar10.asked) == 1


@needs_unix
@pytest.mark.parametrize("moment", ["unpacking", "moving"])
def test_a_run_killed_while_it_unpacks_is_made_good_by_the_next_one(cifar10, folder, moment):
    (folder / NAME).write_bytes(cifar10.body)

    def run(move=os.replace, moved=[]):  # noqa: B006
        if moment == "unpacking":
            tarfile.TarFile.utime = die  # the first file is there
        else:
            os.replace = lambda a, b: die() if len(moved) == 3 else moved.append(move(a, b))
        download._unpack(folder / NAME)

    killed(run)
    assert f".{NAME}.unpacked" in left(folder)
    assert data.load("cifar10")[0].name == "CIFAR-10"
    assert left(folder) == ["cifar-10-batches-py", NAME]
    assert cifar10.asked == []


@needs_unix
def test_a_disk_full_while_unpacking_is_said_with_advice_that_fits(cifar10, folder, capsys):
    (folder / NAME).write_bytes(cifar10.body)
    with small_disk(50_000):
        out = notice(capsys)
    assert f"{folder} cannot be used (File too large). Make room there" in out
    assert "put it at" not in out
    assert left(folder) == [NAME]
    assert data.load("cifar10")[0].name == "CIFAR-10"


def test_a_folder_that_is_read_only_is_said_with_advice_that_fits(cifar10, folder, capsys, monkeypatch):
    (folder / NAME).write_bytes(cifar10.body)
    refuse = unittest.mock.Mock(side_effect=OSError(errno.EROFS, "Read-only file system"))
    monkeypatch.setattr(download, "FileLock", refuse)
    out = notice(capsys)
    assert f"{folder} cannot be used (Read-only file system)" in out
    assert "DATA_DIR to a folder in which you may write, and copy there what this one holds" in out
    assert "put it at" not in out
    assert cifar10.asked == []


HOSTILE = {
    "above": fake_sets.tar_gz(name="../../evil"),
    "absolute link": fake_sets.tar_gz(type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "device": fake_sets.tar_gz(type=tarfile.CHRTYPE),
    "no tar": gzip.compress(b"text"),
    "no gzip": b"text",
    "cut": fake_sets.tar_gz(random.Random(0).randbytes(10_000))[:5000],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_archive_of_the_right_sum_that_is_hostile_costs_a_sentence(cifar10, folder, capsys, monkeypatch, kind):
    (folder / NAME).write_bytes(HOSTILE[kind])
    monkeypatch.setattr(CIFAR10, "tgz_md5", fake_sets.md5(HOSTILE[kind]))
    assert re.search(rf"{NAME} cannot be unpacked \(.+\). Delete it and run this again.", notice(capsys))
    assert left(folder) == [NAME]
    assert not (folder.parent.parent / "evil").exists()


@pytest.fixture
def fetched(monkeypatch):
    """Names of the files that were downloaded: `fetched.files` holds those that can be."""
    names = type("Names", (list,), {"files": {}})()

    def fetch(urls, target, md5):
        assert all(url.endswith(target.name) for url in urls)
        names.append(target.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(names.files[target.name])

    monkeypatch.setattr(download, "fetch", fetch)
    return names


@pytest.mark.parametrize("name", ["cifar100", "svhn", "fashion_mnist"])
def test_other_sets_are_loaded_and_made_good_whatever_file_is_damaged(monkeypatch, folder, fetched, name):
    fetched.files = getattr(fake_sets, name)(monkeypatch)
    train, test = data.load(name)
    if name == "cifar100":
        assert (len(train), len(test), len(train.classes), train.name) == (200, 100, 100, "CIFAR-100")
    if name == "svhn":
        assert (len(train), len(test), train.classes, train.name) == (30, 20, tuple("0123456789"), "SVHN")
        assert train.x[7, :, 0, 1].tolist() == [0, 0, 7]
        assert train.y[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    if name == "fashion_mnist":
        assert (len(train), len(test), train.classes[9], train.name) == (30, 20, "Ankle boot", "Fashion-MNIST")
        assert train.x[7, :, 16, 16].tolist() == [7] * 3
        assert train.x[7, :, 1, 1].tolist() == [0] * 3
    assert sorted(fetched) == sorted(fetched.files)
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size and path.suffix != ".gz"]
    assert files
    for path in files:
        content = path.read_bytes()
        for damaged in (content[: len(content) // 2], content[:-1] + b"?"):
            path.write_bytes(damaged)
            assert data.load(name)[0].x.equal(train.x)
            assert path.read_bytes() == content
    assert name == "svhn" or sorted(fetched) == sorted(fetched.files)  # unpacked again without the network


@pytest.mark.parametrize("damage", [None, lambda b: b[:-9], lambda b: b"", lambda b: gzip.compress(b), lambda b: b"no"])
def test_fashion_mnist_as_debian_packs_it_needs_no_network_but_damaged_it_is_not_trusted(
    monkeypatch, folder, fetched, damage
):
    fetched.files = fake_sets.fashion_mnist(monkeypatch)
    (folder / "FashionMNIST" / "raw").mkdir(parents=True)
    for name, content in fetched.files.items():
        again = gzip.compress(gzip.decompress(content), compresslevel=1, mtime=1)
        assert again != content
        (folder / "FashionMNIST" / "raw" / name).write_bytes(damage(again) if damage else again)
    assert data.load("fashion_mnist")[0].x[7, 0, 16, 16] == 7
    assert len(fetched) == (4 if damage else 0)


@pytest.mark.parametrize("name", ["cifar100", "fashion_mnist", "svhn"])
def test_another_set_that_cannot_be_had_is_an_error_that_names_it(monkeypatch, folder, name):
    monkeypatch.setattr(download, "_complete", lambda *_: ["a host: a reason"])
    with pytest.raises(ConnectionError, match=rf"data.load\('{name}'\): (?s:.*)a host: a reason(?s:.*)put it at"):
        data.load(name)
    (folder / "train_32x32.mat").mkdir()  # in the way
    if name == "svhn":
        monkeypatch.setattr(download, "_complete", lambda *_: [])
        with pytest.raises(OSError, match=r"data.load\('svhn'\): .* cannot be used \(Is a directory\)"):
            data.load(name)
