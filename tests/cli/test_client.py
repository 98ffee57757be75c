"""`spoke` as a user types it, over a fake engine."""

import asyncio
import contextlib
import io
import json
import os
import signal
import socket
import stat
import threading
import time

import pytest

import spokes
from spokes._fastpath.engine import LinkDown
from spokes.cli.client import spoke
from spokes.cli.client_console import OneAddressConsole
from spokes.cli.entry import run_program
from spokes.client import app, routes
from spokes.client import engine as client_engine
from spokes.client.access_file import access_path
from spokes.client.local_api import LocalApi
from spokes.client.local_caller import LocalCaller
from spokes.client.status import PlainConsole
from spokes.client.tables import port_table
from spokes.machine import Limit
from spokes.wire.messages import Accepted, Answer, Bye, Fault, PortResult
from spokes.wire.rules import Port
from tests.client.fake_engine import HOSTNAME, UID, FakeEngine, FakeServer, FakeUpstream
from tests.support.name_server import name_server
from tests.support.threads import join_thread

PIN = "ab" * 32


class Run:
    """What one command line left behind."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def server():
    server = FakeServer()
    server.answers = {
        "tcp.allocate": lambda args: server.allocate(22197),
        "tcp.release": lambda args: {},
        "tunnel.edit": lambda args: {"name": args["name"]},
        "tunnel.info": lambda args: {"addresses": [":8080", ":8443"], "hostname": HOSTNAME},
    }
    return server


@pytest.fixture
def engines(server, monkeypatch):
    """Every engine that a command makes; all end at one server."""
    made = []

    def make(**_):
        made.append(FakeEngine(server))
        made[-1].refused = dict(make.refused)
        return made[-1]

    make.refused = {}
    make.made = made
    monkeypatch.setattr(client_engine, "control_engine", make)
    monkeypatch.setattr(client_engine, "serving_engine", make)
    monkeypatch.setattr(routes, "Upstream", FakeUpstream)
    return make


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("SPOKE")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.stdin", io.StringIO())


@pytest.fixture
def run(engines, capsys):
    def run(*args):
        capsys.readouterr()
        code = run_program(spoke, "spoke", args)
        captured = capsys.readouterr()
        return Run(code, captured.out, captured.err)

    return run


@pytest.fixture
def config(tmp_path):
    path = tmp_path / ".spoke" / "config.json"
    path.parent.mkdir(mode=0o700)
    path.write_text(
        json.dumps({"hostname": HOSTNAME, "serverHost": "127.0.0.1:8443", "serverKey": PIN, "key": "k" * 64})
    )
    path.chmod(0o600)
    return path


def saved(path):
    return json.loads(path.read_text())


def assert_one_error_line(run, *words):
    assert run.code == 1
    assert run.out == ""
    assert run.err.startswith("spoke: ")
    assert run.err.count("\n") == 1
    assert "SPK-" in run.err
    for word in words:
        assert word in run.err


# configure


def test_configure_registers_and_writes_the_file(run, server, engines, tmp_path):
    done = run("configure", "--url", "https://127.0.0.1:8443", "--token", "t" * 64, "--server-key", PIN, "--name", "x")
    assert done.code == 0
    assert done.out.splitlines()[0] == f"Hostname: {HOSTNAME}"
    assert "spoke http" in done.out.splitlines()[1]
    path = tmp_path / ".spoke" / "config.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    document = saved(path)
    assert {key: document[key] for key in ("hostname", "serverHost", "serverKey", "key", "tunnel", "name")} == {
        "hostname": HOSTNAME, "serverHost": "127.0.0.1:8443", "serverKey": PIN, "key": "k" * 64, "tunnel": UID,
        "name": "x",
    }  # fmt: skip
    assert engines.made[0].pins == [bytes.fromhex(PIN)]
    assert engines.made[0].stopped
    assert server.registrations[0].token == "t" * 64


def test_configure_json_is_one_object_without_secrets(run):
    done = run("configure", "--url", "127.0.0.1:8443", "--token", "t" * 64, "--json")
    assert done.json["hostname"] == HOSTNAME
    assert "k" * 64 not in done.out
    assert "t" * 64 not in done.out + done.err


def test_configure_everything_by_environment(run, server, monkeypatch, tmp_path):
    (tmp_path / "token").write_text("t" * 64 + "\n")
    monkeypatch.setenv("SPOKE_URL", "https://127.0.0.1:8443")
    monkeypatch.setenv("SPOKE_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("SPOKE_SERVER_KEY", PIN)
    monkeypatch.setenv("SPOKE_CONFIG", str(tmp_path / "elsewhere.json"))
    assert run("configure").code == 0
    assert server.registrations[0].token == "t" * 64
    assert saved(tmp_path / "elsewhere.json")["serverKey"] == PIN


@pytest.mark.parametrize(
    ("args", "word"),
    [
        ((), "--url"),
        (("--url", "https://127.0.0.1"), "--token"),
        (("--url", "http://127.0.0.1", "--token", "t"), "--url"),
        (("--url", "https://127.0.0.1/path", "--token", "t"), "--url"),
        (("--url", "https://127.0.0.1:99999", "--token", "t"), "--url"),
        (("--url", "https://127.0.0.1", "--token", "t", "--ca", "/no/such/file"), "--ca"),
    ],
)
def test_configure_in_a_pipe_missing_option_is_named(run, engines, args, word):
    done = run("configure", *args)
    assert done.code == 2
    assert word in done.err
    assert engines.made == []


def test_configure_bad_fingerprint_sends_nothing(run, engines):
    done = run("configure", "--url", "https://127.0.0.1", "--token", "t", "--server-key", "beef")
    assert_one_error_line(done, "fingerprint")
    assert engines.made == []


def test_configure_wrong_server_key_shows_both_and_sends_nothing(run, server, engines, tmp_path):
    engines.refused["127.0.0.1"] = (LinkDown.PIN, b"found sha256:cdcd, want sha256:abab")
    done = run("configure", "--url", "https://127.0.0.1:8443", "--token", "t" * 64, "--server-key", PIN)
    assert_one_error_line(done, "SPK-SERVER-KEY", "sha256:cdcd", "sha256:abab")
    assert server.registrations == []
    assert not (tmp_path / ".spoke" / "config.json").exists()


def test_configure_wrong_token_says_what_to_do(run, server):
    server.bye = Bye(code="SPK-TOKEN", message="unknown token; `spokes token create` makes one", retry=False)
    done = run("configure", "--url", "https://127.0.0.1:8443", "--token", "t" * 64)
    assert_one_error_line(done, "SPK-TOKEN", "spokes token create")
    assert "t" * 64 not in done.err


def test_configure_untrusted_certificate_says_how_to_trust_it(run, server, engines):
    engines.refused["127.0.0.1"] = (LinkDown.TLS, b"certificate verify failed (self-signed certificate)")
    done = run("configure", "--url", "https://127.0.0.1:8443", "--token", "t" * 64)
    assert_one_error_line(done, "SPK-SERVER-KEY", "self-signed", "--server-key", "--ca")
    assert server.registrations == []


def test_configure_file_cannot_be_written_registers_nothing(run, engines, tmp_path):
    (tmp_path / "file").write_text("")
    done = run(
        "configure", "--url", "https://127.0.0.1:8443", "--token", "t", "--config", str(tmp_path / "file" / "c.json")
    )
    assert_one_error_line(done, "SPK-CONFIG", "cannot write")
    assert engines.made == []


@pytest.mark.parametrize("words", [("configure", "--url", "https://127.0.0.1", "--token", "t"), ("edit",)])
def test_name_too_long_is_wrong_usage(run, config, engines, words):
    done = run(*words, "--name", "n" * 256)
    assert done.code == 2
    assert "--name" in done.err
    assert "at most 255" in done.err
    assert engines.made == []


@pytest.mark.parametrize("port", ["0", "65536", "abc", "-1", "8080.0", "٣", "9" * 5000])
def test_port_out_of_range_or_no_number_is_wrong_usage(run, config, port):
    done = run("tunnel", "http", "add", "--domain", "a.example", "--http", port)
    assert done.code == 2
    assert "ports are 1-65535" in done.err


def test_start_while_a_client_runs_is_refused_and_leaves_it_alone(run, config, engines, monkeypatch):
    running = LocalCaller("127.0.0.1", 1, "token", 4711)
    monkeypatch.setattr(LocalCaller, "find", lambda path: running if path == config else None)
    assert_one_error_line(run("start"), "already runs", "4711")
    assert engines.made == []


@pytest.mark.parametrize("verb", ["http", "tcp"])
def test_serve_neither_port_nor_command_names_the_commands(run, config, verb):
    done = run(verb, "frob")
    assert done.code == 2
    assert "'frob' is no port and no command" in done.err
    assert "ls" in done.err


@pytest.mark.parametrize(
    "destination", ["no host!", "127.0.0.1:80", "http://127.0.0.1", "unix:run/app.sock", "a..b", "[::1"]
)
@pytest.mark.parametrize(
    "words",
    [
        ("http", "add", "--domain", "a.example", "--http", "80"),
        ("tcp", "forward", "--dstport", "22"),
        ("http", "8080"),
        ("tcp", "22"),
    ],
)
def test_destination_that_is_no_place_is_refused_before_anything(run, config, engines, words, destination):
    before = config.read_bytes()
    done = run(*words, "--destination", destination)
    assert_one_error_line(done, "SPK-RULE", "destination")
    assert config.read_bytes() == before
    assert engines.made == []


@pytest.mark.parametrize(
    "destination", ["my_service", "db.lan.", "10.0.0.1", "::1", "[::1]", "unix:/run/a b.sock", "bücher"]
)
def test_destination_of_every_kind_is_taken(run, config, destination):
    assert run("http", "add", "--domain", "a.example", "--http", "80", "--destination", destination).code == 0


def test_check_config_names_what_is_unknown_and_what_is_wrong(run, config):
    document = json.loads(config.read_text())
    assert run("check-config").code == 0
    config.write_text(json.dumps(document | {"serverkey": "x", "fromTheFuture": 1}))
    done = run("check-config", "--json")
    facts = json.loads(done.out)
    assert (done.code, facts["unknown"], facts["problems"]) == (0, ["serverkey", "fromTheFuture"], [])
    assert facts["memory_limit_bytes"] >= 16 * 1024 * 1024
    assert facts["memory_source"]
    assert "did you mean 'serverKey'?" in done.err
    config.write_text(json.dumps({**document, "key": "", "https": [{"domain": "a.example", "webRoot": "/no/where"}]}))
    done = run("check-config", "--json")
    assert [one["code"] for one in json.loads(done.out)["problems"]] == ["SPK-CONFIG", "SPK-WEBROOT"]
    assert done.code == 1


def test_configuration_that_is_missing_is_to_be_made_where_it_was_looked_for(run, config):
    config.unlink()
    assert run("info").err.count("type: spoke configure [SPK-CONFIG]") == 1
    assert "type: spoke configure --config '/a b/c.json' [SPK-CONFIG]" in run("--config", "/a b/c.json", "info").err


def test_usage_of_a_word_that_serves_and_groups_is_typed_as_it_stands(run, config):
    assert "Usage: spoke http [OPTIONS] [PORT]" in run("http", "99999").err


def test_port_that_leads_nowhere_is_reserved_not_running():
    table = port_table([Port(port=22000), Port(port=22001, destination="a", dst_port=1)], Accepted(
        ports=(PortResult(port=22000), PortResult(port=22001))
    ))
    assert [line.split(" | ")[-1] for line in table.splitlines()[2:]] == ["reserved", "running"]


def test_engine_of_a_client_is_as_large_as_check_config_says(run, config, monkeypatch):
    asked = []
    monkeypatch.setattr(client_engine, "serving_engine", lambda **size: asked.append(size) or 1 / 0)
    monkeypatch.setattr(client_engine, "memory_limit", lambda: Limit(300 << 20, "a test"))
    for words in ([], ["--memory-limit", "64"], ["--memory-limit", "64M", "--workers", "3"]):
        with contextlib.suppress(ZeroDivisionError):
            run("start", *words)
        facts = json.loads(run("check-config", "--json", *words).out)
        size = client_engine.engine_size(**asked.pop())
        assert (facts["memory_limit_bytes"], facts["workers"]) == (size.memory_limit_bytes, size.workers)
        assert facts["memory_limit_bytes"] == (64 << 20 if words else 75 << 20)
    refused = run("start", "--memory-limit", "8M")
    assert refused.code == 2
    assert "at least 16M" in refused.err


def test_configure_through_a_link_leaves_it_one(run, config):
    before = config.read_bytes()
    link = config.with_name("link.json")
    link.symlink_to(config)
    assert run("configure", "--url", "https://127.0.0.1:8443", "--token", "t", "--config", str(link)).code == 0
    assert link.is_symlink()
    assert config.read_bytes() != before
    assert link.with_name("link.json.old").read_bytes() == before


def test_configure_empty_file_of_a_mount_is_filled_and_not_kept(run, config):
    config.write_bytes(b"")
    assert run("configure", "--url", "https://127.0.0.1:8443", "--token", "t").code == 0
    assert not config.with_name("config.json.old").exists()


def test_configure_again_keeps_the_former_file(run, config):
    before = config.read_bytes()
    done = run("configure", "--url", "https://127.0.0.1:8443", "--token", "t")
    assert done.code == 0
    assert config.with_name("config.json.old").read_bytes() == before
    assert "config.json.old" in done.err


def test_configure_server_refuses_former_file_stays(run, server, config):
    before = config.read_bytes()
    server.bye = Bye(code="SPK-TOKEN", message="unknown registration token", retry=False)
    run("configure", "--url", "https://127.0.0.1:8443", "--token", "t")
    assert config.read_bytes() == before


# rules without a running client


@pytest.mark.parametrize("words", [("tunnel", "http"), ("route", "http"), ("http",)])
def test_http_add_all_spellings(run, config, words):
    done = run(*words, "add", "--domain", "a.example", "--destination", "localhost", "--http", "8080", "--tls", "8443")
    assert (done.code, done.out) == (0, "HTTP/S traffic rule added\n")
    assert saved(config)["https"] == [{"domain": "a.example", "destination": "localhost", "port": 8080, "tls": 8443}]
    listed = run(*words, "ls")
    assert "a.example" in listed.out
    assert "8443" in listed.out
    assert run(*words, "ls", "--json").json == {"https": saved(config)["https"]}
    assert run(*words, "rm", "--domain", "a.example").code == 0
    assert saved(config)["https"] == []


@pytest.mark.parametrize("place", ["before", "between", "after", "variable"])
def test_config_option_anywhere(run, config, tmp_path, monkeypatch, place):
    other = tmp_path / "other.json"
    other.write_bytes(config.read_bytes())
    option = ("--config", str(other))
    if place == "variable":
        monkeypatch.setenv("SPOKE_CONFIG", str(other))
    done = run(
        *(option if place == "before" else ()), "tunnel", *(option if place == "between" else ()), "http", "add",
        "--domain", "a.example", "--http", "80", *(option if place == "after" else ()),
    )  # fmt: skip
    assert done.code == 0
    assert [site["domain"] for site in saved(other)["https"]] == ["a.example"]
    assert "https" not in saved(config)


def test_config_option_typed_wins_over_the_variable(run, config, tmp_path, monkeypatch):
    monkeypatch.setenv("SPOKE_CONFIG", str(tmp_path / "missing.json"))
    assert run("--config", str(config), "http", "ls").code == 0


@pytest.mark.parametrize("words", [("tunnel", "tcp"), ("route", "tcp"), ("tcp",)])
def test_tcp_allocate_forward_ls_release(run, config, server, words):
    assert run(*words, "allocate").out == "Allocated port 22197\n"
    assert run(*words, "forward", "--destination", "localhost", "--dstport", "22").code == 0
    row = run(*words, "ls").out.splitlines()[-1]
    assert row.split("|")[1].strip() == "22197"
    assert run(*words, "ls", "--json").json == {"ports": [{"port": 22197, "destination": "localhost", "dstPort": 22}]}
    assert run(*words, "release", "--port", "22197").code == 0
    assert saved(config)["ports"] == []
    assert server.logins == ["control", "control"]


def test_tcp_allocate_json(run, config):
    assert run("tunnel", "tcp", "allocate", "--json").json == {"port": 22197}


def test_tcp_allocate_refused_by_the_server(run, config, server):
    server.answers["tcp.allocate"] = lambda args: Answer(id=1, error=Fault(code="SPK-LIMIT", message="no port is free"))
    assert_one_error_line(run("tunnel", "tcp", "allocate"), "no port is free", "SPK-LIMIT")


@pytest.mark.parametrize(
    "args",
    [
        ("tunnel", "http", "add", "--domain", "a.example"),
        ("tunnel", "http", "add", "--http", "80"),
        ("tunnel", "http", "add", "--domain", "a.example", "--http", "99999"),
        ("tunnel", "tcp", "forward", "--destination", "h"),
        ("tunnel", "tcp", "release"),
        ("http", "eighty"),
        ("http", "0"),
        ("http", "80", "--no-such-option"),
        ("nonsense",),
        ("edit",),
    ],
)
def test_wrong_usage_is_exit_2(run, config, args):
    done = run(*args)
    assert done.code == 2
    assert done.out == ""
    assert "Traceback" not in done.err


def test_rules_with_limits_are_saved_as_members(run, config):
    assert run(
        "http", "add", "--domain", "a.example", "--http", "80", "--response-timeout", "600", "--max-body", "10M",
        "--max-header-line", "16K",
    ).code == 0  # fmt: skip
    (site,) = json.loads(config.read_text())["https"]
    assert (site["responseTimeout"], site["maxBody"], site["maxHeaderLine"]) == (600, 10 << 20, 16 << 10)
    assert run("http", "add", "--domain", "a.example", "--http", "80").code == 0
    (site,) = json.loads(config.read_text())["https"]
    assert site.keys() == {"domain", "destination", "port"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--response-timeout", "86401"), "between 1 and 86400 seconds"),
        (("--response-timeout", "1.5"), "no number of seconds"),
        (("--max-body", "2T"), "between 1 and 1099511627776 bytes"),
        (("--max-body", "much"), "no size, such as 10M"),
        (("--max-header-line", "100"), "between 256 and 32768 bytes"),
    ],
)
def test_limit_out_of_bounds_is_wrong_usage(run, config, words, said):
    done = run("http", "add", "--domain", "a.example", "--http", "80", *words)
    assert done.code == 2
    assert said in done.err


def test_rule_of_a_unix_socket(run, config):
    assert run("http", "add", "--domain", "a.example", "--destination", "unix:/run/app.sock").code == 0
    assert run("tcp", "forward", "--destination", "unix:/run/db.sock").code == 0
    assert saved(config)["https"][0]["destination"] == "unix:/run/app.sock"


@pytest.mark.parametrize("words", [("tunnel", "http"), ("route", "http"), ("http",)])
def test_http_add_webroot_is_saved_whole(run, config, tmp_path, monkeypatch, words):
    (tmp_path / "site").mkdir()
    monkeypatch.chdir(tmp_path)
    done = run(*words, "add", "--domain", "a.example", "--webroot", "site")
    assert (done.code, done.out) == (0, "HTTP/S traffic rule added\n")
    assert saved(config)["https"] == [
        {"domain": "a.example", "destination": "localhost", "webRoot": str(tmp_path / "site")}
    ]
    assert str(tmp_path / "site") in run(*words, "ls").out


@pytest.mark.parametrize("words", [("http", "add", "--domain", "a.example"), ("http",), ("http", "80")])
def test_webroot_that_is_not_there_is_refused_before_anything(run, config, engines, tmp_path, words):
    before = config.read_bytes()
    (tmp_path / "file").touch()
    for name in ("nowhere", "file"):
        done = run(*words, "--webroot", str(tmp_path / name))
        assert_one_error_line(done, "SPK-WEBROOT", str(tmp_path / name))
    assert config.read_bytes() == before
    assert engines.made == []


@pytest.mark.parametrize("place", ["alone", "joined", "port before", "port after", "variable"])
def test_http_webroot_needs_no_port(run, config, server, is_shown, tmp_path, monkeypatch, place):
    path = str(tmp_path)
    words = {
        "alone": ("--webroot", path),
        "joined": (f"--webroot={path}",),
        "port before": ("8080", "--webroot", path),
        "port after": ("--webroot", path, "8080"),
        "variable": ("--log-level", "error"),
    }
    if place == "variable":
        monkeypatch.setenv("SPOKE_WEBROOT", path)
    with signal_when(is_shown, signal.SIGINT):
        done = run("http", *words[place])
    assert (done.code, done.out) == (130, f"http://{HOSTNAME}:8080\n")
    (site,) = server.services[0].https
    assert (site.domain, site.web_root, site.destination, site.port) == (HOSTNAME, path, "", 0)


def test_http_neither_port_nor_webroot_is_wrong_usage(run, config, engines):
    done = run("http", "--log-level", "error")
    assert done.code == 2
    assert "--webroot" in done.err
    assert engines.made == []


@pytest.mark.parametrize(
    "args", [("info",), ("http", "ls"), ("start",), ("http", "80"), ("tcp", "22"), ("edit", "--name", "x")]
)
def test_without_configuration_says_what_to_type(run, args):
    assert_one_error_line(run(*args), "spoke configure", "SPK-CONFIG")


def test_damaged_configuration_is_one_line(run, config):
    config.write_text("{")
    assert_one_error_line(run("info"), str(config))


# facts


def test_info_shows_identity_and_rules(run, config):
    run("http", "add", "--domain", "a.example", "--http", "8080")
    run("tcp", "forward", "--destination", "localhost", "--dstport", "22")
    lines = run("info").out.splitlines()
    assert lines[0] == f"Hostname: {HOSTNAME}"
    assert "Server: 127.0.0.1:8443" in lines
    assert "Addresses: :8080, :8443" in lines
    head = next(line for line in lines if line.startswith("Domain"))
    assert [cell.strip() for cell in head.split("|")] == ["Domain", "Destination", "HTTP", "TLS", "Secure"]
    assert any(line.startswith("a.example") for line in lines)
    assert any("22197" in line for line in lines)


def test_info_json_has_facts_and_no_secret(run, config):
    done = run("info", "--json")
    assert done.json["hostname"] == HOSTNAME
    assert done.json["state"] == "not running"
    assert "k" * 64 not in done.out


def test_info_server_away_still_shows_the_file(run, config, engines):
    engines.refused["127.0.0.1"] = (LinkDown.SYSTEM, b"Connection refused")
    done = run("info")
    assert done.code == 0
    assert f"Hostname: {HOSTNAME}" in done.out
    assert "Connection refused" in done.out


def test_edit_name(run, config, server):
    assert run("edit", "--name", "till 4").out == "Tunnel name updated\n"
    assert saved(config)["name"] == "till 4"


def test_version(run):
    assert spokes.__version__ in run("version").out
    assert run("version", "--json").json["version"] == spokes.__version__
    assert spokes.__version__ in run("--version").out


def every_verb(command, words=()):
    yield words
    for name, sub in getattr(command, "commands", {}).items():
        yield from every_verb(sub, (*words, name))


@pytest.mark.parametrize("words", list(every_verb(spoke)), ids=" ".join)
def test_help_every_verb_has_an_example(run, words):
    done = run(*words, "--help")
    assert done.code == 0
    assert "Example: spoke" in done.out
    assert "--config" in done.out


def test_every_option_is_a_variable_too():
    for words in every_verb(spoke):
        command = spoke
        for word in words:
            command = command.commands[word]
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name not in ("version", "help"):
                assert str(parameter.envvar).startswith("SPOKE_"), (words, parameter.name)


def test_configure_keys_of_every_node_and_the_choice_of_nodes_are_written(run, tmp_path):
    keys = ("--server-key", PIN, "--server-key", "cd" * 32, "--server-key", "ef" * 32)
    done = run("configure", "--url", "https://127.0.0.1:8443", "--token", "t", "--ha", "master-only", *keys)
    assert done.code == 0
    document = saved(tmp_path / ".spoke" / "config.json")
    assert document["serverKey"] == PIN
    assert document["serverKeys"] == ["cd" * 32, "ef" * 32]
    assert document["ha"] == "master-only"


def test_configure_ha_alone_changes_the_configuration_that_is_there(run, config, engines):
    before = saved(config)
    assert run("configure", "--ha", "master-only").code == 0
    assert saved(config) == before | {"ha": "master-only"}
    assert run("configure", "--ha", "active-active", "--json").json["ha"] == "active-active"
    assert saved(config)["ha"] == "active-active"
    assert engines.made == []
    assert run("configure", "--ha", "some").code == 2


def test_configure_ha_alone_without_a_configuration_says_what_to_type(run):
    assert_one_error_line(run("configure", "--ha", "master-only"), "spoke configure")


def test_info_of_one_server_shows_no_table_of_nodes(run, config):
    done = run("info")
    assert "Node" not in done.out
    assert run("info", "--json").json["nodes"] == [
        {"hostname": "127.0.0.1:8443", "role": "", "state": "not running", "rttMs": None}
    ]


CONNECTING = [
    ("info",), ("edit", "--name", "till 4"), ("tunnel", "tcp", "allocate"), ("tcp", "release", "--port", "22197"),
    ("tcp", "forward", "--destination", "localhost", "--dstport", "22"),
]  # fmt: skip


@pytest.fixture
def named_server(config):
    """The configuration names its server by a name that only a name server of the test's own knows."""
    with name_server("client.test") as names:
        names.put_lines("tun IN A 127.0.0.7")
        config.write_text(json.dumps(saved(config) | {"serverHost": "tun.client.test:8443"}))
        yield names


