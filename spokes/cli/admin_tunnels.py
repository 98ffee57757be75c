"""`spokes tunnel`: lists, finds, shows, creates, assigns, stops and deletes tunnels."""

from __future__ import annotations

from typing import Any

import click

from spokes.admin.context import DEFAULT_HTTPS_PORT
from spokes.admin.resources import tunnels as tunnel_calls
from spokes.admin.resources import user_tunnels as user_tunnel_calls
from spokes.admin.schema.tunnels import NewTunnelAnswer
from spokes.admin.tunnel_objects import auth_token_object, tunnel_object, tunnel_objects
from spokes.cli.admin_shell import (
    SYSTEM,
    Shell,
    changing,
    confirm,
    plain,
    print_object,
    print_result,
    reading,
    say,
    verb,
    yes_no,
    yes_option,
)
from spokes.cli.server_options import Settings, print_json, setting_option, size_text
from spokes.cli.table import print_table
from spokes.ids import ZERO_UID
from spokes.model.api_objects import Tunnel
from spokes.model.tunnels import (
    AssignTunnel,
    CreateTunnel,
    DeleteTunnel,
    RenewTunnelKey,
    SetTunnelKey,
    SetTunnelState,
)
from spokes.redaction import redacted
from spokes.store import TunnelState
from spokes.store.tunnels import VISIBLE

_NEVER = "0001-"
_STATES = {state.name.lower(): state for state in TunnelState}
_LIVE_STATES = (TunnelState.INIT, TunnelState.ONLINE, TunnelState.OFFLINE)

domain_option = setting_option("domain", "The server's own name, where none runs; one that runs says it.")
tunnel_argument = click.argument("tunnel_name", metavar="TUNNEL")
user_option = click.option(
    "--user", "user_name", metavar="USER", help=f"Owner: id or e-mail address, or {SYSTEM}."
)


@click.group(epilog="Example: spokes tunnel list --state online")
def tunnel() -> None:
    """Tunnels. TUNNEL is an id or a host name."""


@tunnel.command("list", epilog="Example: spokes tunnel list --state online --user mara@example.org")
@click.option(
    "--state", "states", type=click.Choice(list(_STATES)), multiple=True,
    help="Only those in this state; give it again for more.",
)
@user_option
@verb
def list_tunnels(settings: Settings, states: tuple[str, ...], user_name: str | None, as_json: bool) -> None:
    """List tunnels, newest first, but those deleted."""
    with reading(settings) as shell:
        wanted = {_STATES[name] for name in states} or VISIBLE
        # Who is on-line the server knows before the store does.
        asked = wanted | set(_LIVE_STATES) if wanted & set(_LIVE_STATES) else wanted
        stored = shell.store.tunnels.select(states=asked, user_uid=_owner(shell, user_name) if user_name else None)
        found = [one for one in tunnel_objects(shell.admin, stored) if TunnelState(one.state) in wanted]
        owners = shell.owners(one.user_uid for one in found)
    _print_tunnels(found, owners, as_json=as_json)


@tunnel.command("search", epilog="Example: spokes tunnel search shop --os linux")
@click.argument("term", default="")
@click.option("--os", default="", metavar="NAME", help="Whole word, in any case.")
@click.option("--arch", default="", metavar="NAME", help="Whole word, in any case.")
@click.option("--client", "version", default="", metavar="VERSION", help="How the client's version begins.")
@user_option
@verb
def search(
    settings: Settings, term: str, os: str, arch: str, version: str, user_name: str | None, as_json: bool
) -> None:
    """Find tunnels by a part of name, host name, address, id or served domain."""
    with reading(settings) as shell:
        owner = _owner(shell, user_name) if user_name else None
        uids = shell.store.tunnels.search(term, os, arch, version, user_uid=owner)
        found = tunnel_objects(shell.admin, shell.store.tunnels.get_many(uids))
        owners = shell.owners(one.user_uid for one in found)
    _print_tunnels(found, owners, as_json=as_json)


@tunnel.command("show", epilog="Example: spokes tunnel show brave-otter.tun.example.net")
@tunnel_argument
@verb
def show(settings: Settings, tunnel_name: str, as_json: bool) -> None:
    """Show a tunnel with its services, its traffic and what is known of its client."""
    with reading(settings) as shell:
        stored = shell.tunnel(tunnel_name)
        one = tunnel_object(shell.admin, stored, details=True)
        maps = shell.store.portmaps.select(stored.uid)
        owner = shell.owners([one.user_uid])[one.user_uid]
    if as_json:
        print_object(one)
        return
    print_table(["Fact", "Value"], [
        ["Id", one.id],
        ["Host name", one.hostname],
        ["Name", one.name],
        ["State", _state_text(one)],
        ["Owner", owner],
        ["Created", one.created],
        ["Last active", _time_text(one.last_active)],
        ["On-line for", f"{one.uptime} s" if one.uptime else "-"],
        ["Address", one.address],
        ["Client", " ".join(filter(None, (one.version, one.os, one.arch)))],
        ["Traffic", f"{size_text(one.bandwidth.daily)} today, {size_text(one.bandwidth.monthly)} this month"],
    ])
    if one.https:
        print_table(["Domain", "Served now", "Traffic this month"], [
            [site.domain_name, yes_no(site.available), size_text(site.bandwidth.monthly)] for site in one.https
        ])
    if one.ports:
        print_table(["Port", "Served now", "Traffic this month"], [
            [str(port.port), yes_no(port.available), size_text(port.bandwidth.monthly)] for port in one.ports
        ])
    if maps:
        print_table(["Port at the client", "Leads to"], [
            [f"{one.listen_port}/{one.transport}", f"{one.rule.get('destination')}:{one.rule.get('dstPort')}"]
            for one in maps
        ])


