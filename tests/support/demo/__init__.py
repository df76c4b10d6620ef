"""``internimage demo`` as a person would start it, and what a test looks at in the browser."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

# Past any proxy.
_direct = build_opener(ProxyHandler({}))


@dataclass(frozen=True)
class Server:
    """A running ``internimage demo``."""

    url: str
    process: subprocess.Popen[str]
    folder: Path
    files: Path

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """End it; its exit status and what it printed since it was up."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, out


@contextmanager
def running(folder: Path, *options: object, proxy: str = "") -> Iterator[Server]:
    """The program in a folder of its own; its files lie in the folder ``temporary`` there."""
    temporary, work = folder / "temporary", folder / "work"
    temporary.mkdir(parents=True)
    work.mkdir()
    given = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    outside = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), proxy) if proxy else {}
    process = subprocess.Popen(
        [sys.executable, "-m", "internimage", "demo", "--device", "cpu", *map(str, options)],
        cwd=work,
        env={**given, **outside, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        lines = []
        while line := process.stdout.readline():
            lines.append(line)
            if line.startswith("http://"):
                break
        else:
            raise AssertionError(f"the server ended: {''.join(lines)}")
        (files,) = temporary.glob("internimage_demo_*")
        yield Server(lines[-1].split()[0], process, work, files)
    finally:
        process.kill()
        process.communicate()


def points_of(page: Any) -> str:
    """Where the picture with the points lies now; every drawing has a place of its own."""
    return str(page.get_attribute("#view img", "src"))


def wait_for_other_points(page: Any, before: str) -> str:
    """The place of the next drawing."""
    page.wait_for_function(
        "before => { const seen = document.querySelector('#view img'); "
        "return seen && seen.complete && seen.getAttribute('src') !== before; }",
        arg=before,
    )
    return points_of(page)


@dataclass(frozen=True)
class Visitor:
    """Speaks the page's own language to a server, without a browser."""

    server: Server
    session: str

    def ask(self, element: str, event: str, *values: object, event_data: object = None) -> tuple[int, list[Any]]:
        """Do something to an element, and what follows from it; the status, and what the last function gave.

        Args:
            element: its name on the page.
            event: such as ``click``.
            values: of the inputs; those that the server keeps itself are None.
            event_data: what the event is about, such as the place of a click.
        """
        config = json.loads(self._get("/config").read())
        (number,) = (each["id"] for each in config["components"] if each["props"].get("elem_id") == element)
        calls = [each for each in config["dependencies"] if [number, event] in each["targets"]]
        status, output = self.join(calls[0]["id"], values, event_data)
        for each in config["dependencies"]:
            if status == 200 and each["trigger_after"] == calls[0]["id"]:
                status, output = self.join(each["id"], [None] * len(each["inputs"]))
        return status, output

    def join(self, function: int, values: Sequence[object], event_data: object = None) -> tuple[int, list[Any]]:
        """Put a question into the queue, and wait for the answer."""
        status = self.put(function, values, event_data)
        if status != 200:
            return status, []
        with self._get(f"/gradio_api/queue/data?session_hash={self.session}") as stream:
            for line in stream:
                message = json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data: ") else {}
                if message.get("msg") == "process_completed":
                    return (200 if message["success"] else 500), message["output"].get("data", [])
        raise AssertionError("the stream ended without an answer")

    def put(self, function: int, values: Sequence[object], event_data: object = None) -> int:
        """Put a question into the queue; the status."""
        body = {
            "data": list(values),
            "fn_index": function,
            "session_hash": self.session,
            "event_data": event_data,
            "trigger_id": 1,
        }
        address = f"{self.server.url}/gradio_api/queue/join"
        request = Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with _direct.open(request, timeout=60) as answer:
                return int(answer.status)
        except HTTPError as error:
            with error:
                return error.code

    def _get(self, path: str) -> Any:
        return _direct.open(f"{self.server.url}{path}", timeout=60)
