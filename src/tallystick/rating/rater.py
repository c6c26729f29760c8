"""The rater: prices facts by the versions in force at their time.

Models are looked up once per (provider, model, tier) and remembered; a priced call is then
a few integer products and one rounding (half to even) each to USD/9 and CREDIT/6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from tallystick.rating.cards import (
    TOKEN_CLASSES,
    YOCTO_PER_MICRO,
    YOCTO_PER_NANO,
    RateCardVersion,
)
from tallystick.rating.charges import ChargePolicy
from tallystick.rating.groups import Coded, code, group_rows
from tallystick.rating.vector import Integers, divide_by_power, sum_prices, times
from tallystick.rating.versions import CostVersion, CreditVersion, Tiers, Timelines
from tallystick.usage.model import TOKEN_COUNTS

_NANO = Decimal(10**9)
_MICRO = Decimal(10**6)
Column = Sequence[Any] | Integers | Coded
RATED_COLUMNS = (
    "cost_units",
    "cost_quality",
    "credit_units",
    "cost_version",
    "credit_version",
)


class Rated(NamedTuple):
    """Cost in USD/9, its quality, credits in CREDIT/6, and the versions that said so."""

    cost_units: int = 0
    cost_quality: str = "none"
    credit_units: int = 0
    cost_version: int = 0
    credit_version: int = 0


UNRATED = Rated()


class CallRates(NamedTuple):
    """What one call of a model is priced by: rates by token class, and what a tool costs."""

    cost: Mapping[str, Tiers]
    """Yocto-USD a token, by class."""
    own_credits: Mapping[str, Tiers] | None
    """Yocto-credits a token, when the credit card has prices of its own for the model."""
    per_usd_numerator: int
    per_usd_denominator: int
    tool_units: Callable[[str, str], int]
    """(tool, error code) -> CREDIT/6 of one use."""
    has_tier: bool = False
    """Whether the cost card has prices of its own for the service tier."""


def divide_half_even(numerator: int, denominator: int) -> int:
    """Divide non-negative integers, rounding to nearest, ties to even.

    >>> [divide_half_even(n, 2) for n in (1, 2, 3, 5)]
    [0, 1, 2, 2]
    """
    quotient, rest = divmod(numerator, denominator)
    twice = 2 * rest
    if twice > denominator or (twice == denominator and quotient & 1):
        return quotient + 1
    return quotient


class Rater:
    """Rates events by a fixed set of versions; make a new one when versions are added.

    What rates an event is a function of the event and of the versions recorded by the time it
    was received: rating it again, in a replay, gives the same. A version that is recorded
    later with an earlier effective time reaches older events by a backfill only.
    """

    def __init__(self, versions: Sequence[RateCardVersion]) -> None:
        self.stamp = max((version.version_id for version in versions), default=0)
        by_kind: dict[str, list[RateCardVersion]] = {"cost": [], "credit": []}
        for version in versions:
            by_kind[version.kind].append(version)
        self._cost = Timelines(by_kind["cost"], CostVersion)
        self._credit = Timelines(by_kind["credit"], CreditVersion)

    def policy_at(self, tenant_id: str, at: int, known_at: int) -> ChargePolicy:
        """The attempts policy of a tenant's credit card at an instant, as known at another."""
        policy: ChargePolicy = self._credit.find(tenant_id, at, known_at).policy
        return policy

    def rate_columns(self, columns: Mapping[str, Column], count: int) -> dict[str, Sequence[Any]]:
        """Rate `count` events given as columns; return columns of RATED_COLUMNS.

        A column of one value stands for all events; integers may be given as arrays, and what
        events are grouped by as codes. Calls of one model are priced together; what that
        cannot do exactly (a price that changes within the batch, numbers beyond 64 bits) is
        rated one by one, to the same result.
        """
        keys = {name: code(columns[name], count) for name in _GROUP_KEYS}
        keys["tenant_id"] = self._merge_tenants(keys["tenant_id"])
        numbers = {name: _integers(columns[name], count) for name in NUMBER_FIELDS}
        result = _Result(count)
        for indexes in group_rows(list(keys.values()), count):
            kind = keys["event_type"].value(indexes[0])
            if kind not in RATED_TYPES:
                continue
            same = {name: _Same(key.value(indexes[0]), len(indexes)) for name, key in keys.items()}
            own = {name: values[indexes] for name, values in numbers.items()}
            if not self._rate_together(kind, indexes, same, own, result):
                single = {name: values.tolist() for name, values in own.items()}
                single |= {name: _take(columns[name], indexes) for name in _SINGLE_FIELDS}
                for place, index in enumerate(indexes):
                    result.put(index, self.rate_one(kind, place, {**same, **single}))
        return result.columns()

    def _merge_tenants(self, tenants: Coded) -> Coded:
        """Tenants without a card of their own are all rated alike, as the nameless one."""
        rated_as = [
            tenant if self._cost.has_own(tenant) or self._credit.has_own(tenant) else ""
            for tenant in tenants.values
        ]
        merged = code(rated_as, len(rated_as))
        return Coded(merged.codes[tenants.codes], merged.values)

    def _rate_together(
        self,
        kind: str,
        indexes: Integers,
        same: Mapping[str, Sequence[Any]],
        numbers: Mapping[str, Integers],
        result: _Result,
    ) -> bool:
        if kind not in ("token_usage", "tool_call_finished"):
            return False
        tenant = same["tenant_id"][0]
        times = (numbers["occurred_at"], numbers["received_at"])
        credit = self._credit.find_one(tenant, *times)
        if credit is None:
            return False
        if kind == "tool_call_finished":
            units = credit.tool_units(same["tool"][0], same["error_code"][0])
            result.fill(indexes, Rated(0, "none", units, 0, credit.version_id))
            return True
        cost = self._cost.find_one(tenant, *times)
        if same["usage_scope"][0] == "aggregate":
            return True
        return cost is not None and _rate_calls(indexes, same, numbers, cost, credit, result)

    def rates_of(
        self, tenant_id: str, provider: str, model: str, service_tier: str, is_batch: bool, at: int
    ) -> CallRates | None:
        """What a call made at `at` is priced by; None when its model has no price."""
        cost: CostVersion = self._cost.find(tenant_id, at, at)
        credit: CreditVersion = self._credit.find(tenant_id, at, at)
        found = cost.find(provider, model, service_tier, is_batch)
        rates = found.rates_at(at) if found is not None else {}
        own = credit.models.get(model)
        if not rates and own is None:
            return None
        return CallRates(
            rates,
            own,
            credit.per_usd_numerator,
            credit.per_usd_denominator,
            credit.tool_units,
            found is not None and found.has_tier,
        )

    def tool_units(self, tenant_id: str, tools: Mapping[str, int], at: int) -> int:
        """Credits of so many uses of each tool, CREDIT/6."""
        credit: CreditVersion = self._credit.find(tenant_id, at, at)
        return sum(uses * credit.tool_units(tool, "") for tool, uses in tools.items())

    def rate_one(self, kind: str, index: int, columns: Mapping[str, Sequence[Any]]) -> Rated:
        """Rate one event of whole columns."""
        tenant, at = columns["tenant_id"][index], columns["occurred_at"][index]
        received = columns["received_at"][index]
        credit: CreditVersion = self._credit.find(tenant, at, received)
        if kind == "token_usage":
            if columns["usage_scope"][index] == "aggregate":
                return UNRATED
            cost: CostVersion = self._cost.find(tenant, at, received)
            return _rate_tokens(index, columns, at, cost, credit)
        if kind == "tool_call_finished":
            units = credit.tool_units(columns["tool"][index], columns["error_code"][index])
            return Rated(0, "none", units, 0, credit.version_id)
        if kind == "attempt_finished":
            latency = columns["latency_ms"][index]
            if latency is None:
                return UNRATED
            return Rated(0, "none", credit.runtime_units(latency), 0, credit.version_id)
        return _rate_stated_cost(
            columns["cost_amount"][index], columns["cost_currency"][index], credit
        )


