"""A web server on this machine that serves one file well, or in one of the ways in which servers fail."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FaultyServer:
    """`url(fault)` is the address of the file behind that fault; `asked` lists (fault, Range header) of each request.

    A fault is the name of a method of `_Handler`, or an HTTP status as a number.
    """

    def __init__(self, body: bytes, filename: str = "file.tar.gz"):
        self.body, self.filename, self.asked = body, filename, []
        self.closing = threading.Event()  # what a stalling handler waits for
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
        self.body, self.asked = self.owner.body, self.headers.get("Range")
        self.begin = int(self.asked.removeprefix("bytes=").removesuffix("-")) if self.asked else 0
        self.owner.asked.append((fault, self.asked))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_error(int(fault)) if fault.isdigit() else getattr(self, fault)()
        self.close_connection = True

    def head(self, length, status=200, **headers):
        self.send_response(status)
        for name, value in ({"Content_Length": length} | headers).items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def send(self, body, length=None, status=200, **headers):
        self.head(len(body) if length is None else length, status, **headers)
        self.wfile.write(body)
        self.wfile.flush()

    def slowly(self, body, step):
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            self.wfile.flush()
            if self.owner.closing.wait(0.02):
                return

    # ---------------------------------------------------------------- as it should be

    def good(self):
        if not self.asked:
            self.send(self.body)
        elif self.begin >= len(self.body):
            self.send_error(416)
        else:
            place = f"bytes {self.begin}-{len(self.body) - 1}/{len(self.body)}"
            self.send(self.body[self.begin :], status=206, Content_Range=place)

    def no_ranges(self):
        self.send(self.body)

    def no_length(self):
        self.head(None)
        self.wfile.write(self.body)

    def length_abc(self):
        self.send(self.body, "abc")

    # ---------------------------------------------------------------- something else

    def web_page(self):
        self.send(b"<html>Please log in.</html>", Content_Type="text/html")

    def other_range(self):
        self.send(self.body, status=206, Content_Range=f"bytes 0-{len(self.body) - 1}/{len(self.body)}")

    def wrong_bytes(self):
        self.send(self.body[:1000] + b"?" + self.body[1001:])

    def wrong_first_half(self):
        self.send(bytes(len(self.body) // 2), len(self.body))

    def endless(self):
        self.head(None)
        while not self.owner.closing.is_set():
            self.wfile.write(bytes(65536))

    def redirect_loop(self):
        self.head(0, 302, Location=self.path)

    # ---------------------------------------------------------------- not to the end

    def hangs_up(self):
        self.connection.close()

    def truncated(self):
        self.send(self.body[: len(self.body) // 2], len(self.body))

    # ---------------------------------------------------------------- too slow

    def silent(self):
        self.owner.closing.wait()

    def slow_headers(self):
        self.slowly(b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 10_000, 1)

    def slow_chunks(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.slowly(b"1" * 10_000, 1)  # the length of the first chunk never ends

    def stalls_after_headers(self):
        self.send(b"", len(self.body))
        self.owner.closing.wait()

    def stalls_half_way(self):
        self.send(self.body[: len(self.body) // 2], len(self.body))
        self.owner.closing.wait()

    def trickles(self):
        self.head(len(self.body))
        self.slowly(self.body, 10)
