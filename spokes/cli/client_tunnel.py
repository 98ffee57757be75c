"""`spoke configure | info | edit`: the tunnel's identity."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
import msgspec

from spokes.cli.client_options import (
    TUNNEL_NAME,
    Settings,
    ask_once,
    config_option,
    json_option,
    option,
    pass_settings,
    perform,
    read_secret,
    resolver_option,
    show,
)
from spokes.cli.table import tasks_text
from spokes.client.config import (
    DEFAULT_SERVER_PORT,
    HA_MODES,
    ClientConfig,
    give_to_unit,
    join_host_port,
    split_host_port,
)
from spokes.client.config_edit import edit_config
from spokes.client.local_caller import LocalCaller
from spokes.client.node_file import NodeFile
from spokes.client.node_list import NodeAddress
from spokes.client.probe import shown_fingerprint
from spokes.client.tables import (
    accepted_of,
    datagrams_text,
    delayed_of,
    delayed_text,
    failing_of,
    node_table,
    port_table,
    site_table,
)
from spokes.errors import ConfigError, ServerKeyError, SpokesError
from spokes.event_loop import run as run_loop
from spokes.file_edit import require_writable, write_file
from spokes.fingerprints import parse_fingerprint

if TYPE_CHECKING:
    from spokes.client.endpoint import Endpoint
    from spokes.resolver import Resolver

INFO_DEADLINE_S = 5.0


@click.command(
    epilog="Example: spoke configure --url https://tun.example.net --token-file token.txt --server-key sha256:…"
)
@option("--url", metavar="https://HOST[:PORT]", help="Address of the server.")
@option("--token", help="Registration token (`spokes token create` on the server).")
@option("--token-file", type=click.Path(path_type=Path), help="File that holds the token; - reads standard input.")
@option("--name", type=TUNNEL_NAME, default=socket.gethostname, show_default="this host's name",
        help="Name of the tunnel, for people.")  # fmt: skip
@option("--server-key", "server_keys", metavar="FINGERPRINT", multiple=True,
        help="Fingerprint of the server's key; it is pinned. Of a cluster: that of each node, by repeating the option.")
@option("--ha", type=click.Choice(HA_MODES), help="Which nodes of a cluster get a session: all, or one at a time. "
        "Without --url and --token it changes the configuration that is there.")
@option("--ca", type=click.Path(path_type=Path), help="File of the authorities to trust, instead of a pinned key.")
@resolver_option
@config_option
@json_option
@pass_settings
def configure(
    settings: Settings,
    url: str | None,
    token: str | None,
    token_file: Path | None,
    name: str,
    server_keys: tuple[str, ...],
    ha: str | None,
    ca: Path | None,
    as_json: bool,
) -> None:
    """Register this host at a server and write the configuration."""
    asking = sys.stdin.isatty() and sys.stderr.isatty()
    token = read_secret(token, token_file)
    if ha and not url and not token:
        _set_ha_mode(settings.path, ha, as_json=as_json)
        return
    missing = [words for words, value in (("--url", url), ("--token (or --token-file)", token)) if not value]
    if missing and not asking:
        raise click.UsageError(f"missing {' and '.join(missing)}")
    if not url:
        url = click.prompt("Server (https://HOST[:PORT])", err=True)
    host, port = _parse_url(url)
    if not token:
        token = click.prompt("Registration token", hide_input=True, err=True)
        if not server_keys and ca is None:
            words = "Fingerprint of the server's key (empty: trust public authorities)"
            server_keys = (click.prompt(words, default="", show_default=False, err=True),)
    keys = [text for text in server_keys if text]
    for text in keys:
        parse_fingerprint(text)  # a wrong one is refused before anything is sent
    document: dict[str, Any] = {"serverHost": join_host_port(host, port)}
    if ha:
        document["ha"] = ha
    if keys:
        document["serverKey"] = keys[0]
        if keys[1:]:
            document["serverKeys"] = keys[1:]
    elif ca is not None:
        if not ca.is_file():
            raise click.UsageError(f"--ca: no file {ca}")
        document["serverCA"] = str(ca.absolute())
    if settings.resolvers:
        document["resolver"] = [str(one) for one in settings.resolvers]
    config = ClientConfig(settings.path, document)
    config.require_writable()
    _require_keepable(config.path)
    run_loop(_register(config, token, name))
    kept = _keep_old(config.path)
    config.save()
    give_to_unit(config.path)
    if kept is not None:
        click.echo(f"the former configuration is kept as {kept}", err=True)
    facts = {
        "hostname": config.hostname,
        "tunnel": config.document["tunnel"],
        "server": config.server_host,
        "config": str(config.path),
    }
    show(facts, f"Hostname: {config.hostname}\nNext, type: spoke{_config_words(settings)} http 8080", as_json=as_json)


def _set_ha_mode(path: Path, mode: str, *, as_json: bool) -> None:
    """A client that runs takes it at once."""
    with edit_config(path) as config:
        config.document["ha"] = mode
    running = LocalCaller.find(path)
    if running is not None:
        try:
            os.kill(running.pid, signal.SIGHUP)
        except OSError as error:
            click.echo(
                f"spoke: the running client (process {running.pid}) was not told: {error.strerror}; "
                "send it SIGHUP, or start it again", err=True,
            )  # fmt: skip
    show({"ha": mode, "config": str(path)}, f"Nodes of the cluster: {mode}", as_json=as_json)


def _config_words(settings: Settings) -> str:
    return f" --config {settings.config}" if settings.config else ""


async def _register(config: ClientConfig, token: str, name: str) -> None:
    from spokes.client.control import register_tunnel  # the engine is loaded only by verbs that need it
    from spokes.client.endpoint import Endpoint
    from spokes.client.engine import control_engine
    from spokes.resolver import Resolver

    endpoint = Endpoint.of(config)
    resolver = Resolver(servers=config.name_servers())
    try:
        registered = await register_tunnel(control_engine(), config, resolver=resolver, token=token, name=name)
    except ServerKeyError as error:
        raise await _explained(error, endpoint, resolver) from None
    config.document |= {
        "hostname": registered.hostname,
        "name": name,
        "tunnel": registered.tunnel,
        "key": registered.key,
        "https": [],
        "ports": [],
    }


async def _explained(error: ServerKeyError, endpoint: Endpoint, resolver: Resolver) -> ServerKeyError:
    """The refusal with both fingerprints, for people to compare."""
    shown = await shown_fingerprint(endpoint.host, endpoint.port, resolver)
    if not shown:
        return error
    pins = [pin for pin in (endpoint.pin_sha256, *endpoint.other_pins) if pin]
    expected = f"expected {' or '.join(f'sha256:{pin.hex()}' for pin in pins)}, " if pins else ""
    return ServerKeyError(f"{error} ({expected}the server shows {shown})", hint=error.hint)


def _former(path: Path) -> bytes:
    """What a configuration that is about to be replaced holds."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="check its owner and mode") from None


