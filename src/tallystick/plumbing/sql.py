"""Named SQL statements, kept in `.sql` files beside the code that runs them.

A file is a sequence of statements, each headed by `-- name: some_name` and a comment
that says what it does, what it locks and which index serves it.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_HEADING = re.compile(r"^-- name: ([\w-]+)\s*$", re.MULTILINE)


@cache
def load_statements(package: str, filename: str) -> dict[str, str]:
    """Read the statements of one file, by name.

    `package` is dotted ("tallystick.ledger"). A file without names raises ValueError.
    """
    parts = _HEADING.split(files(package).joinpath(filename).read_text("utf-8"))
    if len(parts) < 3:
        raise ValueError(f"{package}/{filename} has no '-- name:' heading")
    return dict(zip(parts[1::2], (text.strip().rstrip(";") for text in parts[2::2]), strict=True))
