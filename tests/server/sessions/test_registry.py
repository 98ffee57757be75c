"""The registry: one session a tunnel, generations that only grow, links that need the secret."""

import pytest

from spokes.errors import LimitError, SessionUnknownError
from spokes.server.sessions.registry import Registry
from spokes.wire.messages import Agent


def open_session(registry, tunnel_uid="t", link=1):
    return registry.open(tunnel_uid, link=link, peer="::1 5", agent=Agent())


def test_registry_second_session_replaces_the_first():
    registry = Registry(4)
    first, none = open_session(registry)
    second, replaced = open_session(registry, link=2)
    assert none is None and replaced is first
    assert second.generation == first.generation + 1
    assert registry.is_live(second) and not registry.is_live(first)
    assert not registry.close(first)
    assert registry.get("t") is second


def test_registry_generation_grows_across_an_absence():
    registry = Registry(4)
    first, _ = open_session(registry)
    assert registry.close(first)
    second, replaced = open_session(registry)
    assert replaced is None
    assert second.generation == 2


def test_registry_join_needs_a_live_sessions_whole_token():
    registry = Registry(2)
    first, _ = open_session(registry)
    for token in ("", ".", first.id, first.id + ".", "x." + first.secret, first.token + "x"):
        with pytest.raises(SessionUnknownError):
            registry.join(token, 9)
    assert registry.join(first.token, 9) is first
    with pytest.raises(LimitError):
        registry.join(first.token, 10)
    second, _ = open_session(registry, link=2)
    with pytest.raises(SessionUnknownError):
        registry.join(first.token, 11)
    assert second.links == {2}


def test_registry_tokens_differ_and_are_kept_out_of_repr():
    registry = Registry(2)
    sessions = [open_session(registry, str(number))[0] for number in range(50)]
    assert len({session.token for session in sessions}) == 50
    assert sessions[0].secret not in repr(sessions[0])
