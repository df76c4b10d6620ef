"""What is drawn here is looked at."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def quick_pages() -> None:
    """Figures are whole."""
