"""The form of a snapshot: every replicated object at one position, as lines of JSON in one gzip stream.

    {"format":1,"cluster":…,"position":…}                 head
    ["put","tunnel",{…}]                                  rows, in an order in which each comes after what it refers to
    ["gone","site",uid,seq,epoch,time]                    tombstones
    ["end",row count,tombstone count,HMAC of all lines]   last line

Bound: LINE_BYTES_MAX a line, TEXT_BYTES_MAX in all (whatever gzip makes of a few bytes), ROW_COUNT_MAX lines.
Fails: SnapshotError for what is cut, damaged, too large or of another cluster; nothing that was handed out before that
may be kept, which is why a reader keeps it only behind the last line.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from spokes.cluster.batch import DigestText, Epochs, KindName, Number, Uid, check_history
from spokes.cluster.position import Position
from spokes.errors import ClusterMessageError, SnapshotError

FORMAT = 1
LINE_BYTES_MAX = 4 * 1024 * 1024
TEXT_BYTES_MAX = 4 * 1024 * 1024 * 1024
ROW_COUNT_MAX = 20_000_000
CHUNK_BYTES = 64 * 1024
COMPRESSION_LEVEL = 3                    # 10,000 tunnels: a third of the time of level 6 for a tenth more bytes


class SnapshotHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    format: Annotated[int, msgspec.Meta(ge=1, le=FORMAT)]
    cluster: Uid
    sender: Uid
    history: Epochs
    seq: Number
    digest: DigestText
    schema: Number

    @property
    def position(self) -> Position:
        return Position(self.history[-1].epoch, self.seq)


class SnapshotRow(NamedTuple):
    kind: str
    body: dict[str, Any]


class Tombstone(NamedTuple):
    """That an object was deleted, when and where in the log."""

    kind: str
    uid: str
    seq: int
    epoch: int
    time: float


_HEAD = msgspec.json.Decoder(SnapshotHead)
_LINE = msgspec.json.Decoder(list[Any])
_TOMBSTONE = msgspec.json.Decoder(tuple[Literal["gone"], KindName, Uid, Number, Number, float])
_ENCODER = msgspec.json.Encoder()
_PUT = json.JSONEncoder(separators=(",", ":"), allow_nan=False)  # of rules: lone surrogates too, as escapes


def _seal_of_lines(cluster_key: bytes) -> hmac.HMAC:
    return hmac.new(hmac.digest(cluster_key, b"spokes cluster snapshot 1", "sha256"), b"", hashlib.sha256)


def write_snapshot(
    cluster_key: bytes, head: SnapshotHead, rows: Iterable[SnapshotRow], tombstones: Iterable[Tombstone]
) -> Iterator[bytes]:
    """The stream, in chunks of about CHUNK_BYTES before compression."""
    squeezer = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    seal = _seal_of_lines(cluster_key)
    counts = [0, 0]
    pending = bytearray()

    def lines() -> Iterator[bytes]:
        yield _ENCODER.encode(head)
        for row in rows:
            counts[0] += 1
            yield _PUT.encode(("put", row.kind, row.body)).encode()
        for stone in tombstones:
            counts[1] += 1
            yield _ENCODER.encode(("gone", *stone))

    for line in lines():
        pending += line
        pending += b"\n"
        if len(pending) >= CHUNK_BYTES:
            seal.update(pending)
            yield squeezer.compress(bytes(pending))
            pending.clear()
    seal.update(pending)
    pending += _ENCODER.encode(("end", *counts, seal.hexdigest())) + b"\n"
    yield squeezer.compress(bytes(pending)) + squeezer.flush()


def read_snapshot(cluster_key: bytes, chunks: Iterable[bytes]) -> Iterator[SnapshotHead | SnapshotRow | Tombstone]:
    """The head, then rows, then tombstones; it ends well only behind the last line, and that line's HMAC fits."""
    seal = _seal_of_lines(cluster_key)
    row_count = tombstone_count = 0
    head: SnapshotHead | None = None
    lines = _lines(chunks)
    for line in lines:
        if head is None:
            head = _read_head(line)
            seal.update(line + b"\n")
            yield head
            continue
        if line.startswith(b'["end"'):
            given = _decoded(_LINE, line)
            if given[1:3] != [row_count, tombstone_count] or not hmac.compare_digest(
                seal.hexdigest(), str(given[-1]) if str(given[-1]).isascii() else ""
            ):
                raise SnapshotError("a snapshot was damaged on its way, or is of another cluster")
            if next(lines, None) is not None:
                raise SnapshotError("a snapshot has more behind its end")
            return
        seal.update(line + b"\n")
        if line.startswith(b'["gone"'):
            tombstone_count += 1
            yield Tombstone(*_decoded(_TOMBSTONE, line)[1:])
        else:
            row_count += 1
            yield _read_row(line)
        if row_count + tombstone_count > ROW_COUNT_MAX:
            raise SnapshotError(f"a snapshot has more than {ROW_COUNT_MAX} objects")
    raise SnapshotError("a snapshot was cut before its end", hint="it is asked for again")


def _read_head(line: bytes) -> SnapshotHead:
    head: SnapshotHead = _decoded(_HEAD, line)
    try:
        check_history(head.history)
    except ClusterMessageError as error:
        raise SnapshotError(f"a snapshot cannot be read: {error}") from None
    return head


def _read_row(line: bytes) -> SnapshotRow:
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SnapshotError(f"a snapshot cannot be read: {error}") from None
    if not isinstance(given, list) or [type(part) for part in given] != [str, str, dict] or given[0] != "put":
        raise SnapshotError("a snapshot has a line that is none")
    return SnapshotRow(given[1], given[2])


def _decoded(decoder: msgspec.json.Decoder[Any], line: bytes) -> Any:
    try:
        return decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SnapshotError(f"a snapshot cannot be read: {error}") from None


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Without their ends; what stands behind the last end is no line."""
    squeezed = zlib.decompressobj(16 + zlib.MAX_WBITS)
    rest, text_bytes = b"", 0
    for chunk in chunks:
        while chunk:
            if squeezed.eof:
                raise SnapshotError("a snapshot has more behind its end")
            try:
                text = squeezed.decompress(chunk, CHUNK_BYTES)
            except zlib.error as error:
                raise SnapshotError(f"a snapshot was damaged on its way: {error}") from None
            chunk = squeezed.unconsumed_tail or squeezed.unused_data
            text_bytes += len(text)
            if text_bytes > TEXT_BYTES_MAX:
                raise SnapshotError(f"a snapshot is longer than {TEXT_BYTES_MAX} bytes")
            *whole, rest = (rest + text).split(b"\n")
            yield from whole
            if len(rest) > LINE_BYTES_MAX:
                raise SnapshotError(f"a snapshot has a line longer than {LINE_BYTES_MAX} bytes")
    if rest or not squeezed.eof:
        raise SnapshotError("a snapshot was cut before its end", hint="it is asked for again")
