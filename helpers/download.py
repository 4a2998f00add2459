"""Fetch a file from the first of several sources that serves it: verified, bounded in time, never half-written."""

import contextlib
import hashlib
import os
import queue
import secrets
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from helpers.utils import Live, bar

PATIENCE = 10.0  # seconds: a source that sends nothing for so long is given up
WINDOW = 5.0  # seconds over which the rate of a source is measured
MIN_RATE = 200_000  # bytes a second: a slower source is given up. Set it to 0 to wait for a slow line
ATTEMPTS = 3  # how often a source that breaks off half-way is asked for the rest
ABANDONED = 60.0  # seconds after which a part that nobody writes to is taken over
SIZES = {"c58f30108f718f92721af3b95e74349a": 170_498_071}  # bytes of files whose MD5 sum is known: CIFAR-10
LARGEST = 2 * 10**9  # bytes, for all others


class _GivenUp(Exception):
    """Why a source is left for the next one. `again`: ask it once more later. `anew`: what came so far is useless."""

    def __init__(self, reason: str, again: bool = False, anew: bool = False):
        super().__init__(reason)
        self.again, self.anew = again, anew


def fetch(urls: Sequence[str], target: Path, md5: str) -> None:
    """Put the file with this MD5 sum at `target`, from the first of `urls` that serves it.

    Bytes go into a hidden `.part` file beside `target`, which takes its name only once the MD5 sum is right. A source
    that fails, sends something else, falls silent (`PATIENCE`) or is slow (`MIN_RATE`) is left for the next one, which
    continues where the last one stopped if it can; so does a later call.

    Raises:
        ConnectionError: no source served the file; names each and why.
        OSError: the file cannot be written; says where and why.
    """
    try:
        part = _own_part(target)
        try:
            reasons = _from_first(urls, target, part, md5)
        except OSError:
            part.unlink(missing_ok=True)  # on a full disk it must not take the room
            raise
        finally:
            _leave(part)
    except OSError as error:
        raise OSError(
            f"{target.parent} cannot be written to ({error.strerror or error}). Make room there (400 MB), or set the "
            "environment variable DATA_DIR to a folder that you may write to."
        ) from error
    if reasons:
        lines = [f"{target.name} could not be downloaded. Tried:", *(f"  {reason}" for reason in reasons)]
        if any("too slow" in reason for reason in reasons):
            lines.append("On a slow line run `from helpers import download; download.MIN_RATE = 0`, then this again.")
        lines.append(f"Or fetch it by hand from {urls[0]} and put it at {target}")
        raise ConnectionError("\n".join(lines))


def _from_first(urls: Sequence[str], target: Path, part: Path, md5: str) -> list[str]:
    """Fill `part` and rename it to `target`: []. If no source serves it: why, a line for each that was tried."""
    waiting = deque((url, 1) for url in urls)
    reasons = []
    while waiting:
        url, attempt = waiting.popleft()
        host, line, begin = urllib.parse.urlsplit(url).netloc, Live(), time.monotonic()
        try:
            offset = _transfer(url, part, md5, line)
            if _md5(part) != md5:
                # With bytes of another source or run before its own, this source may still be the right one.
                raise _GivenUp("wrong bytes (the MD5 sum differs)", again=offset > 0, anew=True)
            os.replace(part, target)
            megabytes = (target.stat().st_size - offset) / 1e6
            line.close(f"  {host}: {megabytes:.1f} MB in {time.monotonic() - begin:.0f} s, MD5 sum verified.")
            return []
        except _GivenUp as given_up:
            reasons.append(f"{host}: {given_up}")
            if given_up.anew:
                os.truncate(part, 0)
            if given_up.again and attempt < ATTEMPTS:
                # The rest is asked for after all others, a whole file at once: no bytes of others can spoil it.
                waiting.insert(0 if given_up.anew else len(waiting), (url, attempt + 1))
            following = f" Trying {urllib.parse.urlsplit(waiting[0][0]).netloc}." if waiting else ""
            line.close(f"  {host}: {given_up}.{following}")
    return reasons


