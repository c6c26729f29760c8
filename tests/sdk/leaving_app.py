"""An application that ends while it reads a stream, after a child with a copy of it has ended."""

from __future__ import annotations

import os
import sys
import urllib.request
from typing import Any

from openai import OpenAI

from tallystick.sdk import instrument, run

client = instrument(OpenAI(base_url=os.environ["PROVIDER_URL"], api_key="none"))
messages: Any = [{"role": "user", "content": "long"}]
with run(run_id="left-open"):
    stream = client.chat.completions.create(model="gpt-4o", messages=messages, stream=True)
    next(iter(stream))
if os.fork() == 0:
    sys.exit(0)
os.wait()
balance = urllib.request.Request(
    os.environ["TALLYSTICK_URL"] + "/v1/accounts/acme/balance",
    headers={"Authorization": f"Bearer {os.environ['TALLYSTICK_KEY']}"},
)
with urllib.request.urlopen(balance) as answer:
    sys.stdout.write(answer.read().decode())
