"""Downloads against servers on this machine that fail in every way that we know of."""

import errno
import hashlib
import os
import random
import subprocess
import sys
import textwrap
import threading

import pytest
from faulty_server import FaultyServer
from lessons import ROOT

from helpers import download

BODY = b"\x1f\x8b" + random.Random(0).randbytes(300_000)
MD5 = hashlib.md5(BODY).hexdigest()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 1.0)
    monkeypatch.setattr(download, "WINDOW", 0.2)
    monkeypatch.setattr(download, "MIN_RATE", 20_000)  # far below what a busy machine serves to itself
    server = FaultyServer(BODY)
    yield server
    server.close()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data" / "file.tar.gz"


def hidden(target):
    return [path.name for path in target.parent.iterdir() if path != target]


def test_a_good_source_is_fetched_and_nothing_else_is_left(server, target, capsys):
    download.fetch([server.url("good"), server.url("503")], target, MD5)
    assert target.read_bytes() == BODY
    assert hidden(target) == []
    assert server.asked == [("good", None)]
    assert "0.3 MB" in capsys.readouterr().out


def test_a_source_that_does_not_say_how_long_the_file_is(server, target):
    download.fetch([server.url("no_length")], target, MD5)
    assert target.read_bytes() == BODY


# fault, words of the printed line, whether the next source is asked for the rest only
FAULTS = [
    (403, "HTTP 403", False),
    (404, "HTTP 404", False),
    (503, "HTTP 503", False),
    ("web_page", "a web page", False),
    ("web_page_as_archive", "not a gzip archive", False),
    ("truncated", "broke off after 0.2 of 0.3 MB", True),
    ("wrong_bytes", "MD5", False),
    ("endless", "more bytes than the file has", False),
    ("redirect_loop", "redirects in a circle", False),
    ("silent", "no answer for 1 s", False),
    ("slow_headers", "no answer for 1 s", False),
    ("stalls_after_headers", "silent after 0.0 MB for 1 s", False),
    ("stalls_half_way", "silent after 0.2 MB for 1 s", True),
    ("trickles", "too slow", True),
    ("hangs_up", "no connection", False),
]


@pytest.mark.parametrize(("fault", "words", "goes_on"), FAULTS, ids=[str(fault) for fault, _, _ in FAULTS])
def test_a_bad_source_is_left_for_the_next_one_with_one_line_saying_why(
    server, target, capsys, monkeypatch, fault, words, goes_on
):
    monkeypatch.setattr(download, "LARGEST", 10**6)
    download.fetch([server.url(fault), server.url("good")], target, MD5)
    assert target.read_bytes() == BODY
    assert hidden(target) == []
    lines = [line for line in capsys.readouterr().out.splitlines() if "Trying" in line]
    assert len(lines) == 1
    assert words in lines[0]
    assert server.asked[-1][0] == "good"
    assert (server.asked[-1][1] is not None) == goes_on


def test_a_host_that_nobody_knows_and_a_closed_port_are_left_for_the_next_one(server, target, capsys):
    urls = ["http://nowhere.invalid/file.tar.gz", "http://127.0.0.1:1/file.tar.gz", server.url("good")]
    download.fetch(urls, target, MD5)
    assert target.read_bytes() == BODY
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" (")[0] for line in lines[:2]] == [
        "  nowhere.invalid: no connection",
        "  127.0.0.1:1: no connection",
    ]
    assert "Errno" not in lines[0] + lines[1]


def test_the_only_source_is_asked_for_the_rest_when_it_breaks_off(server, target):
    download.fetch([server.url("breaks_off_each_time")], target, MD5)
    assert target.read_bytes() == BODY
    assert [asked for _, asked in server.asked] == [None, "bytes=100001-", "bytes=200002-"]


def test_a_source_that_breaks_off_without_end_is_given_up(server, target):
    with pytest.raises(ConnectionError, match="broke off"):
        download.fetch([server.url("truncated")], target, MD5)
    assert len(server.asked) == download.ATTEMPTS


def test_a_source_without_ranges_begins_anew(server, target):
    download.fetch([server.url("truncated"), server.url("no_ranges"), server.url("good")], target, MD5)
    assert target.read_bytes() == BODY
    assert len(server.asked) == 2


def test_a_source_that_sends_another_range_is_left(server, target, capsys):
    download.fetch([server.url("truncated"), server.url("other_range"), server.url("good")], target, MD5)
    assert target.read_bytes() == BODY
    assert "another part of the file" in capsys.readouterr().out


def test_wrong_bytes_of_one_source_do_not_spoil_the_rest_of_another(server, target):
    download.fetch([server.url("wrong_first_half"), server.url("good")], target, MD5)
    assert target.read_bytes() == BODY


