"""Configuration: precedence, and errors that say where, what and what is allowed."""

import re
from pathlib import Path

import pytest

from spokes.config import SETTINGS, Given, ServerConfig, changed_settings, load_server_config, reloaded
from spokes.config_values import Address, PortRange, parse_address, parse_size
from spokes.errors import ConfigError

OPERATIONS = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "spokes.toml"
    path.write_text(text)
    return path


def test_config_file_is_read_and_overridden(tmp_path):
    path = write(
        tmp_path,
        """
        domain = "Tun.Example.NET."
        https = ["0.0.0.0:8443", "[::1]:8443"]
        http = ":8080"
        tcp_ports = "30000-30010"
        memory_limit = "64MiB"
        workers = 3
        drain_timeout_s = 5
        """,
    )
    config = load_server_config(path, {"workers": Given(1, "--workers")})
    assert config.domain == "tun.example.net"
    assert config.https == (Address("0.0.0.0", 8443), Address("::1", 8443))
    assert config.http == (Address("", 8080),)
    assert config.tcp_ports == PortRange(30000, 30010)
    assert config.memory_limit_bytes == 64 * 1024 * 1024
    assert (config.workers, config.drain_timeout_s) == (1, 5.0)


def test_default_file_that_cannot_be_read_counts_as_absent(tmp_path, monkeypatch):
    path = write(tmp_path, 'domain = "tun.example.net"')
    monkeypatch.setattr("spokes.config.DEFAULT_CONFIG_PATH", path)
    assert load_server_config(None, {}).domain == "tun.example.net"
    monkeypatch.setattr("os.access", lambda asked, mode: asked != path)
    assert load_server_config(None, {}) == ServerConfig()
    assert load_server_config(path, {}).domain == "tun.example.net"  # one that is named has to be readable


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('domian = "x.org"', ["unknown key 'domian'", "known keys: domain"]),
        ('domain = "no domain"', ["domain", "allowed: a domain name"]),
        ('domain = "-x.org"', ["domain", "allowed"]),
        ('admin = "yes"', ["admin", "true or false"]),
        ("admin_threads = 0", ["admin_threads", "1 to 64"]),
        ('smtp = "mail.example.org"', ["smtp", "smtp://USER@HOST:PORT"]),
        ('smtp = "smtp://user@"', ["smtp", "allowed"]),
        ('mail_from = "nobody"', ["mail_from", "an e-mail address"]),
        ('mail_to = ["a@b.c", "x\\r\\nBcc: y@z.w"]', ["mail_to", "an e-mail address"]),
        ("domain = 5", ["domain", "Expected `str`"]),
        ('http = "80"', ["http", "ADDR:PORT"]),
        ('http = "::1:80"', ["http", "brackets"]),
        ('http = "0.0.0.0:65536"', ["http", "65535"]),
        ('https = ["0.0.0.0:443", 443]', ["https", "Expected `str`"]),
        ("https = []", ["https", "no way in"]),
        ('tcp_ports = "5-4"', ["tcp_ports", "22000-22999"]),
        ('tcp_ports = "0-4"', ["tcp_ports", "1-65535"]),
        ("workers = -1", ["workers", "1 to 56; 0 = one for each CPU"]),
        ("workers = true", ["workers", "Expected `int`"]),
        ('memory_limit = "1M"', ["memory_limit", "16M"]),
        ('memory_limit = "lots"', ["memory_limit", "not a size"]),
        ('log_format = "xml"', ["log_format", "text or json"]),
        ("drain_timeout_s = -1", ["drain_timeout_s", "3600"]),
        ('store = "mysql://u:secret@h/d"', ["store", "sqlite:///PATH"]),
        ("[listen]\nport = 1", ["unknown key 'listen'"]),
    ],
)
def test_config_bad_value_is_refused_with_file_line_key_and_allowed_values(tmp_path, line, words):
    path = write(tmp_path, "# a comment\nlog_level = 'info'\n\n" + line + "\n")
    with pytest.raises(ConfigError) as refused:
        load_server_config(path, {})
    text = refused.value.line()
    for part in [f"{path}, line 4", *words]:
        assert part in text
    assert "secret" not in text


def test_config_override_error_names_the_option():
    with pytest.raises(ConfigError, match="--workers: workers: "):
        load_server_config(None, {"workers": Given("many", "--workers")})


