"""Facts from columns: what the sink makes of rows, made of an Arrow table in one go.

Text that repeats stays an Arrow dictionary all the way into ClickHouse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tallystick.analytics.facts import DELIVERY_TYPES, FACT_TYPES, charge_key_of
from tallystick.bounds import LATE_AFTER
from tallystick.clock import MINUTE


def facts_of(events: pa.Table, rated: Mapping[str, pa.Array]) -> pa.Table:
    """Build the table of facts from archived events and what rating said of each."""
    rows = events.num_rows
    occurred = events.column("occurred_at").cast(pa.int64()).to_numpy()
    received = events.column("received_at").cast(pa.int64()).to_numpy()
    made: dict[str, Any] = {
        **rated,
        "sign": pa.repeat(pa.scalar(1, pa.int8()), rows),
        "correction_id": pa.repeat("", rows),
        "charge_key": charge_keys_of(events.column("run_id"), occurred),
        "is_late": pa.array(received - occurred > LATE_AFTER),
    }
    columns = {name: made[name] if name in made else events.column(name) for name in FACT_TYPES}
    return _cast(columns, FACT_TYPES)


def charge_keys_of(run_ids: pa.ChunkedArray, occurred: npt.NDArray[np.int64]) -> Any:
    """What each event is charged under: its run, or else its minute."""
    is_alone = pc.equal(run_ids, "")
    if not pc.any(is_alone).as_py():
        return run_ids
    minutes, codes = np.unique(occurred // MINUTE, return_inverse=True)
    keys = pa.array([charge_key_of("", int(minute) * MINUTE) for minute in minutes])
    return pc.if_else(is_alone, keys.take(pa.array(codes)), run_ids)


def corrections_of(archived: pa.Table) -> pa.Table:
    """Build the table of facts from archived rows of corrections."""
    return _cast({name: archived.column(name) for name in FACT_TYPES}, FACT_TYPES)


def deliveries_of(events: pa.Table, kinds: pa.Array) -> pa.Table:
    """Build the table of deliveries that were not originals; `kinds` says what each was."""
    columns = {name: kinds if name == "kind" else events.column(name) for name in DELIVERY_TYPES}
    return _cast(columns, DELIVERY_TYPES)


def _cast(columns: Mapping[str, Any], types: Mapping[str, pa.DataType]) -> pa.Table:
    return pa.table(
        {
            name: column
            if column.type == types[name] or pa.types.is_dictionary(column.type)
            else column.cast(types[name])
            for name, column in columns.items()
        }
    )
