"""Bringing together the rules of the file and the rules of the server after a time apart.

Both may have changed meanwhile: the user typed `spoke tunnel http add` while no client ran, the operator used the Admin
API. So the file remembers what both last agreed on (`synced`), and each rule is merged on its own: whoever changed it
since wins; where both did, the server does, because that is what its administration shows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

Rule = TypeVar("Rule")


def merge_rules(
    key_of: Callable[[Rule], Hashable], *, synced: list[Rule], local: list[Rule], remote: list[Rule]
) -> list[Rule]:
    """The rules to serve from now on: the file's order first, then what the server added."""
    agreed = {key_of(rule): rule for rule in synced}
    ours = {key_of(rule): rule for rule in local}
    theirs = {key_of(rule): rule for rule in remote}
    merged: list[Rule] = []
    for key in dict.fromkeys((*ours, *theirs)):
        before, mine, other = agreed.get(key), ours.get(key), theirs.get(key)
        kept = mine if other == before else other
        if kept is not None:
            merged.append(kept)
    return merged
