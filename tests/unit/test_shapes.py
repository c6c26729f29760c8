"""Threads that read one type at once, when nobody has read it before."""

from __future__ import annotations

import subprocess
import sys

_RACE = """
import sys, threading
from importlib.resources import files
from tallystick.rating.cards import RateCardVersion
from tallystick.rating.versions import CostVersion
from tallystick.shapes import prepare_shapes

prepare_shapes()
sys.setswitchinterval(1e-6)
card = files("tallystick.catalog").joinpath("seed_cost_card.json").read_bytes()
version = RateCardVersion(1, "cost", "", 0, 0, card)
together = threading.Barrier(6)

def compile_card():
    together.wait()
    CostVersion(version)

threads = [threading.Thread(target=compile_card) for _ in range(6)]
for one in threads:
    one.start()
for one in threads:
    one.join()
"""


def test_threads_that_read_one_type_first_at_once_do_not_crash() -> None:
    """Without prepare_shapes nineteen of twenty such processes die of SIGSEGV."""
    for _ in range(2):
        subprocess.run([sys.executable, "-c", _RACE], check=True)
