"""A Sentry on the loopback interface."""

import gzip
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def sentry() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A listener for the events of sentry-sdk; yields its DSN and the events."""
    with sentry_of_all_kinds() as (dsn, items):
        yield dsn, items["event"]


@contextmanager
def sentry_of_all_kinds() -> Iterator[tuple[str, dict[str, list[dict[str, Any]]]]]:
    """A listener for all items; yields its DSN and the items by type, such as `check_in`."""
    items: dict[str, list[dict[str, Any]]] = defaultdict(list)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            _envelope_header, *lines = body.split(b"\n")
            for header, payload in zip(lines[::2], lines[1::2], strict=False):
                if kind := json.loads(header).get("type"):
                    items[kind].append(json.loads(payload))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://key@127.0.0.1:{server.server_port}/1", items
        server.shutdown()
