"""A web server on this machine that misbehaves as told."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class File:
    """A file and how it is served.

    Attributes:
        data: Its bytes.
        cuts: Bytes after which each of the next answers breaks off; -1: stalls at once.
        statuses: Status of each of the next answers, before any file is sent.
        ranges: Whether ranges are understood.
        lie: Added to the length that is said.
        headers: Further headers; an ``ETag`` by default.
        meddle: Called before each answer, as to change the file.
    """

    data: bytes
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    lie: int = 0
    headers: dict[str, str] = field(default_factory=lambda: {'ETag': '"1"'})
    meddle: Callable[['File'], None] = lambda file: None


@dataclass
class Server:
    """The server's address, its files by path, and what was asked for: paths with ranges."""

    url: str
    files: dict[str, File]
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.partition('?')[0]
            server.asked.append((path, self.headers['Range']))
            file = server.files.get(path)
            if file is None:
                self.send_error(404)
                return
            file.meddle(file)
            if file.statuses:
                self.send_error(file.statuses.pop(0))
                return
            self.send(file)

        def send(self, file: File) -> None:
            wanted = re.fullmatch(r'bytes=(\d+)-', self.headers['Range'] or '')
            same = self.headers['If-Range'] in (None, *file.headers.values())
            start, size = 0, len(file.data)
            if wanted and file.ranges and same:
                start = int(wanted[1])
                if start >= size:
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header('Content-Range', f'bytes {start}-{size - 1}/{size}')
            else:
                self.send_response(200)
            self.send_header('Content-Length', str(size - start + file.lie))
            for name, value in file.headers.items():
                self.send_header(name, value)
            self.end_headers()
            cut = file.cuts.pop(0) if file.cuts else None
            if cut == -1:
                server.over.wait(30)
            self.wfile.write(file.data[start : None if cut is None else start + max(cut, 0)])
            self.close_connection = True

    return Handler


@contextmanager
def serve(files: dict[str, File]) -> Iterator[Server]:
    """Serve files by their paths."""
    server = Server('', files)
    with ThreadingHTTPServer(('127.0.0.1', 0), _handler(server)) as http:
        server.url = f'http://127.0.0.1:{http.server_port}'
        thread = threading.Thread(target=http.serve_forever, kwargs={'poll_interval': 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            http.shutdown()
            thread.join()
