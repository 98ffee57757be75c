"""The state of a tunnel's rules: whether they may be changed from here, and how many bytes they may take."""

from __future__ import annotations

from spokes.errors import LimitError, RulesChangedError, UnmanagedError
from spokes.store import Store
from spokes.store.base import View
from spokes.store.changes import Writer

RULES_BYTES_MAX = 900_000                # of one tunnel: they travel as one control message, of 1 MiB at most


def check_managed(store: Store, tunnel_uid: str, view: View | None = None) -> None:
    """UnmanagedError when the client was last seen refusing rules from here."""
    if store.rules.state(tunnel_uid, view)[1]:
        raise UnmanagedError(
            "this client takes no rules from the server", hint="its configuration file says unmanaged"
        )


def check_revision(store: Store, tx: Writer, tunnel_uid: str, base_rev: int | None) -> int:
    """The present revision; RulesChangedError unless it is `base_rev` (None: whatever it is)."""
    rev, _ = store.rules.state(tunnel_uid, tx)
    if base_rev is not None and base_rev != rev:
        raise RulesChangedError("the rules were changed at the server meanwhile", hint="read them again")
    return rev


def check_rule_bytes(store: Store, tunnel_uid: str) -> None:
    """Inside a transaction, behind its writes."""
    if store.rules.count_bytes(tunnel_uid) > RULES_BYTES_MAX:
        raise too_many_bytes()


def too_many_bytes() -> LimitError:
    return LimitError(
        f"the rules of a tunnel may take {RULES_BYTES_MAX} bytes, with their certificates", hint="remove some first"
    )
