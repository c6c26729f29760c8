"""A client of the ledger as a process of its own, to be killed at any moment.

    python -m tests.ledger_client FOLDER NUMBER STEPS      (the server's data folder)

Its steps follow from its number, each with its own key, so a killed client is simply run
again: it sends the same requests and must get the same answers. It tries each step until the
answer is definite. Prints the outcomes as one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import httpx
import msgspec

ACCOUNTS = 3
_PATIENCE_SECONDS = 120


class Client:
    """Finds the server again when it was restarted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.http = httpx.Client()

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                address = msgspec.json.decode((self.folder / "server.json").read_bytes())
                key = (self.folder / "admin.key").read_text().strip()
                headers = {"Authorization": f"Bearer {key}"}
                answer = self.http.post(
                    address["url"] + path, json=body, headers=headers, timeout=10
                )
                if answer.status_code < 500:
                    return answer.status_code, answer.json()
            except (OSError, httpx.HTTPError, msgspec.DecodeError):
                self.http.close()
                self.http = httpx.Client()
            time.sleep(0.05)
        raise AssertionError(f"no definite answer to {path}")


def run(folder: Path, number: int, steps: int) -> list[list[Any]]:
    """Return (kind, account, units captured) of every step."""
    random = Random(number)
    client = Client(folder)
    outcomes: list[list[Any]] = []
    for step in range(steps):
        account = f"kill-{random.randrange(ACCOUNTS)}"
        units, part = random.randint(1, 9), random.random()
        ending = random.choice(["capture", "capture", "release", "leave", "charge"])
        key = f"c{number}-{step}"
        if ending == "charge":
            body: dict[str, Any] = {"account_id": account, "amount": str(units)}
            body["idempotency_key"] = key
            status, answer = client.post("/v1/charges", body)
            outcomes.append([step, "charge", account, units if status == 201 else 0, status])
            continue
        body = {
            "account_id": account,
            "amount": str(units),
            "ttl_seconds": 3600,
            "run_id": f"run-{key}",
            "idempotency_key": key,
        }
        status, answer = client.post("/v1/holds", body)
        if status != 201 or ending == "leave":
            outcomes.append([step, "hold", account, 0, status, answer.get("hold_id")])
            continue
        taken = int(units * part) if ending == "capture" else 0
        body = {"idempotency_key": key + "-end"}
        if ending == "capture":
            body["amount"] = str(taken)
        end, _ = client.post(f"/v1/holds/{answer['hold_id']}/{ending}", body)
        outcomes.append([step, ending, account, taken, end, answer["hold_id"]])
    client.http.close()
    return outcomes


def main() -> None:
    folder, number, steps = sys.argv[1:]
    sys.stdout.write(json.dumps(run(Path(folder), int(number), int(steps))))


if __name__ == "__main__":
    main()