def _require_keepable(path: Path) -> None:
    if _former(path).strip():
        try:
            require_writable(_kept(path))
        except OSError as error:
            raise ConfigError(
                f"cannot keep the former configuration as {_kept(path)}: {error.strerror}",
                hint="its key is the only way back to its hostname; move it away",
            ) from None


def _kept(path: Path) -> Path:
    return path.with_name(path.name + ".old")


def _keep_old(path: Path) -> Path | None:
    """Put a configuration that is about to be replaced aside: its key is the only way to its hostname."""
    former = _former(path)
    if not former.strip():
        return None
    write_file(_kept(path), former)
    return _kept(path)


def _parse_url(text: str) -> tuple[str, int]:
    try:
        url = urlsplit(text if "://" in text else f"https://{text}")
        host, port = url.hostname, url.port or DEFAULT_SERVER_PORT
    except ValueError:
        host, port, url = None, 0, urlsplit("")
    if url.scheme != "https" or not host or url.path.strip("/") or url.query or url.username:
        raise click.BadParameter(f"{text!r} is not https://HOST[:PORT]", param_hint="--url")
    return split_host_port(join_host_port(host, port))


@click.command(epilog="Example: spoke info --json | jq -r .hostname")
@resolver_option
@config_option
@json_option
@pass_settings
def info(settings: Settings, as_json: bool) -> None:
    """Show the tunnel, its addresses and its services."""
    path = settings.path
    config = ClientConfig.load(path)
    running = LocalCaller.find(path)
    status = running.status() if running is not None else {}
    accepted = accepted_of(status)
    failing, delayed = failing_of(status), delayed_of(status)
    server_facts, trouble = _ask_info(settings, running)
    sites, ports = config.sites(), config.ports()
    nodes = status.get("nodes") if status else _known_nodes(config)
    nodes = nodes if nodes is not None else []
    urls = server_facts.get("urls", [])
    facts = {
        "hostname": config.hostname,
        "name": config.name,
        "tunnel": config.document.get("tunnel") or "",
        "server": config.server_host,
        "serverKey": config.server_key,
        "config": str(path),
        "state": status.get("state") or "not running",
        "addresses": server_facts.get("addresses", []),
        "urls": urls,
        "url": server_facts.get("url") or next(iter(urls), ""),
        "https": msgspec.to_builtins(sites),
        "ports": msgspec.to_builtins(ports),
        "failing": status.get("failing", []),
        "delayed": status.get("delayed"),
        "datagrams": status.get("datagrams"),
        "loops": status.get("loops", 0),
        "tasks": status.get("tasks", []),
        "ha": status.get("ha") or config.ha_mode,
        "nodes": nodes,
    }
    is_cluster = len(nodes) > 1 or bool(status.get("cluster"))
    # The one to show goes first.
    addresses = sorted(urls, key=lambda url: url != facts["url"]) or facts["addresses"]
    lines = [
        f"Hostname: {config.hostname}",
        f"Name: {config.name}",
        f"Server: {config.server_host}",
        f"Addresses: {', '.join(addresses) or trouble or '-'}",
        f"Client: {facts['state']}",
        *([f"Nodes: {facts['ha']}"] if is_cluster else []),
        *([f"Rules: {delayed_text(delayed)}"] if delayed else []),
        *([f"Datagrams: {datagrams_text(facts['datagrams'])}"] if facts["datagrams"] else []),
        *([f"Tasks: {tasks_text(facts['tasks'])}"] if any(one["failures_total"] for one in facts["tasks"]) else []),
        f"Configuration: {path}",
        *(["", node_table(nodes)] if is_cluster else []),
        "",
        site_table(sites, accepted, failing, delayed) if sites else "No HTTP services.",
        "",
        port_table(ports, accepted, failing, delayed) if ports else "No ports.",
    ]
    show(facts, "\n".join(lines), as_json=as_json)