def _transfer(url: str, part: Path, md5: str, line: Live) -> int:
    """Complete `part` from `url`; where in the file it began (0: all of it came from here). Or `_GivenUp`."""
    offset = part.stat().st_size
    pieces, stop = queue.SimpleQueue(), threading.Event()
    # A thread of its own: neither a name server nor a header that arrives byte by byte can hold up this one.
    threading.Thread(target=_receive, args=(url, offset, pieces, stop), daemon=True).start()
    try:
        offset, total = _judge(_next(pieces, "no answer"), offset, SIZES.get(md5))
        gzipped = offset == 0 and urllib.parse.urlsplit(url).path.endswith(".gz")
        done, window, since, shown = offset, time.monotonic(), offset, 0.0
        with open(part, "r+b") as file:
            while piece := _next(pieces, f"silent after {done / 1e6:.1f} MB", done > offset):
                if done == offset:
                    if gzipped and piece[0] != 0x1F:
                        raise _GivenUp("sends something else, not a gzip archive")
                    file.seek(offset)
                    file.truncate()  # not before: what is there stays until something better arrives
                file.write(piece)
                done += len(piece)
                if done > (total or LARGEST):
                    raise _GivenUp("sends more bytes than the file has", anew=True)
                now = time.monotonic()
                rate = (done - since) / max(now - window, 1e-3)
                if now - shown > 0.3:
                    line.show(_progress(done, total, rate))
                    shown = now
                if now - window > WINDOW:
                    if rate < MIN_RATE:
                        raise _GivenUp(f"too slow ({rate / 1e3:.1f} kB/s; the limit is {MIN_RATE / 1e3:.0f} kB/s)")
                    window, since = now, done
    finally:
        stop.set()
    if total is not None and done < total:
        raise _GivenUp(f"broke off after {done / 1e6:.1f} of {total / 1e6:.1f} MB", again=done > offset)
    return offset


def _receive(url: str, offset: int, pieces: queue.SimpleQueue, stop: threading.Event) -> None:
    """Put into the queue: the response, then the pieces of its body, then b"". Or the error that ended it."""
    headers = {"User-Agent": "image-classification-course"} | ({"Range": f"bytes={offset}-"} if offset else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=PATIENCE) as response:
            pieces.put(response)
            while not stop.is_set() and (piece := response.read1(1 << 16)):
                pieces.put(piece)
        pieces.put(b"")
    except Exception as error:  # whatever it is, the next source is tried
        pieces.put(error)


def _next(pieces: queue.SimpleQueue, silence: str, started: bool = False):
    """The next thing that `_receive` got; its error, or silence, as `_GivenUp`."""
    try:
        item = pieces.get(timeout=PATIENCE)
    except queue.Empty:
        item = TimeoutError()
    if isinstance(item, TimeoutError) or isinstance(getattr(item, "reason", None), TimeoutError):
        raise _GivenUp(f"{silence} for {PATIENCE:g} s")
    if isinstance(item, urllib.error.HTTPError):
        item.close()
        if item.code == 416:  # what we have is as long as its file, or longer
            raise _GivenUp("has nothing to add to the part that is here", again=True, anew=True)
        words = "redirects in a circle" if "infinite loop" in str(item.reason) else str(item.reason).partition("\n")[0]
        raise _GivenUp(f"HTTP {item.code} ({words})")
    if isinstance(item, Exception):
        cause = getattr(item, "reason", item)
        words = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        raise _GivenUp(f"{'broke off' if started else 'no connection'} ({words})", again=started)
    return item


def _judge(response, offset: int, size: int | None) -> tuple[int, int | None]:
    """(where its bytes begin, length of the whole file or None), from the headers; refuses what is not the file."""
    total = int(response.headers.get("Content-Length") or 0) or None
    if response.status == 206:
        begin, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if begin.partition("-")[0] != str(offset) or not total.isdigit():
            raise _GivenUp("sends another part of the file than it was asked for")
        total = int(total)
    else:
        offset = 0
    if response.headers.get_content_type() == "text/html":
        raise _GivenUp("answers with a web page, not with the file")
    if None not in (total, size) and total != size:
        raise _GivenUp(f"announces {total:,} bytes, but the file has {size:,}")
    return offset, total or size


def _progress(done: int, total: int | None, rate: float) -> str:
    speed = f"{rate / 1e6:.1f} MB/s"
    if total is None:
        return f"  {done / 1e6:.1f} MB, {speed}"
    left = (total - done) / rate if rate else 0
    return f"  {bar(done, total)} {done / 1e6:.1f} of {total / 1e6:.1f} MB, {speed}, {left:.0f} s left"


# ---------------------------------------------------------------- parts of a file


def _own_part(target: Path) -> Path:
    """A `.part` file that only this call writes to: one that an earlier run left behind, or a new one."""
    own = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # another notebook may take it, or finish, at the same moment
        left = [path for path in _parts(target) if time.time() - path.stat().st_mtime > ABANDONED]
        if left:
            os.rename(max(left, key=lambda path: path.stat().st_size), own)
    own.touch()
    return own


def _leave(part: Path) -> None:
    """Mark what is left of a download, so that the next call goes on with it; throw it away if it is empty."""
    with contextlib.suppress(OSError):
        if part.stat().st_size:
            os.utime(part, (0, 0))
        else:
            part.unlink()


def _parts(target: Path) -> list[Path]:
    return list(target.parent.glob(f".{target.name}.*.part"))


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