@pytest.mark.parametrize("place", ["option", "variable", "file", "option-before-file"])
@pytest.mark.parametrize("words", CONNECTING, ids=" ".join)
def test_resolver_is_asked_for_the_server_by_every_verb_that_connects(
    run, config, engines, named_server, monkeypatch, place, words
):
    address = str(named_server.address)
    if place == "variable":
        monkeypatch.setenv("SPOKE_RESOLVER", address)
    elif place != "option":
        member = [address] if place == "file" else "127.0.0.1:1"
        config.write_text(json.dumps(saved(config) | {"resolver": member}))
    assert run(*words, *(["--resolver", address] if place.startswith("option") else [])).code == 0
    assert ("127.0.0.7", 8443) in [dialled for engine in engines.made for dialled in engine.dialled]


@pytest.mark.parametrize("words", [("start", "--api-port", "0"), ("http", "8080"), ("tcp", "22")], ids=" ".join)
def test_resolver_is_asked_by_every_verb_that_serves(run, config, engines, named_server, is_shown, words):
    with signal_when(is_shown, signal.SIGINT):
        assert run(*words, "--resolver", str(named_server.address)).code == 130
    assert engines.made[-1].dialled == [("127.0.0.7", 8443)]


def test_configure_resolver_is_asked_and_written(run, engines, tmp_path):
    with name_server("client.test") as names:
        names.put_lines("tun IN A 127.0.0.7")
        url = ("--url", "https://tun.client.test:8443", "--token", "t", "--server-key", PIN)
        assert run("configure", *url, "--resolver", str(names.address)).code == 0
        assert engines.made[-1].dialled == [("127.0.0.7", 8443)]
    assert saved(tmp_path / ".spoke" / "config.json")["resolver"] == [str(names.address)]


