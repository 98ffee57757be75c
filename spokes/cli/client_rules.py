"""`spoke tunnel http …` and `spoke tunnel tcp …`: the rules of the tunnel."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from spokes.cli.client_limits import limit_members, site_limits, udp_timeout_option
from spokes.cli.client_options import (
    PORT,
    Settings,
    config_option,
    json_option,
    option,
    pass_settings,
    perform,
    resolver_option,
    show,
)
from spokes.client.config import ClientConfig
from spokes.client.local_caller import LocalCaller
from spokes.client.tables import Failing, accepted_of, delayed_of, failing_of, port_table, site_table
from spokes.client.webroots import usable_web_root
from spokes.wire.messages import Accepted, Fault
from spokes.wire.rules import UNIX_PREFIX

DESTINATION_HELP = "Host or address of the local service, or unix:/path of its socket."
WEBROOT_HELP = "Serve the files of this directory instead of a service."


@click.group(epilog="Example: spoke tunnel http add --domain shop.example.org --destination localhost --http 8080")
@config_option
def tunnel() -> None:
    """Change the tunnel's rules. A running client takes them at once; untouched services keep their connections."""


@tunnel.group("http", epilog="Example: spoke tunnel http ls")
@config_option
def http_rules() -> None:
    """Rules for HTTP: host names and the services behind them."""


@http_rules.command("add", epilog="Example: spoke tunnel http add --domain shop.example.org --http 8080")
@option("--domain", required=True, help="Public host name.")
@option("--destination", default="localhost", show_default=True, help=DESTINATION_HELP)
@option("--http", "http_port", type=PORT, help="The service's port for plain HTTP.")
@option("--tls", "tls_port", type=PORT, help="The service's port for TLS; visitors' TLS passes through to it.")
@option("--webroot", metavar="DIR", help=WEBROOT_HELP)
@site_limits
@config_option
@json_option
@pass_settings
def http_add(
    settings: Settings,
    /,
    domain: str,
    destination: str,
    http_port: int | None,
    tls_port: int | None,
    webroot: str | None,
    as_json: bool,
    **limits: int,
) -> None:
    """Add a rule, or replace the one with the same domain."""
    is_unix = destination.startswith(UNIX_PREFIX)
    if http_port is None and tls_port is None and not is_unix and not webroot:
        raise click.UsageError("missing --http or --tls, the service's port; or --webroot, a directory")
    rule: dict[str, Any] = {"domain": domain, "destination": destination}
    if http_port is not None:
        rule["port"] = http_port
    if tls_port is not None:
        rule["tls"] = tls_port
    if webroot:
        rule["webRoot"] = usable_web_root(webroot)
    rule |= limit_members(**limits)
    result = perform(settings, "http.add", rule)
    show(result, "HTTP/S traffic rule added", as_json=as_json)


@http_rules.command("rm", epilog="Example: spoke tunnel http rm --domain shop.example.org")
@option("--domain", required=True, help="Host name of the rule.")
@config_option
@json_option
@pass_settings
def http_rm(settings: Settings, domain: str, as_json: bool) -> None:
    """Remove a rule."""
    result = perform(settings, "http.rm", {"domain": domain})
    show(result, "HTTP/S traffic rule removed", as_json=as_json)


@http_rules.command("ls", epilog="Example: spoke tunnel http ls --json")
@config_option
@json_option
@pass_settings
def http_ls(settings: Settings, as_json: bool) -> None:
    """List the rules."""
    sites = ClientConfig.load(settings.path).sites()
    show({"https": msgspec.to_builtins(sites)}, site_table(sites, *_standing(settings)), as_json=as_json)


@tunnel.group("tcp", epilog="Example: spoke tunnel tcp ls")
@config_option
def tcp_rules() -> None:
    """Rules for public ports and the services behind them. A port carries TCP and UDP alike."""


@tcp_rules.command("allocate", epilog="Example: spoke tunnel tcp allocate")
@resolver_option
@config_option
@json_option
@pass_settings
def tcp_allocate(settings: Settings, as_json: bool) -> None:
    """Get a public port of the server."""
    result = perform(settings, "tcp.allocate", {})
    show(result, f"Allocated port {result.get('port')}", as_json=as_json)


@tcp_rules.command("forward", epilog="Example: spoke tunnel tcp forward --destination localhost --dstport 22")
@option("--port", type=PORT, help="Public port; without it a free one of the tunnel, or a new one.")
@option("--destination", required=True, help=DESTINATION_HELP)
@option("--dstport", type=PORT, help="The service's port.")
@udp_timeout_option
@resolver_option
@config_option
@json_option
@pass_settings
def tcp_forward(
    settings: Settings, /, port: int | None, destination: str, dstport: int | None, as_json: bool, **limits: int
) -> None:
    """Lead a public port to a local service."""
    if dstport is None and not destination.startswith(UNIX_PREFIX):
        raise click.UsageError("missing --dstport: the service's port")
    rule: dict[str, Any] = {"destination": destination, "dstPort": dstport or 0, "port": port or 0}
    rule |= limit_members(**limits)
    result = perform(settings, "tcp.forward", rule)
    show(result, f"TCP traffic rule added for port {result.get('port')}", as_json=as_json)


@tcp_rules.command("release", epilog="Example: spoke tunnel tcp release --port 22197")
@option("--port", type=PORT, required=True, help="Public port to give back.")
@resolver_option
@config_option
@json_option
@pass_settings
def tcp_release(settings: Settings, port: int, as_json: bool) -> None:
    """Give a public port back."""
    result = perform(settings, "tcp.release", {"port": port})
    show(result, f"Released port {port}", as_json=as_json)


@tcp_rules.command("ls", epilog="Example: spoke tunnel tcp ls | cut -d'|' -f2")
@config_option
@json_option
@pass_settings
def tcp_ls(settings: Settings, as_json: bool) -> None:
    """List the ports."""
    ports = ClientConfig.load(settings.path).ports()
    show({"ports": msgspec.to_builtins(ports)}, port_table(ports, *_standing(settings)), as_json=as_json)


def _standing(settings: Settings) -> tuple[Accepted | None, Failing, Fault | None]:
    """What the server has in force, which services fail and why rules wait, as the running client knows it."""
    running = LocalCaller.find(settings.path)
    status = running.status() if running is not None else {}
    return accepted_of(status), failing_of(status), delayed_of(status)
