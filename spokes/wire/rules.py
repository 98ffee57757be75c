"""Rules of a tunnel: sites, ports and port maps, with the JSON names that configuration files and scripts know.

Bound: every string and list has a limit. Fails: msgspec.ValidationError on wrong types; `check_site` and `check_port`
raise RuleError for what types cannot say. Unknown keys are ignored; absent keys mean the zero value.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from spokes.errors import RuleError

SITE_COUNT_MAX = 1000  # of one tunnel
PORT_COUNT_MAX = 1000
RULES_BYTES_MAX = 900_000  # of one tunnel: they travel as one control message, of 1 MiB at most
LIST_COUNT_MAX = 4096  # that is read: a longer list than a tunnel may have is refused rule by rule, and ends nothing
FIREWALL_RULE_COUNT_MAX = 1000
RESPONSE_TIMEOUT_S_MAX = 86_400
BODY_BYTES_MAX = 1 << 40
HEADER_LINE_BYTES_MIN = 256
HEADER_LINE_BYTES_MAX = 32_768           # as much as a whole header may have
UDP_TIMEOUT_S_MAX = 86_400
FIREWALL_ACTIONS = ("allow", "drop")
TRANSPORTS = ("tcp", "udp")
UNIX_PREFIX = "unix:"
UNIX_PATH_BYTES_MAX = 107                # sun_path of unix(7), with its end
_HOST_FIELD = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")      # what it is sent as
_LOCAL_NAME = re.compile(r"[\w-]+(\.[\w-]+)*\.?")

DomainName = Annotated[str, Meta(max_length=253)]
ShortText = Annotated[str, Meta(max_length=255)]
Text = Annotated[str, Meta(max_length=4096)]
PemText = Annotated[str, Meta(max_length=65536)]
PortNumber = Annotated[int, Meta(ge=0, le=65535)]
Sequence = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]


class Bounds(NamedTuple):
    """Of a limit that a rule may set; 0 is always allowed and means what counts where no rule says anything."""

    low: int
    high: int
    unit: str

    def allows(self, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and (value == 0 or self.low <= value <= self.high)

    def __str__(self) -> str:
        return f"between {self.low} and {self.high} {self.unit}"


LIMITS: Final = {
    "responseTimeout": Bounds(1, RESPONSE_TIMEOUT_S_MAX, "seconds"),
    "maxBody": Bounds(1, BODY_BYTES_MAX, "bytes"),
    "maxHeaderLine": Bounds(HEADER_LINE_BYTES_MIN, HEADER_LINE_BYTES_MAX, "bytes"),
    "udpTimeout": Bounds(1, UDP_TIMEOUT_S_MAX, "seconds"),
}


def _limit_meta(member: str) -> Meta:
    """Any number is read, so that a wrong one costs its rule and not the list; the schema tells the bounds."""
    schema = {"minimum": 0, "maximum": LIMITS[member].high}
    return Meta(ge=-(2**63), le=2**63 - 1, extra_json_schema=schema)


ResponseTimeout = Annotated[int, _limit_meta("responseTimeout")]
MaxBody = Annotated[int, _limit_meta("maxBody")]
MaxHeaderLine = Annotated[int, _limit_meta("maxHeaderLine")]
UdpTimeout = Annotated[int, _limit_meta("udpTimeout")]


class FwRule(Struct, frozen=True, kw_only=True):
    """One line of a firewall: any `allow` drops everything else, only `drop` passes everything else."""

    sequence: Sequence
    action: Annotated[str, Meta(max_length=16)]
    network: Annotated[str, Meta(max_length=64)]


Firewall = Annotated[tuple[FwRule, ...], Meta(max_length=FIREWALL_RULE_COUNT_MAX)]


class AuthPageOpts(
    Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"logo_url": "logoURL", "site_url": "siteURL"}
):
    title: ShortText = ""
    logo_url: Text = ""
    site_url: Text = ""


class Site(
    Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={
        "upstream_url": "upstreamURL",
        "web_root": "webRoot",
        "use_lets_enc": "useLetsEnc",
        "private_key": "privateKey",
        "requires_2fa": "requires2FA",
        "basic_http_auth": "basicHttpAuth",
        "redirect_url": "redirectURL",
        "rewrite_host": "rewriteHost",
        "insecure_upstream": "insecureUpstream",
        "response_timeout": "responseTimeout",
        "max_body": "maxBody",
        "max_header_line": "maxHeaderLine",
        "auth_page_opts": "authPageOpts",
    },
):
    """An HTTP rule; `domain` is its key."""

    domain: DomainName = ""
    secure: bool = False
    destination: ShortText = ""
    port: PortNumber = 0
    tls: PortNumber = 0
    upstream_url: Text = ""
    web_root: Text = ""
    use_lets_enc: bool = False
    ca: PemText = ""
    private_key: PemText = ""
    firewall: Firewall = ()
    redirect: bool = False
    password: Text = ""
    requires_2fa: bool = False
    basic_http_auth: Text = ""
    redirect_url: Text = ""
    rewrite_host: DomainName = ""
    insecure_upstream: bool = False
    response_timeout: ResponseTimeout = 0  # seconds; of this and the next two 0 = the default
    max_body: MaxBody = 0                # bytes
    max_header_line: MaxHeaderLine = 0   # bytes, with its line end
    auth_page_opts: AuthPageOpts | None = None

    def __repr__(self) -> str:
        return f"Site(domain={self.domain!r})"


def serves_plain_http(rule: Mapping[str, object]) -> bool:
    """Does anybody answer the site's plain HTTP? `rule` as JSON; where nobody does, its TLS is all there is."""
    destination = str(rule.get("destination") or "")
    return bool(
        rule.get("webRoot") or rule.get("upstreamURL") or rule.get("port") or destination.startswith(UNIX_PREFIX)
    )