class _Result:
    """The columns of RATED_COLUMNS, filled group by group."""

    def __init__(self, count: int) -> None:
        self.cost_units = np.zeros(count, np.int64)
        self.credit_units = np.zeros(count, np.int64)
        self.cost_version = np.zeros(count, np.uint32)
        self.credit_version = np.zeros(count, np.uint32)
        self.cost_quality = np.full(count, UNRATED.cost_quality, object)

    def put(self, index: int, rated: Rated) -> None:
        """Set one event's rating."""
        self.cost_units[index] = rated.cost_units
        self.credit_units[index] = rated.credit_units
        self.cost_version[index] = rated.cost_version
        self.credit_version[index] = rated.credit_version
        self.cost_quality[index] = rated.cost_quality

    def fill(self, indexes: Integers, rated: Rated) -> None:
        """Set the same rating for several events."""
        self.cost_units[indexes] = rated.cost_units
        self.credit_units[indexes] = rated.credit_units
        self.cost_version[indexes] = rated.cost_version
        self.credit_version[indexes] = rated.credit_version
        self.cost_quality[indexes] = rated.cost_quality

    def columns(self) -> dict[str, Sequence[Any]]:
        """Everything, by name."""
        return {name: getattr(self, name) for name in RATED_COLUMNS}


_GROUP_KEYS = (
    "event_type",
    "tenant_id",
    "usage_scope",
    "provider",
    "model",
    "service_tier",
    "is_batch",
    "usage_quality",
    "tool",
    "error_code",
)
"""Events that agree in these are rated together."""

