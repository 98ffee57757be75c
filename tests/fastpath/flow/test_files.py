"""A directory as what answers behind a tunnel, with bytes on the wire and files on the disk."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from spokes._fastpath.engine import Directory, RouteKind, Site
from tests.fastpath.http.test_webpath import BROKEN, TRAVERSALS
from tests.support.engines import Pair, engine_pair, eventually, publish
from tests.support.http_wire import Ended, Message, Wire, request
from tests.support.upstreams import pattern

Visit = Callable[[], Wire]
HOST = "a.tun.test"
SECRET = b"kept back from visitors"
BIG_BYTES = 8 << 20
MODIFIED_S = 784111777


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A site, and a secret beside it."""
    (tmp_path / "secret.txt").write_bytes(SECRET)
    site = tmp_path / "site"
    (site / "sub dir").mkdir(parents=True)
    (site / "empty").mkdir()
    (site / "index.html").write_bytes(b"<p>first page")
    (site / "sub dir" / "index.html").write_bytes(b"<p>second page")
    (site / "sub dir" / "a.txt").write_bytes(b"0123456789")
    (site / "nothing.bin").touch()
    os.utime(site / "sub dir" / "a.txt", (MODIFIED_S, MODIFIED_S))
    return site


def serve(pair: Pair, root: Path, *, beneath: bool = True) -> None:
    pair.server.set_route(RouteKind.HTTP, HOST, Site(tunnels=(pair.server_tunnel,)))
    pair.client.set_route(RouteKind.HTTP, HOST, Site(directory=Directory(str(root), beneath=beneath)))
    pair.publish()


@pytest.fixture(params=[True, False], ids=["openat2", "stepwise"])
def site(pair: Pair, root: Path, request: pytest.FixtureRequest) -> Path:
    """The site, served; with the kernel's help and without."""
    serve(pair, root, beneath=request.param)
    return root


@pytest.fixture
def big(pair: Pair, root: Path) -> bytes:
    """The bytes of /big.bin."""
    data = pattern(BIG_BYTES)
    (root / "big.bin").write_bytes(data)
    serve(pair, root)
    return data


def ask(wire: Wire, target: str, *fields: str, method: str = "GET", body: bytes = b"") -> Message:
    wire.send(request(target, *fields, method=method, body=body))
    return wire.read_response(method)


def open_files(root: Path) -> list[str]:
    """What this process holds open below the directory, the directory itself left out."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            found.append(str(descriptor.readlink()))
    return [path for path in found if path.startswith(f"{root}/")]


def stalled(pair: Pair, target: str = "/big.bin") -> socket.socket:
    """A visitor that asks and reads nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", pair.ports["http"]))
    sock.sendall(request(target))
    return sock


# --- what is answered -------------------------------------------------------------------------------------------------


def test_file_is_sent_with_what_a_cache_wants_to_know(site, visit):
    answer = ask(visit(), "/sub%20dir/a.txt")
    assert answer.start == "HTTP/1.1 200 OK"
    assert answer.body == b"0123456789"
    assert answer.one("Content-Type") == "text/plain; charset=utf-8"
    assert answer.one("Content-Length") == "10"
    assert answer.one("Last-Modified") == formatdate(MODIFIED_S, usegmt=True)
    assert answer.one("ETag") == f'"{MODIFIED_S * 10**9:x}-a"'
    assert answer.one("Accept-Ranges") == "bytes"
    assert answer.one("X-Content-Type-Options") == "nosniff"
    assert answer.one("Date").endswith(" GMT")
    assert answer.all("Connection") == []


def test_one_conn_asks_for_many_files(site, visit):
    wire = visit()
    for _ in range(3):
        assert ask(wire, "/").body == b"<p>first page"
        assert ask(wire, "/nowhere").code == "SPK-NO-FILE"
        assert ask(wire, "/sub%20dir/").body == b"<p>second page"
        assert ask(wire, "/", method="HEAD").body == b""


def test_requests_sent_at_once_are_answered_in_order(site, visit):
    wire = visit()
    wire.send(request("/"), request("/nowhere"), request("/sub%20dir/a.txt"), request("/", method="OPTIONS"))
    assert [wire.read_response().status for _ in range(4)] == [200, 404, 200, 204]