class Port(
    Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={"dst_port": "dstPort", "udp_timeout": "udpTimeout"},
):
    """A public port; without `destination` and `dst_port` it is allocated and not forwarded."""

    port: PortNumber = 0
    destination: ShortText = ""
    dst_port: PortNumber = 0
    firewall: Firewall = ()
    udp_timeout: UdpTimeout = 0          # seconds; 0 = the default


class PortMap(Struct, frozen=True, kw_only=True, rename={"listen_port": "listenPort", "dst_port": "dstPort"}):
    """A port at the client that leads to a service of another tunnel; the key is listenPort and transport."""

    listen_port: PortNumber
    dst_port: PortNumber
    destination: ShortText
    transport: Annotated[str, Meta(max_length=8)]
    label: ShortText = ""
    http: bool = False


Sites = Annotated[tuple[Site, ...], Meta(max_length=SITE_COUNT_MAX)]
Ports = Annotated[tuple[Port, ...], Meta(max_length=PORT_COUNT_MAX)]
ReadSites = Annotated[tuple[Site, ...], Meta(max_length=LIST_COUNT_MAX)]
ReadPorts = Annotated[tuple[Port, ...], Meta(max_length=LIST_COUNT_MAX)]
ReadPortMaps = Annotated[tuple[PortMap, ...], Meta(max_length=LIST_COUNT_MAX)]


class TunConfig(
    Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={"server_key": "serverKey", "server_host": "serverHost"},
):
    """A tunnel's configuration: the client's file, and what a server sends to it."""

    hostname: DomainName = ""
    server_key: ShortText = ""
    server_host: ShortText = ""
    key: ShortText = ""
    unmanaged: bool = False
    version: ShortText = ""
    os: ShortText = ""
    arch: ShortText = ""
    https: ReadSites = ()
    ports: ReadPorts = ()
    portmaps: ReadPortMaps = ()

    def __repr__(self) -> str:
        return f"TunConfig(hostname={self.hostname!r}, https={len(self.https)}, ports={len(self.ports)})"


def with_rules(
    config: TunConfig,
    *,
    sites: Iterable[Mapping[str, Any]],
    ports: Iterable[Mapping[str, Any]],
    portmaps: Iterable[Mapping[str, Any]],
) -> TunConfig:
    """The configuration with these rules, given as the JSON that is stored of them."""
    return msgspec.structs.replace(
        config,
        https=tuple(msgspec.convert(site, Site) for site in sites),
        ports=tuple(msgspec.convert(port, Port) for port in ports),
        portmaps=tuple(msgspec.convert(portmap, PortMap) for portmap in portmaps),
    )


def check_site(site: Site) -> None:
    """Refuses a site that types allow and that cannot be served."""
    if not site.domain:
        raise RuleError("a site needs a domain")
    if site.upstream_url:
        _check_upstream_url(site)
    if site.rewrite_host and _HOST_FIELD.fullmatch(site.rewrite_host) is None:
        raise RuleError(f"https {site.domain}: rewriteHost {site.rewrite_host!r} is not a host name or name:port")
    options = site.auth_page_opts or AuthPageOpts()
    for member, url in (
        ("redirectURL", site.redirect_url), ("logoURL", options.logo_url), ("siteURL", options.site_url)
    ):
        _check_shown_url(site, member, url)
    for member, value in (
        ("responseTimeout", site.response_timeout), ("maxBody", site.max_body), ("maxHeaderLine", site.max_header_line)
    ):
        check_limit(f"https {site.domain}: ", member, value)
    _check_firewall(site.firewall)


