"""Framing: from a request body to single messages, so that a bad one harms no other.

The quick way decodes the whole body at once. When that fails, an array is cut at its
top-level commas and NDJSON at its lines, by a scan that knows strings and brackets but no
recursion, and each piece is decoded alone.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import msgspec
import zstandard

from tallystick.bounds import BODY_BYTES_MAX
from tallystick.errors import BodyTooLarge, BodyUnreadable, UnsupportedForm
from tallystick.events.rules import Refused

ARRAY_TYPES = {"", "application/json", "text/json"}
_JSON_TYPES = ARRAY_TYPES | {
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
}
NDJSON_TYPES = {"application/x-ndjson", "application/ndjson", "application/jsonl"}
_MARKS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)
_decoder = msgspec.json.Decoder(float_hook=Decimal)
UNDECODABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError, InvalidOperation)
"""What a decoder of JSON raises; the last for an exponent beyond those of Decimal."""


class Message(NamedTuple):
    """One message: decoded, or the reason why it could not be; `raw` for hashing only."""

    decoded: Any
    refused: Refused | None
    raw: bytes


def decompress(body: bytes, content_encoding: str) -> bytes:
    """Undo gzip or zstd, never beyond BODY_BYTES_MAX bytes."""
    encoding = content_encoding.strip().lower()
    if len(body) > BODY_BYTES_MAX:
        raise BodyTooLarge(_TOO_LARGE)
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "zstd"):
        raise UnsupportedForm(
            "Content-Encoding must be gzip, zstd or none", code="unsupported_encoding"
        )
    try:
        plain = _unpack(body, _gzip_member if encoding.endswith("gzip") else _zstd_frame)
    except (zlib.error, zstandard.ZstdError, EOFError) as error:
        raise BodyUnreadable(
            f"the body is not valid {encoding}; send it again whole", code="bad_compression"
        ) from error
    if len(plain) > BODY_BYTES_MAX:
        raise BodyTooLarge(_TOO_LARGE)
    return plain


_PIECE_BYTES = 1024
_TOO_LARGE = f"a body may have at most {BODY_BYTES_MAX} bytes decompressed; send smaller batches"


def _unpack(body: bytes, begin: Callable[[], Any]) -> bytes:
    """All members of a gzip stream, or frames of zstd: some senders begin one for each piece.

    Fed by little, so that what is packed tightest takes 32 MB before it is found too large.
    """
    plain = bytearray()
    member = begin()
    for start in range(0, len(body), _PIECE_BYTES):
        piece = body[start : start + _PIECE_BYTES]
        while piece and len(plain) <= BODY_BYTES_MAX:
            if member.eof:
                member = begin()
            plain += member.decompress(piece)
            piece = member.unused_data
    if not member.eof and len(plain) <= BODY_BYTES_MAX:
        raise EOFError("the compressed stream ends too soon")
    return bytes(plain)


def _gzip_member() -> Any:
    return zlib.decompressobj(wbits=31)


def _zstd_frame() -> Any:
    return zstandard.ZstdDecompressor().decompressobj()


def split_messages(body: bytes, content_type: str) -> list[Message]:
    """Cut a plain body into messages; raise BodyUnreadable when it has no messages at all."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in NDJSON_TYPES:
        return [decode_alone(line) for line in body.splitlines() if line.strip()]
    if media_type not in _JSON_TYPES:
        raise UnsupportedForm(
            "Content-Type must be application/json, application/x-ndjson, "
            "application/cloudevents+json or application/cloudevents-batch+json"
        )
    try:
        decoded = _decoder.decode(body)
    except UNDECODABLE:
        return [decode_alone(piece) for piece in _pieces(body)]
    if isinstance(decoded, list):
        return [Message(element, None, b"") for element in decoded]
    return [Message(decoded, None, body)]


def _pieces(body: bytes) -> list[bytes]:
    """Cut an array at its top-level commas; a single object is one piece."""
    text = body.strip()
    if text[:1] == b"{" and text[-1:] == b"}":
        return [text]
    if text[:1] != b"[" or text[-1:] != b"]":
        raise BodyUnreadable("the body is not JSON: send an object, an array or NDJSON")
    depth, start = 0, 1
    pieces: list[bytes] = []
    for mark in _MARKS.finditer(text):
        sign = text[mark.start()]
        if sign in b"[{":
            depth += 1
        elif sign in b"]}":
            depth -= 1
            if depth < 0 or (depth == 0 and mark.end() != len(text)):
                raise BodyUnreadable("the brackets of the array do not match")
        elif sign == ord(",") and depth == 1:
            pieces.append(text[start : mark.start()])
            start = mark.end()
    if depth != 0:
        raise BodyUnreadable("the array is cut off; send the body again whole")
    pieces.append(text[start:-1])
    return [piece.strip() for piece in pieces]


def decode_alone(piece: bytes) -> Message:
    """Decode one message; what cannot be decoded says why."""
    try:
        return Message(_decoder.decode(piece), None, piece)
    except RecursionError:
        return _refuse(piece, "nesting_too_deep", "an event may be nested at most 16 levels deep")
    except InvalidOperation:
        return _refuse(piece, "number_too_large", "the exponent of a number is too large")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _refuse(piece, *_why_undecodable(piece))


def _refuse(piece: bytes, code: str, reason: str) -> Message:
    return Message(None, Refused(code, reason), piece)


def _why_undecodable(piece: bytes) -> tuple[str, str]:
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return "invalid_utf8", "the event is not valid UTF-8"
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except _NotFiniteError:
        return "not_finite", "NaN and Infinity are not JSON numbers; leave the field out"
    except RecursionError:
        return "nesting_too_deep", "an event may be nested at most 16 levels deep"
    except ValueError:
        return "invalid_json", "the event is not valid JSON"
    return "invalid_utf8", "the event holds half of a surrogate pair, which is no character"


class _NotFiniteError(Exception):
    """A NaN or Infinity stands where JSON allows a number only."""


def _refuse_constant(_: str) -> None:
    raise _NotFiniteError
