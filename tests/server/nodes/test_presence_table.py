"""Presence as a set that each node owns: differences, whole sets in parts, runs, and nodes that go."""

import random

from spokes.server.nodes import presence_table
from spokes.server.nodes.presence_table import PresenceTable
from spokes.wire.messages import OnlineTunnel, Presence


def online(name: str, session: str = "s", workers: int = 1) -> OnlineTunnel:
    return OnlineTunnel(tunnel=name, session=session, workers=workers)


def told(*names: str, gone: tuple[str, ...] = (), whole: bool = False, more: bool = False) -> Presence:
    return Presence(online=tuple(online(name) for name in names), offline=gone, whole=whole, more=more)


def test_differences_are_told_by_the_tunnels_they_touch() -> None:
    table = PresenceTable()
    table.begin("n", "1")
    assert table.take("n", told("a", "b")) == {"a", "b"}
    assert table.take("n", told("b")) == set()
    assert table.take("n", told("c", gone=("a", "never"))) == {"a", "c"}
    assert table.where("a") == {}
    assert table.where("b") == {"n": online("b")}
    assert sorted(table.tunnels()) == ["b", "c"]


def test_what_was_not_in_a_whole_set_is_gone_once_its_last_part_is_there() -> None:
    table = PresenceTable()
    table.begin("n", "1")
    table.take("n", told("a", "b", "c"))
    assert table.take("n", told("a", whole=True, more=True)) == set()
    assert table.where("b")
    assert table.take("n", told("d", whole=True)) == {"b", "c", "d"}
    assert sorted(table.tunnels()) == ["a", "d"]


def test_a_tunnel_is_where_any_node_has_it() -> None:
    table = PresenceTable()
    for node in ("n", "m"):
        table.begin(node, "1")
        table.take(node, told("a"))
    assert table.where("a").keys() == {"n", "m"}
    assert table.drop("n") == {"a"}
    assert table.where("a").keys() == {"m"}


def test_a_new_run_of_a_node_begins_with_nothing_and_the_same_run_goes_on() -> None:
    table = PresenceTable()
    table.begin("n", "1")
    table.take("n", told("a"))
    assert table.begin("n", "1") == set()
    assert table.where("a")
    assert table.begin("n", "2") == {"a"}
    assert not table.where("a")


def test_a_whole_set_that_was_cut_short_leaves_no_half_behind() -> None:
    table = PresenceTable()
    table.begin("n", "1")
    table.take("n", told("a", whole=True))
    table.take("n", told("b", whole=True, more=True))
    table.begin("n", "1")                           # the link was lost in the middle
    table.take("n", told("c", whole=True))
    assert sorted(table.tunnels()) == ["c"]


def test_a_node_that_is_not_there_tells_nothing() -> None:
    table = PresenceTable()
    assert table.take("n", told("a")) == set()
    assert table.drop("n") == set()


def test_a_set_is_bounded_and_known_tunnels_still_change(monkeypatch) -> None:
    monkeypatch.setattr(presence_table, "TUNNEL_COUNT_MAX", 3)
    table = PresenceTable()
    table.begin("n", "1")
    assert table.take("n", told("a", "b", "c", "d")) == {"a", "b", "c"}
    moved = Presence(online=(online("a", workers=2),))
    assert table.take("n", moved) == {"a"}
    assert table.take("n", Presence(online=tuple(online(name) for name in "vwxyz"), whole=True, more=True))
    assert table.count("n") <= 3


def test_any_order_of_differences_and_whole_sets_leaves_what_was_told_last() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        table, model = PresenceTable(), dict[str, dict[str, OnlineTunnel]]()
        for _ in range(60):
            node = chance.choice("nm")
            names = chance.sample("abcdef", chance.randrange(6))
            match chance.randrange(5):
                case 0:
                    table.begin(node, chance.choice("12"))
                    model.setdefault(node, {})
                    model[node] = {name: one for name, one in model[node].items() if name in online_at(table, node)}
                case 1:
                    table.drop(node)
                    model.pop(node, None)
                case 2 if node in model:
                    table.take(node, told(*names, whole=True))
                    model[node] = {name: online(name) for name in names}
                case _ if node in model:
                    one = online(chance.choice("abcdef"), workers=chance.randrange(1, 4))
                    gone = chance.choice("abcdef")
                    table.take(node, Presence(online=(one,), offline=(gone,) if gone != one.tunnel else ()))
                    model[node][one.tunnel] = one
                    if gone != one.tunnel:
                        model[node].pop(gone, None)
        found = {node: {name: table.where(name)[node] for name in online_at(table, node)} for node in model}
        assert found == model, seed


def online_at(table: PresenceTable, node: str) -> set[str]:
    return {name for name in table.tunnels() if node in table.where(name)}