def test_the_last_error_names_every_source_its_reason_and_the_remedy(server, target):
    urls = [server.url(404), server.url("wrong_bytes"), server.url("trickles")]
    with pytest.raises(ConnectionError) as caught:
        download.fetch(urls, target, MD5)
    words = str(caught.value)
    for part in ("HTTP 404", "MD5", "too slow", "MIN_RATE", urls[0], str(target)):
        assert part in words
    assert words.count("127.0.0.1") == 4
    assert not target.exists()


def test_a_length_that_cannot_be_right_is_refused_at_once(server, target, monkeypatch):
    monkeypatch.setitem(download.SIZES, MD5, len(BODY) + 1)
    with pytest.raises(ConnectionError, match="announces 300,002 bytes, but the file has 300,003"):
        download.fetch([server.url("good")], target, MD5)


def test_two_at_once_do_not_disturb_each_other(server, target):
    errors = []

    def run():
        try:
            download.fetch([server.url("both_at_once")], target, MD5)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not errors
    assert target.read_bytes() == BODY
    assert hidden(target) == []


def kill_in_the_middle(url, target):
    """Download in another process, which is killed as soon as the first bytes are written."""
    code = f"""
        import os, pathlib, signal
        from helpers import download
        download.Live.show = lambda line, text: os.kill(os.getpid(), signal.SIGKILL)
        download.fetch([{url!r}], pathlib.Path({str(target)!r}), {MD5!r})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=False)
    assert done.returncode == -9


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_killed_download_is_not_trusted_and_goes_on_where_it_stopped(server, target):
    kill_in_the_middle(server.url("stalls_half_way"), target)
    assert not target.exists()
    (part,) = target.parent.iterdir()
    size = part.stat().st_size
    assert size > 0

    download.fetch([server.url("good")], target, MD5)  # the part is fresh: somebody may be writing to it
    assert server.asked[-1] == ("good", None)
    assert part.exists()

    target.unlink()
    os.utime(part, (0, 0))
    download.fetch([server.url("good")], target, MD5)
    assert server.asked[-1] == ("good", f"bytes={size}-")
    assert target.read_bytes() == BODY
    assert hidden(target) == []


def test_a_failed_download_leaves_its_bytes_to_the_next_call(server, target):
    with pytest.raises(ConnectionError):
        download.fetch([server.url("stalls_half_way")], target, MD5)
    download.fetch([server.url("good")], target, MD5)
    assert server.asked[-1] == ("good", f"bytes={len(BODY) // 2}-")
    assert target.read_bytes() == BODY


@pytest.mark.parametrize("left", [BODY, BODY + b"more", bytes(1000), b"x" * len(BODY)])
def test_whatever_an_earlier_run_left_the_file_is_right_in_the_end(server, target, left):
    target.parent.mkdir()
    part = target.parent / ".file.tar.gz.00.part"
    part.write_bytes(left)
    os.utime(part, (0, 0))
    download.fetch([server.url("good")], target, MD5)
    assert target.read_bytes() == BODY
    assert hidden(target) == []


def test_a_longer_file_of_an_earlier_run_leaves_no_tail(server, target):
    target.parent.mkdir()
    part = target.parent / ".file.tar.gz.00.part"
    part.write_bytes(BODY + b"more")
    os.utime(part, (0, 0))
    download.fetch([server.url("no_ranges")], target, MD5)
    assert target.read_bytes() == BODY


def test_an_interrupt_leaves_no_file_with_the_real_name(server, target, monkeypatch):
    def interrupt(line, text):
        raise KeyboardInterrupt

    monkeypatch.setattr(download.Live, "show", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download.fetch([server.url("good")], target, MD5)
    assert not target.exists()


def test_a_full_disk_is_said_and_takes_no_room(server, target, monkeypatch):
    class Full:
        def __init__(self, *arguments):
            self.file = open(*arguments)  # noqa: SIM115

        def __enter__(self):
            return self

        def __exit__(self, *arguments):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, piece):
            self.file.write(piece[:100])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "open", Full, raising=False)
    with pytest.raises(OSError, match=r"data cannot be written to \(No space left on device\).*DATA_DIR"):
        download.fetch([server.url("good"), server.url("good")], target, MD5)
    assert len(server.asked) == 1
    assert hidden(target) == []


def test_a_folder_that_cannot_be_written_to_is_said_before_anything_is_asked(server, tmp_path):
    (tmp_path / "data").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="data cannot be written to .*DATA_DIR"):
        download.fetch([server.url("good")], tmp_path / "data" / "file.tar.gz", MD5)
    assert server.asked == []
