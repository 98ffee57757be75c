"""Why a link is down, in the words and the errors of users."""

from __future__ import annotations

from spokes._fastpath.engine import LinkDown
from spokes.errors import NobodyThereError, RemoteError, ServerKeyError, SpokesError, UnreachableError
from spokes.wire.messages import Bye

UNTRUSTED_WORDS = "certificate verify failed"  # how the engine begins what OpenSSL found wrong with a chain


def no_connection_error(code: int, words: str) -> SpokesError:
    """What the end of a link means that never had a TCP connection."""
    error = down_error(code, words)
    if isinstance(error, ServerKeyError) or code not in (LinkDown.SYSTEM, LinkDown.HANDSHAKE):
        return error
    return NobodyThereError("the connection attempt timed out" if code == LinkDown.HANDSHAKE else str(error))


def down_error(code: int, words: str) -> SpokesError:
    """What a LINK_DOWN means to the user."""
    match code:
        case LinkDown.PIN:
            return ServerKeyError(
                words or "the server's key is not the trusted one",
                hint="nothing was sent; compare with the fingerprint that `spokes server` prints at its start",
            )
        case LinkDown.TLS | LinkDown.HANDSHAKE if words.startswith(UNTRUSTED_WORDS):
            return ServerKeyError(
                f"the server's certificate is not trusted here: {words}",
                hint="nothing was sent; pin the server's key with --server-key, or name its authority with --ca",
            )
        case LinkDown.PROTOCOL:
            return UnreachableError(f"the server broke the link protocol ({words})")
        case LinkDown.DEAD:
            return UnreachableError("nothing heard from the server for 25 s")
        case LinkDown.TLS | LinkDown.HANDSHAKE:
            return UnreachableError(
                f"no TLS with the server ({words})", hint="name the port that it listens on for HTTPS"
            )
        case LinkDown.CLOSED:
            return UnreachableError("the server closed the connection")
        case LinkDown.LOCAL:
            return UnreachableError("the connection was closed here")
        case _:
            return UnreachableError(words or "the connection broke")


_HINTS = {  # what a server cannot know; the rest it says itself
    "SPK-REPLACED": "two clients use this configuration; give each its own with: spoke configure",
    "SPK-VERSION": "install the same version on both sides",
}


def bye_error(bye: Bye) -> RemoteError:
    return RemoteError(
        bye.message or "the server ended the session",
        code=bye.code,
        hint=_HINTS.get(bye.code, ""),
        retryable=bye.retry,
        retry_after_s=bye.retry_after_s,
    )
