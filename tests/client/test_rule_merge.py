import itertools

import pytest

from spokes.client.rule_merge import merge_rules
from spokes.client.rule_parsing import site_key
from spokes.wire.rules import Site

OLD, LOCAL, REMOTE = (Site(domain="a", port=port) for port in (1, 2, 3))


def one(rule):
    return [rule] if rule is not None else []


@pytest.mark.parametrize(
    ("synced", "local", "remote", "kept"),
    [
        (OLD, OLD, OLD, OLD),
        (OLD, LOCAL, OLD, LOCAL),  # the user changed it
        (OLD, OLD, REMOTE, REMOTE),  # the operator changed it
        (OLD, LOCAL, REMOTE, REMOTE),  # both did: the dashboard is right
        (OLD, None, OLD, None),  # the user removed it
        (OLD, OLD, None, None),  # the operator removed it
        (OLD, None, REMOTE, REMOTE),
        (OLD, LOCAL, None, None),
        (None, LOCAL, None, LOCAL),  # new here
        (None, None, REMOTE, REMOTE),  # new there
        (None, LOCAL, REMOTE, REMOTE),
        (OLD, None, None, None),
    ],
)
def test_merge_one_rule_later_change_wins(synced, local, remote, kept):
    merged = merge_rules(site_key, synced=one(synced), local=one(local), remote=one(remote))
    assert merged == one(kept)


def test_merge_rules_do_not_touch_each_other():
    rules = {name: Site(domain=name, port=1) for name in "abcd"}
    for chosen in itertools.product([True, False], repeat=4):
        local = [rules[name] for name, here in zip("abcd", chosen, strict=True) if here]
        assert merge_rules(site_key, synced=[], local=local, remote=[]) == local


def test_merge_twice_same_result():
    synced, local, remote = [OLD], [Site(domain="b", port=5)], [REMOTE, Site(domain="c", port=6)]
    once = merge_rules(site_key, synced=synced, local=local, remote=remote)
    assert merge_rules(site_key, synced=synced, local=once, remote=remote) == once
