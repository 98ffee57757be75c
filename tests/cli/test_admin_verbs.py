"""What every verb that administers promises: help with an example, one-line errors, harmless listings."""

import click
import pytest

from spokes.cli.admin_shell import login_name
from spokes.cli.server import main_group
from spokes.model.api_keys import CreateApiKey
from spokes.model.tunnels import CreateTunnel
from spokes.model.users import CreateUser
from spokes.model.webhooks import CreateWebhook
from spokes.store import NewDelivery, PresenceUpdate, Principal, TunnelState
from tests.support.operations import do
from tests.support.stores import due_deliveries

HOSTILE = "\x1b[2J\x07\u202egnp.exe\u2066\nroot | admin\t" + "W" * 150
UNKNOWN = "f" * 32


def leaves(command, path=()):
    path = (*path, command.name)
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            yield from leaves(inner, path)
    else:
        yield path


CONTEXT = click.Context(main_group)
VERBS = [main_group.get_command(CONTEXT, name) for name in main_group.list_commands(CONTEXT)]
LEAVES = [leaf for verb in VERBS if verb.name not in ("server", "version") for leaf in leaves(verb)]


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_verb_help_has_an_example_and_json(spokes, path):
    text = spokes(*path, "--help").out
    assert f"Example: spokes {' '.join(path)}" in text
    assert "--json" in text


@pytest.mark.parametrize("line", [
    "user show nobody@example.org", f"user show {UNKNOWN}", "user show ''", "user limit x --bandwidth 5G",
    f"user delete {UNKNOWN} --yes", f"user domain list {UNKNOWN}", f"user totp off {UNKNOWN}",
    f"user password {UNKNOWN} --remove", f"apikey edit {UNKNOWN} --inactive", f"apikey revoke {UNKNOWN}",
    f"apikey create --user {UNKNOWN}", f"tunnel show {UNKNOWN}", "tunnel show no.such.example.net",
    "tunnel show 'a b'", f"tunnel assign {UNKNOWN} system", f"tunnel stop {UNKNOWN}", f"tunnel config {UNKNOWN}",
    f"port allocate {UNKNOWN}", "port release 22000", f"webhook edit {UNKNOWN} --inactive",
    f"webhook deliveries {UNKNOWN}", f"webhook resend {UNKNOWN}", f"webhook test {UNKNOWN}",
    f"alerts acknowledge {UNKNOWN}",
])  # fmt: skip
def test_verb_unknown_object_is_one_line_with_its_code(spokes, line):
    words = [word if word != "''" else "" for word in line.replace("'a b'", "a\0b").split(" ")]
    typed = spokes(*[word.replace("\0", " ") for word in words], code=1)
    assert typed.out == ""


@pytest.mark.parametrize("line", [
    "user edit x", "user limit x", "user limit x --ports many", "user limit x --bandwidth -1", "apikey edit x",
    "apikey create --scope all", "webhook edit x", "webhook create https://x.example.org --kind sevice",
    "tunnel list --state asleep", "port release 0", "events list --follow --before 3", f"tunnel delete {UNKNOWN}1 y",
])  # fmt: skip
def test_verb_wrong_usage_is_exit_code_two(spokes, line):
    spokes(*line.split(), code=2)


def test_delete_without_a_terminal_wants_yes(spokes):
    user = spokes.json("user", "create")["id"]
    tunnel = spokes.json("tunnel", "create", "--domain", "tun.test")["tunnel"]["id"]
    webhook = spokes.json("webhook", "create", "https://hooks.example.org/")["id"]
    for noun, uid in (("user", user), ("tunnel", tunnel), ("webhook", webhook)):
        assert "--yes" in spokes(noun, "delete", uid, code=2).err
        spokes(noun, "show" if noun != "webhook" else "deliveries", uid)
        spokes(noun, "delete", uid, "--yes")
        spokes(noun, "show" if noun != "webhook" else "deliveries", uid, code=1)


def test_mutations_leave_events_that_name_who_typed(spokes):
    user = spokes.json("user", "create", "--email", "mara@example.org")["id"]
    spokes("user", "limit", user, "--bandwidth", "5G")
    spokes("user", "password", user, "--password-file", "-", stdin="correct horse battery\n")
    spokes("token", "create")
    spokes("apikey", "create")
    events = spokes.json("events", "list")["events"]
    assert [one["action"] for one in events] == ["api_key.create", "token.create", *["user.edit"] * 2, "user.create"]
    assert {(one["actorKind"], one["actorName"]) for one in events} == {("shell", login_name())}
    assert (events[3]["before"]["bandwidth_mb"], events[3]["after"]["bandwidth_mb"]) == (0, 5000)
    assert events[2]["after"]["password_hash"] == "…"
    assert spokes("events", "verify").out.startswith("All events")


def test_hostile_texts_are_escaped_in_every_listing(spokes):
    with spokes.store() as store:
        user = do(store, CreateUser(fullname="W" * 255, email="a|b@example.org"))
        tunnel, _ = do(store, CreateTunnel(name="x |", domain="tun.test", user_uid=user.uid))
        store.presence.write([PresenceUpdate(
            tunnel_uid=tunnel.uid, state=TunnelState.OFFLINE, last_active=1.0, address=HOSTILE, version=HOSTILE,
            os=HOSTILE, arch=HOSTILE,
        )])
        key, _ = do(store, CreateApiKey("k"))
        store.api_keys.touch({key.uid: (1.0, HOSTILE)})
        webhook = do(store, CreateWebhook("https://hooks.example.org/"))
        store.deliveries.queue([NewDelivery(webhook_uid=webhook.uid, kind="test", body=HOSTILE)])
        store.deliveries.finish(due_deliveries(store, 4e9)[0].uid, error=HOSTILE)
        store.alerts.open("disk", HOSTILE, "warning", HOSTILE)
        with store.audit.acting(Principal(kind="person", name=HOSTILE, address=HOSTILE)):
            store.audit.note("login.refused", detail={"email": HOSTILE})
    for line in (
        ("user", "list"), ("user", "show", user.uid), ("apikey", "list"), ("tunnel", "list"), ("tunnel", "search"),
        ("tunnel", "show", tunnel.uid), ("webhook", "list"), ("webhook", "deliveries", webhook.uid), ("alerts", "list"),
        ("events", "list"), ("events", "export"),
    ):
        for text in (spokes(*line).out, spokes(*line, "--json").out):
            assert [char for char in text if not char.isprintable() and char not in "\r\n"] == [], line


@pytest.mark.parametrize("line", ["user list", "tunnel list", "token list", "alerts list", "events list", "port list"])
def test_reading_verb_makes_no_store_where_there_is_none(spokes, line):
    spokes.data = spokes.data / "mistyped"
    assert "there is no database" in spokes(*line.split(), code=1).err
    assert not spokes.data.exists()
