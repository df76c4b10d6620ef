"""What stands before the server, on its own: paths however written, bodies however sent, a full disk."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from internimage.cli.demo.gate import Gate
from internimage.cli.demo.limits import Limits

JOIN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"
LIMITS = Limits(upload_mb=0.01, files_mb=0.02)


def ask(gate: Gate, method: str, path: str, *parts: bytes, **headers: str) -> tuple[int, bytes]:
    """The answer to a request whose body comes in parts."""
    sent: list[dict[str, Any]] = []
    waiting = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    waiting.append({"type": "http.request", "body": b"", "more_body": False})
    given = {"host": "localhost", "content-length": str(sum(map(len, parts))), **headers}

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    encoded = [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()]
    asyncio.run(gate({"type": "http", "method": method, "path": path, "headers": encoded}, receive, send))
    return sent[0]["status"], b"".join(each.get("body", b"") for each in sent[1:])


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Behind it is an application that gives back what it is sent."""

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    (tmp_path / "files").mkdir()
    return Gate(echo, tmp_path / "files", frozenset(("localhost",)), LIMITS)


def test_a_body_in_parts_arrives_whole(gate: Gate) -> None:
    inside = json.dumps({"data": [{"path": str(gate.files / "a.jpg")}]}).encode()
    assert ask(gate, "POST", JOIN, inside[:7], inside[7:]) == (200, inside)
    assert ask(gate, "POST", UPLOAD, b"one", b"two") == (200, b"onetwo")


@pytest.mark.parametrize(
    "written", ["{}/../x", "{}/a/../../x", "{}x/a", "{}/%2e%2e/x", "{}/%252e%252e/x", "x", "", "~/x"]
)
def test_a_path_outside_however_it_is_written(gate: Gate, written: str) -> None:
    path = written.format(gate.files)
    assert ask(gate, "GET", f"/gradio_api/file={path}")[0] in (403, 404)
    assert ask(gate, "POST", JOIN, json.dumps({"data": [{"path": path}]}).encode())[0] == 403


def test_a_path_inside_is_served(gate: Gate) -> None:
    for name in ("a.jpg", "50%.jpg", "a%2fb.jpg", "ü b.jpg", "a/../b.jpg"):
        assert ask(gate, "GET", f"/gradio_api/file={gate.files}/{name}")[0] == 200, name


def test_a_path_that_is_no_text(gate: Gate) -> None:
    for path in (None, 7, ["/etc/passwd"], {"path": "/etc/passwd"}):
        assert ask(gate, "POST", JOIN, json.dumps({"data": [{"path": path}]}).encode())[0] == 403, path


def test_uploads_end_where_the_disk_would(gate: Gate) -> None:
    picture = bytes(9_000)
    assert ask(gate, "POST", UPLOAD, picture)[0] == 200
    for number in range(2):
        (gate.files / f"{number}.jpg").write_bytes(picture)
    status, said = ask(gate, "POST", UPLOAD, picture)
    assert (status, said) == (503, b"too many pictures at a time; try again later")
    (gate.files / "0.jpg").unlink()
    assert ask(gate, "POST", UPLOAD, picture)[0] == 200


def test_lengths_that_are_none(gate: Gate) -> None:
    for length in ("", "-1", "many", "1e3"):
        assert ask(gate, "POST", JOIN, b"{}", content_length=length)[0] == 411, length
    assert ask(gate, "POST", JOIN, b"{}", content_length="9" * 5000)[0] == 413


def test_other_pages_and_names(gate: Gate) -> None:
    for host in ("attacker.example", "localhost.attacker.example", "", "[", "localhost@attacker.example"):
        assert ask(gate, "GET", "/", host=host)[0] == 421, host
    for host in ("localhost", "LOCALHOST:7860"):
        assert ask(gate, "GET", "/", host=host)[0] == 200, host
    for origin in ("http://attacker.example", "null", "http://[", "http://localhost:1"):
        assert ask(gate, "POST", UPLOAD, b"x", host="localhost:7860", origin=origin)[0] == 403, origin
    assert ask(gate, "POST", UPLOAD, b"x", host="localhost:7860", origin="http://localhost:7860")[0] == 200


def test_errors_of_the_network_say_nothing_of_the_machine() -> None:
    from internimage.cli.demo.page import _problem

    said = _problem(RuntimeError("CUDA out of memory at /home/someone"))["value"]
    assert "The network could not look at this picture; the log of the server says why." in said
    assert "someone" not in said
    assert "&lt;b&gt;" in _problem(ValueError("<b>"))["value"]
