"""Uses the SDKs of an older major release; run in a process that has them on its path.

    python tests/gateway/older_sdks.py URL KEY

Prints one line of JSON: versions and what each call brought.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main(url: str, key: str) -> None:
    import anthropic
    import openai

    headers = {"X-Tallystick-Account": "acme"}
    messages: Any = [{"role": "user", "content": "#normal in=50 out=6#"}]
    first = openai.OpenAI(base_url=url + "/openai/v1", api_key=key, default_headers=headers)
    chat: Any = first.chat.completions.create(model="gpt-4o", messages=messages)
    chunks: list[Any] = list(
        first.chat.completions.create(model="gpt-4o", messages=messages, stream=True)
    )
    answer = first.responses.create(model="gpt-4o", input="#normal out=6#")
    second = anthropic.Anthropic(base_url=url + "/anthropic", api_key=key, default_headers=headers)
    model = "claude-haiku-4-5"
    message = second.messages.create(model=model, max_tokens=50, messages=messages)
    with second.messages.stream(model=model, max_tokens=50, messages=messages) as stream:
        text = "".join(stream.text_stream)
    try:
        first.chat.completions.create(model="gpt-unpriced", messages=messages)
        refused = 200
    except openai.APIStatusError as error:
        refused = error.status_code
    found = {
        "openai": openai.__version__,
        "anthropic": anthropic.__version__,
        "chat": chat.usage.completion_tokens,
        "stream": "".join(one.choices[0].delta.content or "" for one in chunks),
        "response": answer.output_text,
        "message": message.usage.output_tokens,
        "message_stream": text,
        "refused": refused,
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
