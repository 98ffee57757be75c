"""`spokes` as a user types it: real processes, exit codes, one line for an error."""

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from spokes.config import SETTINGS
from spokes.server.base.datadir import prepare_directory
from spokes.store import Store

SPOKES = [sys.executable, "-c", "from spokes.cli.server import main; main()"]


@pytest.fixture
def data(tmp_path) -> Path:
    """A data directory as a server leaves it."""
    data = prepare_directory(tmp_path / "data")
    Store.open(f"sqlite:///{data / 'spokes.db'}").close()
    return data


def spokes(*args, env=None, check=0):
    result = subprocess.run(
        [*SPOKES, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
        env={key: value for key, value in os.environ.items() if not key.startswith("SPOKES_")} | (env or {}),
    )
    assert result.returncode == check, result.stderr
    assert "Traceback" not in result.stderr
    return result


def test_token_life_from_creation_to_deletion(data):
    made = json.loads(spokes("token", "create", "--data", data, "--description", "branches", "--json").stdout)
    assert len(made["value"]) == 64
    listed = json.loads(spokes("token", "list", "--data", data, "--json").stdout)["tokens"]
    assert [(one["id"], one["active"], one["description"]) for one in listed] == [(made["id"], True, "branches")]
    assert "value" not in listed[0]
    edited = json.loads(spokes("token", "edit", made["id"], "--inactive", "--data", data, "--json").stdout)
    assert (edited["active"], edited["description"]) == (False, "branches")
    assert "| no" in spokes("token", "list", "--data", data).stdout
    assert edited["max_tunnels"] == 0
    limited = json.loads(spokes("token", "edit", made["id"], "--max-tunnels", 3, "--data", data, "--json").stdout)
    assert (limited["max_tunnels"], limited["max_tunnels_per_hour"], limited["active"]) == (3, 0, False)
    spokes("token", "delete", made["id"], "--data", data)
    assert json.loads(spokes("token", "list", "--data", data, "--json").stdout) == {"tokens": []}
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert stat.S_IMODE((data / "spokes.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("verb", [("edit", "--inactive"), ("delete",)])
def test_token_unknown_id_is_one_line_with_its_code(data, verb):
    result = spokes("token", verb[0], "0" * 32, *verb[1:], "--data", data, check=1)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "[SPK-NOT-FOUND]" in result.stderr


def test_config_before_and_after_the_verb_and_in_the_environment(tmp_path):
    config = tmp_path / "s.toml"
    config.write_text('domain = "tun.example.net"\nworkers = 2\n')
    for args, env in (
        (("--config", config, "check-config", "--json"), {}),
        (("check-config", "--config", config, "--json"), {}),
        (("check-config", "--json"), {"SPOKES_CONFIG": str(config)}),
    ):
        facts = json.loads(spokes(*args, env=env).stdout)
        assert (facts["domain"], facts["workers"]) == ("tun.example.net", 2)
    facts = json.loads(spokes("check-config", "--config", config, "--json", env={"SPOKES_WORKERS": "3"}).stdout)
    assert facts["workers"] == 3
    facts = json.loads(
        spokes("check-config", "--config", config, "--workers", 4, "--json", env={"SPOKES_WORKERS": "3"}).stdout
    )
    assert facts["workers"] == 4
    assert facts["memory_limit_bytes"] <= 512 * 1024 * 1024
    assert "quarter" in facts["memory_terms"]


def test_check_config_changes_nothing(tmp_path):
    spokes("check-config", "--data", tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize(
    "verb",
    ["token create", "token list", "apikey create", "user create --email a@example.net --passwordless", "tunnel create",
     "webhook list", "events list", "backup b.db", "port list"],
)  # fmt: skip
def test_mistyped_data_directory_makes_no_database(tmp_path, verb, store):
    missing = tmp_path / "mistyped"
    where = ("--store", f"sqlite:///{missing}/other.db") if store else ("--data", missing)
    result = subprocess.run(
        [*SPOKES, *verb.split(), *map(str, where)], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert result.returncode in (1, 2), result
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_empty_database_is_not_filled(tmp_path):
    (tmp_path / "spokes.db").touch()
    result = spokes("token", "create", "--data", tmp_path, check=1)
    assert "there is no database" in result.stderr
    assert "[SPK-STORE]" in result.stderr
    assert (tmp_path / "spokes.db").stat().st_size == 0


@pytest.mark.parametrize(
    ("args", "env", "words"),
    [
        (("--workers", "many"), {}, "--workers"),
        ((), {"SPOKES_WORKERS": "many"}, "SPOKES_WORKERS"),
        (("--https", "443"), {}, "ADDR:PORT"),
        (("--config", "/nonexistent/spokes.toml"), {}, "/nonexistent/spokes.toml"),
    ],
)
def test_bad_setting_is_one_line_that_names_it(args, env, words):
    result = spokes("check-config", *args, env=env, check=1)
    assert result.stderr.count("\n") == 1
    assert words in result.stderr
    assert "[SPK-CONFIG]" in result.stderr


def test_wrong_usage_is_2():
    spokes("token", "edit", "x", check=2)
    spokes("fly", check=2)
    spokes("server", "--colour", "blue", check=2)


def test_mistyped_verb_that_administers_gets_the_nearest_one():
    assert "Did you mean 'token'?" in spokes("tokens", check=2).stderr


def test_restore_of_a_missing_file_makes_no_data_directory(tmp_path):
    assert "there is no backup" in spokes("restore", tmp_path / "no", "--data", tmp_path / "data", check=1).stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("verb", ["status", "reload"])
def test_verb_without_a_server_says_so(tmp_path, verb):
    result = spokes(verb, "--data", tmp_path / "data", check=1)
    assert "[SPK-NO-SERVER]" in result.stderr
    assert not (tmp_path / "data").exists()


def test_version_is_told_in_three_ways():
    version = json.loads(spokes("version", "--json").stdout)["version"]
    assert version in spokes("version").stdout
    assert version in spokes("--version").stdout


@pytest.mark.parametrize(
    "verb", ["server", "token", "token create", "token list", "token edit", "token delete", "status", "reload",
             "check-config", "version"]
)  # fmt: skip
def test_help_of_every_verb_has_an_example(verb):
    assert "Example: spokes" in spokes(*verb.split(), "--help").stdout


def test_data_directory_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    result = spokes("server", "--data", tmp_path / "file" / "data", check=1)
    assert "[SPK-DATA-DIR]" in result.stderr


FREE = ("--http", "127.0.0.1:0", "--https", "127.0.0.1:0")


def checked(*args, check=0):
    result = spokes("check-config", "--json", *args, check=check)
    return json.loads(result.stdout)


def test_check_config_shows_every_setting_with_its_source(tmp_path):
    config = tmp_path / "s.toml"
    config.write_text('domain = "tun.example.net"\nlink_count_max = 2\n')
    result = spokes("check-config", "--config", config, "--data", tmp_path / "data", "--json", *FREE,
                    env={"SPOKES_HANDSHAKES_PER_S": "7"})  # fmt: skip
    facts = json.loads(result.stdout)
    assert set(facts["sources"]) == set(SETTINGS) <= set(facts)
    assert facts["sources"]["link_count_max"] == f"{config}, line 2"
    assert (facts["handshakes_per_s"], facts["sources"]["handshakes_per_s"]) == (7, "SPOKES_HANDSHAKES_PER_S")
    assert (facts["sources"]["data"], facts["sources"]["smtp"]) == ("--data", "default")
    table = spokes("check-config", "--config", config, "--data", tmp_path / "data", *FREE).stdout
    assert [key for key in SETTINGS if f"| {key} " not in table] == []


def test_check_config_broken_key_is_a_problem(data):
    (data / "server.key").write_text("no key")
    (data / "server.key").chmod(0o600)
    facts = checked("--data", data, *FREE, check=1)
    assert [one["code"] for one in facts["problems"]] == ["SPK-CERTIFICATE"]
    assert not (data / "server.crt").exists()


def test_check_config_database_that_does_not_answer_is_a_problem(tmp_path, unused_tcp_port):
    store = f"postgresql://spokes@127.0.0.1:{unused_tcp_port}/spokes"
    facts = checked("--data", tmp_path / "data", "--store", store, *FREE, check=1)
    assert [one["code"] for one in facts["problems"]] == ["SPK-STORE"]


def test_check_config_address_in_use_is_a_problem(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        facts = checked("--data", tmp_path / "data", "--http", address, "--https", "127.0.0.1:0", check=1)
    assert [one["code"] for one in facts["problems"]] == ["SPK-ADDRESS-IN-USE"]


def test_check_config_address_that_is_not_ours_is_a_problem(tmp_path):
    facts = checked("--data", tmp_path / "data", "--tcp-address", "192.0.2.1", *FREE, check=1)
    assert "192.0.2.1" in facts["problems"][0]["message"]


def test_check_config_more_memory_than_there_is_is_a_problem(tmp_path):
    facts = checked("--data", tmp_path / "data", "--memory-limit", "900T", *FREE, check=1)
    assert [one["code"] for one in facts["problems"]] == ["SPK-CONFIG"]
    assert facts["memory_source"] in facts["problems"][0]["message"]


def test_check_config_every_problem_is_told_at_once(tmp_path):
    (tmp_path / "file").touch()
    facts = checked("--data", tmp_path / "file" / "data", "--memory-limit", "900T", *FREE, check=1)
    assert {"SPK-DATA-DIR", "SPK-CONFIG"} <= {one["code"] for one in facts["problems"]}


def test_check_config_unknown_key_gets_the_nearest_known_one(tmp_path):
    config = tmp_path / "s.toml"
    config.write_text("memory-limt = 5\n")
    assert "did you mean 'memory_limit'?" in spokes("check-config", "--config", config, check=1).stderr
