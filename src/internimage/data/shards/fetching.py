"""Files from a server by http: tried several times, and taken whole or not at all."""

from __future__ import annotations

import http.client
import io
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any, BinaryIO

_PIECE = 2**20
# Busy or broken for now; anything else will be answered the same the next time.
_PASSING = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Patience:
    """How long to go on with a server that does not answer well.

    Args:
        tries: how often a file is asked for.
        wait_s: seconds before the second time; twice as long before each further one.
        timeout_s: seconds without a byte after which an answer is given up.
    """

    tries: int = 5
    wait_s: float = 1.0
    timeout_s: float = 30.0


class MissingFileError(ConnectionError):
    """The server answers that it has no such file."""


class _PassingError(Exception):
    """What may go better the next time."""


def fetch(url: str, file: BinaryIO, *, size: int | None = None, patience: Patience) -> None:
    """Write what a server has at an address into ``file``, from its beginning.

    Args:
        url: the address.
        file: open for writing; holds a part after an error.
        size: how many bytes it should be; by default as many as the server announces.
        patience: with the server.

    Raises:
        MissingFileError: there is nothing.
        ConnectionError: the server can't be reached, or does not give all of it; says why.
    """
    reason = ""
    for attempt in range(patience.tries):
        if attempt:
            time.sleep(patience.wait_s * 2 ** (attempt - 1))
        file.seek(0)
        try:
            _fetch_once(url, file, size, patience.timeout_s)
        except _PassingError as error:
            reason = str(error)
        else:
            file.truncate()
            return
    times = f", {patience.tries} times" if patience.tries > 1 else ""
    raise ConnectionError(f"cannot fetch {url}: {reason}{times}; check that the server runs, and start again")


def fetch_bytes(url: str, patience: Patience) -> bytes:
    """The same for a small file."""
    file = io.BytesIO()
    fetch(url, file, patience=patience)
    return file.getvalue()


def address(folder_url: str, file: str) -> str:
    """The address of a file in a folder.

    >>> address("http://server/cats/train", "a b.tar")
    'http://server/cats/train/a%20b.tar'
    """
    return f"{folder_url.rstrip('/')}/{urllib.parse.quote(file)}"


def _fetch_once(url: str, file: BinaryIO, size: int | None, timeout_s: float) -> None:
    with _ask(url, timeout_s) as answer:
        announced = answer.headers.get("Content-Length")
        wanted = size if size is not None or announced is None else int(announced)
        got = 0
        while piece := _next_piece(answer):
            got += len(piece)
            # An error here is one of this machine's disk.
            file.write(piece)
    if wanted is not None and got != wanted:
        raise _PassingError(f"{got:,} bytes came instead of {wanted:,}")


def _ask(url: str, timeout_s: float) -> Any:
    try:
        return urllib.request.urlopen(url, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"the server answers {error.code} ({error.reason})"
        if error.code in _PASSING:
            raise _PassingError(reason) from None
        kind = MissingFileError if error.code in (404, 410) else ConnectionError
        raise kind(f"cannot fetch {url}: {reason}; check the address") from None
    except urllib.error.URLError as error:
        raise _PassingError(f"the server can't be reached ({_in_words(error.reason)})") from None
    except (http.client.HTTPException, OSError) as error:
        raise _PassingError(f"the server can't be understood ({_in_words(error)})") from None


def _next_piece(answer: Any) -> bytes:
    try:
        return answer.read(_PIECE)
    except (http.client.HTTPException, OSError) as error:
        raise _PassingError(f"the server stopped in the middle ({_in_words(error)})") from None


def _in_words(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
