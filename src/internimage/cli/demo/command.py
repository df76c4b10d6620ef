"""``internimage demo``: its options, and what comes before the page is there."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from jsonargparse import ArgumentParser

from internimage.cli.demo.limits import Limits
from internimage.cli.demo.network import load_network
from internimage.cli.demo.serving import Address, own_files, serve
from internimage.inference.inspection import Inspector
from internimage.model.weights import DEFAULT_WEIGHTS

_EXTRA = "demo needs gradio: pip install 'internimage-torch[demo]'"


def main(arguments: Sequence[str]) -> int:
    """Serve the page until Ctrl-C or SIGTERM; returns the exit status."""
    options = _parser().parse_args(list(arguments))
    limits = Limits(
        upload_mb=options.max_upload_mb, pixels=options.max_pixels, session_s=round(60 * options.keep_minutes)
    )
    if find_spec("gradio") is None:
        raise ImportError(_EXTRA, name="gradio")
    address = Address.free(options.host, options.port)
    if not address.is_loopback:
        print(f"--host {options.host}: everybody who reaches this machine can use the page", flush=True)
    network = load_network(options.weights, options.device)
    inspector = Inspector(options.weights, device=options.device)
    with own_files() as files:
        # Only now, for gradio reads the environment when it is imported.
        from internimage.cli.demo.page import Page

        serve(Page(network, inspector, limits).build(), address, files, limits, browser=options.open)
    return 0


def _parser() -> ArgumentParser:
    default = Limits()
    parser = ArgumentParser(
        prog="internimage demo", description="Look at pictures in a browser: what a network sees, and where it looks."
    )
    weights = "a file, a run's folder, a weight name or a hub id; by default a small classifier of the package's own"
    parser.add_argument("--weights", type=str, default=DEFAULT_WEIGHTS, help=weights)
    host = "where to listen; by default this machine alone can open the page"
    parser.add_argument("--host", type=str, default="127.0.0.1", help=host)
    parser.add_argument("--port", type=int | None, default=None, help="a free one from 7860 on by default")
    upload = "largest picture file, in 10^6 bytes"
    parser.add_argument("--max_upload_mb", type=float, default=default.upload_mb, help=upload)
    parser.add_argument("--max_pixels", type=int, default=default.pixels, help="largest picture, in pixels")
    keep = "how long a picture is remembered after it was last used"
    parser.add_argument("--keep_minutes", type=float, default=default.session_s / 60, help=keep)
    parser.add_argument("--device", type=str | None, default=None, help="cpu, cuda, ...; the fastest by default")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    return parser
