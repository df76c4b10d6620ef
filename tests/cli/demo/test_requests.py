"""The server without a browser: what a request may not get, send, or make it do."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from support.demo import Server, Visitor


def ask(
    server: Server, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes, dict[str, str]]:
    """A request as it is written here: nothing is tidied up on the way."""
    place = urlsplit(server.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port or 0, timeout=20)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def upload(server: Server, data: bytes, name: str = "a.jpg") -> tuple[int, bytes]:
    edge = "edge0123456789"
    disposition = f'Content-Disposition: form-data; name="files"; filename="{name}"'
    form = (
        f"--{edge}\r\n{disposition}\r\nContent-Type: image/jpeg\r\n\r\n".encode()
        + data
        + f"\r\n--{edge}--\r\n".encode()
    )
    headers = {"Content-Type": f"multipart/form-data; boundary={edge}"}
    status, answer, _ = ask(server, "POST", "/gradio_api/upload", form, headers)
    return status, answer


def question(path: str, **more: Any) -> bytes:
    """What the page sends when a file was uploaded, with another path."""
    file = {"path": path, "orig_name": "a.jpg", "meta": {"_type": "gradio.FileData"}, **more}
    return json.dumps({"data": [file], "fn_index": 0, "session_hash": "abc", "trigger_id": 1}).encode()


def join(server: Server, body: bytes) -> int:
    return ask(server, "POST", "/gradio_api/queue/join", body, {"Content-Type": "application/json"})[0]


SECRET = b"nobody may read this"


@pytest.fixture(scope="module")
def secret(server: Server) -> Path:
    """Beside the folder of the server's files, so that one step up leads to it."""
    path = server.files.parent / "secret.txt"
    path.write_bytes(SECRET)
    return path


def test_files_outside_its_folder_are_not_served(server: Server, secret: Path) -> None:
    inside = server.files / "anything"
    steps = quote(f"{server.files}/../{secret.name}", safe="")
    (server.files / "link.txt").symlink_to(secret)
    for path in (
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=%2Fetc%2Fpasswd",
        "/gradio_api/file=%252Fetc%252Fpasswd",
        f"/gradio_api/file={secret}",
        f"/gradio_api/file={inside}/../../{secret.name}",
        f"/gradio_api/file={steps}",
        f"/gradio_api/file={steps.replace('.', '%2e')}",
        f"/gradio_api/file={quote(steps)}",
        f"/gradio_api/file={server.files}/link.txt",
        f"/gradio_api/file={secret}%00.png",
        "/gradio_api/file=pyproject.toml",
        "/gradio_api/file=../secret.txt",
        f"/gradio_api/file/{secret}",
        "/assets/..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/static/../../../../../../etc/passwd",
        "/svelte/..%2f..%2fapp.py",
        f"/{secret}",
    ):
        status, body, _ = ask(server, "GET", path)
        assert status in (400, 403, 404), (path, status)
        assert SECRET not in body, path
        assert b"root:" not in body, path


def test_what_was_uploaded_is_served_as_a_file_and_nothing_more(server: Server, photo: Path) -> None:
    status, answer = upload(server, photo.read_bytes(), "../../../../escaped.jpg")
    assert status == 200
    (path,) = json.loads(answer)
    assert Path(path).is_relative_to(server.files)
    assert not list(server.files.parent.glob("escaped*"))
    assert list(server.folder.iterdir()) == []
    status, body, headers = ask(server, "GET", f"/gradio_api/file={path}")
    assert (status, body) == (200, photo.read_bytes())
    # A drawing that holds a script must not run as this page.
    _, answer = upload(server, b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "a.svg")
    status, _, headers = ask(server, "GET", f"/gradio_api/file={json.loads(answer)[0]}")
    assert status == 200
    assert headers["content-disposition"].startswith("attachment")
    assert headers["x-content-type-options"] == "nosniff"


def test_the_network_looks_at_uploads_only(server: Server, secret: Path, trap: socket.socket) -> None:
    for path in (str(secret), "/etc/passwd", f"{server.files}/../{secret.name}", "secret.txt", ""):
        assert join(server, question(path)) == 403, path
    # gradio would fetch these, and keep what it finds.
    for path in ("http://192.0.2.1/a.jpg", "https://example.com/a.jpg", "file:///etc/passwd"):
        assert join(server, question(path)) == 403, path
        assert ask(server, "GET", f"/gradio_api/file={path}")[0] == 403, path
    with pytest.raises(BlockingIOError):
        trap.accept()
    nested = {"data": [{"a": [{"path": "/etc/passwd"}]}], "fn_index": 0, "session_hash": "abc"}
    assert join(server, json.dumps(nested).encode()) == 403
    assert join(server, b"[" * 50_000) == 400
    assert join(server, b"not json") == 400


def test_sizes_are_checked_before_anything_is_kept(server: Server) -> None:
    before = sorted(server.files.rglob("*"))
    status, body = upload(server, bytes(1_100_000))
    assert status == 413
    assert b"limit" in body
    assert join(server, question("a" * 200_000)) == 413
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=20) as raw:
        raw.sendall(b"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 411")
    assert sorted(server.files.rglob("*")) == before


def test_only_what_the_page_needs_is_there(server: Server) -> None:
    for method, path in (
        ("GET", "/gradio_api/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/monitoring/summary"),
        ("GET", "/gradio_api/proxy=https://example.hf.space/a"),
        ("GET", "/gradio_api/deep_link"),
        ("GET", "/gradio_api/mcp/sse"),
        ("POST", "/gradio_api/run/predict"),
        ("POST", "/gradio_api/call/_see"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/vibe-edit"),
        ("POST", "/login"),
        ("DELETE", "/"),
        ("OPTIONS", "/gradio_api/upload"),
    ):
        assert ask(server, method, path, b"{}" if method == "POST" else None)[0] in (404, 405), path


def test_other_pages_and_other_names_get_nothing(server: Server) -> None:
    assert ask(server, "GET", "/", headers={"Host": "attacker.example"})[0] == 421
    assert ask(server, "GET", "/", headers={"Host": "localhost:1"})[0] == 200
    origin = {"Origin": "http://attacker.example", "Content-Type": "application/json"}
    assert ask(server, "POST", "/gradio_api/queue/join", b"{}", origin)[0] == 403
    status, _, headers = ask(server, "GET", "/")
    assert status == 200
    assert "access-control-allow-origin" not in headers
    assert "default-src 'self'" in headers["content-security-policy"]


def test_it_still_answers_and_never_called_out(server: Server, trap: socket.socket) -> None:
    assert server.process.poll() is None
    assert Visitor(server, "last").ask("cat", "click")[0] == 200
    # The page's own requests are watched in the browser; the server's would have gone to this proxy.
    with pytest.raises(BlockingIOError):
        trap.accept()
