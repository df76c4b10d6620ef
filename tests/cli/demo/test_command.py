"""The command before a server is there: what it refuses, and why."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

from internimage.cli.demo.serving import Address

Program = Callable[..., Any]


def test_without_gradio_it_names_the_extra(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert program("demo").refusal() == "internimage: demo needs gradio: pip install 'internimage-torch[demo]'\n"


def test_a_taken_port_and_places_that_are_none(program: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = program("demo", "--port", port).refusal()
        assert f"port {port} of 127.0.0.1 is taken; choose another --port, or leave it out" in refused
    assert "--port must lie between 1 and 65535, got 70000" in program("demo", "--port", 70000).refusal()
    assert "cannot listen at 203.0.113.7, port 7860: " in program("demo", "--host", "203.0.113.7").refusal()


def test_a_free_port_is_found_after_those_that_are_taken() -> None:
    first = Address.free("127.0.0.1", None)
    with socket.create_server((first.host, first.port)):
        second = Address.free("127.0.0.1", None)
    assert 7860 <= first.port < second.port


def test_limits_that_make_no_sense(program: Program) -> None:
    assert "--max_upload_mb must lie between 0 and 1000, got -1" in program("demo", "--max_upload_mb", -1).refusal()
    assert "--keep_minutes must be more than 0, got 0" in program("demo", "--keep_minutes", 0).refusal()
    assert "--max_pixels must be 1 or more, got 0" in program("demo", "--max_pixels", 0).refusal()


def test_weights_are_found_before_a_server_is_there(program: Program) -> None:
    assert "nowhere.safetensors" in program("demo", "--weights", "nowhere.safetensors").refusal()


@pytest.mark.parametrize(
    ("host", "loopback", "url"),
    [
        ("127.0.0.1", True, "http://127.0.0.1:80"),
        ("localhost", True, "http://localhost:80"),
        ("::1", True, "http://[::1]:80"),
        ("127.8.9.1", True, "http://127.8.9.1:80"),
        ("0.0.0.0", False, "http://127.0.0.1:80"),
        ("::", False, "http://[::1]:80"),
        ("192.168.1.5", False, "http://192.168.1.5:80"),
        ("myhost", False, "http://myhost:80"),
    ],
)
def test_who_can_reach_an_address(host: str, loopback: bool, url: str) -> None:
    address = Address(host, 80)
    assert (address.is_loopback, address.url) == (loopback, url)
