"""Texts as values of HTTP headers, which are ASCII at every client: there and back.

What is printable ASCII stays as it is; what is more is percent-encoded UTF-8. A reader takes
bare UTF-8 too, as some clients send it.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

_is_plain = re.compile(r"[ -~]*").fullmatch


def header_text(text: str) -> str:
    """A text as a header's value: as it is, or percent-encoded when it is more than ASCII.

    >>> header_text("run 7%"), header_text("r\u20ac 7%")
    ('run 7%', 'r%E2%82%AC%207%25')
    """
    return text if _is_plain(text) else quote(text, errors="replace")


def text_of_header(value: bytes) -> str:
    """The text of a header's value; raises UnicodeDecodeError.

    >>> text_of_header(b"run 7%"), text_of_header(b"r%E2%82%AC%207%25")
    ('run 7%', 'r\u20ac 7%')
    """
    text = value.decode("utf-8")
    if "%" not in text:
        return text
    try:
        unquoted = unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text
    return text if unquoted.isascii() else unquoted
