"""The table of outages, and what is in it."""

from benchmarks.outages import kinds, table


def test_table_has_the_median_and_the_worst():
    assert table({"cable 1 s": [0.5, 3.0, 1.0]}).splitlines()[-1] == "| cable 1 s | 3 | 1.00 | 3.00 |"


def test_kinds_long_ones_only_when_asked_for():
    short, long = kinds(long=False), kinds(long=True)
    assert list(long)[: len(short)] == list(short)
    assert max(seconds for kind, (_, seconds) in short.items() if "clock" not in kind) <= 30
    assert {"server gone 10 min", "server gone 1 min"} <= long.keys() - short.keys()
