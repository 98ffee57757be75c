"""The words for what a database says when it fails; nothing of a driver's leaves the room, and no driver's prose."""

from __future__ import annotations

from spokes.errors import StoreError

_WORDS = (
    ("file is not a database", "the file is not a Spokes database or is damaged", "move it away, or restore a backup"),
    ("malformed", "the database is damaged", "restore a backup"),
    ("disk is full", "the disk is full", "free some space; nothing that was confirmed is lost"),
    ("no space left", "the database server's disk is full", "free some space; nothing that was confirmed is lost"),
    ("readonly database", "the database cannot be written", "check owner and mode of the file and its directory"),
    ("unable to open", "the database cannot be opened", "check that the directory exists and may be written"),
    ("disk i/o error", "the disk failed", "check the disk and the kernel's log"),
    ("database is locked", "another program holds the database locked", "end that program, or try again"),
    ("lock timeout", "another program holds the database locked", "end that program, or try again"),
    ("failed to resolve host", "the database server's name cannot be resolved", "check the store's address"),
    ("password authentication", "the database server refuses user or password", "check the store's address"),
    ("permission denied", "the database user lacks a right", "make it the owner of the store's database"),
    ("read-only transaction", "the database server is read-only, as a standby is", "name the primary server"),
    ("no answer in time", "the database server does not answer", "check that it runs and that its disk works"),
    ("connection slots", "the database server has no connection left", "raise its max_connections"),
    ("too many connections", "the database server has no connection left", "raise the user's or database's limit"),
    ("too many clients", "the database server has no connection left", "raise its max_connections"),
    ("does not exist", "the database server knows no such database, user or table", "check the store's address"),
    ("connection", "the database server cannot be reached", "check that it runs and that the store's address is right"),
)


def explained(error: Exception, where: str) -> StoreError:
    """`where` is the database for people."""
    text = str(error).strip().partition("\n")[0]
    for fragment, words, hint in _WORDS:
        if fragment in text.lower():
            return StoreError(f"{words} ({where})", hint=hint, told=words)
    return StoreError(f"the database failed: {text} ({where})", told="the database failed")
