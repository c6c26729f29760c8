"""What is kept of a call with its hold, so that any process may settle it. Pure.

The text travels as the details of the hold's operation in the ledger; it has no content of
the call. Two asks with one key are the same when all that their askers said is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter

import msgspec

from tallystick.access import Principal
from tallystick.bounds import ATTRIBUTION_MAX, ID_LENGTH_MAX, TOKENS_MAX
from tallystick.enforcement.attribution import attributed
from tallystick.enforcement.calls.model import CallAsk, CallPermit
from tallystick.errors import InvalidInput


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the asker said."""

    provider: str
    model: str
    tokens_input: int
    tokens_output_max: int | None = None
    answers: int = 1
    has_cache_write: bool = False
    has_audio: bool = False
    service_tier: str = ""
    is_batch: bool = False
    tools: dict[str, int] = {}
    account_id: str
    tenant_id: str
    run_id: str
    parent_run_id: str = ""
    root_run_id: str = ""
    attempt: int = 1
    request_id: str
    attribution: dict[str, str] = {}
    ttl_seconds: int = 300
    is_gateway: bool = False


class CallDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the asker said and what was worked out from it."""

    said: Said
    at: int
    """Micros: the time by which the call is priced."""
    credit_units: int
    usd_units: int
    tokens_output: int
    limit_id: str = ""
    """The run budget that the call draws from."""
    limit_asset: str = ""


class _Wrapped(msgspec.Struct):
    call: CallDetails


_decoder = msgspec.json.Decoder(_Wrapped)
_encoder = msgspec.json.Encoder()


def write_details(details: CallDetails) -> str:
    """The text that is kept with the hold."""
    return _encoder.encode(_Wrapped(details)).decode()


def read_details(text: str) -> CallDetails | None:
    """What was kept with a hold; None when the hold is not a call's."""
    try:
        return _decoder.decode(text).call if text else None
    except msgspec.DecodeError:
        return None


def account_of(ask: CallAsk) -> str:
    """The account that pays; raises InvalidInput when none is named."""
    account_id = likely_account_of(ask)
    if not account_id:
        raise InvalidInput("name the account that pays", field="account_id")
    return account_id


def likely_account_of(ask: CallAsk) -> str:
    """The account that pays, or "" when none is named."""
    principal = ask.principal
    return ask.account_id or principal.account_id or principal.tenant_id


def said_of(ask: CallAsk, account_id: str, tenant_id: str) -> Said:
    """What an ask says, checked, with its defaults filled in; raises InvalidInput."""
    principal = ask.principal
    attribution = attributed(ask.attribution, principal)
    if principal.cost_center:
        attribution["cost_center"] = principal.cost_center
    _check(ask, attribution)
    run_id = ask.run_id or ask.request_id
    return Said(
        provider=ask.provider,
        model=ask.model,
        tokens_input=ask.tokens_input,
        tokens_output_max=ask.tokens_output_max,
        answers=ask.answers,
        has_cache_write=ask.has_cache_write,
        has_audio=ask.has_audio,
        service_tier=ask.service_tier,
        is_batch=ask.is_batch,
        tools=dict(ask.tools),
        account_id=account_id,
        tenant_id=tenant_id,
        run_id=run_id,
        parent_run_id=ask.parent_run_id,
        root_run_id=ask.root_run_id or ask.parent_run_id or run_id,
        attempt=ask.attempt,
        request_id=ask.request_id,
        attribution=attribution,
        ttl_seconds=ask.ttl_seconds,
        is_gateway=ask.is_gateway,
    )


def attribution_of(said: Said) -> dict[str, str]:
    """What limits look at: whose the call is, and what it calls."""
    return {
        **said.attribution,
        "tenant": said.tenant_id,
        "provider": said.provider,
        "model": said.model,
    }


_ANSWERS_MAX = 1_000
_NAMES = (
    "provider",
    "model",
    "service_tier",
    "run_id",
    "parent_run_id",
    "root_run_id",
    "request_id",
)
_names_of = attrgetter(*_NAMES)