@pytest.mark.parametrize("text", ["ns.example", "127.0.0.1:70000", "[::1", ""])
def test_resolver_that_is_no_address_is_wrong_usage(run, config, engines, text):
    done = run("info", "--resolver", text)
    assert (done.code, engines.made) == (2, [])
    assert "name server" in done.err


# verbs that stay


@contextlib.contextmanager
def signal_when(condition, number):
    """Send this process a signal as soon as the condition holds, as a terminal or a supervisor would."""
    failures = []

    def watch():
        deadline = time.monotonic() + 10
        while not condition():
            if time.monotonic() > deadline:
                failures.append("the condition never held")
                break
            time.sleep(0.002)
        os.kill(os.getpid(), number)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        join_thread(watcher)
    assert failures == []


@pytest.fixture
def is_shown(monkeypatch):
    """Whether the verb has said that it serves."""
    shown = []
    for console, method in ((OneAddressConsole, "_say"), (PlainConsole, "_show_tables")):
        say = getattr(console, method)

        def noting(self, what, say=say):
            say(self, what)
            if what != "Connecting...":
                shown.append(what)

        monkeypatch.setattr(console, method, noting)
    return lambda: shown and shown.pop()


def test_start_in_a_pipe_prints_plain_lines(run, config, server, is_shown):
    run("http", "add", "--domain", "a.example", "--http", "8080")
    with signal_when(is_shown, signal.SIGINT):
        done = run("start", "--api-port", "0")
    assert done.code == 130
    lines = done.out.splitlines()
    assert lines[0] == "Connecting..."
    assert "Running HTTP services:" in lines
    assert any(line.startswith("a.example") and "running" in line for line in lines)
    assert "\x1b" not in done.out
    assert [bye.code for bye in server.byes] == ["SPK-CLOSED"]
    assert not access_path(config).exists()