@tunnel.command("create", epilog="Example: spokes tunnel create --name 'branch 7' --user mara@example.org")
@click.option("--name", default="", metavar="TEXT", help="For people.")
@click.option("--hostname", metavar="NAME", help="Under the server's own name; without, one is drawn.")
@click.option("--id", "uid", metavar="ID", help="An id of your own, 32 hex digits.")
@user_option
@domain_option
@verb
def create(
    settings: Settings, name: str, hostname: str | None, uid: str | None, user_name: str | None, as_json: bool
) -> None:
    """Make a tunnel without a registration token, and print the key its client logs in with."""
    with changing(settings) as shell:
        made, token = shell.perform(CreateTunnel(
            name=name, hostname=hostname, domain=shell.domain(), uid=uid and uid.lower(),
            user_uid=_owner(shell, user_name) if user_name else ZERO_UID,
        ))
        answer = NewTunnelAnswer(tunnel=tunnel_object(shell.admin, made), token=auth_token_object(made, token))
    if as_json:
        print_json({"tunnel": plain(answer.tunnel), "token": plain(answer.token)})
        return
    click.echo(f"Hostname: {made.hostname}")
    click.echo(f"Id:       {made.uid}")
    click.echo(f"Key:      {token.value}")
    click.echo(f"Its client's configuration: spokes tunnel config {made.uid} --secrets")


@tunnel.command("assign", epilog="Example: spokes tunnel assign brave-otter.tun.example.net mara@example.org")
@tunnel_argument
@click.argument("user_name", metavar="USER")
@click.option("--name", default="", metavar="TEXT", help="A new name too.")
@click.option("--hostname", metavar="NAME", help="A new host name too, under the server's own.")
@domain_option
@verb
def assign(
    settings: Settings, tunnel_name: str, user_name: str, name: str, hostname: str | None, as_json: bool
) -> None:
    """Give a tunnel to a user (or `system`) and enable it. Traffic counts for the new owner from now on."""
    with changing(settings) as shell:
        changed, _ = shell.perform(AssignTunnel(
            uid=shell.tunnel(tunnel_name).uid, user_uid=_owner(shell, user_name), name=name, hostname=hostname,
            domain=shell.domain(),
        ))
        one = tunnel_object(shell.admin, changed)
    print_result(one, f"Tunnel {one.hostname} belongs to {user_name}", as_json=as_json)


@tunnel.command("stop", epilog="Example: spokes tunnel stop brave-otter.tun.example.net")
@tunnel_argument
@verb
def stop(settings: Settings, tunnel_name: str, as_json: bool) -> None:
    """End a tunnel's session; its client stays away until somebody starts it again."""
    with reading(settings) as shell:
        one = shell.tunnel(tunnel_name)
        answer = user_tunnel_calls.stop(shell.admin, shell.caller, None, tunnel_uid=one.uid)
    print_result({"id": one.uid, "message": answer.message}, f"{one.hostname}: {answer.message}", as_json=as_json)


@tunnel.command("shutdown", epilog="Example: spokes tunnel shutdown brave-otter.tun.example.net")
@tunnel_argument
@verb
def shutdown(settings: Settings, tunnel_name: str, as_json: bool) -> None:
    """End a tunnel's session and refuse its logins until `spokes tunnel start`."""
    _set_state(settings, tunnel_name, TunnelState.SHUTDOWN, "is shut down", as_json=as_json)


@tunnel.command("start", epilog="Example: spokes tunnel start brave-otter.tun.example.net")
@tunnel_argument
@verb
def start(settings: Settings, tunnel_name: str, as_json: bool) -> None:
    """Let a tunnel in again that was shut down; its client comes back by itself if it runs."""
    _set_state(settings, tunnel_name, TunnelState.INIT, "may log in", as_json=as_json)


@tunnel.command("delete", epilog="Example: spokes tunnel delete brave-otter.tun.example.net --yes")
@tunnel_argument
@yes_option
@verb
def delete(settings: Settings, tunnel_name: str, yes: bool, as_json: bool) -> None:
    """Delete a tunnel: key, domains and ports are freed, the host name stays reserved for 30 days."""
    with changing(settings) as shell:
        one = shell.tunnel(tunnel_name)
        confirm(f"Delete {one.hostname} for good?", yes=yes)
        shell.perform(DeleteTunnel(one.uid))
    print_result({"id": one.uid}, f"Tunnel {one.hostname} is deleted", as_json=as_json)


