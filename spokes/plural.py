"""Words for people, made of figures."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """`1 tunnel`, `2 tunnels`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
