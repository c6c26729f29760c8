"""One server and one scripted upstream for the session, and the official SDKs pointed at it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.place import Place
from tests.server import Server
from tests.upstream.dialects import AWS_SECRET
from tests.upstream.running import Upstream

SETTINGS = """
drain_seconds = 2.0

[upstreams.openai]
kind = "openai"
base_url = "{url}/v1"
api_key = "sk-upstream-secret"
models = ["gpt-*", "o4-*", "text-embedding-*"]
first_byte_seconds = 3.0

[upstreams.anthropic]
kind = "anthropic"
base_url = "{url}/v1"
api_key = "sk-ant-upstream-secret"
models = ["claude-*"]

[upstreams.azure]
kind = "azure_openai"
base_url = "{url}"
api_key = "azure-secret"
api_version = "2024-10-21"
models = []

[upstreams.gemini]
kind = "gemini"
base_url = "{url}/v1beta"
api_key = "gemini-upstream-secret"
models = ["gemini-*"]
first_byte_seconds = 3.0

[upstreams.bedrock]
kind = "bedrock"
region = "eu-central-1"
base_url = "{url}"
api_key = "bedrock-upstream-secret"
models = ["anthropic.claude-*", "amazon.nova-*"]

[upstreams.signed]
kind = "bedrock"
region = "us-east-1"
base_url = "{url}"
models = []

[upstreams.keyless]
kind = "openai_compatible"
base_url = "{url}/v1"
models = []

[upstreams.nowhere]
kind = "openai_compatible"
base_url = "http://127.0.0.1:9/v1"
models = ["gpt-5-mini"]

[routes.fast]
targets = [{{ upstream = "nowhere", model = "gpt-4o-mini" }}]
fallbacks = [{{ upstream = "openai", model = "gpt-4o-mini" }}]
retries = 2

[routes.on-azure]
targets = [{{ upstream = "azure", model = "gpt-4o" }}]

[routes.keyless]
targets = [{{ upstream = "keyless", model = "gpt-4o-mini" }}]
retries = 0

[routes.signed]
targets = [{{ upstream = "signed", model = "anthropic.claude-haiku-4-5-20251001-v1:0" }}]

[routes.either]
targets = [{{ upstream = "gemini", model = "gemini-2.5-flash" }}]
fallbacks = [{{ upstream = "openai", model = "gpt-4o-mini" }}]
retries = 2

[routes.lost]
targets = [{{ upstream = "nowhere", model = "gpt-4o" }}]
retries = 0
"""


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server with the gateway, its upstream, and an account with credit."""
    folder = tmp_path_factory.mktemp("gateway")
    upstream = Upstream()
    config = folder / "gateway.toml"
    config.write_text(SETTINGS.format(url=upstream.url))
    server = Server(folder / "data")
    before = os.environ.get("TALLYSTICK_GATEWAY_CONFIG")
    os.environ["TALLYSTICK_GATEWAY_CONFIG"] = str(config)
    os.environ["AWS_ACCESS_KEY_ID"] = "AKIATESTS"
    os.environ["AWS_SECRET_ACCESS_KEY"] = AWS_SECRET
    try:
        made = Place(server.start(), upstream, Path(folder))
        yield made
        made.close()
    finally:
        if before is None:
            del os.environ["TALLYSTICK_GATEWAY_CONFIG"]
        server.stop()
        upstream.stop()
