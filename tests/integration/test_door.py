"""One append takes in many requests: each gets its own receipt, and none harms another."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import psycopg

from tallystick.errors import BodyUnreadable, UnsupportedForm
from tallystick.events.adapters import parse_body
from tallystick.events.appending import JudgingAppender
from tallystick.events.batch import identities_of
from tallystick.events.dedup import DedupIndex
from tallystick.events.door import Receipt
from tallystick.plumbing.log import PostgresLog, Verdict
from tallystick.plumbing.log.postgres import APPEND_CONNECTIONS
from tallystick.plumbing.postgres import BY_INDEX, open_pool, require_quiet
from tests.world import World


def usage(world: World, event_id: str, **more: Any) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "event_type": "token_usage",
        "event_time": world.at(-1),
        "tenant_id": "group",
        **more,
    }


def append(world: World, appender: JudgingAppender, body: bytes) -> bytes:
    """Append by an appender that is not the world's door's; return its verdicts."""
    batch = parse_body(
        body,
        content_type="application/json",
        content_encoding="",
        headers={},
        received_at=world.clock.now(),
        redactor=world.door.redactor,
    ).batch
    return appender.append(batch, identities_of(batch.columns, batch.size), world.clock.now())


def send_together(
    world: World, postgres_url: str, requests: list[tuple[bytes, str]]
) -> list[Receipt | BaseException]:
    """Send while the log is locked: what comes after the first request is one append."""

    async def send_all() -> list[Receipt | BaseException]:
        with psycopg.connect(postgres_url) as connection:
            connection.execute(b"SELECT * FROM log.head FOR UPDATE")
            waiting = []
            for body, content_type in requests:
                accepted = world.door.accept(
                    body, content_type=content_type, content_encoding="", headers={}
                )
                waiting.append(asyncio.ensure_future(accepted))
                await asyncio.sleep(0.05)
        return await asyncio.gather(*waiting, return_exceptions=True)

    return asyncio.run(send_all())


def test_each_request_of_an_append_gets_its_own_receipt(world: World, postgres_url: str) -> None:
    first, again = usage(world, "e1"), usage(world, "e2")
    several = [
        [first],
        [again, {"event_id": "broken"}, usage(world, "e3", model="written text")],
        [first, again, usage(world, "e4")],
        [{**first, "model": "other"}, *[usage(world, "e5")] * 2],
        [],
        [{"tenant_id": "group"}, usage(world, "e6", run_id="tallystick:x")],
        [usage(world, "e7")],
    ]
    bodies = [(json.dumps(one).encode(), "application/json") for one in several]
    receipts = send_together(world, postgres_url, bodies)
    assert [
        (one.accepted, one.duplicates, [(each.index, each.code) for each in one.rejected])
        for one in receipts
        if isinstance(one, Receipt)
    ] == [
        (1, 0, []),
        (2, 0, [(1, "missing_field")]),
        (1, 2, []),
        (1, 1, [(0, "event_id_conflict")]),
        (0, 0, []),
        (0, 0, [(0, "missing_field"), (1, "reserved_id")]),
        (1, 0, []),
    ]
    world.settle()
    assert world.totals("group")["calls"] == 6


def test_a_body_that_is_no_use_harms_no_other(world: World, postgres_url: str) -> None:
    head = world.log.head()
    good = [(json.dumps([usage(world, f"g{n}")]).encode(), "application/json") for n in range(3)]
    receipts = send_together(
        world, postgres_url, [good[0], (b"no JSON", ""), good[1], (b"<a/>", "text/xml"), good[2]]
    )
    assert [type(one) for one in receipts] == [
        Receipt,
        BodyUnreadable,
        Receipt,
        UnsupportedForm,
        Receipt,
    ]
    assert world.log.head() == head + 3


def test_an_appender_that_is_behind_judges_by_what_another_appended(
    world: World, postgres_url: str, tmp_path: Path
) -> None:
    """Two appenders of one log take turns: each is wrong about the head, none tells a lie."""
    other = JudgingAppender(PostgresLog(world.pool), DedupIndex(tmp_path))
    other.open()
    turns = [usage(world, f"turn{number}") for number in range(3)]
    before = world.log.head()
    for events, fresh in ((turns[:1], 1), (turns[:2], 1), (turns, 1), (turns, 0)):
        body = json.dumps(events).encode()
        verdicts = append(world, other, body)
        (receipt,) = send_together(world, postgres_url, [(body, "application/json")])
        assert verdicts.count(Verdict.ORIGINAL) == fresh
        assert isinstance(receipt, Receipt) and receipt.duplicates == len(events)
    batches = world.log.read(before, batches_max=100)
    starts = [before, *(batch.offset_end for batch in batches)]
    assert starts == [*(batch.offset_start for batch in batches), world.log.head()]


def test_an_append_that_finds_the_log_further_on_needs_no_third_connection(
    world: World, postgres_url: str, tmp_path: Path
) -> None:
    """With the connections that a server gives its door: another process appended meanwhile."""
    pool = open_pool(
        postgres_url, connections_max=APPEND_CONNECTIONS, settings=BY_INDEX, check=require_quiet
    )
    behind = JudgingAppender(PostgresLog(pool), DedupIndex(tmp_path))
    behind.open()
    meanwhile = usage(world, "meanwhile")
    world.send([meanwhile])
    verdicts = append(world, behind, json.dumps([meanwhile, usage(world, "behind")]).encode())
    assert list(verdicts) == [Verdict.DUPLICATE, Verdict.ORIGINAL]
    pool.close()


def test_a_connection_that_the_server_closed_is_not_handed_out(postgres_url: str) -> None:
    pool = open_pool(postgres_url, connections_max=1, check=require_quiet)
    with pool.connection() as connection:
        own = connection.info.backend_pid
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", (own,))
    with pool.connection() as connection:
        assert connection.info.backend_pid != own
        assert connection.execute("SELECT 1").fetchone() == (1,)
    pool.close()
