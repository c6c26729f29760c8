"""Credit on lease: authorize in memory in a microsecond, settle with the server in blocks.

    credit = LeasedCredit(HttpLeases(url, key), "acme", block_units=50_000_000)
    permit = credit.authorize(1_200_000)        # 1.2 credits; None: not now
    ...
    credit.settle(permit, 900_000)              # what it really cost
    credit.close()

A block stays the account's until it is used: the server sets it aside, this worker may spend
it until the lease's time is over, and not a moment longer (by this machine's monotonic
clock, counted from before the request was sent). `sync` reports what was used, tops the block
up and takes more time; a thread calls it before the time is over. When the server is away the
worker goes on with what it has. When it was away for too long, or another epoch has begun,
the worker is fenced off: it takes a new lease, and its last word on the old one is sent until
it is heard. What a crashed worker did not report is settled by the account's policy on the
server, never free.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import httpx

from tallystick.errors import Conflict, StoreUnavailable, TallystickError
from tallystick.units import CREDIT, format_amount, parse_amount


class LeaseTerms(NamedTuple):
    """What the server lent."""

    lease_id: str
    epoch: int
    units: int


class Permit(NamedTuple):
    """Leave to do work of up to `units`; settle it once."""

    lease_id: str
    units: int


class Leases(Protocol):
    """The server's side, as this client needs it.

    Each call raises Conflict when the lease is fenced or over, StoreUnavailable when the
    server cannot be reached or cannot answer now; repeating a call with its key is harmless.
    """

    def open(self, account_id: str, units: int, ttl_seconds: int, key: str) -> LeaseTerms | None:
        """Take a lease; None when the account has not enough credit."""
        ...

    def report(self, lease: LeaseTerms, used_units: int, key: str) -> None:
        """Say what was used of it so far, in all."""
        ...

    def extend(self, lease: LeaseTerms, units: int, ttl_seconds: int, key: str) -> bool:
        """Take more time and `units` more; False when there is not enough credit."""
        ...

    def give_back(self, lease: LeaseTerms, used_units: int, key: str) -> None:
        """Say what was used in all and end it."""
        ...


class _Block:
    """One lease as this worker spends it."""

    def __init__(self, terms: LeaseTerms, fence_at: float) -> None:
        self.terms = terms
        self.fence_at = fence_at
        self.total = terms.units
        self.used = 0
        self.reserved = 0

    @property
    def free(self) -> int:
        return self.total - self.used - self.reserved


class LeasedCredit:
    """Authorizes from a leased block; safe to use from many threads."""

    def __init__(
        self,
        leases: Leases,
        account_id: str,
        *,
        block_units: int,
        ttl_seconds: int = 60,
        now: Callable[[], float] = time.monotonic,
        has_thread: bool = True,
    ) -> None:
        """`has_thread` False leaves it to the caller to call `sync` in time."""
        self._leases = leases
        self._account_id = account_id
        self._block_units = block_units
        self._ttl_seconds = ttl_seconds
        self._now = now
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._block: _Block | None = None
        self._old: dict[str, _Block] = {}
        self._wake = threading.Event()
        self._is_closing = False
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self.sync()
        if has_thread:
            self._thread.start()

    def authorize(self, units: int) -> Permit | None:
        """Set `units` of the block aside; None when it has not so much, or no time left."""
        with self._lock:
            block = self._block
            if block is None or self._now() >= block.fence_at or units > block.free:
                self._wake.set()
                return None
            block.reserved += units
            if block.free * 2 < self._block_units:
                self._wake.set()  # half is spent: top up before it runs out
            return Permit(block.terms.lease_id, units)

    def settle(self, permit: Permit, used_units: int) -> None:
        """Count what the work cost, also above the permit; 0 gives the permit back."""
        with self._lock:
            block = self._find(permit.lease_id)
            block.reserved -= permit.units
            block.used += used_units

    def _find(self, lease_id: str) -> _Block:
        if self._block is not None and self._block.terms.lease_id == lease_id:
            return self._block
        return self._old[lease_id]

    @property
    def available(self) -> int:
        """What `authorize` can still give, in units."""
        with self._lock:
            block = self._block
            return 0 if block is None or self._now() >= block.fence_at else max(block.free, 0)

    def sync(self) -> bool:
        """Report, top up and take more time; False when the server could not be reached."""
        with self._syncing:
            try:
                self._finish_old()
                if self._block is None:
                    self._open()
                else:
                    self._renew(self._block)
            except StoreUnavailable:
                return False
            except Conflict:
                self._fence()
                return self._try_open()
            return True

    def _open(self) -> None:
        asked_at = self._now()
        key = secrets.token_hex(16)
        terms = self._leases.open(self._account_id, self._block_units, self._ttl_seconds, key)
        if terms is not None:
            with self._lock:
                self._block = _Block(terms, asked_at + self._ttl_seconds)

    def _try_open(self) -> bool:
        try:
            self._open()
        except StoreUnavailable:
            return False
        return True

    def _renew(self, block: _Block) -> None:
        with self._lock:
            used = block.used
            wanted = max(self._block_units - block.free, 0)
        self._leases.report(block.terms, used, secrets.token_hex(16))
        asked_at = self._now()
        for units in (wanted, 0) if wanted else (0,):
            if self._leases.extend(block.terms, units, self._ttl_seconds, secrets.token_hex(16)):
                with self._lock:
                    block.total += units
                    block.fence_at = asked_at + self._ttl_seconds
                return

    def _fence(self) -> None:
        """The lease is no longer ours: stop spending it, and keep its last word."""
        with self._lock:
            if self._block is not None:
                self._old[self._block.terms.lease_id] = self._block
                self._block = None

    def _finish_old(self) -> None:
        """Say the last word on leases that were lost, once their work is settled."""
        for lease_id, block in list(self._old.items()):
            if block.reserved:
                continue
            try:
                self._leases.give_back(block.terms, block.used, f"last-{lease_id}")
            except Conflict:
                pass  # heard already, or ended by it
            with self._lock:
                del self._old[lease_id]

    def _keep(self) -> None:
        while not self._is_closing:
            self._wake.wait(self._ttl_seconds / 3)
            self._wake.clear()
            if not self._is_closing and not self.sync():
                time.sleep(min(self._ttl_seconds / 10, 1.0))

    def close(self) -> None:
        """Report the last use and give the rest back; StoreUnavailable when nobody hears it."""
        self._is_closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._fence()
        with self._syncing:
            self._finish_old()


class HttpLeases:
    """Leases over the product's HTTP API."""

    def __init__(self, url: str, key: str, *, timeout_seconds: float = 5.0) -> None:
        self._client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=timeout_seconds
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def open(self, account_id: str, units: int, ttl_seconds: int, key: str) -> LeaseTerms | None:
        """Take a lease; None when the account has not enough credit."""
        body = {"account_id": account_id, "ttl_seconds": ttl_seconds, "idempotency_key": key}
        answer = self._post("/v1/leases", {**body, "amount": format_amount(units, CREDIT)})
        if answer is None:
            return None
        granted = parse_amount(answer["amount"], CREDIT)
        return LeaseTerms(answer["lease_id"], answer["epoch"], granted)

    def report(self, lease: LeaseTerms, used_units: int, key: str) -> None:
        """Say what was used so far, in all."""
        self._post(f"/v1/leases/{lease.lease_id}/report", _used(lease, used_units, key))

    def extend(self, lease: LeaseTerms, units: int, ttl_seconds: int, key: str) -> bool:
        """Take more time and credit; False when there is not enough credit."""
        body = {
            "amount": format_amount(units, CREDIT),
            "ttl_seconds": ttl_seconds,
            "epoch": lease.epoch,
            "idempotency_key": key,
        }
        return self._post(f"/v1/leases/{lease.lease_id}/extend", body) is not None

    def give_back(self, lease: LeaseTerms, used_units: int, key: str) -> None:
        """Say what was used in all and end the lease."""
        self._post(f"/v1/leases/{lease.lease_id}/return", _used(lease, used_units, key))

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        try:
            answer = self._client.post(path, json=body)
        except httpx.HTTPError as error:
            raise StoreUnavailable("the server cannot be reached") from error
        if answer.status_code == 402:
            return None
        if answer.status_code in (429, 503):
            raise StoreUnavailable("the server cannot answer now")
        content: dict[str, Any] = answer.json()
        if answer.status_code == 409:
            raise Conflict(content["detail"], code=content["code"])
        if answer.is_error:
            raise TallystickError(content["detail"], code=content["code"])
        return content


def _used(lease: LeaseTerms, used_units: int, key: str) -> dict[str, Any]:
    used = format_amount(used_units, CREDIT)
    return {"used": used, "epoch": lease.epoch, "idempotency_key": key}
