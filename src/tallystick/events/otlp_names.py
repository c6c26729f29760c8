"""The attribute names that emitters use, newest first: tables, no logic.

OpenTelemetry GenAI conventions (current and older), OpenInference and OpenLLMetry. The
first name of a row that a span carries decides. docs/otlp.md shows the same tables.
"""

from __future__ import annotations

OPERATION = "gen_ai.operation.name"
OPENINFERENCE_KIND = "openinference.span.kind"
TRACELOOP_KIND = "traceloop.span.kind"
REQUEST_TYPE = "llm.request.type"

CALL_OPERATIONS = frozenset(("chat", "text_completion", "generate_content", "embeddings"))
KIND_OF_OPERATION = {
    **dict.fromkeys(CALL_OPERATIONS, "call"),
    "invoke_agent": "agent",
    "invoke_workflow": "agent",
    "execute_tool": "tool",
}
KIND_OF_OPENINFERENCE = {
    "LLM": "call",
    "EMBEDDING": "call",
    "AGENT": "agent",
    "CHAIN": "agent",
    "TOOL": "tool",
}
KIND_OF_TRACELOOP = {"workflow": "agent", "agent": "agent", "task": "step", "tool": "tool"}
OPERATION_OF_REQUEST_TYPE = {
    "chat": "chat",
    "completion": "text_completion",
    "embedding": "embeddings",
}

TENANT = ("tallystick.tenant_id",)
RUN = ("tallystick.run_id",)
RUN_MARK = "tallystick.is_run"
CACHE_MARK = "tallystick.cache_tokens"
ATTEMPT = "tallystick.attempt"

PROVIDER = ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system")
MODEL = (
    "gen_ai.response.model",
    "gen_ai.request.model",
    "llm.response.model_name",
    "llm.model_name",
    "llm.request.model_name",
    "embedding.model_name",
)
RESPONSE_ID = ("gen_ai.response.id",)
TOOL = ("gen_ai.tool.name", "tool.name")
TOOL_CALL_ID = ("gen_ai.tool.call.id", "tool_call.id", "tool.id")
SERVICE_TIER = (
    "openai.response.service_tier",
    "gen_ai.openai.response.service_tier",
    "anthropic.response.service_tier",
)
REQUESTED_SERVICE_TIER = ("openai.request.service_tier", "gen_ai.openai.request.service_tier")
FINISH_REASON = (
    "gen_ai.response.finish_reasons",
    "gen_ai.response.finish_reason",
    "llm.finish_reason",
)
SESSION = ("gen_ai.conversation.id", "session.id")
STREAM = ("gen_ai.request.stream", "gen_ai.is_streaming", "llm.is_streaming")

_ATTRIBUTION = {
    "workflow": ("gen_ai.workflow.name", "traceloop.workflow.name"),
    "agent": ("gen_ai.agent.name", "agent.name"),
    "user_id": ("user.id", "enduser.id", "gen_ai.user", "llm.user"),
    "environment": ("deployment.environment.name", "deployment.environment"),
    "source": ("service.name",),
    **dict.fromkeys(("project_id", "team", "product", "feature", "customer_tier"), ()),
    **dict.fromkeys(("parent_run_id", "root_run_id"), ()),
}
ATTRIBUTION = {
    field: (f"tallystick.{field}", *rows, f"traceloop.association.properties.{field}")
    for field, rows in _ATTRIBUTION.items()
}
"""Field -> names, looked for on the span and then on its resource."""

ATTRIBUTION_NAMES = frozenset(name for rows in ATTRIBUTION.values() for name in rows)

INPUT = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.token_count.prompt",
    "llm.usage.prompt_tokens",
)
OUTPUT = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
    "llm.usage.completion_tokens",
)
TOTAL = ("gen_ai.usage.total_tokens", "llm.usage.total_tokens", "llm.token_count.total")
CACHE_READ = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "llm.token_count.prompt_details.cache_read",
)
CACHE_WRITE = (
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
    "gen_ai.usage.cache_write_input_tokens",
    "llm.token_count.prompt_details.cache_write",
)
CACHE_WRITE_1H = ("anthropic.usage.cache_creation.ephemeral_1h_input_tokens",)
REASONING = (
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.reasoning_tokens",
    "llm.usage.reasoning_tokens",
    "llm.token_count.completion_details.reasoning",
)

PROVIDERS = {
    "gcp.gen_ai": "google",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "vertexai": "google",
    "aws.bedrock": "aws",
    "az.ai.openai": "azure",
    "az.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "mistral_ai": "mistral",
    "mistralai": "mistral",
    "x_ai": "x-ai",
    "moonshot_ai": "moonshotai",
    **dict.fromkeys(("langchain", "crewai", "llamaindex", "llama_index", "haystack"), ""),
}
"""Their name of a provider -> the rate card's; a framework is no provider."""
