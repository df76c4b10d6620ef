"""What a visitor of the page may ask of the server."""

from __future__ import annotations

from dataclasses import dataclass

_MB = 10**6


@dataclass(frozen=True)
class Limits:
    """Bounds of memory, disk and time; the server checks them all.

    Args:
        upload_mb: largest picture file, in 10^6 bytes.
        pixels: largest picture; it is refused before it is decoded.
        side: longest side in pixels at which a picture is looked at and drawn; larger ones are made smaller.
        waiting: questions that may wait for the network.
        sessions: visitors whose picture is remembered; the one seen longest ago is forgotten first.
        session_s: how long a picture is remembered after it was last used, and a file is kept.
        trace_mb: most that is remembered of a picture, in 10^6 bytes.
        files_mb: most that uploads and drawn pictures take on the disk together; older ones go after ``session_s``.

    Raises:
        ValueError: a bound that is not positive.
    """

    upload_mb: float = 20.0
    pixels: int = 50_000_000
    side: int = 1600
    waiting: int = 16
    sessions: int = 8
    session_s: int = 1800
    trace_mb: float = 1000.0
    files_mb: float = 1000.0

    def __post_init__(self) -> None:
        if not 0 < self.upload_mb <= self.files_mb:
            raise ValueError(f"--max_upload_mb must lie between 0 and {self.files_mb:g}, got {self.upload_mb:g}")
        if self.pixels < 1:
            raise ValueError(f"--max_pixels must be 1 or more, got {self.pixels}")
        if self.session_s < 1:
            raise ValueError(f"--keep_minutes must be more than 0, got {self.session_s / 60:g}")

    @property
    def upload_bytes(self) -> int:
        """Of the largest picture file."""
        return int(self.upload_mb * _MB)

    @property
    def trace_bytes(self) -> int:
        """Most that is remembered of a picture."""
        return int(self.trace_mb * _MB)

    @property
    def files_bytes(self) -> int:
        """Most that all files take together."""
        return int(self.files_mb * _MB)