def check_port(port: Port) -> None:
    if port.port == 0:
        raise RuleError("a port rule needs its public port")
    if port.destination and port.dst_port == 0:
        raise RuleError(f"port {port.port} has a destination and no port there")
    check_limit(f"port {port.port}: ", "udpTimeout", port.udp_timeout)
    _check_firewall(port.firewall)


def check_limit(where: str, member: str, value: int) -> None:
    if not LIMITS[member].allows(value):
        raise RuleError(f"{where}{member} {value} is not {LIMITS[member]}", hint="0, or none, means the default")


def limit_in(rule: Mapping[str, object], member: str) -> int:
    """Of a rule that is stored already, by whatever version: what is out of bounds counts as not said."""
    value = rule.get(member, 0)
    return value if isinstance(value, int) and LIMITS[member].allows(value) else 0


def check_upstream(site: Site) -> None:
    """Refuses a site whose upstream cannot exist. A file with such a rule is read all the same, for its others."""
    if site.destination:
        check_destination(site.destination)
    if site.upstream_url:
        url = urlsplit(site.upstream_url)
        if not _is_local_host(url.hostname or ""):
            raise RuleError(f"https {site.domain}: upstreamURL {site.upstream_url!r} names no host")
        if "@" in url.netloc or url.path not in ("", "/") or any(char in site.upstream_url for char in "?#"):
            raise RuleError(  # not repeated: it may hold a password
                f"https {site.domain}: upstreamURL is http://HOST[:PORT] and nothing else: visitors' paths and queries "
                "go on as they are, and no user is sent"
            )
    if site.rewrite_host:
        _check_host_field(site)
    if site.web_root and (not site.web_root.startswith("/") or "\0" in site.web_root):
        raise RuleError(f"https {site.domain}: webRoot {site.web_root!r} is not the absolute path of a directory")


def check_destination(text: str) -> None:
    """What a person types as a destination. Looser than a public host name: local names may hold underscores."""
    if text.startswith(UNIX_PREFIX):
        path = text.removeprefix(UNIX_PREFIX)
        if len(path.encode("utf-8", "surrogatepass")) > UNIX_PATH_BYTES_MAX:
            raise RuleError(f"the path of a socket has at most {UNIX_PATH_BYTES_MAX} bytes", hint="use a shorter one")
        usable = path.startswith("/") and "\0" not in path
    else:
        usable = _is_local_host(text)
    if not usable:
        raise RuleError(
            f"destination {text!r} is not a host name, an address or unix:/path",
            hint="the service's port is an option of its own",
        )


def _is_local_host(text: str) -> bool:
    return bool(_LOCAL_NAME.fullmatch(text)) or _is_address(text)


def _is_address(text: str) -> bool:
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def check_portmap(portmap: PortMap) -> None:
    if portmap.listen_port == 0 or portmap.dst_port == 0:
        raise RuleError("a port map needs the port where it listens and the one it leads to")
    if portmap.transport not in TRANSPORTS:
        raise RuleError(f"transport {portmap.transport!r} of a port map is not one of {', '.join(TRANSPORTS)}")


def _check_host_field(site: Site) -> None:
    found = _HOST_FIELD.fullmatch(site.rewrite_host)
    host, port = found.groups() if found is not None else ("[", None)
    if (host.startswith("[") and not _is_address(host)) or not (port is None or 1 <= int(port) <= 65535):
        raise RuleError(
            f"https {site.domain}: rewriteHost {site.rewrite_host!r} names no host and port",
            hint="a port is between 1 and 65535",
        )


def _check_upstream_url(site: Site) -> None:
    try:
        url = urlsplit(site.upstream_url)
        usable = url.scheme == "http" and bool(url.hostname) and url.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise RuleError(f"https {site.domain}: upstreamURL {site.upstream_url!r} is not http://HOST[:PORT]")


def _check_shown_url(site: Site, member: str, url: str) -> None:
    """Visitors' browsers are given it, under the server's certificate: no scripts, no control characters."""
    try:
        usable = not url or (urlsplit(url).scheme in ("http", "https") and bool(urlsplit(url).hostname))
    except ValueError:
        usable = False
    if not usable or any(char <= " " or char == "\x7f" for char in url):
        raise RuleError(f"https {site.domain}: {member} is not an http or https address")


def _check_firewall(rules: tuple[FwRule, ...]) -> None:
    for rule in rules:
        if rule.action not in FIREWALL_ACTIONS:
            raise RuleError(f"firewall action {rule.action!r} is not one of {', '.join(FIREWALL_ACTIONS)}")
        try:
            ipaddress.ip_network(rule.network, strict=False)
        except ValueError:
            raise RuleError(f"firewall network {rule.network!r} is not an address or a CIDR network") from None
