"""Three-way merge of the rules of the file and the rules of the server.

Both may have changed while no session was up: the user typed `spoke tunnel http add`, the operator used the Admin API.
The file keeps the rules that both last agreed on (`synced`) as the base. Each rule is merged by itself: the side that
changed it since then wins; where both did, the server wins, because its administration shows that rule.
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
