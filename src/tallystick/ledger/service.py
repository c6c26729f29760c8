"""The ledger's service: requests in, one outcome each, in one transaction.

A request's key is looked up under the account's lock, so of two requests with one key the
second sees the first one's outcome. Declines are outcomes: they are stored and replayed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.rows import class_row, dict_row
from psycopg_pool import ConnectionPool

from tallystick.clock import Clock
from tallystick.errors import (
    Conflict,
    InvalidInput,
    InvariantBroken,
    NotFound,
    Raced,
    TallystickError,
)
from tallystick.ids import IdSource
from tallystick.ledger.book import Book, Operation, RunKey, outcome_of
from tallystick.ledger.convergence import confirm, converge
from tallystick.ledger.group import (
    Answer,
    post_settings,
    read_accounts,
    run_group,
    run_whole,
)
from tallystick.ledger.intake import Prepared, check_id, check_units, check_uuid, prepare
from tallystick.ledger.limits import UsageTarget, count_usage, roll_off
from tallystick.ledger.model import (
    Account,
    Balance,
    DueRequest,
    EntryView,
    Hold,
    HoldStory,
    Limit,
    Outcome,
    Request,
    RunCharge,
    RunChargeOutcome,
    RunTarget,
    Violation,
)
from tallystick.ledger.rules import AccountState, LotState
from tallystick.ledger.store import SQL, Connection, Plan, drive
from tallystick.ledger.views import balance_of
from tallystick.ledger.writing import write_book
from tallystick.plumbing.postgres import acting_for, transaction
from tallystick.plumbing.sql import load_statements
from tallystick.units import INT64_MAX

_VERIFY = load_statements("tallystick.ledger", "verify.sql")
_CAPTURE_POLICIES = ("reject", "cap", "overage")
_UNKNOWN_POLICIES = ("capture", "release")
LIMIT_KINDS = ("hard", "soft", "shadow")
_BUCKETS_MAX = 1000
_EXAMPLES_MAX = 10
ENTRIES_MAX = 1000
_RACES_MAX = 5
T = TypeVar("T")
_log = logging.getLogger(__name__)


class Ledger:
    """Accounts and everything that moves them."""

    def __init__(self, pool: ConnectionPool, clock: Clock, ids: IdSource) -> None:
        self._pool = pool
        self._clock = clock
        self._ids = ids

    # Accounts and limits

    def put_account(
        self,
        account_id: str,
        *,
        tenant_id: str,
        overage_limit_units: int | None = 0,
        capture_policy: str = "cap",
        unknown_policy: str = "capture",
    ) -> Account:
        """Make an account or change its settings; its tenant never changes (Conflict)."""
        check_id(account_id, "account_id")
        check_id(tenant_id, "tenant_id")
        _check_choice(capture_policy, _CAPTURE_POLICIES, "capture_policy")
        _check_choice(unknown_policy, _UNKNOWN_POLICIES, "unknown_policy")
        if overage_limit_units is not None:
            check_units(overage_limit_units, "overage_limit", least=0)
        arguments = {
            "account_id": account_id,
            "tenant_id": tenant_id,
            "capture_policy": capture_policy,
            "unknown_policy": unknown_policy,
            "overage_limit_units": overage_limit_units,
            "now": self._clock.now(),
        }
        with transaction(self._pool) as connection:
            connection.execute(SQL["insert_account"], arguments)
            if acting_for.get():  # an account of another tenant is there, but not to be seen
                self._account(connection, account_id)
            connection.execute(SQL["insert_balance"], arguments)
            # the lock comes first: of two changes at once each sees what the other has left
            book = drive(connection, read_accounts(self._ids, self._clock, [account_id]))
            before = self._account(connection, account_id)
            if before.tenant_id != tenant_id:
                raise Conflict("the account belongs to another tenant", code="tenant_mismatch")
            try:
                connection.execute(SQL["update_settings"], arguments)
            except psycopg.errors.CheckViolation as error:
                raise Conflict(
                    "the balance is below this overage_limit already", code="limit_below_balance"
                ) from error
            after = self._account(connection, account_id)
            if after != before or not book.accounts[account_id].sequence:
                book = drive(connection, read_accounts(self._ids, self._clock, [account_id]))
                post_settings(book, book.accounts[account_id])
                drive(connection, write_book(book))
            return after

    def load_account(self, account_id: str) -> Account:
        """An account's settings; NotFound when there is none."""
        with transaction(self._pool) as connection:
            return self._account(connection, account_id)

    def list_accounts(self, tenant_id: str = "") -> list[Account]:
        """Accounts of a tenant, or all."""
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=class_row(Account))
            return cursor.execute(SQL["list_tenant_accounts"], {"tenant_id": tenant_id}).fetchall()

    def put_limit(
        self,
        limit_id: str,
        *,
        asset: str,
        capacity: int,
        kind: str = "hard",
        slice_micros: int | None = None,
        slices: int | None = None,
    ) -> Limit:
        """Make a limit window or change its capacity; its asset never changes (Conflict).

        With slices it rolls: what was used leaves it once its slice is `slices` slices old.
        """
        _check_choice(kind, LIMIT_KINDS, "kind")
        check_units(capacity, "capacity", least=0)
        if not 0 < len(limit_id) <= 256 or "\0" in limit_id:
            raise InvalidInput("a limit's id has 1 to 256 characters", field="limit_id")
        arguments = {
            "limit_id": limit_id,
            "asset": asset,
            "capacity": capacity,
            "kind": kind,
            "slice_micros": slice_micros,
            "slices": slices,
        }
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=class_row(Limit))
            found = cursor.execute(SQL["upsert_limit"], arguments).fetchone()
        if found is None:
            raise Conflict("the limit counts another asset", code="asset_mismatch")
        return found

    def load_limits(self, limit_ids: Sequence[str]) -> list[Limit]:
        """Limit windows by id."""
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=class_row(Limit))
            return cursor.execute(SQL["load_limits"], {"limit_ids": list(limit_ids)}).fetchall()

    def count_usage(
        self, connection: Connection, targets: Sequence[UsageTarget]
    ) -> dict[tuple[str, str], int]:
        """Count usage that nothing authorized, in the caller's transaction; may overrun.

        A target is (limit id, source key, units in all); what the source has not posted yet is
        posted. Returns what was posted now; raises NotFound for a limit that nobody has made.
        """
        for _, _, units in targets:
            check_units(units, "usage", least=0)
        if not targets:
            return {}
        return drive(connection, count_usage(self._limit_book(), targets))

    def roll_off(self, limits_max: int = 500) -> int:
        """Let go what has left rolling windows; how many had some."""
        arguments = {"now": self._clock.now(), "limits_max": limits_max}
        with transaction(self._pool) as connection:
            rows = connection.execute(SQL["load_rolling_limits"], arguments).fetchall()
            if not rows:
                return 0
            return drive(connection, roll_off(self._limit_book(), [row[0] for row in rows]))

    def _limit_book(self) -> Book:
        """A book for limits alone: no account is locked, so its time is the caller's."""
        book = Book(self._ids)
        book.now = self._clock.now()
        return book

    # Movements

    def apply(self, request: Request, *, tenant_id: str = "") -> Outcome:
        """Apply one request; the same key answers the same for ever, declines too.

        With a tenant, what belongs to another one is answered as if it did not exist.
        """
        item = prepare(request, tenant_id)
        (answer,) = self._again_when_raced(lambda: self.apply_group([item]))
        if isinstance(answer, TallystickError):
            raise answer
        return answer

    @staticmethod
    def _again_when_raced(step: Callable[[], T]) -> T:
        """Another request changed what a decision was made on: decide again, a few times."""
        for _ in range(_RACES_MAX):
            try:
                return step()
            except Raced:
                continue
        return step()

    def apply_batch(
        self, requests: Sequence[Request], *, all_or_nothing: bool = False, tenant_id: str = ""
    ) -> list[Answer]:
        """Apply many requests in one transaction: each on its own, or as a whole."""
        prepared: list[Prepared] = []
        failures: dict[int, TallystickError] = {}
        for index, request in enumerate(requests):
            try:
                prepared.append(prepare(request, tenant_id))
            except TallystickError as error:
                failures[index] = error
        if failures and all_or_nothing:
            return self.refuse_whole(len(requests), failures)
        answers = iter(self.apply_group(prepared, all_or_nothing=all_or_nothing))
        return [failures.get(index) or next(answers) for index in range(len(requests))]

    @staticmethod
    def refuse_whole(count: int, failures: Mapping[int, TallystickError]) -> list[Answer]:
        """Answers of a batch that is not applied because some items are in error."""
        aborted = Conflict("another item of the batch is in error", code="batch_not_applied")
        return [failures.get(index, aborted) for index in range(count)]

    def apply_group(
        self, items: Sequence[Prepared], *, all_or_nothing: bool = False
    ) -> list[Answer]:
        """Apply prepared requests in one transaction; one answer each, in order."""
        if not items:
            return []
        with transaction(self._pool) as connection:
            return drive(connection, self.plan_group(items, all_or_nothing=all_or_nothing))

    def plan_group(
        self, items: Sequence[Prepared], *, all_or_nothing: bool = False
    ) -> Plan[list[Answer]]:
        """The plan of a group's transaction, for whoever drives it."""
        run = run_whole if all_or_nothing else run_group
        return run(self._ids, self._clock, items)

    def converge_run_charges(self, targets: Sequence[RunTarget]) -> list[RunChargeOutcome]:
        """Post target minus posted for each run, each named once; repeating it posts zero."""
        if not targets:
            return []
        for target in targets:
            check_units(target.target_units, "target", least=0)

        with transaction(self._pool) as connection:
            outcomes = confirm(connection, targets)
        rest = [one for one in targets if (one.tenant_id, one.run_id) not in outcomes]

        def step() -> list[RunChargeOutcome]:
            with transaction(self._pool) as connection:
                return converge(connection, self._ids, self._clock, rest)

        if rest:
            posted = self._again_when_raced(step)
            outcomes |= {(one.tenant_id, one.run_id): one for one in posted}
        return [outcomes[one.tenant_id, one.run_id] for one in targets]

    def settle_due(self, holds_max: int = 500) -> int:
        """End or mark the holds and leases whose time is over; how many were due."""
        arguments = {"now": self._clock.now(), "holds_max": holds_max}
        with transaction(self._pool) as connection:
            due = connection.execute(SQL["load_due_holds"], arguments).fetchall()
        items = [prepare(DueRequest(hold_id=row[0])) for row in due]
        try:
            answers = self.apply_group(items)
        except (InvariantBroken, Raced):  # one of them spoils the group: each alone
            answers = [answer for item in items for answer in self._alone(item)]
        return sum(isinstance(answer, Outcome) for answer in answers)

    def _alone(self, item: Prepared) -> list[Answer]:
        try:
            return self.apply_group([item])
        except (InvariantBroken, Raced) as error:
            _log.error("a due hold could not be ended: %s", error.message)
            return [error]

    def expire_lots(self, accounts_max: int = 500) -> int:
        """Post the expiry of credit that is over its time; how many accounts had some."""
        arguments = {"now": self._clock.now(), "accounts_max": accounts_max}
        with transaction(self._pool) as connection:
            rows = connection.execute(SQL["load_due_lots"], arguments).fetchall()
        accounts = [row[0] for row in rows]
        try:
            self._expire_lots_of(accounts)
        except InvariantBroken:  # one of them spoils the group: each alone
            for account_id in accounts:
                try:
                    self._expire_lots_of([account_id])
                except InvariantBroken as error:
                    _log.error("credit could not expire: %s", error.message)
        return len(accounts)

    def _expire_lots_of(self, accounts: Sequence[str]) -> None:
        if accounts:
            with transaction(self._pool) as connection:
                book = drive(connection, read_accounts(self._ids, self._clock, accounts))
                for account_id in sorted(book.accounts):
                    book.account(account_id)
                drive(connection, write_book(book))

    def load_stale_runs(
        self, runs_max: int = 500, *, changed_until: int = INT64_MAX
    ) -> list[RunKey]:
        """Runs that were captured for after facts had charged them: converge them again."""
        arguments = {"runs_max": runs_max, "changed_until": changed_until}
        with transaction(self._pool) as connection:
            return connection.execute(SQL["load_stale_runs"], arguments).fetchall()

    # Reading

    def balance(self, account_id: str, *, tenant_id: str = "") -> Balance:
        """What the account has now, by bucket: all that have credit, and the newest.

        With a tenant, an account of another one is NotFound; so with all that is read here.
        """
        arguments = {"account_id": account_id, "lots_max": _BUCKETS_MAX}
        with transaction(self._pool) as connection:
            is_alone = not acting_for.get()  # then no transaction has begun, and none is needed
            if is_alone:
                connection.autocommit = True
            try:
                cursor = connection.execute(SQL["load_balance"], arguments, binary=True)
                rows = cursor.fetchall()
            finally:
                if is_alone:
                    connection.autocommit = False
        if not rows or tenant_id not in ("", rows[0][1]):
            raise NotFound("there is no such account; create it with PUT", code="unknown_account")
        lots = [LotState(*row[16:]) for row in rows if row[16] is not None]
        return balance_of(AccountState(*rows[0][:16]), lots, self._clock.now())

    def load_sequences(self, account_ids: Sequence[str]) -> dict[str, int]:
        """How far accounts are: a number that grows with every change."""
        with transaction(self._pool) as connection:
            arguments = {"account_ids": list(account_ids)}
            return dict(connection.execute(SQL["load_sequences"], arguments).fetchall())

    def load_hold(self, hold_id: str, *, tenant_id: str = "") -> Hold:
        """A hold or lease, open or ended."""
        arguments = {"hold_id": check_uuid(hold_id, "hold"), "tenant_id": tenant_id}
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=class_row(Hold))
            found = cursor.execute(SQL["load_hold"], arguments).fetchone()
        if found is None:
            raise NotFound("there is no such hold", code="unknown_hold")
        return found

    def load_hold_story(self, hold_id: str) -> HoldStory | None:
        """What a hold was made with; None when there never was one."""
        try:
            arguments = {"hold_id": check_uuid(hold_id, "hold")}
        except NotFound:
            return None
        with transaction(self._pool) as connection:
            row = connection.execute(SQL["load_hold_story"], arguments).fetchone()
        return HoldStory(*row) if row else None

    def load_answer(self, request: Request) -> tuple[Outcome, str] | None:
        """What a request's key was answered before, and the details that it was kept with."""
        arguments = {"key_hashes": [prepare(request).key_hash]}
        with transaction(self._pool) as connection:
            row = connection.execute(SQL["load_known"], arguments).fetchone()
        if row is None:
            return None
        operation = Operation(*row)
        return outcome_of(operation), operation.details

    def load_hold_gauges(self) -> list[tuple[str, str, int, int, int]]:
        """Open holds: (kind, status, how many, units, micros the oldest is overdue)."""
        with transaction(self._pool) as connection:
            arguments = {"now": self._clock.now()}
            return connection.execute(SQL["load_hold_gauges"], arguments).fetchall()

    def entries(
        self,
        account_id: str,
        *,
        cursor: str | None = None,
        limit: int = 100,
        tenant_id: str = "",
    ) -> tuple[list[EntryView], str | None]:
        """Entries of an account, newest first, and the cursor of the next page."""
        if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
            raise InvalidInput("cursor is not one of ours", code="bad_cursor", field="cursor")
        size = min(max(limit, 1), ENTRIES_MAX)
        arguments = {
            "account_id": account_id,
            "before": int(cursor) if cursor else INT64_MAX,
            "limit": size + 1,
        }
        with transaction(self._pool) as connection:
            self._account(connection, account_id, tenant_id)
            reader = connection.cursor(row_factory=class_row(EntryView))
            found = reader.execute(SQL["load_entries"], arguments).fetchall()
        page = found[:size]
        return page, str(page[-1].sequence) if len(found) > size else None

    def load_run_charge(self, tenant_id: str, run_id: str) -> RunCharge | None:
        """The one charge of a run."""
        arguments = {"tenant_ids": [tenant_id], "run_ids": [run_id]}
        with transaction(self._pool) as connection:
            row = connection.execute(SQL["load_run_charges"], arguments).fetchone()
        return RunCharge(*row) if row else None

    def load_run_operations(self, tenant_id: str, run_id: str) -> list[dict[str, Any]]:
        """The operations of a run, oldest first."""
        arguments = {"tenant_id": tenant_id, "run_id": run_id}
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            return cursor.execute(SQL["load_run_operations"], arguments).fetchall()

    def load_refusal(self, operation_id: str) -> dict[str, Any] | None:
        """An operation that was declined, with what was asked; None when there is none."""
        arguments = {"operation_id": check_uuid(operation_id, "refusal")}
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            return cursor.execute(SQL["load_refusal"], arguments).fetchone()

    def load_run_targets(self) -> dict[RunKey, int]:
        """What each run should have been charged, zero left out."""
        with transaction(self._pool) as connection:
            rows = connection.execute(SQL["load_run_targets"]).fetchall()
        return {(row[0], row[1]): row[2] for row in rows if row[2]}

    def verify(self) -> list[Violation]:
        """Check the ledger's invariants over all rows."""
        violations = []
        with transaction(self._pool) as connection:
            connection.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            for invariant_id, sql in _VERIFY.items():
                found = [row[0] for row in connection.execute(sql.encode()).fetchall()]
                if found:
                    violations.append(Violation(invariant_id, len(found), found[:_EXAMPLES_MAX]))
        return violations

    @staticmethod
    def _account(connection: Connection, account_id: str, tenant_id: str = "") -> Account:
        cursor = connection.cursor(row_factory=class_row(Account))
        found = cursor.execute(SQL["load_accounts"], {"account_ids": [account_id]}).fetchone()
        if found is None or tenant_id not in ("", found.tenant_id):
            raise NotFound("there is no such account; create it with PUT", code="unknown_account")
        return found


def _check_choice(value: str, choices: Sequence[str], field: str) -> None:
    if value not in choices:
        raise InvalidInput(f"{field} must be one of {', '.join(choices)}", field=field)
