"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Aligned lines: the first column to the left, the others to the right.

    >>> table(["class", "train"], [["dog", "1,234"], ["mule", "5"]])
    ['class  train', 'dog    1,234', 'mule       5']
    """
    cells = [list(row) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells]