def test_start_sigterm_ends_with_0(run, config, is_shown, engines):
    with signal_when(is_shown, signal.SIGTERM):
        assert run("start", "--api-port", "0").code == 0
    assert engines.made[0].drained


@pytest.mark.parametrize(("second", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_start_second_signal_while_draining_forces_the_stop(
    run, config, is_shown, engines, server, monkeypatch, second, code
):
    monkeypatch.setattr(app, "DRAIN_TIMEOUT_S", 3600.0)
    monkeypatch.setattr(FakeEngine, "tunnel_counters", lambda *_: (0, 0, 1, 0.0))  # a stream that never ends
    with signal_when(is_shown, signal.SIGTERM), signal_when(lambda: engines.made and engines.made[-1].drained, second):
        assert run("start", "--api-port", "0").code == code
    assert [bye.code for bye in server.byes] == ["SPK-CLOSED"]


def test_start_replaced_by_another_exits_3(run, config, server, engines):
    server.bye = Bye(code="SPK-REPLACED", message="another client logged in as this tunnel", retry=False)
    done = run("start", "--api-port", "0")
    assert done.code == 3
    assert "SPK-REPLACED" in done.err.splitlines()[-1]
    assert len(server.logins) == 0


def test_start_api_port_taken_is_one_line(run, config):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        done = run("start", "--api-port", str(port))
    assert_one_error_line(done, "SPK-ADDRESS-IN-USE", str(port), "--api-port")


def test_http_prints_the_url_alone_and_saves_nothing(run, config, server, is_shown):
    before = saved(config)
    with signal_when(is_shown, signal.SIGINT):
        done = run("http", "8080")
    assert (done.code, done.out) == (130, f"http://{HOSTNAME}:8080\n")
    assert "https" not in before
    assert saved(config).get("https", []) == []
    (site,) = server.services[0].https
    assert (site.domain, site.destination, site.port) == (HOSTNAME, "localhost", 8080)


def test_http_json(run, config, is_shown):
    with signal_when(is_shown, signal.SIGINT):
        assert run("http", "--json", "8080", "--destination", "10.0.0.5").json == {"url": f"http://{HOSTNAME}:8080"}


def test_http_refused_rule_exits_1(run, config, server):
    server.faults[HOSTNAME] = Fault(code="SPK-TAKEN", message="held by another tunnel")
    done = run("http", "8080")
    assert done.code == 1
    assert done.out == ""
    assert "held by another tunnel [SPK-TAKEN]" in done.err


def test_tcp_allocates_once_and_prints_the_address(run, config, server, is_shown):
    for _ in range(2):
        with signal_when(is_shown, signal.SIGINT):
            done = run("tcp", "5432")
        assert (done.code, done.out) == (130, "127.0.0.1:22197\n")
        (port,) = server.services[0].ports
        assert (port.port, port.destination, port.dst_port) == (22197, "localhost", 5432)
        server.services.clear()
    assert saved(config)["ports"] == [{"port": 22197}]
    assert server.logins == ["control", "serve", "serve"]


# together with a running client


@pytest.fixture
def running_api(config):
    """A running client's local API, in a thread of its own; what was asked of it."""
    performed = []
    loop = asyncio.new_event_loop()

    async def perform(op, args):
        performed.append((op, args))
        return {"port": 22197, "domain": args.get("domain")}

    api = LocalApi(config, status=lambda: {"pid": os.getpid(), "state": "connecting"}, perform=perform)
    loop.run_until_complete(api.start(0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield performed
    asyncio.run_coroutine_threadsafe(api.stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    join_thread(thread)
    loop.close()


def test_rules_go_to_the_running_client(run, config, engines, running_api):
    before = config.read_bytes()
    assert run("http", "add", "--domain", "a.example", "--http", "80").out == "HTTP/S traffic rule added\n"
    assert run("tunnel", "tcp", "allocate").out == "Allocated port 22197\n"
    assert [op for op, _ in running_api] == ["http.add", "tcp.allocate"]
    assert running_api[0][1] == {"domain": "a.example", "destination": "localhost", "port": 80}
    assert config.read_bytes() == before
    assert engines.made == []


def test_http_port_does_not_end_the_running_client(run, config, engines, running_api):
    assert_one_error_line(run("http", "8080"), "already runs", "spoke tunnel http add")
    assert engines.made == []


def test_info_knows_the_running_client(run, config, running_api):
    assert "Client: connecting" in run("info").out
    assert LocalCaller.find(config) is not None
