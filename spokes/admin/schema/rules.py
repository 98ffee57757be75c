"""Traffic rules of tunnels. Sites and ports are those of wire.rules: what is checked here is what a client gets."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType, field

from spokes.admin.schema.envelope import Answer, Part, Request
from spokes.wire.api_types import PortNumber, Text, Uid
from spokes.wire.rules import PORT_COUNT_MAX, SITE_COUNT_MAX, DomainName, Firewall, PortMap, Ports, Sites, TunConfig

DomainNames = Annotated[tuple[DomainName, ...], Meta(max_length=SITE_COUNT_MAX)]
PortNumbers = Annotated[tuple[PortNumber, ...], Meta(max_length=2 * PORT_COUNT_MAX)]


class PortMapRule(Part):
    """A port map as it is asked for; an empty `transport` is TCP, an empty `destination` the server itself."""

    listen_port: PortNumber = field(name="listenPort", default=0)
    dst_port: PortNumber = field(name="dstPort", default=0)
    destination: Text = ""
    transport: Annotated[str, Meta(max_length=8)] = ""
    label: Text = ""
    http: bool = False


class RulesAnswer(Answer):
    """`warning`: what of the rules acts on nobody yet; left out where everything does."""

    warning: str | UnsetType = UNSET


class UpdateSitesRequest(Request):
    sites: Sites = ()


class RemoveSitesRequest(Request):
    domains: DomainNames = ()


class ReleasePortRequest(Request):
    """The other members of a port may be there and say nothing."""

    port: PortNumber = 0
    destination: Text = ""
    dst_port: PortNumber = field(name="dstPort", default=0)
    firewall: Firewall = ()


class UpdatePortsRequest(Request):
    ports: Ports = ()


class ResetPortsRequest(Request):
    ports: PortNumbers = ()


class UpdatePortMapsRequest(Request):
    portmaps: Annotated[tuple[PortMapRule, ...], Meta(max_length=PORT_COUNT_MAX)] = ()


class RemovePortMapsRequest(Request):
    listen_ports: PortNumbers = field(name="listenPorts", default=())


class PortTunnel(Part):
    """An allocated port; the zero tunnel would be nobody's."""

    port: PortNumber
    tunnel_uid: Uid = field(name="tunID")


class PortsAnswer(Answer):
    ports: list[PortTunnel]


class PortRange(Part):
    """Both ends belong to it."""

    begin: PortNumber
    end: PortNumber


class PortRangeAnswer(Answer):
    range: PortRange


class ConfigAnswer(Answer):
    """The shape of a client's configuration file, so that one can be made from it again."""

    config: TunConfig


def portmap_of(rule: PortMapRule) -> PortMap:
    return PortMap(
        listen_port=rule.listen_port, dst_port=rule.dst_port, destination=rule.destination,
        transport=rule.transport.lower() or "tcp", label=rule.label, http=rule.http,
    )