@tunnel.group("key", epilog="Example: spokes tunnel key renew brave-otter.tun.example.net")
def tunnel_key() -> None:
    """The key that a tunnel's client logs in with."""


@tunnel_key.command("deactivate", epilog="Example: spokes tunnel key deactivate brave-otter.tun.example.net")
@tunnel_argument
@verb
def deactivate_key(settings: Settings, tunnel_name: str, as_json: bool) -> None:
    """Switch the key off: its session ends, and its logins are refused."""
    _set_key(settings, tunnel_name, active=False, as_json=as_json)


@tunnel_key.command("activate", epilog="Example: spokes tunnel key activate brave-otter.tun.example.net")
@tunnel_argument
@verb
def activate_key(settings: Settings, tunnel_name: str, as_json: bool) -> None:
    """Switch the key on again; the client has to be started again."""
    _set_key(settings, tunnel_name, active=True, as_json=as_json)


@tunnel_key.command("renew", epilog="Example: spokes tunnel key renew brave-otter.tun.example.net")
@tunnel_argument
@verb
def renew_key(settings: Settings, tunnel_name: str, as_json: bool) -> None:
    """Give the tunnel another key and print it; the session of the old one ends."""
    with changing(settings) as shell:
        one = shell.tunnel(tunnel_name)
        token = shell.perform(RenewTunnelKey(one.uid))
    if as_json:
        print_object(auth_token_object(one, token))
        return
    say(f"Tunnel {one.hostname} has another key")
    click.echo(f"Key: {token.value}")
    if not token.active:
        click.echo("It is switched off: spokes tunnel key activate", err=True)


def _set_key(settings: Settings, tunnel_name: str, *, active: bool, as_json: bool) -> None:
    with changing(settings) as shell:
        one = shell.tunnel(tunnel_name)
        token = shell.perform(SetTunnelKey(one.uid, active=active))
    print_result(
        {"id": one.uid, "active": token.active},
        f"The key of {one.hostname} is switched {'on' if active else 'off'}", as_json=as_json,
    )


@tunnel.command("config", epilog="Example: spokes tunnel config brave-otter.tun.example.net | jq .https")
@tunnel_argument
@click.option("--secrets", is_flag=True, help="With key, passwords and private keys: a client's configuration file.")
@domain_option
@verb
def config(settings: Settings, tunnel_name: str, secrets: bool, as_json: bool) -> None:
    """Print a tunnel's rules as JSON, as its client's file has them."""
    del as_json                          # it is JSON anyhow
    with reading(settings) as shell:
        uid = shell.tunnel(tunnel_name).uid
        rules = plain(tunnel_calls.config(shell.admin, shell.caller, None, tunnel_uid=uid).config)
        facts = shell.ask_server()
    if facts is not None:
        rules["serverKey"] = facts["link_key"]
        rules["serverHost"] = _server_host(facts, shell.config.public_https_port)
    elif secrets:
        click.echo("spokes: no server runs, so serverKey is missing and serverHost is a guess", err=True)
    if not secrets:
        rules = redacted(rules | {"key": ""})
        del rules["key"]
    print_json(rules)


# --- below ---------------------------------------------------------------------------------------------------------


def _set_state(settings: Settings, tunnel_name: str, state: TunnelState, done: str, *, as_json: bool) -> None:
    with changing(settings) as shell:
        one = shell.tunnel(tunnel_name)
        changed = shell.perform(SetTunnelState(one.uid, state))
    print_result({"id": one.uid, "state": int(changed.state)}, f"Tunnel {one.hostname} {done}", as_json=as_json)


def _server_host(facts: dict[str, Any], public_https_port: int) -> str:
    """As a client's configuration names the server."""
    ports = {int(address.rpartition(":")[2]) for address in facts["https"]}
    port = public_https_port or (DEFAULT_HTTPS_PORT if DEFAULT_HTTPS_PORT in ports or not ports else min(ports))
    return str(facts["domain"]) if port == DEFAULT_HTTPS_PORT else f"{facts['domain']}:{port}"


def _owner(shell: Shell, text: str) -> str:
    return ZERO_UID if text in (SYSTEM, ZERO_UID) else shell.user(text).uid


def _print_tunnels(tunnels: list[Tunnel], owners: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        print_json({"total": len(tunnels), "tunnels": [plain(one) for one in tunnels]})
        return
    print_table(
        ["Id", "Host name", "Name", "State", "Owner", "Address", "Last active", "Month"],
        [
            [
                one.id, one.hostname, one.name, _state_text(one), owners[one.user_uid], one.address,
                _time_text(one.last_active), size_text(one.bandwidth.monthly),
            ]
            for one in tunnels
        ],
    )


def _state_text(one: Tunnel) -> str:
    return "never seen" if one.state == TunnelState.INIT else TunnelState(one.state).name.lower()


def _time_text(text: str) -> str:
    return "-" if text.startswith(_NEVER) else text