def _known_nodes(config: ClientConfig) -> list[dict[str, Any]]:
    """Of a client that does not run: the nodes as they were last known."""
    host, port = config.server_address()
    nodes = NodeFile(config.path, read_only=True).read(host) or (NodeAddress(host, port),)
    return [{"hostname": str(node), "role": "", "state": "not running", "rttMs": None} for node in nodes]


def _ask_info(settings: Settings, running: LocalCaller | None) -> tuple[dict[str, Any], str]:
    """What the server knows; or why it could not be asked, which `info` survives."""

    async def ask() -> dict[str, Any]:
        async with asyncio.timeout(INFO_DEADLINE_S):
            return await ask_once(settings, "tunnel.info", {})

    try:
        return (running.perform("tunnel.info", {}) if running is not None else run_loop(ask())), ""
    except TimeoutError:
        return {}, f"unknown, no answer from the server within {INFO_DEADLINE_S:.0f} s"
    except SpokesError as error:
        return {}, f"unknown, {error.line()}"


@click.command(epilog="Example: spoke edit --name 'till 4'")
@option("--name", type=TUNNEL_NAME, required=True, help="New name of the tunnel.")
@resolver_option
@config_option
@json_option
@pass_settings
def edit(settings: Settings, name: str, as_json: bool) -> None:
    """Change the tunnel's name."""
    result = perform(settings, "tunnel.edit", {"name": name})
    show(result, "Tunnel name updated", as_json=as_json)
