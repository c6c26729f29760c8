"""The index judges every delivery as a plain dictionary would, however deliveries are batched."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.events.batch import Identity
from tallystick.events.dedup import DedupIndex
from tallystick.plumbing.log import Verdict

deliveries = st.tuples(
    st.sampled_from([b"a\0%d" % number for number in range(6)]),
    st.sampled_from([b"x" * 16, b"y" * 16]),
)
batches = st.lists(
    st.tuples(st.lists(deliveries, min_size=1, max_size=8), st.booleans()), max_size=6
)


def judge_one(known: dict[bytes, tuple[int, bytes]], identity: Identity, offset: int) -> Verdict:
    key, digest = identity
    first_offset, first_digest = known.setdefault(key, (offset, digest))
    if first_digest != digest:
        return Verdict.CONFLICT
    return Verdict.ORIGINAL if first_offset == offset else Verdict.DUPLICATE


@settings(max_examples=60, deadline=None)
@given(batches)
def test_any_batching_gives_the_verdicts_of_one_by_one(
    several: list[tuple[list[Identity], bool]],
) -> None:
    known: dict[bytes, tuple[int, bytes]] = {}
    with tempfile.TemporaryDirectory() as folder:
        index = DedupIndex(Path(folder))
        start = 0
        for identities, is_judged_again in several:
            offsets = range(start, start + len(identities))
            wanted = [
                judge_one(known, identity, offset)
                for identity, offset in zip(identities, offsets, strict=True)
            ]
            assert list(index.judge(identities, offsets)) == wanted
            if is_judged_again:  # as after an append that failed, and after a crash
                assert list(index.judge(identities, offsets)) == wanted
            start = offsets.stop
            index.commit(start)
            assert list(index.judge(identities, offsets)) == wanted
        index.close()


def test_an_index_that_was_opened_again_forgets_nothing(tmp_path: Path) -> None:
    """INV-09: neither closing nor merging its files loses an identity."""
    known: list[Identity] = []
    for session in range(5):
        index = DedupIndex(tmp_path)
        fresh = [(b"a\0%d-%d" % (session, number), bytes(16)) for number in range(200)]
        index.judge(fresh, range(len(known), len(known) + len(fresh)))
        known += fresh
        index.commit(len(known))
        index._entries.compact_range(None, None)  # forgetting happens while files are merged
        repeats = range(len(known), 2 * len(known))
        assert set(index.judge(known, repeats)) == {Verdict.DUPLICATE}
        index.close()
