import json
import random
import zlib

import pytest

import spokes.cluster.snapshot as module
from spokes.cluster.history import EpochStart
from spokes.cluster.position import Epoch, Position
from spokes.cluster.snapshot import SnapshotHead, SnapshotRow, Tombstone, read_snapshot, write_snapshot
from spokes.errors import SnapshotError

KEY, A = b"k" * 32, "a" * 32
HEAD = SnapshotHead(
    format=1, cluster=A, sender=A, history=(EpochStart(1, A, 0),), seq=7, digest="0" * 64, schema=9
)
ROWS = [SnapshotRow("site", {"uid": f"{number:032x}", "domain": "é\ud800" * number}) for number in range(50)]
STONES = [Tombstone("site", "b" * 32, 3, 1, 1.5)]


def stream(head=HEAD, rows=ROWS, stones=STONES, key=KEY):
    return b"".join(write_snapshot(key, head, rows, stones))


def gzipped(*lines):
    squeezer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    return squeezer.compress(b"".join(line + b"\n" for line in lines)) + squeezer.flush()


@pytest.mark.parametrize("chunk_bytes", [1, 7, 10_000])
def test_snapshot_reads_back_however_it_is_cut(chunk_bytes):
    data = stream()
    chunks = [data[begin:begin + chunk_bytes] for begin in range(0, len(data), chunk_bytes)]
    assert list(read_snapshot(KEY, chunks)) == [HEAD, *ROWS, *STONES]
    assert HEAD.position == Position(Epoch(1, A), 7)


def test_snapshot_of_nothing_reads_back():
    assert list(read_snapshot(KEY, [stream(rows=[], stones=[])])) == [HEAD]


def test_snapshot_is_written_in_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 100)
    assert len(list(write_snapshot(KEY, HEAD, ROWS, STONES))) > 10
    assert list(read_snapshot(KEY, write_snapshot(KEY, HEAD, ROWS, STONES))) == [HEAD, *ROWS, *STONES]


def test_snapshot_cut_anywhere_refused():
    data = stream()
    for end in range(len(data)):
        with pytest.raises(SnapshotError):
            list(read_snapshot(KEY, [data[:end]]))


@pytest.mark.parametrize("seed", range(200))
def test_snapshot_flipped_bit_refused(seed):
    data = bytearray(stream())
    place = random.Random(seed).randrange(10, len(data))     # before: gzip's head, of which nothing depends
    data[place] ^= 1 << (seed % 8)
    with pytest.raises(SnapshotError):
        list(read_snapshot(KEY, [bytes(data)]))


def test_snapshot_of_another_key_refused():
    with pytest.raises(SnapshotError, match="another cluster"):
        list(read_snapshot(b"other", [stream()]))


def test_snapshot_with_more_behind_its_end_refused():
    for more in (b"x", stream()):
        with pytest.raises(SnapshotError):
            list(read_snapshot(KEY, [stream(), more]))


@pytest.mark.parametrize("change", ["drop", "repeat", "swap"])
def test_snapshot_whose_lines_were_changed_refused(change):
    lines = zlib.decompress(stream(), 16 + zlib.MAX_WBITS).splitlines()
    assert list(read_snapshot(KEY, [gzipped(*lines)])) == [HEAD, *ROWS, *STONES]
    if change == "drop":
        del lines[3]
    elif change == "repeat":
        lines.insert(3, lines[3])
    else:
        lines[3], lines[4] = lines[4], lines[3]
    with pytest.raises(SnapshotError):
        list(read_snapshot(KEY, [gzipped(*lines)]))


@pytest.mark.parametrize("line", [
    b"", b"[]", b"7", b'["put",1,{}]', b'["put","site",[]]', b'["gone"]', b"{", b'["end"]', b'["end",0,0,"\xc3\xa9"]',
])
def test_snapshot_malformed_line_refused(line):
    head = zlib.decompress(stream(rows=[]), 16 + zlib.MAX_WBITS).splitlines()[0]
    with pytest.raises(SnapshotError):
        list(read_snapshot(KEY, [gzipped(head, line)]))


@pytest.mark.parametrize("parts", [{"format": 2}, {"seq": -1}, {"history": []}, {"history": [[1, "x", 0]]}, {"x": 1}])
def test_snapshot_malformed_head_refused(parts):
    head = json.loads(zlib.decompress(stream(rows=[]), 16 + zlib.MAX_WBITS).splitlines()[0]) | parts
    with pytest.raises(SnapshotError):
        list(read_snapshot(KEY, [gzipped(json.dumps(head).encode())]))


def test_snapshot_bounds_hold(monkeypatch):
    data = stream(rows=[SnapshotRow("site", {"domain": "x" * 500_000})])
    assert len(data) < 10_000            # a few bytes that become many
    for name, bound in (("LINE_BYTES_MAX", 100_000), ("TEXT_BYTES_MAX", 200_000), ("ROW_COUNT_MAX", 1)):
        with monkeypatch.context() as patch, pytest.raises(SnapshotError):
            patch.setattr(module, name, bound)
            list(read_snapshot(KEY, [data]))
