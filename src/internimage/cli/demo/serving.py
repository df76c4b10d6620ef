"""The server of the page: where it listens, what it keeps on the disk, how it ends."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from internimage.cli.demo.limits import Limits

if TYPE_CHECKING:
    import gradio as gr

_FIRST_PORT, _PORTS = 7860, 100


@dataclass(frozen=True)
class Address:
    """Where the page is.

    Args:
        host: a name or a number of this machine.
        port: one that is free.
        is_asked: whether this port was asked for, and no other will do.
    """

    host: str
    port: int
    is_asked: bool = False

    @classmethod
    def free(cls, host: str, port: int | None) -> Address:
        """The address asked for, or the first free port from 7860 on.

        Raises:
            ValueError: the port is taken or not allowed, or the host is none of this machine.
        """
        if port is not None and not 1 <= port <= 65535:
            raise ValueError(f"--port must lie between 1 and 65535, got {port}")
        for tried in (port,) if port is not None else range(_FIRST_PORT, _FIRST_PORT + _PORTS):
            try:
                _try(host, tried)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    reason = error.strerror or str(error)
                    raise ValueError(f"cannot listen at {host}, port {tried}: {reason}; choose another") from None
            else:
                return cls(host, tried, port is not None)
        if port is not None:
            raise ValueError(f"port {port} of {host} is taken; choose another --port, or leave it out")
        raise ValueError(f"ports {_FIRST_PORT} to {_FIRST_PORT + _PORTS - 1} of {host} are taken; give one as --port")

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone can reach it."""
        with suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"

    @property
    def url(self) -> str:
        """What to type into a browser on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


def _try(host: str, port: int) -> None:
    """Listen there for a moment; raises ``OSError`` where that is not possible."""
    family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(place)
        probe.listen(1)


@contextmanager
def own_files() -> Iterator[Path]:
    """A folder for what visitors upload and what is drawn for them; it goes when the server does.

    gradio reads from the environment where it keeps files and whether it may call home: this comes before its import.
    """
    with tempfile.TemporaryDirectory(prefix="internimage_demo_", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_EXAMPLES_CACHE"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        # The server asks itself whether it is up: that question must not go to a proxy.
        for name in ("NO_PROXY", "no_proxy"):
            given = os.environ.get(name)
            os.environ[name] = ",".join(filter(None, (given, "localhost", "127.0.0.1", "::1")))
        yield Path(folder)


def serve(blocks: gr.Blocks, address: Address, files: Path, limits: Limits, *, browser: bool) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        blocks: the page.
        address: where it listens.
        files: the folder of `own_files`.
        limits: sizes of requests.
        browser: whether to open it there.
    """
    from starlette.middleware import Middleware

    from internimage.cli.demo.appearance import style, theme
    from internimage.cli.demo.gate import Gate

    hosts = frozenset((address.host, "localhost", "127.0.0.1", "::1")) if address.is_loopback else frozenset()
    gate = Middleware(Gate, files=files, hosts=hosts, limits=limits)  # pyright: ignore[reportArgumentType]
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    blocks.launch(
        # gradio writes addresses, too: numbers with colons need their brackets.
        server_name=f"[{address.host}]" if ":" in address.host else address.host,
        # A free one may be taken by now: gradio then goes on to the next, from the same first one.
        server_port=address.port if address.is_asked else None,
        share=False,
        inbrowser=browser,
        prevent_thread_lock=True,
        quiet=True,
        show_error=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        max_file_size=limits.upload_bytes,
        state_session_capacity=limits.sessions,
        app_kwargs={"middleware": [gate], "docs_url": None, "redoc_url": None, "openapi_url": None},
        theme=theme(),
        css=style(),
    )
    address = replace(address, port=blocks.server_port)
    print(f"{address.url}  (Ctrl-C ends it)", flush=True)
    try:
        while not stopped.wait(1):
            pass
    finally:
        # Browsers hold connections open that never end by themselves: they are cut, and nobody needs to read of it.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        blocks.server.config.timeout_graceful_shutdown = 1
        blocks.close(verbose=False)
    print("stopped", flush=True)
