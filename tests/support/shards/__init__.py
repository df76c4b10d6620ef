"""Shards to read, and servers that behave badly."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Fault = Callable[[SimpleHTTPRequestHandler, str, bytes], bool]
"""Answers a request for a file in its own way, and returns whether it did."""


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *arguments, asked: list[str], fault: Fault | None, **settings) -> None:
        self.asked, self.fault = asked, fault
        super().__init__(*arguments, **settings)

    def do_GET(self) -> None:
        self.asked.append(self.path.lstrip("/"))
        path = Path(self.translate_path(self.path))
        if not (self.fault and path.is_file() and self.fault(self, self.path.lstrip("/"), path.read_bytes())):
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Quietly."""


class Server:
    """A folder behind ``url``; ``asked`` are the paths of all requests, in order."""

    def __init__(self, folder: Path, fault: Fault | None = None) -> None:
        self.asked: list[str] = []
        handler = partial(_Handler, directory=str(folder), asked=self.asked, fault=fault)
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@contextmanager
def serving(folder: Path, fault: Fault | None = None) -> Iterator[Server]:
    """A real server on the loopback device."""
    server = Server(folder, fault)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def damage(path: Path, dice: random.Random) -> str:
    """Truncate a file, flip one of its bits, or write zeros into it, at a random place; returns which."""
    content = bytearray(path.read_bytes())
    kind, place = dice.choice(("cut", "flipped", "zeroed")), dice.randrange(len(content))
    if kind == "cut":
        del content[place:]
    elif kind == "flipped":
        content[place] ^= 1 << dice.randrange(8)
    else:
        content[place : place + 700] = bytes(len(content[place : place + 700]))
    path.write_bytes(content)
    return kind
