"""Levels in Redis or Valkey, for processes that share limits and lend often.

The same rule as in PostgreSQL, as one script (lend.lua): nothing is granted that was not taken
there first. Redis counts in doubles: exact to bursts of 150 million, beyond that to a millionth
of a unit. A Redis that forgets (restart without persistence, failover) starts its buckets full.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from tallystick.enforcement.rates.lanes import Lent
from tallystick.enforcement.rates.model import RateLimit
from tallystick.errors import StoreUnavailable

_TIMEOUT_SECONDS = 2.0
_PREFIX = "tallystick:rate:"


class RedisLender:
    """Lends blocks of buckets in Redis; used by one event loop."""

    def __init__(self, url: str) -> None:
        timeouts = {
            "socket_timeout": _TIMEOUT_SECONDS,
            "socket_connect_timeout": _TIMEOUT_SECONDS,
        }
        client = redis.asyncio.from_url(url, **timeouts)
        text = files("tallystick.enforcement.rates").joinpath("lend.lua").read_text("utf-8")
        self._script = client.register_script(text)
        self._client = client

    async def lend(self, bucket_id: str, limit: RateLimit, need: int, block: int) -> Lent:
        """Take a block of at least `need` units, or nothing."""
        return await self._run(bucket_id, limit, need, block, 0)

    async def give_back(self, bucket_id: str, limit: RateLimit, units: int) -> None:
        """Correct the shared bucket; negative takes more."""
        await self._run(bucket_id, limit, 0, 0, units)

    async def close(self) -> None:
        """Let the connections go."""
        await self._client.aclose()

    async def _run(
        self, bucket_id: str, limit: RateLimit, need: int, block: int, back: int
    ) -> Lent:
        arguments = [limit.per_minute, limit.burst, need, block, back]
        try:
            answer: Any = await self._script(keys=[_PREFIX + bucket_id], args=arguments)
        except (RedisError, OSError) as error:
            raise StoreUnavailable("the store of rate limits cannot be reached") from error
        return Lent(int(answer[0]), int(answer[1]))