NUMBER_FIELDS = (*TOKEN_COUNTS, "occurred_at", "received_at")
"""Integers, that may be given as arrays."""

_SINGLE_FIELDS = ("latency_ms", "cost_amount", "cost_currency")
"""Fields that are only looked at event by event."""


RATED_FIELDS = (*_GROUP_KEYS, *NUMBER_FIELDS, *_SINGLE_FIELDS)
"""Fields of an event that rating looks at."""


class _Same(Sequence[Any]):
    """One value, as often as asked for."""

    def __init__(self, value: Any, count: int) -> None:
        self._value = value
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return self._value


def _take(column: Column, indexes: Integers) -> Sequence[Any]:
    if isinstance(column, Coded):
        return [column.value(index) for index in indexes]
    if len(column) == 1:
        return _Same(column[0], len(indexes))
    return [column[index] for index in indexes]


def _integers(column: Column, count: int) -> Integers:
    values: Integers = np.asarray(column, np.int64)
    return np.broadcast_to(values, count) if len(values) == 1 else values


def _rate_calls(
    indexes: Integers,
    same: Mapping[str, Sequence[Any]],
    numbers: Mapping[str, Integers],
    cost: CostVersion,
    credit: CreditVersion,
    result: _Result,
) -> bool:
    """Price calls of one model together; False when that would not be exact."""
    name = same["model"][0]
    model = cost.find(same["provider"][0], name, same["service_tier"][0], same["is_batch"][0])
    rates = model.fixed_rates if model is not None else {}
    if rates is None or name in credit.models or credit.per_usd_denominator != 1:
        return False
    if not rates:
        result.fill(indexes, Rated(0, "unpriced", 0, cost.version_id, credit.version_id))
        return True
    amounts = _exclusive_columns(numbers)
    yocto = sum_prices(rates, amounts, numbers["tokens_input"])
    charged = yocto and times(yocto, credit.per_usd_numerator)
    if yocto is None or charged is None:
        return False
    quality = "estimated" if same["usage_quality"][0] == "estimated" else "exact"
    result.fill(indexes, Rated(0, quality, 0, cost.version_id, credit.version_id))
    result.cost_units[indexes] = divide_by_power(yocto, 15)
    result.credit_units[indexes] = divide_by_power(charged, 18)
    for token_class in TOKEN_CLASSES:
        if token_class not in rates:
            result.cost_quality[indexes[amounts[token_class] != 0]] = "partial"
    return True


