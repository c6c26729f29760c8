"""Many statements in one exchange: all of them stand, or none does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from tallystick.plumbing.exchange import Statement, exchange, exchange_blocking

_ADD = b"INSERT INTO public.exchanged (number) VALUES (%(number)s::bigint)"
_FAIL = Statement(b"SELECT 1 / %(zero)s::int", {"zero": 0})
_COUNT = Statement(b"SELECT count(*) FROM public.exchanged", {})


def added(number: int) -> Statement:
    return Statement(_ADD, {"number": number})


@pytest.fixture
def url(postgres_url: str) -> str:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(b"DROP TABLE IF EXISTS public.exchanged")
        connection.execute(b"CREATE TABLE public.exchanged (number bigint)")
    return postgres_url


def stored(url: str) -> int:
    with psycopg.connect(url) as connection:
        ((count,),) = connection.execute(_COUNT.sql).fetchall()
    return int(count)


def test_what_begins_and_commits_in_one_exchange_is_whole(url: str) -> None:
    """Twice each: the statements are prepared at first, and known then."""
    with psycopg.connect(url) as connection:
        for kept in (2, 4):
            found = exchange_blocking(connection, [added(1), added(2), _COUNT], commits=True)
            assert found == [[(1,)], [(1,)], [(kept,)]] and stored(url) == kept
            with pytest.raises(psycopg.errors.DivisionByZero):
                exchange_blocking(connection, [added(3), _FAIL, added(4)], commits=True)
            connection.rollback()
            assert stored(url) == kept


def test_a_transaction_of_two_exchanges_is_whole(url: str) -> None:
    async def steps(ends: Sequence[Statement]) -> None:
        before = stored(url)
        async with await psycopg.AsyncConnection[Any].connect(url) as connection:
            await exchange(connection, [added(1)], commits=False)
            assert stored(url) == before
            await exchange(connection, ends, commits=True)

    with pytest.raises(psycopg.errors.DivisionByZero):
        asyncio.run(steps([added(2), _FAIL]))
    assert stored(url) == 0
    asyncio.run(steps([added(2)]))
    assert stored(url) == 2
    asyncio.run(steps([]))
    assert stored(url) == 3
