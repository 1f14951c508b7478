"""A STAC API and a file server on 127.0.0.1, with faults on demand."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

#: Given a path, says which fault a request meets: '500', '429', 'stall', 'cut', '404', 'empty',
#: 'garbage', or None.
Faults = Callable[[str], str | None]


class Server(ThreadingHTTPServer):
    """Serves an archive; counts what it sends."""

    daemon_threads = True

    def __init__(self, root: Path, items: list[dict[str, Any]], faults: Faults | None = None):
        super().__init__(('127.0.0.1', 0), Handler)
        self.root, self.items, self.faults = root, items, faults
        self.stalled = 3.0
        self.retry_after = '1'
        self.token: str | None = None
        self.lock = threading.Lock()
        self.requests: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        #: Requests under way, the most there were, and for how long each waits to meet another.
        self.now = self.most = 0
        self.hold = 0.0
        self.arrived = threading.Condition(self.lock)

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_address[1]}'

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are nothing to tell."""

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = 'HTTP/1.1'
    server: Server

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        self._answer({})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        length = int(self.headers.get('Content-Length', 0))
        self._answer(json.loads(self.rfile.read(length) or b'{}'))

    def _answer(self, body: dict[str, Any]) -> None:
        server = self.server
        with server.arrived:
            server.now += 1
            server.most = max(server.most, server.now)
            server.arrived.notify_all()
            server.arrived.wait_for(lambda: server.now > 1, server.hold)
        path = urlsplit(self.path).path
        with server.lock:
            # Before it is answered: then its client may ask again at once.
            server.now -= 1
            server.requests[path] += 1
            fault = server.faults(path) if server.faults else None
            if fault:
                server.met[fault] += 1
        if fault in ('500', '404', '429'):
            more = {'Retry-After': server.retry_after} if fault == '429' else {}
            self._send(int(fault), b'no', more)
        elif fault == 'stall':
            time.sleep(server.stalled)
            self.close_connection = True
        elif fault == 'garbage':
            self._send(200, b'<html>We will be back soon</html>')
        elif path.startswith('/files/'):
            self._file(path, cut=fault == 'cut')
        elif path == '/v1/search':
            found = [] if fault == 'empty' else self._search(body)
            page = {'type': 'FeatureCollection', 'features': found, 'links': []}
            self._send(200, json.dumps(page).encode(), cut=fault == 'cut')
        elif path == '/v1':
            self._send(200, json.dumps(self._landing()).encode(), cut=fault == 'cut')
        else:
            self._send(404, b'')

    def _landing(self) -> dict[str, Any]:
        url = f'{self.server.url}/v1'
        classes = ('core', 'item-search', 'item-search#query')
        return {
            'type': 'Catalog', 'stac_version': '1.0.0', 'id': 'test', 'description': 'Test',
            'conformsTo': [f'https://api.stacspec.org/v1.0.0/{name}' for name in classes],
            'links': [
                {'rel': 'self', 'href': url}, {'rel': 'root', 'href': url},
                {'rel': 'search', 'href': f'{url}/search', 'method': 'POST',
                 'type': 'application/geo+json'},
            ],
        }  # fmt: skip

    def _search(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        start, stop = body['datetime'].split('/')
        west, south, east, north = body['bbox']
        found = []
        for item in self.server.items:
            w, s, e, n = item['bbox']
            if not (start <= item['properties']['datetime'] <= stop):
                continue
            if w > east or e < west or s > north or n < south:
                continue
            assets = {
                name: {**asset, 'href': f'{self.server.url}/{asset["href"]}'}
                for name, asset in item['assets'].items()
            }
            found.append({**item, 'assets': assets})
        return found

    def _file(self, path: str, cut: bool) -> None:
        if self.server.token and self.server.token not in self.path:
            return self._send(403, b'')
        file = self.server.root / path.removeprefix('/files/')
        if not file.is_file():
            return self._send(404, b'')
        data = file.read_bytes()
        asked = self.headers.get('Range')
        if not asked:
            return self._send(200, data, cut=cut)
        first, last = asked.removeprefix('bytes=').split('-')
        start, stop = int(first), min(int(last) + 1, len(data)) if last else len(data)
        if start >= len(data):
            return self._send(416, b'')
        more = {'Content-Range': f'bytes {start}-{stop - 1}/{len(data)}'}
        return self._send(206, data[start:stop], more, cut)

    def _send(
        self, status: int, data: bytes, headers: dict[str, str] | None = None, cut: bool = False
    ) -> None:
        self.send_response(status)
        self.send_header('Content-Length', str(len(data)))
        self.send_header('Content-Type', 'application/octet-stream')
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if cut:
            data, self.close_connection = data[: len(data) // 2], True
        if self.command != 'HEAD':
            self.wfile.write(data)
            with self.server.lock:
                self.server.sent[urlsplit(self.path).path] += len(data)
