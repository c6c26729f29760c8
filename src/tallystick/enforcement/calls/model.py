"""The words of calls: what is asked, what was permitted, what was used, what it cost.

Units are integers: CREDIT/6 and USD/9. Times are micros. Token counts are as events have
them: `tokens_input` includes cached tokens, `tokens_output` includes reasoning.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tallystick.access import Principal
from tallystick.errors import TallystickError
from tallystick.usage import Usage as Usage  # a word of calls too


class CallRefused(TallystickError):
    """The call may not be made; nothing was taken; `decided_by` names what refused it."""

    code = "call_refused"
    http_status = 402

    def __init__(
        self,
        message: str,
        *,
        code: str,
        decided_by: str,
        retry: str = "never",
        operation_id: str = "",
        http_status: int = 402,
        retry_after_seconds: int | None = None,
        available_units: int | None = None,
        credit_units: int = 0,
        usd_units: int = 0,
    ) -> None:
        super().__init__(message, code=code)
        self.decided_by = decided_by
        self.retry = retry
        """wait (other holds may end) or never."""
        self.operation_id = operation_id
        """The ledger's decline, by which it is explained; "" when it was not asked."""
        self.http_status = http_status
        self.retryable = http_status == 429
        self.retry_after_seconds = retry_after_seconds
        self.available_units = available_units
        self.credit_units = credit_units
        """What the call could have cost at most, and was not granted."""
        self.usd_units = usd_units


class CallAsk(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a model that is about to be made."""

    principal: Principal
    provider: str
    model: str
    """As it is priced."""
    tokens_input: int
    """Counted, or an upper bound."""
    tokens_output_max: int | None = None
    """The request's own maximum; None: what this model's answers usually need, with a ceiling."""
    answers: int = 1
    """How many are asked for; a maximum is that of all together."""
    has_cache_write: bool = False
    """The request asks for prompt caching: input may be billed at the dearest write rate."""
    has_audio: bool = False
    """Sound goes in or may come out: billed at audio prices, which the rate card must have."""
    service_tier: str = ""
    is_batch: bool = False
    tools: Mapping[str, int] = {}
    """Paid tools that the model may use, and how often at most."""
    account_id: str = ""
    """"": the principal's account, else the one that has its tenant's id."""
    run_id: str = ""
    parent_run_id: str = ""
    root_run_id: str = ""
    attempt: int = 1
    """The run's attempt, not this request's: by default only a run's last attempt is charged."""
    request_id: str
    """Ours, unique to the call; the run id of a call without a run."""
    attribution: Mapping[str, str] = {}
    """team, product, feature, user, project, workflow, agent, environment, cost_center..."""
    ttl_seconds: int = 300
    idempotency_key: str
    is_gateway: bool = False
    """The gateway makes the call: nobody else may end its hold."""


class CallPermit(msgspec.Struct, frozen=True, kw_only=True):
    """A hold over credit and every limit: the call may be made and must then be settled."""

    hold_id: str
    account_id: str
    tenant_id: str
    run_id: str
    request_id: str
    provider: str
    model: str
    credit_units: int
    """Held in all, CREDIT/6."""
    usd_units: int
    """What it may cost at most, USD/9."""
    tokens: int
    """Input and output tokens that the hold covers."""
    tokens_output: int
    """Of those, output: when an answer grows beyond, top up."""
    available_units: int
    """What the account still has besides this hold."""
    expires_at: int
    occurred_at: int
    """When the call was authorized: the time by which it is priced."""
    limit: tuple[str, str] = ("", "")
    """The run budget that it draws from: limit id and asset."""
    ask: CallAsk


class CallReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a call, the same however often it is asked for.

    The cost is final when this is had: its event is durable. `charged_units` are what the
    account paid now; the run's one charge converges to the sum of its calls.
    """

    hold_id: str
    event_id: str
    cost_usd_units: int
    cost_quality: str
    """exact, estimated, partial or unpriced."""
    credit_units: int
    """What the call is worth in credits."""
    charged_units: int
    shortfall_units: int
    """What it was worth beyond what the account could pay."""
    available_units: int
    is_posted: bool = True
    """False: `charged_units`, `shortfall_units`, `available_units` are not the ledger's word
    yet; the capture follows, or the run's charge converges to the event."""


class RunBudget(msgspec.Struct, frozen=True, kw_only=True):
    """A limit over a root run and all runs below it."""

    tenant_id: str
    run_id: str
    limit_id: str
    asset: str
    """CREDIT/6 or USD/9."""
    amount_units: int
    remaining_units: int = 0
