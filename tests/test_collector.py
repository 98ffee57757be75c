"""The collector of a long-running process: what was there when it settled is not looked at again."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc
from spokes import collector

stays = [[number] for number in range(1000)]
collector.settle()
assert gc.get_freeze_count() >= 1000
assert gc.get_threshold() == collector.GC_THRESHOLDS
looked_at = gc.get_objects()
assert not any(one is stays[0] for one in looked_at)
"""


def test_settled_collector_leaves_what_was_made_before_alone():
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=30)