def _exclusive_columns(tokens: Mapping[str, Integers]) -> dict[str, Integers]:
    """Tokens by class, each token in one class only."""
    read, write = tokens["tokens_cache_read"], tokens["tokens_cache_write_5m"]
    write_1h, reasoning = tokens["tokens_cache_write_1h"], tokens["tokens_reasoning"]
    return {
        "input": tokens["tokens_input"] - read - write - write_1h,
        "output": tokens["tokens_output"] - reasoning,
        "cache_read": read,
        "cache_write": write,
        "cache_write_1h": write_1h,
        "reasoning": reasoning,
    }


RATED_TYPES = frozenset(("token_usage", "tool_call_finished", "attempt_finished", "cost"))


def _rate_tokens(
    index: int,
    columns: Mapping[str, Sequence[Any]],
    at: int,
    cost: CostVersion,
    credit: CreditVersion,
) -> Rated:
    name = columns["model"][index]
    model = cost.find(
        columns["provider"][index],
        name,
        columns["service_tier"][index],
        columns["is_batch"][index],
    )
    amounts = _exclusive_amounts(index, columns)
    quality = "unpriced"
    yocto = 0
    if model is not None:
        yocto, quality = _sum_rates(model.rates_at(at), amounts, columns["tokens_input"][index])
    if quality == "exact" and columns["usage_quality"][index] == "estimated":
        quality = "estimated"
    own_rates = credit.models.get(name)
    if own_rates is not None:
        own_yocto, _ = _sum_rates(own_rates, amounts, columns["tokens_input"][index])
        credits_units = divide_half_even(own_yocto, YOCTO_PER_MICRO)
    else:
        credits_units = divide_half_even(
            yocto * credit.per_usd_numerator, YOCTO_PER_MICRO * credit.per_usd_denominator
        )
    return Rated(
        divide_half_even(yocto, YOCTO_PER_NANO),
        quality,
        credits_units,
        cost.version_id,
        credit.version_id,
    )


def _exclusive_amounts(index: int, columns: Mapping[str, Sequence[Any]]) -> tuple[int, ...]:
    """Tokens by class, each token in one class only, in the order of TOKEN_CLASSES."""
    read = columns["tokens_cache_read"][index]
    write = columns["tokens_cache_write_5m"][index]
    write_1h = columns["tokens_cache_write_1h"][index]
    reasoning = columns["tokens_reasoning"][index]
    return (
        columns["tokens_input"][index] - read - write - write_1h,
        columns["tokens_output"][index] - reasoning,
        read,
        write,
        write_1h,
        reasoning,
    )


def _sum_rates(
    rates: Mapping[str, Tiers], amounts: tuple[int, ...], tokens_input: int
) -> tuple[int, str]:
    """Sum amount x rate; "partial" when some class has no rate, "unpriced" when none has."""
    if not rates:
        return 0, "unpriced"
    total = 0
    quality = "exact"
    for name, amount in zip(TOKEN_CLASSES, amounts, strict=True):
        if not amount:
            continue
        tiers = rates.get(name)
        if tiers is None:
            quality = "partial"
            continue
        for above, yocto in tiers:
            if tokens_input > above or above == 0:
                total += amount * yocto
                break
    if (per_request := rates.get("request")) is not None:
        total += per_request[0][1]
    return total, quality


def _rate_stated_cost(amount: str, currency: str, credit: CreditVersion) -> Rated:
    """A cost that the sender states is taken as it is, in USD only."""
    if currency != "USD" or not amount:
        return Rated(0, "unpriced", 0, 0, credit.version_id)
    exact = Decimal(amount)
    ratio = Decimal(credit.per_usd_numerator) / Decimal(credit.per_usd_denominator)
    return Rated(
        int((exact * _NANO).to_integral_value("ROUND_HALF_EVEN")),
        "exact",
        int((exact * ratio * _MICRO).to_integral_value("ROUND_HALF_EVEN")),
        0,
        credit.version_id,
    )
