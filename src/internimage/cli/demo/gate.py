"""What stands before gradio's own server: it lets through what the page needs, from whom it may come, and no more.

gradio would also fetch addresses that a visitor names, hand out a list of its functions, and take requests of any
length. Here every request is checked before gradio sees it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from internimage.cli.demo.limits import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_FILE = "/gradio_api/file="
_UPLOAD = "/gradio_api/upload"
_JOIN = "/gradio_api/queue/join"
_READ = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/(assets|static|svelte)/.+|/gradio_api/(theme\.css|info/?|"
    r"app_id/?|startup-events|upload_progress|queue/data|heartbeat/[^/]+|file=.+)"
)
_WRITE = re.compile(r"/gradio_api/(upload|queue/join|reset/?|cancel)")
# What the page sends besides pictures: the number of a choice, the place of a click.
_SMALL = 100_000
_DIGITS = 15
# Of the lines around a file in a form.
_FORM = 10_000
# The page's own scripts and styles stand in it; nothing may come from, or go to, anywhere else.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class RefusedError(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Gate:
    """An ASGI application around another.

    Args:
        app: the one behind it.
        files: the folder with uploads and drawn pictures; no file outside it is ever served or read.
        hosts: names under which the page may be asked for, or none for any. A page of another name that leads to this
            machine could read along otherwise.
        limits: sizes of requests.
    """

    app: App
    files: Path
    hosts: frozenset[str]
    limits: Limits

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer, or hand on, a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        try:
            headers = {name.decode("latin1").lower(): value.decode("latin1") for name, value in scope["headers"]}
            self._check_sender(headers)
            self._check_place(scope["method"], scope["path"])
            if scope["method"] == "POST":
                receive = await self._checked_body(scope["path"], headers, receive)
        except RefusedError as refusal:
            await _answer(send_with_headers, refusal)
            return
        await self.app(scope, receive, send_with_headers)

    def _check_sender(self, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        if self.hosts and _name(f"//{host}") not in self.hosts:
            raise RefusedError(421, "this page is for this machine alone")
        origin = headers.get("origin")
        if origin and origin.lower().partition("://")[2] != host.lower():
            raise RefusedError(403, "another page may not ask here")

    def _check_place(self, method: str, path: str) -> None:
        known = _READ if method in ("GET", "HEAD") else _WRITE if method == "POST" else None
        if known is None or not known.fullmatch(path):
            raise RefusedError(404, "there is nothing here")
        if path.startswith(_FILE) and not self._is_ours(path.removeprefix(_FILE)):
            raise RefusedError(403, "this file is none of the page's")

    def _is_ours(self, path: str) -> bool:
        """Whether a path, however it is written, lies in the folder of the page's files."""
        while (plain := unquote(path)) != path:
            path = plain
        try:
            resolved = Path(path).resolve()
        except (OSError, ValueError, RuntimeError):
            return False
        return Path(path).is_absolute() and resolved.is_relative_to(self.files.resolve())

    async def _checked_body(self, path: str, headers: dict[str, str], receive: Receive) -> Receive:
        """What gives the body of a request that may be handed on."""
        length = headers.get("content-length", "")
        # The server itself sees to it that no more comes than this.
        if not length.isdecimal():
            raise RefusedError(411, "a request says how long it is")
        most = self.limits.upload_bytes + _FORM if path == _UPLOAD else _SMALL
        # Digits without end are no number to Python.
        if len(length) > _DIGITS or int(length) > most:
            raise RefusedError(413, f"{length[:_DIGITS]} bytes are more than the limit of {most}")
        if path == _UPLOAD:
            if _size(self.files) + int(length) > self.limits.files_bytes:
                raise RefusedError(503, "too many pictures at a time; try again later")
            return receive
        body = await _read(receive)
        if path == _JOIN and not all(map(self._is_ours, _paths(body))):
            raise RefusedError(403, "this file is none of the page's")
        return _again(body, receive)


async def _read(receive: Receive) -> bytes:
    """The whole body of a request."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "the request ended early")
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read already, and then what comes after it."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_again


def _paths(body: bytes) -> Iterator[str]:
    """Every file that a question to the network names."""
    try:
        waiting: list[Any] = [json.loads(body)]
    except (ValueError, RecursionError):
        raise RefusedError(400, "this is no JSON") from None
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from (str(each) for name, each in value.items() if name == "path")
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _size(folder: Path) -> int:
    """Bytes of all files below a folder; others may remove some meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total


def _name(address: str) -> str:
    """The name in an address, without its port."""
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return ""


async def _answer(send: Send, refusal: RefusedError) -> None:
    body = str(refusal).encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