def test_request_split_anywhere_gets_the_same(site, visit):
    wire = visit()
    whole = request("/sub%20dir/a.txt", "Range: bytes=3-5")
    for cut in range(1, len(whole)):
        wire.send(whole[:cut])
        wire.send(whole[cut:])
        answer = wire.read_response()
        assert (answer.status, answer.body) == (206, b"345")


def test_large_file_arrives_whole(big, visit):
    answer = ask(visit(), "/big.bin")
    assert answer.body == big
    assert answer.one("Content-Type") == "application/octet-stream"


def test_many_visitors_each_get_theirs(pair, root, big, visit):
    (root / "other.bin").write_bytes(pattern(BIG_BYTES // 4, seed=2))
    wires = [visit() for _ in range(16)]
    for number, wire in enumerate(wires):
        wire.send(request("/big.bin" if number % 2 else "/other.bin", f"Range: bytes={number * 1000}-1000000"))
    other = pattern(BIG_BYTES // 4, seed=2)
    for number, wire in enumerate(wires):
        assert wire.read_response().body == (big if number % 2 else other)[number * 1000 : 1_000_001]


def test_empty_file_has_no_body(site, visit):
    wire = visit()
    answer = ask(wire, "/nothing.bin")
    assert (answer.status, answer.one("Content-Length"), answer.body) == (200, "0", b"")
    assert ask(wire, "/nothing.bin", "Range: bytes=0-").status == 416


@pytest.mark.parametrize("name", ["grüße.txt", "a b&c.txt", "100%.txt", "%2e%2e", "a+b", "🦦", "x" * 255, "q?x"])
def test_name_of_any_letters_is_found(site, visit, name):
    (site / name).write_bytes(b"found")
    target = "/" + "".join(f"%{byte:02X}" for byte in name.encode())
    assert ask(visit(), target).body == b"found"


def test_query_is_no_part_of_the_name(site, visit):
    assert ask(visit(), "/sub%20dir/a.txt?v=/../../x&y=%zz").body == b"0123456789"


def test_head_is_the_same_without_a_body(site, visit):
    wire = visit()
    want, got = ask(wire, "/sub%20dir/a.txt"), ask(wire, "/sub%20dir/a.txt", method="HEAD")
    without_date = [[field for field in answer.fields if field[0] != "Date"] for answer in (want, got)]
    assert without_date[0] == without_date[1]
    assert ask(wire, "/nowhere", method="HEAD").code == "SPK-NO-FILE"
    assert ask(wire, "/").status == 200


@pytest.mark.parametrize("target", ["/", "/sub%20dir/a.txt", "/nowhere", "*"])
def test_options_says_what_is_allowed(site, visit, target):
    wire = visit()
    answer = ask(wire, target, method="OPTIONS")
    assert (answer.status, answer.one("Allow"), answer.all("Content-Length")) == (204, "GET, HEAD, OPTIONS", [])
    assert ask(wire, "/").status == 200


@pytest.mark.parametrize("method", ["PROPFIND", "get", "BREW"])
def test_unknown_method_is_501(site, visit, method):
    wire = visit()
    answer = ask(wire, "/", method=method)
    assert (answer.status, answer.code) == (501, "SPK-UNSUPPORTED")
    assert ask(wire, "/").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE"])
def test_other_method_is_405_with_allow(site, visit, method):
    wire = visit()
    answer = ask(wire, "/", method=method)
    assert (answer.status, answer.code, answer.one("Allow")) == (405, "SPK-METHOD", "GET, HEAD, OPTIONS")
    assert ask(wire, "/").status == 200


def test_upload_is_405_and_what_was_not_sent_yet_is_not_awaited(site, visit):
    wire = visit()
    wire.send(request("/", "Content-Length: 100000", method="POST"), b"x" * 1000)
    answer = wire.read_response()
    assert (answer.status, answer.code, answer.one("Connection")) == (405, "SPK-METHOD", "close")


@pytest.mark.parametrize("body_bytes", [1, 100_000])
def test_get_with_a_body_is_answered_and_the_body_dropped(site, visit, body_bytes):
    wire = visit()
    answer = ask(wire, "/sub%20dir/a.txt", body=b"x" * body_bytes)
    assert (answer.status, answer.body) == (200, b"0123456789")


def test_get_with_a_body_longer_than_the_answer_takes_reads_both(pair, big, visit):
    wire = visit()
    wire.send(request("/big.bin", f"Content-Length: {4 << 20}"))
    wire.send(b"x" * (4 << 20))
    assert wire.read_response().body == big


def test_get_with_broken_chunks_is_no_second_request(site, visit):
    wire = visit()
    wire.send(request("/", "Transfer-Encoding: chunked"), b"zz\r\n", request("/sub%20dir/a.txt"))
    with contextlib.suppress(Ended):
        wire.read_response()
        wire.assert_gone()


def test_http_1_0_visitor_is_answered_and_closed(site, visit):
    wire = visit()
    wire.send(request("/sub%20dir/a.txt", version="1.0"))
    assert wire.read_to_end().endswith(b"\r\n\r\n0123456789")


def test_half_closed_visitor_still_gets_its_file(big, visit):
    wire = visit()
    wire.send(request("/big.bin"))
    wire.end_sending()
    assert wire.read_response().body == big
    wire.assert_closed()


# --- conditions and ranges --------------------------------------------------------------------------------------------


def test_same_tag_or_date_is_304_without_body(site, visit):
    wire = visit()
    first = ask(wire, "/sub%20dir/a.txt")
    for field in (f"If-None-Match: {first.one('ETag')}", f"If-Modified-Since: {first.one('Last-Modified')}"):
        again = ask(wire, "/sub%20dir/a.txt", field)
        assert (again.status, again.one("ETag"), again.all("Content-Length")) == (304, first.one("ETag"), [])
        assert ask(wire, "/sub%20dir/a.txt", field, method="HEAD").status == 304
    assert ask(wire, "/").status == 200


def test_changed_file_has_another_tag(site, visit):
    wire = visit()
    first = ask(wire, "/sub%20dir/a.txt")
    (site / "sub dir" / "a.txt").write_bytes(b"9876543210")
    second = ask(wire, "/sub%20dir/a.txt", f"If-None-Match: {first.one('ETag')}")
    assert (second.status, second.body) == (200, b"9876543210")
    assert second.one("ETag") != first.one("ETag")


def test_last_modified_is_never_in_the_future(site, visit):
    os.utime(site / "index.html", (time.time() + 10**6,) * 2)
    answer = ask(visit(), "/")
    assert answer.one("Last-Modified") == answer.one("Date")


def test_range_is_206_with_its_place(site, visit):
    wire = visit()
    for value, place, body in (("2-4", "2-4/10", b"234"), ("-3", "7-9/10", b"789"), ("8-", "8-9/10", b"89")):
        answer = ask(wire, "/sub%20dir/a.txt", f"Range: bytes={value}")
        assert (answer.status, answer.one("Content-Range"), answer.body) == (206, f"bytes {place}", body)
        assert answer.one("Content-Length") == str(len(body))


def test_range_behind_the_end_is_416_and_keeps_the_conn(site, visit):
    wire = visit()
    answer = ask(wire, "/sub%20dir/a.txt", "Range: bytes=10-")
    assert (answer.status, answer.code, answer.one("Content-Range")) == (416, "SPK-RANGE", "bytes */10")
    assert ask(wire, "/").status == 200


def test_several_ranges_are_the_whole_file(site, visit):
    answer = ask(visit(), "/sub%20dir/a.txt", "Range: bytes=0-1,5-6")
    assert (answer.status, answer.body) == (200, b"0123456789")


def test_if_range_of_another_version_is_the_whole_file(site, visit):
    wire = visit()
    tag = ask(wire, "/sub%20dir/a.txt").one("ETag")
    assert ask(wire, "/sub%20dir/a.txt", "Range: bytes=1-2", f"If-Range: {tag}").body == b"12"
    assert ask(wire, "/sub%20dir/a.txt", "Range: bytes=1-2", 'If-Range: "old"').body == b"0123456789"


def test_if_match_of_another_version_is_412(site, visit):
    wire = visit()
    answer = ask(wire, "/", 'If-Match: "old"')
    assert (answer.status, answer.code) == (412, "SPK-PRECONDITION")
    assert ask(wire, "/").status == 200


def test_ranges_put_together_are_the_file(big, visit):
    wire = visit()
    step = 1_234_567
    parts = [ask(wire, "/big.bin", f"Range: bytes={at}-{at + step - 1}").body for at in range(0, BIG_BYTES, step)]
    assert b"".join(parts) == big


# --- directories ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/sub%20dir", "/sub%20dir/"),
        ("/sub%20dir?a=1&b=%2F", "/sub%20dir/?a=1&b=%2F"),
        ("//sub%20dir", "/sub%20dir/"),
        ("///empty//..", None),
        ("/empty", "/empty/"),
    ],
)
def test_directory_without_its_slash_is_redirected_within_the_site(site, visit, target, location):
    answer = ask(visit(), target)
    if location is None:
        assert answer.code == "SPK-NO-FILE"
    else:
        assert (answer.status, answer.one("Location"), answer.one("Content-Length")) == (308, location, "0")


def test_directory_named_like_a_host_is_no_open_redirect(site, visit):
    (site / "evil.example").mkdir()
    assert ask(visit(), "//evil.example").one("Location") == "/evil.example/"


def test_directory_is_not_listed(site, visit):
    assert ask(visit(), "/empty/").code == "SPK-NO-FILE"


def test_index_that_is_a_directory_is_404(site, visit):
    (site / "empty" / "index.html").mkdir()
    assert ask(visit(), "/empty/").code == "SPK-NO-FILE"
    assert ask(visit(), "/empty/index.html").status == 308


def test_file_with_a_slash_is_404(site, visit):
    assert ask(visit(), "/index.html/").code == "SPK-NO-FILE"
    assert ask(visit(), "/index.html/x").code == "SPK-NO-FILE"


# --- what no visitor gets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in TRAVERSALS if path.startswith(b"/")], ids=repr)
def test_path_that_leads_out_or_is_hidden_is_404(site, visit, path):
    (site / ".env").write_bytes(SECRET)
    (site / "a").mkdir()
    (site / "a" / ".well-known").mkdir()
    (site / "a" / ".well-known" / "x").write_bytes(SECRET)
    wire = visit()
    wire.send(b"GET " + path + b" HTTP/1.1\r\nHost: a.tun.test\r\n\r\n")
    answer = wire.read_response()
    assert (answer.status, answer.code) == (404, "SPK-NO-FILE")
    assert SECRET not in answer.body
    assert ask(wire, "/").status == 200


@pytest.mark.parametrize("path", [path for path in BROKEN if b" " not in path], ids=repr)
def test_path_with_a_broken_escape_is_400(pair, root, visit, path):
    serve(pair, root)
    wire = visit()
    wire.send(b"GET " + path + b" HTTP/1.1\r\nHost: a.tun.test\r\n\r\n")
    assert wire.read_response().code == "SPK-BAD-REQUEST"


@pytest.mark.parametrize("target", ["http://a.tun.test/../secret.txt", "http://a.tun.test/%2e%2e/secret.txt"])
def test_absolute_form_gets_no_further(site, visit, target):
    assert ask(visit(), target).code == "SPK-NO-FILE"


def test_absolute_form_of_a_file_is_found(site, visit):
    assert ask(visit(), "http://a.tun.test/sub%20dir/a.txt").body == b"0123456789"
    assert ask(visit(), "http://a.tun.test").body == b"<p>first page"


def test_well_known_at_the_top_is_served(site, visit):
    (site / ".well-known" / "acme-challenge").mkdir(parents=True)
    (site / ".well-known" / "acme-challenge" / "token").write_bytes(b"proof")
    assert ask(visit(), "/.well-known/acme-challenge/token").body == b"proof"


@pytest.mark.parametrize(
    "make",
    [
        lambda site: (site / "link").symlink_to(site.parent / "secret.txt"),
        lambda site: (site / "link").symlink_to("../secret.txt"),
        lambda site: (site / "link").symlink_to("sub dir/../../secret.txt"),
        lambda site: ((site / "out").symlink_to(".."), (site / "link").symlink_to("out/secret.txt")),
        lambda site: (site / "link").symlink_to("/proc/self/root/etc/passwd"),
        lambda site: (site / "link").symlink_to("/dev/zero"),
        lambda site: (site / "link").symlink_to("link"),
        lambda site: (site / "link").symlink_to("gone"),
    ],
    ids=["absolute", "relative", "in and out", "over another", "magic", "device", "loop", "dangling"],
)
def test_link_that_leads_out_is_404(site, visit, make):
    make(site)
    assert ask(visit(), "/link").code == "SPK-NO-FILE"


def test_linked_directory_outside_is_404(site, visit):
    (site / "link").symlink_to(site.parent)
    wire = visit()
    for target in ("/link", "/link/", "/link/secret.txt", "/link/site/index.html"):
        assert ask(wire, target).code == "SPK-NO-FILE"


def test_link_that_stays_inside_is_followed_where_the_kernel_holds_it(pair, root, visit):
    (root / "link.txt").symlink_to("sub dir/a.txt")
    (root / "sub").symlink_to("sub dir")
    serve(pair, root)
    assert ask(visit(), "/link.txt").body == b"0123456789"
    assert ask(visit(), "/sub/a.txt").body == b"0123456789"


def test_link_is_never_followed_step_by_step(pair, root, visit):
    (root / "link.txt").symlink_to("sub dir/a.txt")
    (root / "sub").symlink_to("sub dir")
    serve(pair, root, beneath=False)
    assert ask(visit(), "/link.txt").code == "SPK-NO-FILE"
    assert ask(visit(), "/sub/a.txt").code == "SPK-NO-FILE"


@pytest.fixture
def odd_files(site: Path) -> Iterator[None]:
    os.mkfifo(site / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    here = os.open(site, os.O_PATH)
    listener.bind(f"/proc/self/fd/{here}/socket")  # a short name for a long path
    yield
    listener.close()
    os.close(here)


def test_no_regular_file_is_404_at_once(site, odd_files, visit):
    wire = visit()
    for target in ("/fifo", "/socket", "/fifo/", "/fifo/x"):
        assert ask(wire, target).code == "SPK-NO-FILE"
    assert ask(wire, "/").status == 200


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_that_may_not_be_read_is_404(site, visit):
    (site / "index.html").chmod(0)
    assert ask(visit(), "/").code == "SPK-NO-FILE"


def test_name_longer_than_any_file_system_holds_is_404(site, visit):
    wire = visit()
    for name in ("x" * 256, "x/" * 1999, "x" * 4001, "%78" * 2000):
        assert ask(wire, f"/{name}").code == "SPK-NO-FILE"


# --- what changes meanwhile -------------------------------------------------------------------------------------------


def test_file_that_shrinks_resets_the_stream(pair, root, big):
    with stalled(pair) as sock:
        eventually(lambda: pair.server.stats()["requests_total"] == 1)
        wire = Wire(sock)
        head = wire.read_head()
        os.truncate(root / "big.bin", 100_000)
        with pytest.raises(Ended) as ended:
            wire.read(int(head.one("Content-Length")))
        assert ended.value.reset
        assert big.startswith(ended.value.got)


def test_file_that_grows_is_sent_as_long_as_promised(pair, root, big):
    with stalled(pair) as sock:
        wire = Wire(sock)
        head = wire.read_head()
        with (root / "big.bin").open("ab") as file:
            file.write(b"more" * 100_000)
        assert wire.read(int(head.one("Content-Length"))) == big
        wire.send(request("/"))
        assert wire.read_response().body == b"<p>first page"


def test_file_that_is_deleted_is_still_sent(pair, root, big):
    with stalled(pair) as sock:
        wire = Wire(sock)
        head = wire.read_head()
        (root / "big.bin").unlink()
        assert wire.read(int(head.one("Content-Length"))) == big


def test_route_that_is_dropped_lets_downloads_end(pair, root, big):
    with stalled(pair) as sock:
        wire = Wire(sock)
        head = wire.read_head()
        pair.client.drop_route(RouteKind.HTTP, HOST)
        pair.publish()
        assert wire.read(int(head.one("Content-Length"))) == big
        wire.send(request("/"))
        assert wire.read_response().code == "SPK-NO-RULE"


def test_directory_that_is_deleted_answers_404(pair, tmp_path, visit):
    gone = tmp_path / "gone"
    gone.mkdir()
    serve(pair, gone)
    gone.rmdir()
    assert ask(visit(), "/").code == "SPK-NO-FILE"


def test_directory_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        Directory(str(tmp_path / "nowhere"))
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        Directory(str(tmp_path / "file"))


def test_directory_closes_its_descriptor_with_the_last_route(tmp_path, visit, pair, root):
    directory = Directory(str(root))
    assert directory.identity == (root.stat().st_dev, root.stat().st_ino)
    pair.server.set_route(RouteKind.HTTP, HOST, Site(tunnels=(pair.server_tunnel,)))
    pair.client.set_route(RouteKind.HTTP, HOST, Site(directory=directory))
    pair.publish()
    del directory
    assert ask(visit(), "/").status == 200
    assert open_files(tmp_path) == [str(root)]
    pair.client.drop_route(RouteKind.HTTP, HOST)
    pair.publish()
    eventually(lambda: open_files(tmp_path) == [])


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_stalled_download_holds_one_descriptor_and_no_buffer(pair, root, big):
    """What waits is in the visitor's window at the server; the client's engine holds nothing."""
    visitors = [stalled(pair) for _ in range(20)]
    try:
        eventually(lambda: pair.client.stats()["streams_open"] == 20)
        eventually(lambda: pair.client.stats()["buffer_bytes"] == 0)
        eventually(lambda: still(lambda: pair.client.stats()["link_bytes_out"]))
        assert pair.client.stats()["buffer_bytes"] == 0
        assert open_files(root) == [f"{root}/big.bin"] * 20
    finally:
        for sock in visitors:
            sock.close()
    pair.assert_idle()
    assert open_files(root) == []


def still(read: Callable[[], int]) -> bool:
    """The same value over a while: nothing moves any more."""
    first = read()
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        if read() != first:
            return False
    return True


def test_slow_reader_gets_all_while_others_are_served(pair, big, visit):
    with stalled(pair) as sock:
        wire = visit()
        for _ in range(10):
            assert ask(wire, "/").body == b"<p>first page"
        slow = Wire(sock)
        assert slow.read(int(slow.read_head().one("Content-Length"))) == big


@pytest.mark.parametrize("how", ["close", "abort"])
def test_download_that_is_left_closes_its_file(pair, root, big, how):
    for _ in range(50):
        wire = Wire(stalled(pair))
        wire.read_head()
        getattr(wire, how)()
    pair.assert_idle()
    assert open_files(root) == []


def test_link_that_is_cut_closes_files(pair, root, big):
    with stalled(pair) as sock:
        Wire(sock).read_head()
        assert open_files(root) == [f"{root}/big.bin"]
        pair.client.abort_link(pair.client_link)
        eventually(lambda: open_files(root) == [])


@pytest.mark.parametrize("target", ["/", "/nothing.bin", "/sub%20dir", "/empty/", "/nowhere", "/sub%20dir/a.txt"])
def test_answer_that_is_whole_has_closed_its_file(pair, root, visit, target):
    serve(pair, root)
    wire = visit()
    for fields in ([], ["Range: bytes=1-2"], ["Range: bytes=100-"], ["If-None-Match: *"], ['If-Match: "x"']):
        ask(wire, target, *fields)
        ask(wire, target, *fields, method="HEAD")
    assert open_files(root) == []


def test_out_of_descriptors_is_503_and_passes(pair, big, visit):
    wire = visit()
    assert ask(wire, "/").status == 200
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))  # every descriptor in use stays, none is added
    try:
        answer = ask(wire, "/")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (answer.status, answer.code) == (503, "SPK-LIMIT")
    assert ask(wire, "/").status == 200


