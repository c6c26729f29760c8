"""A provider's answer as metering sees it: passed on, and read for its usage. Pure.

Answers are read as the gateway reads them (`tallystick.usage`): counts are kept, never text,
and what ends before its usage was told is estimated from the size of what came.
"""

from __future__ import annotations

import msgspec

from tallystick.bounds import ID_LENGTH_MAX
from tallystick.sdk.metering.bodies import Dialect, ModelRequest
from tallystick.usage import (
    Seen,
    StreamedAnswer,
    StreamReader,
    Usage,
    anthropic,
    openai_chat,
    openai_responses,
    used,
)
from tallystick.usage.reading import estimate_output, tokens_so_far

_READ_ANSWER = {
    Dialect.CHAT: openai_chat.read_answer,
    Dialect.EMBEDDINGS: openai_chat.read_answer,
    Dialect.RESPONSES: openai_responses.read_answer,
    Dialect.MESSAGES: anthropic.read_answer,
}


def _reader_of(request: ModelRequest) -> StreamReader:
    if request.dialect is Dialect.MESSAGES:
        return anthropic.MessagesReader()
    if request.dialect is Dialect.RESPONSES:
        return openai_responses.ResponsesReader()
    return openai_chat.ChatReader(is_usage_hidden=request.hides_usage)


class Reading:
    """What was read of one answer so far."""

    def __init__(self, request: ModelRequest) -> None:
        self._request = request
        self._stream = StreamedAnswer(_reader_of(request))
        self.seen: Seen = self._stream.reader.seen
        self._tokens_output = 0
        """Of a whole answer, by its size."""
        self._is_unread = False
        self.tokens_output_bound = request.tokens_output_max or 0
        """The output that was set aside: what an answer is taken for that nobody can read."""

    def take_answer(self, body: bytes) -> None:
        """Read a whole answer."""
        self.seen = _READ_ANSWER[self._request.dialect](body)
        self._is_unread = self.seen.error_code == "answer_unreadable"
        if self._request.tokens_output_max != 0:
            self._tokens_output = estimate_output(len(body))

    def take_unread(self) -> None:
        """The provider has made an answer that could not be read, or was not to its end."""
        self._is_unread = True

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes of a stream; return those for the caller.

        They go through as they are; only where usage was asked for on the caller's behalf
        is the stream cut into events, so that what says it can be left out.
        """
        passed = self._stream.feed(chunk)
        return passed if self._request.hides_usage else chunk

    def end(self) -> bytes:
        """What is left for the caller when the provider has ended its stream."""
        rest = self._stream.end()
        return rest if self._request.hides_usage else b""

    @property
    def usage(self) -> Usage:
        """What was used: as the provider told, or estimated from what came."""
        output = max(self._tokens_output, tokens_so_far(self._stream.reader))
        if self._is_unread:
            output = max(output, self.tokens_output_bound)
        told = used(self.seen, self._request.tokens_input, output)
        return msgspec.structs.replace(told, service_tier=self.seen.service_tier)

    @property
    def is_whole(self) -> bool:
        """Whether the provider has told the usage of the whole answer, or ended it."""
        return self.seen.usage is not None or self._stream.reader.is_ended

    @property
    def answer_id(self) -> str:
        """What the provider calls its answer; "" when it did not say."""
        return str(self.seen.answer_id)[:ID_LENGTH_MAX]

    @property
    def served_model(self) -> str:
        """The model that answered, by the provider's word; "" when it did not say."""
        return self.seen.served_model[:ID_LENGTH_MAX]