@pytest.mark.parametrize("data", [b"domain = ", b"\xff\xfe", b"a = 1\na = 2\n", b"x" * (1024 * 1024 + 1)])
def test_config_file_that_is_no_toml_is_refused(tmp_path, data):
    path = tmp_path / "spokes.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=str(path)):
        load_server_config(path, {})


def test_config_missing_file_is_refused_when_named(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load_server_config(tmp_path / "none.toml", {})


def test_config_every_field_is_one_setting_with_the_default_of_the_class():
    assert [setting.field for setting in SETTINGS.values()] == list(ServerConfig.__slots__)
    assert {one.field: one.default for one in SETTINGS.values()} == {
        name: getattr(ServerConfig(), name) for name in ServerConfig.__slots__
    }


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_config_every_setting_is_told_in_words(setting):
    assert setting.help.endswith(".") and setting.metavar and setting.allowed


@pytest.mark.parametrize("name", [name for name, setting in SETTINGS.items() if setting.bounds])
def test_config_bounds_are_allowed_and_what_is_beyond_is_refused(name):
    setting = SETTINGS[name]
    step = 1 if setting.type is int else 0.001
    low, high = (setting.type(bound) for bound in setting.bounds)
    for value in (low, high, setting.default):
        load_server_config(None, {name: Given(value, "here")})
    for value in (low - step, high + step):
        with pytest.raises(ConfigError, match=f"here: {name}: out of range"):
            load_server_config(None, {name: Given(value, "here")})


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("2k", 2048), ("1MiB", 1 << 20), ("3 GB", 3 << 30), (7, 7)])
def test_parse_size_units_are_powers_of_1024(text, size):
    assert parse_size(text) == size


def test_parse_address_any_host_is_empty():
    assert parse_address(":80") == parse_address("*:80") == Address("", 80)
    assert str(parse_address("[::1]:443")) == "[::1]:443"


def test_changed_settings_names_what_differs():
    new = ServerConfig(workers=2, memory_limit_bytes=1 << 30, log_level="debug")
    assert changed_settings(ServerConfig(), new) == {"workers", "memory_limit", "log_level"}


def test_reloaded_takes_over_reloadable_settings_alone():
    new = ServerConfig(workers=2, log_level="debug", drain_timeout_s=1.0)
    assert reloaded(ServerConfig(), new) == ServerConfig(log_level="debug", drain_timeout_s=1.0)


def test_store_url_path_with_odd_characters_is_quoted(tmp_path):
    assert ServerConfig(data=tmp_path / "a b%?").store_url == f"sqlite:///{tmp_path}/a%20b%25%3F/spokes.db"


def test_domains_are_verified_at_the_name_servers_of_all_names_unless_they_have_their_own():
    ours, others = Address("192.0.2.1", 53), Address("192.0.2.2", 5353)
    config = load_server_config(None, {"resolver": Given(["192.0.2.1"], "--resolver")})
    assert config.domain_resolvers == config.resolver == (ours,)
    assert ServerConfig(resolver=(ours,), domain_proof_resolvers=(others,)).domain_resolvers == (others,)
    assert ServerConfig().domain_resolvers == ()


def test_operations_md_lists_every_setting_with_its_option_and_variable():
    listed = re.findall(r"^\| `(\w+)` \| `(--[\w-]+)` \| `(SPOKES_\w+)`", OPERATIONS, flags=re.MULTILINE)
    assert listed == [(one.name, one.option, one.variable) for one in SETTINGS.values()]


def test_operations_md_names_what_waits_for_a_restart():
    sentence = re.search(r"What did not change is not touched; (.+?) wait for a restart", OPERATIONS, re.DOTALL)[1]
    words = re.findall(r"`([\w…]+)`", sentence)
    waiting = {
        name
        for name in SETTINGS
        for word in words
        if name == word or (word.endswith("…") and name.startswith(word.removesuffix("…")))
    }
    assert waiting == {name for name, setting in SETTINGS.items() if not setting.reloadable}


def test_config_smtp_password_in_the_url_is_refused_and_not_repeated(tmp_path):
    path = write(tmp_path, 'smtp = "smtp://user:hush-hush@mail.example.org"')
    with pytest.raises(ConfigError, match="smtp_password_file") as refused:
        load_server_config(path, {})
    assert "hush" not in refused.value.line()


@pytest.mark.parametrize(("text", "on"), [("true", True), ("false", False)])
def test_config_switch_from_the_environment_is_a_word(text, on):
    assert load_server_config(None, {"admin": Given(text, "SPOKES_ADMIN")}).admin is on