def _check(ask: CallAsk, attribution: Mapping[str, str]) -> None:
    names = _names_of(ask)
    texts = (*names, *attribution, *attribution.values(), *ask.tools)
    if max(map(len, texts)) > ID_LENGTH_MAX or not "".join(texts).isprintable():
        _refuse_text(names, ask, attribution)
    if not ask.model or not ask.request_id:
        raise InvalidInput("a call has a model and a request_id", field="model")
    for name in ("tokens_input", "tokens_output_max"):
        count = getattr(ask, name) or 0
        if not 0 <= count <= TOKENS_MAX:
            raise InvalidInput(f"{name} must be from 0 to {TOKENS_MAX}", field=name)
    if not 1 <= ask.answers <= _ANSWERS_MAX:
        raise InvalidInput(f"a call may ask for 1 to {_ANSWERS_MAX} answers", field="answers")
    if not 1 <= ask.attempt < 2**31:
        raise InvalidInput("attempt counts from 1", field="attempt")
    if len(attribution) > ATTRIBUTION_MAX:
        raise InvalidInput(f"attribution may have {ATTRIBUTION_MAX} names", field="attribution")
    if len(ask.tools) > ATTRIBUTION_MAX:
        raise InvalidInput(f"a call may name {ATTRIBUTION_MAX} paid tools", field="tools")
    for uses in ask.tools.values():
        if not 0 <= uses <= 10_000:
            raise InvalidInput("a tool may be used up to 10000 times", field="tools")


def _refuse_text(names: Sequence[str], ask: CallAsk, attribution: Mapping[str, str]) -> None:
    """Say which text is too long, or not printable."""
    for name, text in zip(_NAMES, names, strict=True):
        _check_text(text, name)
    for name, value in attribution.items():
        _check_text(name, "attribution")
        _check_text(value, f"attribution.{name}")
    for tool in ask.tools:
        _check_text(tool, "tools")


def _check_text(text: str, field: str) -> None:
    if len(text) > ID_LENGTH_MAX or (text and not text.isprintable()):
        raise InvalidInput(f"{field} may have {ID_LENGTH_MAX} printable characters", field=field)


def ask_of(details: CallDetails, principal: Principal) -> CallAsk:
    """The ask again, from what was kept."""
    said = details.said
    return CallAsk(
        principal=principal,
        provider=said.provider,
        model=said.model,
        tokens_input=said.tokens_input,
        tokens_output_max=said.tokens_output_max,
        answers=said.answers,
        has_cache_write=said.has_cache_write,
        has_audio=said.has_audio,
        service_tier=said.service_tier,
        is_batch=said.is_batch,
        tools=said.tools,
        account_id=said.account_id,
        run_id=said.run_id,
        parent_run_id=said.parent_run_id,
        root_run_id=said.root_run_id,
        attempt=said.attempt,
        request_id=said.request_id,
        attribution=said.attribution,
        ttl_seconds=said.ttl_seconds,
        idempotency_key="",
        is_gateway=said.is_gateway,
    )


def permit_of(
    details: CallDetails,
    principal: Principal,
    *,
    hold_id: str,
    credit_units: int,
    available_units: int,
    expires_at: int,
) -> CallPermit:
    """The permit of a hold that was made with these details."""
    said = details.said
    return CallPermit(
        hold_id=hold_id,
        account_id=said.account_id,
        tenant_id=said.tenant_id,
        run_id=said.run_id,
        request_id=said.request_id,
        provider=said.provider,
        model=said.model,
        credit_units=credit_units,
        usd_units=details.usd_units,
        tokens=said.tokens_input + details.tokens_output,
        tokens_output=details.tokens_output,
        available_units=available_units,
        expires_at=expires_at,
        occurred_at=details.at,
        limit=(details.limit_id, details.limit_asset),
        ask=ask_of(details, principal),
    )
