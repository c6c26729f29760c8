"""How many tokens a request has at most, without a tokenizer.

Text in English, code and CJK has 3 bytes a token or more, JSON's own marks included; so a
third of the bytes bounds what providers count. Pictures and files are billed by size, not by
bytes: each counts as IMAGE_TOKENS_MAX at least and its base64 text is left out. A tokenizer
knows one provider's words only, and takes milliseconds where this takes microseconds.
"""

from __future__ import annotations

import re

BYTES_PER_TOKEN = 3
IMAGE_TOKENS_MAX = 2_000
"""Above what a picture of the largest billed size costs at OpenAI (1,445) and Anthropic (1,600)."""
_ENCLOSED_BYTES_MIN = 2048
_ENCLOSED_BYTES_PER_TOKEN = 256
"""For files larger than a picture; the densest text in a PDF stays below."""
_AUDIO_BYTES_PER_TOKEN = 64
"""Of sound in base64: Gemini counts 32 tokens a second, speech has 12 kbit/s and more."""
_ESCAPED = re.compile(rb"\\(?:u00(?!22|5[cC])([2-7][0-9a-fA-F])|/)")
HAS_AUDIO = re.compile(rb'"type"\s*:\s*"input_audio"|data:audio/')
_ENCLOSING = (b"base64", b'"data"', b'"file_data"')
_PICTURE = re.compile(rb'"(?:image_url|input_image|image|input_file|document|file)"')


def plainly(body: bytes) -> bytes:
    r"""A body to look for names in: letters of ASCII that are spelled as escapes are letters.

    Quotes and backslashes stay as they are. It may find a name that only stands in a text.

    >>> plainly(rb'{"cache\u005fcontrol":"image\/png \u0022"}')
    b'{"cache_control":"image/png \\u0022"}'
    """
    if b"\\u00" not in body and b"\\/" not in body:
        return body
    return _ESCAPED.sub(lambda one: bytes.fromhex(one[1].decode()) if one[1] else b"/", body)


def bound_input(body: bytes) -> int:
    """The tokens that a request body has at most.

    >>> bound_input(b'{"messages":[{"role":"user","content":"Hello there"}]}')
    18
    """
    length = len(body)
    marks = plainly(body)
    named = len(_PICTURE.findall(marks)) if b"image" in marks or b"file" in marks else 0
    enclosed = 0
    if length > _ENCLOSED_BYTES_MIN and any(mark in marks for mark in _ENCLOSING):
        has_audio = b"audio" in marks and HAS_AUDIO.search(marks) is not None
        per_token = _AUDIO_BYTES_PER_TOKEN if has_audio else _ENCLOSED_BYTES_PER_TOKEN
        for part in body.split(b'"'):  # a search by pattern took ten times as long
            if len(part) > _ENCLOSED_BYTES_MIN and part.isascii() and b" " not in part:
                length -= len(part)
                enclosed += max(IMAGE_TOKENS_MAX, len(part) // per_token)
    return length // BYTES_PER_TOKEN + max(enclosed, named * IMAGE_TOKENS_MAX)