def test_full_memory_delays_and_loses_nothing(root):
    """More downloads at once than the memory limit could hold."""
    data = pattern(2 << 20)
    (root / "big.bin").write_bytes(data)
    with engine_pair(memory_limit_bytes=8 << 20) as pair:
        serve(pair, root)
        wires = [Wire(stalled(pair)) for _ in range(24)]
        for wire in wires:
            assert wire.read(int(wire.read_head().one("Content-Length"))) == data
            wire.close()
        pair.assert_idle()


@pytest.mark.parametrize("scheme", ["http", "tls"])
def test_directory_of_the_engine_that_faces_the_visitor(pair, root, visit, scheme):
    """The same stage with a socket in front instead of a stream."""
    data = pattern(BIG_BYTES)
    (root / "big.bin").write_bytes(data)
    pair.server.set_route(RouteKind.HTTP, HOST, Site(directory=Directory(str(root))))
    publish(pair.server)
    sock = socket.create_connection(("127.0.0.1", pair.ports[scheme]))
    if scheme == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        sock = context.wrap_socket(sock, server_hostname=HOST)
    with Wire(sock) as wire:
        wire.send(request("/"), request("/big.bin"), request("/nowhere"), request("/big.bin", "Range: bytes=-9"))
        answers = [wire.read_response() for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 404, 206]
    assert (answers[1].body, answers[3].body) == (data, data[-9:])
    assert open_files(root) == []
