"""Units, time, ids and settings."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.bootstrap.options import facts_days
from tallystick.clock import FixedClock, format_time, from_datetime, to_datetime
from tallystick.errors import InvalidInput, InvariantBroken
from tallystick.ids import Uuid7Source
from tallystick.invariant import check
from tallystick.settings import load_settings
from tallystick.units import CREDIT, INT64_MAX, USD, format_amount, parse_amount


@given(st.integers(-INT64_MAX, INT64_MAX), st.sampled_from([CREDIT, USD]))
def test_amounts_survive_a_round_trip(units: int, asset: object) -> None:
    assert parse_amount(format_amount(units, asset), asset) == units  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("1.0000001", "amount_too_precise"),
        ("99999999999999999", "amount_too_large"),
        ("1e3", "amount_not_decimal"),
        ("", "amount_not_decimal"),
        ("\uff11", "amount_not_decimal"),
        (1.5, "amount_not_decimal"),
        (None, "amount_not_decimal"),
    ],
)
def test_bad_amounts_have_a_code(text: object, code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_amount(text, CREDIT)
    assert caught.value.code == code


def test_time_and_ids() -> None:
    moment = 1_790_000_000_123_456
    assert from_datetime(to_datetime(moment)) == moment
    assert format_time(moment) == "2026-09-21T14:13:20.123456Z"
    clock = FixedClock(moment)
    source = Uuid7Source(clock, lambda bits: 0)
    first = source.next_id()
    clock.micros += 1_000_000
    assert first < source.next_id()
    assert UUID(first).version == 7


def test_a_broken_invariant_is_named() -> None:
    with pytest.raises(InvariantBroken, match="INV-01"):
        check(False, "INV-01", "no")


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text('host = "h"\nport = 1\ndata = "d"\n')
    settings = load_settings({"data": "flag"}, {"TALLYSTICK_PORT": "2"}, file)
    assert (settings.host, settings.port, settings.data) == ("h", 2, "flag")
    with pytest.raises(InvalidInput, match="port"):
        load_settings({}, {"TALLYSTICK_PORT": "many"})
    assert facts_days(load_settings({}, {"TALLYSTICK_FACTS_DAYS": "800"})) == 800
    with pytest.raises(InvalidInput, match=r"TALLYSTICK_FACTS_DAYS is 89.*at least 90, or to 0"):
        facts_days(load_settings({}, {"TALLYSTICK_FACTS_DAYS": "89"}))
    file.write_text("prot = 1")
    with pytest.raises(InvalidInput, match="prot"):
        load_settings({}, {}, file)
