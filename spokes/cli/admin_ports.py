"""`spokes port`: lists public ports with their tunnels."""

from __future__ import annotations

import click

from spokes.admin.schema.rules import PortTunnel
from spokes.cli.admin_shell import changing, plain, print_result, reading, verb
from spokes.cli.server_options import Settings, print_json, setting_option
from spokes.cli.table import print_table
from spokes.errors import NotFoundError
from spokes.model.ports import AllocatePort, ReleasePort
from spokes.wire.rules import UNIX_PREFIX

range_option = setting_option("tcp_ports", "The range, where no server runs; one that runs has its own.")


@click.group(epilog="Example: spokes port allocate brave-otter.tun.example.net")
def port() -> None:
    """Public ports. TUNNEL is an id or a host name."""


@port.command("list", epilog="Example: spokes port list --json | jq '.ports[].port'")
@click.option("--tunnel", "tunnel_name", metavar="TUNNEL", help="Only this tunnel's.")
@verb
def list_ports(settings: Settings, tunnel_name: str | None, as_json: bool) -> None:
    """List allocated ports, their tunnels and where they lead."""
    with reading(settings) as shell:
        ports = shell.store.ports.select(shell.tunnel(tunnel_name).uid if tunnel_name else None)
        tunnels = shell.store.tunnels.get_many(sorted({one.tunnel_uid for one in ports}))
    if as_json:
        print_json({"ports": [plain(PortTunnel(port=one.port, tunnel_uid=one.tunnel_uid)) for one in ports]})
        return
    hosts = {tunnel.uid: tunnel.hostname for tunnel in tunnels}
    rows = [
        [str(one.port), hosts.get(one.tunnel_uid, ""), one.tunnel_uid, _leads_to(dict(one.rule))] for one in ports
    ]
    print_table(["Port", "Tunnel", "Id", "Leads to"], rows)


@port.command("range", epilog="Example: spokes port range --json")
@range_option
@verb
def read_range(settings: Settings, as_json: bool) -> None:
    """Show where ports are allocated."""
    with reading(settings) as shell:
        ports = shell.tcp_ports()
        used = sum(1 for one in shell.store.ports.select() if ports.begin <= one.port <= ports.end)
    print_result(
        {"begin": ports.begin, "end": ports.end, "used": used},
        f"{ports.begin}-{ports.end}, {used} of {ports.end - ports.begin + 1} allocated", as_json=as_json,
    )


@port.command("allocate", epilog="Example: spokes port allocate brave-otter.tun.example.net --json")
@click.argument("tunnel_name", metavar="TUNNEL")
@range_option
@verb
def allocate(settings: Settings, tunnel_name: str, as_json: bool) -> None:
    """Allocate the lowest free port to a tunnel; a running server listens on it at once."""
    with changing(settings) as shell:
        tunnel, ports = shell.tunnel(tunnel_name), shell.tcp_ports()
        number = shell.perform(AllocatePort(tunnel.uid, ports.begin, ports.end))
    print_result(PortTunnel(port=number, tunnel_uid=tunnel.uid), f"Allocated port {number}", as_json=as_json)


@port.command("release", epilog="Example: spokes port release 22004")
@click.argument("number", metavar="PORT", type=click.IntRange(1, 65535))
@verb
def release(settings: Settings, number: int, as_json: bool) -> None:
    """Give a port back, its forwarding with it."""
    with changing(settings) as shell:
        own = next((one for one in shell.store.ports.select() if one.port == number), None)
        if own is None:
            raise NotFoundError(f"port {number} is not allocated", hint="`spokes port list` shows those that are")
        shell.perform(ReleasePort(own.tunnel_uid, number))
    print_result(PortTunnel(port=number, tunnel_uid=own.tunnel_uid), f"Released port {number}", as_json=as_json)


def _leads_to(rule: dict[str, object]) -> str:
    destination, port = str(rule.get("destination") or ""), rule.get("dstPort")
    if destination.startswith(UNIX_PREFIX):
        return destination
    return f"{destination or 'localhost'}:{port}" if port else "-"       # as the client takes it
