"""Imports go down only, and each library stays in its room."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "spokes"

# What a room may import; single modules at the top of the package are their own rooms.
ALLOWED = {
    "cli": {"server", "admin", "client", "model", "store", "cluster", "wire", "_fastpath", "modules"},
    "admin": {"model", "store", "cluster", "wire", "modules"},
    "server": {"model", "store", "cluster", "wire", "_fastpath", "modules"},
    "client": {"wire", "_fastpath", "modules"},
    "model": {"store", "cluster", "wire", "modules"},
    "store": {"cluster", "modules"},
    "cluster": {"modules"},
    "wire": {"modules"},
    "_fastpath": {"modules"},
    "modules": {"modules"},
}
ONLY_IN = {"falcon": {"admin"}, "gunicorn": {"admin"}, "peewee": {"store"}, "playhouse": {"store"}, "click": {"cli"},
           "httpcore2": {"modules"}}

# Rooms of the engine and their modules, lowest first: a module may cimport those before it. `engine` is above all but
# the hooks.
ENGINE_ROOMS = {
    "base": [
        "types", "counted", "reason", "net", "address", "stats", "buf", "timer", "ring", "poller", "throttle",
        "access_log",
    ],
    "http": [
        "ascii", "host", "httpdate", "http1_body", "mediatype", "webpath", "page", "http1_message", "http1_fields",
        "http1_head", "http1_write", "http1", "conditional",
    ],
    "tls": ["openssl", "tls_words", "certificate", "tls_context", "tls", "hello"],
    "route": ["outcome", "tunnel", "site", "route"],
    "io": [
        "conn_state", "loop", "tune", "conn_socket", "conn_tls", "conn", "end", "conn_linger", "conn_kind", "conn_life",
    ],
    "link": [
        "frame", "backlog", "link_state", "link_choice", "site_links", "link_line", "link_send", "stream_count",
        "link_datagrams", "tunnel_slots", "stream_credit", "stream", "link_end", "stream_kind", "stream_open",
        "stream_relief", "link_receive", "link",
    ],
    "policy": ["policy", "policy_limits", "policy_secure", "policies"],
    "flow": [
        "fault", "own_address", "upstream", "relay", "files", "exchange_state", "exchange_io", "exchange",
        "exchange_answer", "exchange_response", "exchange_request", "udp_state", "udp_peers", "udp_socket",
        "udp_listener", "udp_flow",
    ],
    "core": ["shared", "events", "sweep", "links", "visitor", "listener", "handover", "worker"],
    "bindings": [
        "codes", "socket_address", "upstream", "directory", "certificate", "pages", "threads", "listeners", "slots",
        "nodes", "site", "routes", "links", "counters", "events",
    ],
    "hooks": [
        "tls_hooks", "io_hooks", "base_hooks", "flow_hooks", "hello_hooks", "http1_hooks", "http_hooks", "link_hooks",
        "route_hooks",
    ],
}  # fmt: skip
ENGINE = PACKAGE / "_fastpath"
ENGINE_ORDER = [f"{room}.{module}" for room, modules in ENGINE_ROOMS.items() for module in modules]
ENGINE_FILES = sorted(ENGINE.rglob("*.p[yx][xd]"))


def engine_module(path: Path) -> str:
    """`room.module`, as in ENGINE_ORDER."""
    return ".".join(path.relative_to(ENGINE).with_suffix("").parts)


# Rooms inside the server, lowest first: a module may import from its own room and from those before it.
SERVER_ORDER = ["base", "routing", "usage", "sessions", "nodes", "certificates", "notify", "cluster", "process"]


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else "modules"


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


PYTHON_FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path):
    room = room_of(path)
    for name in imported_modules(path):
        head, *rest = name.split(".")
        if head != "spokes" or not rest:
            assert room in ONLY_IN.get(head, {room}), f"{head} belongs to {ONLY_IN[head]}"
            continue
        target = rest[0] if (PACKAGE / rest[0]).is_dir() else "modules"
        assert target == room or target in ALLOWED[room], f"{room} may not import {name}"


def test_server_has_modules_in_its_rooms_only():
    assert {path.parent.name for path in (PACKAGE / "server").rglob("*.py")} == {"server", *SERVER_ORDER}
    assert [path.name for path in (PACKAGE / "server").glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("path", sorted((PACKAGE / "server").glob("*/*.py")), ids=lambda path: path.stem)
def test_server_rooms_know_only_lower_ones(path):
    place = SERVER_ORDER.index(path.parent.name)
    for name in imported_modules(path):
        if name.startswith("spokes.server."):
            assert SERVER_ORDER.index(name.split(".")[2]) <= place, f"{path.parent.name} may not import {name}"


def server_imports() -> dict[str, set[str]]:
    """Each module of the server with the modules of the server that it imports."""
    modules = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path
               for path in (PACKAGE / "server").rglob("*.py")}  # fmt: skip
    return {name: imported_modules(path) & modules.keys() for name, path in modules.items()}


def test_server_modules_import_in_no_circle():
    left = server_imports()
    while leaves := {name for name, needed in left.items() if not needed & left.keys() - {name}}:
        left = {name: needed for name, needed in left.items() if name not in leaves}
    assert left == {}


@pytest.mark.parametrize("path", ENGINE_FILES, ids=engine_module)
def test_engine_modules_know_only_lower_ones(path):
    order = [name for name in ENGINE_ORDER if not name.startswith("hooks.")]
    order += ["engine", *(name for name in ENGINE_ORDER if name.startswith("hooks."))]
    module = engine_module(path)
    place = order.index(module)
    for name in re.findall(r"^\s*from spokes\._fastpath\.([\w.]+) c?import\b", path.read_text(), re.MULTILINE):
        assert name == module or order.index(name) < place, f"{module} may not cimport {name}"


SEEN_FROM_PYTHON = {"bindings", "hooks"}


def test_only_bindings_hooks_and_the_engine_are_seen_from_python():
    for path in ENGINE.rglob("*.pyx"):
        if path.stem != "engine" and path.parent.name not in SEEN_FROM_PYTHON:
            found = re.findall(r"^(?:def|cpdef|cdef class|class) .*", path.read_text(), re.MULTILINE)
            assert not found, (engine_module(path), found)


def test_every_room_of_the_engine_has_only_the_modules_that_are_listed():
    assert {engine_module(path) for path in ENGINE_FILES} == {*ENGINE_ORDER, "engine"}


def signatures(source: str) -> list[str]:
    """Heads of the C functions of a file, each on one line, however many it takes there."""
    found = re.findall(r"^(cdef [^\n=:#]*?\((?:[^()]|\([^()]*\))*\)[^\n]*)$", source, re.MULTILINE)
    heads = [re.sub(r"\s+", " ", head.split("#")[0]).strip() for head in found]
    return [head for head in heads if not head.startswith(("cdef extern", "cdef struct", "cdef class"))]


def test_signatures_are_seen_over_several_lines():
    source = "cdef int one(int a,\n    int (*f)(int) noexcept nogil) except -1:\n    pass\ncdef int two = g(1)\n"
    assert signatures(source) == ["cdef int one(int a, int (*f)(int) noexcept nogil) except -1:"]


@pytest.mark.parametrize("path", ENGINE_FILES, ids=engine_module)
def test_engine_functions_are_noexcept_nogil(path):
    """Without noexcept each caller would take the GIL whenever a function answers -1."""
    if path.stem == "engine":
        return
    for head in signatures(path.read_text()):
        # Python objects: never on a worker.
        has_objects = " except" in head or re.search(r"\b(dict|bytes|list|str)\b", head)
        assert (has_objects and path.parent.name in SEEN_FROM_PYTHON) or re.search(r"noexcept nogil\W*$", head), head


def test_only_kinds_of_ends_know_what_an_end_is():
    """A further kind is one more file: no field of an end says what it is, only its kind's table does, which nobody
    above the kinds compares or reaches past `end` for."""
    kinds = {"conn_kind", "stream_kind"}
    makers = {"conn_life", "stream_open"}
    for path in ENGINE_FILES:
        source = path.read_text()
        assert bool(re.search(r"^cdef EndKind \w+", source, re.MULTILINE)) == (path.stem in kinds), path.name
        assert bool(re.search(r"\.kind = &\w+_kind\b", source)) == (path.name in {f"{maker}.pyx" for maker in makers})
        if path.stem not in kinds | makers:
            assert not re.search(r"\b(?:conn|stream)_kind\b|\bEND_(?:CONN|STREAM)\b", source), path.name
        if path.stem != "end":
            past_end = r"(?:\bend|\b(?:down|up)stream|\bto|\bsource)(?:\.|->)kind\b(?! = )"
            assert not re.search(past_end, source), path.name


def test_no_exchange_or_relay_casts_the_visitors_end():
    for path in sorted(ENGINE.rglob("*.pyx")):
        if path.stem.startswith("exchange") or path.stem == "relay":
            assert not re.search(r"<(?:Conn|Stream) \*>(?:x\.)?downstream\b", path.read_text()), path.name


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_configuration_is_written_by_operations_alone(path):
    """A writing transaction of the change log begins in spokes/model/, or in the facet of something that happens."""
    if room_of(path) in ("model", "store"):
        return
    imported = imported_modules(path)
    assert "spokes.store.changes.Writer" not in imported
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr != "transaction", f"line {node.lineno}: ask for an operation of spokes/model/"


HAPPENINGS = {
    "access_records", "alerts", "audit", "changes", "consumer_offsets", "deliveries", "logins", "result_snapshots",
}


@pytest.mark.parametrize("path", sorted((PACKAGE / "store").glob("*.py")), ids=lambda path: path.name)
def test_facet_of_configuration_begins_no_transaction(path):
    """It is given one, by the operation that checks."""
    begins = re.search(r"_changes\.transaction\(", path.read_text())
    assert not begins or path.stem in HAPPENINGS, path.name


def architecture_rooms(heading: str) -> list[str]:
    """What stands between backquotes in the first column of the table below the line that begins so."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    table = re.match(r"(?:\|.*\n)+", text[text.index(heading):])
    assert table is not None
    return [name for line in table[0].splitlines()[2:] for name in re.findall(r"`([^`]+)`", line.split("|")[1])]


def folders(path: Path) -> set[str]:
    return {folder.parent.name for folder in path.glob("*/__init__.py")}


def test_architecture_lists_the_rooms_and_modules_that_there_are():
    listed = [name.removeprefix("spokes/") for name in architecture_rooms("| room | what happens there")]
    modules = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert sorted(listed) == sorted({f"{folder}/" for folder in folders(PACKAGE)} | modules)
    assert {room for room in ALLOWED if room != "modules"} == folders(PACKAGE)


def test_architecture_lists_the_rooms_of_server_and_engine_in_their_order():
    listed = [name.rstrip("/") for name in architecture_rooms("| in `spokes/server/`")]
    assert set(listed) == folders(PACKAGE / "server")
    text = (ROOT / "ARCHITECTURE.md").read_text()
    paragraph = text[text.index("The engine has rooms of its own"):text.index("and above them `engine`")]
    assert re.findall(r"`(\w+)`", paragraph) == list(ENGINE_ROOMS)
