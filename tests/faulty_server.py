"""A web server on this machine that serves one file well, or in one of the ways in which servers fail."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FaultyServer:
    """`url(fault)` is the address of the file behind that fault; `asked` lists (fault, Range header) of each request.

    A fault is the name of a method of `_Handler`, or an HTTP status as a number.
    """

    def __init__(self, body: bytes, filename: str = "file.tar.gz"):
        self.body, self.filename = body, filename
        self.asked = []
        self.closing = threading.Event()  # what a stalling handler waits for
        self.barrier = threading.Barrier(2)
        handler = type("Handler", (_Handler,), {"owner": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def url(self, fault, filename: str = "") -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{fault}/{filename or self.filename}"

    def close(self):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: FaultyServer

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        fault = self.path.split("/")[1]
        self.owner.asked.append((fault, self.headers.get("Range")))
        try:
            if fault.isdigit():
                self.send_error(int(fault))
            else:
                getattr(self, fault)()
        except (BrokenPipeError, ConnectionResetError):
            pass
        self.close_connection = True

    def head(self, length, status=200, **headers):
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Content-Type", headers.pop("type", "application/gzip"))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def good(self):
        body, asked = self.owner.body, self.headers.get("Range")
        if not asked:
            self.head(len(body))
            self.wfile.write(body)
            return
        begin = int(asked.removeprefix("bytes=").removesuffix("-"))
        if begin >= len(body):
            self.send_error(416)
            return
        self.head(len(body) - begin, 206, Content_Range=f"bytes {begin}-{len(body) - 1}/{len(body)}")
        self.wfile.write(body[begin:])

    def no_ranges(self):
        self.head(len(self.owner.body))
        self.wfile.write(self.owner.body)

    def no_length(self):
        self.head(None)
        self.wfile.write(self.owner.body)

    def other_range(self):
        size = len(self.owner.body)
        self.head(size, 206, Content_Range=f"bytes 0-{size - 1}/{size}")
        self.wfile.write(self.owner.body)

    def web_page(self):
        page = b"<html>Please log in.</html>"
        self.head(len(page), type="text/html; charset=utf-8")
        self.wfile.write(page)

    def web_page_as_archive(self):
        page = b"<html>Please log in.</html>"
        self.head(len(page))
        self.wfile.write(page)

    def truncated(self):
        self.head(len(self.owner.body))
        self.wfile.write(self.owner.body[: len(self.owner.body) // 2])

    def breaks_off_each_time(self):
        """Serves the next third of what is asked for, whatever the length promised."""
        body, asked = self.owner.body, self.headers.get("Range")
        begin = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        headers = {"Content_Range": f"bytes {begin}-{len(body) - 1}/{len(body)}"} if asked else {}
        self.head(len(body) - begin, 206 if asked else 200, **headers)
        self.wfile.write(body[begin : begin + len(body) // 3 + 1])

    def wrong_bytes(self):
        wrong = bytearray(self.owner.body)
        wrong[len(wrong) // 3] ^= 1
        self.head(len(wrong))
        self.wfile.write(wrong)

    def wrong_first_half(self):
        wrong = self.owner.body[:10] + bytes(len(self.owner.body) // 2 - 10)
        self.head(len(self.owner.body))
        self.wfile.write(wrong)

    def endless(self):
        self.head(None)
        while not self.owner.closing.is_set():
            self.wfile.write(b"\x1f" * 65536)

    def redirect_loop(self):
        self.send_response(302)
        self.send_header("Location", self.path)
        self.end_headers()

    def silent(self):
        self.owner.closing.wait()

    def slow_headers(self):
        for letter in b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 10_000:
            self.wfile.write(bytes([letter]))
            self.wfile.flush()
            if self.owner.closing.wait(0.02):
                return

    def stalls_after_headers(self):
        self.head(len(self.owner.body))
        self.wfile.flush()
        self.owner.closing.wait()

    def stalls_half_way(self):
        self.head(len(self.owner.body))
        self.wfile.write(self.owner.body[: len(self.owner.body) // 2])
        self.wfile.flush()
        self.owner.closing.wait()

    def trickles(self):
        self.head(len(self.owner.body))
        for start in range(0, len(self.owner.body), 10):
            self.wfile.write(self.owner.body[start : start + 10])
            self.wfile.flush()
            if self.owner.closing.wait(0.02):
                return

    def hangs_up(self):
        self.connection.close()

    def both_at_once(self):
        """Serves the first half, and the rest only when two clients are here."""
        half = len(self.owner.body) // 2
        self.head(len(self.owner.body))
        self.wfile.write(self.owner.body[:half])
        self.wfile.flush()
        self.owner.barrier.wait(timeout=30)
        self.wfile.write(self.owner.body[half:])
