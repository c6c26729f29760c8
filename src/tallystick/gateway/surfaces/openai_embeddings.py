"""OpenAI embeddings. Source: platform.openai.com/docs/api-reference/embeddings."""

from __future__ import annotations

from tallystick.gateway.estimate import bound_input
from tallystick.gateway.model import Asked
from tallystick.gateway.settings import Upstream
from tallystick.gateway.surfaces.surface import encode_fields, field_of, model_of, read_fields
from tallystick.usage import Seen, StreamReader, openai_chat


class _Embeddings:
    path = "/openai/v1/embeddings"
    name = "openai_embeddings"
    speaks = "openai"
    upstream_path = "/embeddings"

    def read(self, body: bytes) -> Asked:
        """Read a request; raises InvalidInput. There is no output."""
        fields = read_fields(body)
        user = field_of(fields, "user", str, "")
        return Asked(
            model=model_of(fields),
            fields=fields,
            tokens_input=max(bound_input(body), _count_of(bytes(fields.get("input", b"")))),
            tokens_output_max=0,
            metadata={"user": user} if user else {},
        )

    def body_for(self, asked: Asked, model: str, upstream: Upstream) -> bytes:
        """With the target's model."""
        return encode_fields(asked.fields, model)

    def read_answer(self, body: bytes) -> Seen:
        """Read a whole answer: usage is that of chat without an output."""
        return openai_chat.read_answer(body)

    def reader(self, asked: Asked) -> StreamReader:
        """Embeddings are never streamed; an upstream that does is read as chat."""
        return openai_chat.ChatReader(is_usage_hidden=False)


def _count_of(given: bytes) -> int:
    """The tokens of an input that is given as their numbers; 0 for text.

    >>> _count_of(b"[[1, 2], [3]]"), _count_of(b'["1, 2"]')
    (3, 0)
    """
    return 0 if b'"' in given else given.count(b",") + 1


EMBEDDINGS = _Embeddings()
