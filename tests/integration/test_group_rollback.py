"""A group that fails after it has locked rows lets go of them: its connection begins anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
import pytest

from tallystick.ledger.store import Batch, Plan, Query, drive_async
from tallystick.plumbing.arrays import text_array


def _fails_halfway() -> Plan[None]:
    yield Batch([Query("lock_accounts", {"account_ids": text_array(["acme"])})])
    raise ValueError("decided nothing")


def _is_refused() -> Plan[None]:
    yield Batch([Query("lock_accounts", {"account_ids": text_array(["acme"])})])
    yield Batch([Query("load_lots_by_id", {"lot_ids": "{no id}"})], is_last=True)


@pytest.mark.parametrize(
    ("plan", "failure"),
    [(_fails_halfway, ValueError), (_is_refused, psycopg.DataError)],
)
def test_a_group_that_fails_is_rolled_back(
    postgres_url: str, plan: Callable[[], Plan[None]], failure: type[Exception]
) -> None:
    async def run() -> tuple[psycopg.pq.TransactionStatus, bool]:
        async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
            with pytest.raises(failure):
                await drive_async(connection, plan())
            return connection.info.transaction_status, connection.closed

    assert asyncio.run(run()) == (psycopg.pq.TransactionStatus.IDLE, False)
