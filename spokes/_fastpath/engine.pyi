"""The engine as Python sees it: commands down, events in batches up, tables down, counters read in place.

Owns: worker threads and every byte of every connection. Bound: `memory_limit_bytes` for all buffers together.
Fails: commands raise OSError (the kernel's fault) or a SpokesError; a worker thread never raises.
"""

from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

LINK_ALPN: Final[bytes]

class ListenerKind(IntEnum):
    HTTP = 1        # plain HTTP; the host name decides
    TLS = 2         # ClientHello decides: link, terminated here, or passed through
    TCP = 3         # the port decides
    UDP = 4         # the port decides; fd is a bound datagram socket, add it on one worker only

class RouteKind(IntEnum):
    HTTP = 1        # key: canonical host name; "" = any other host
    TCP = 2         # key: public port
    TLS = 3         # key: canonical server name to pass through
    UDP = 4         # key: public port

class EventKind(IntEnum):
    LINK_UP = 1         # TLS is done, key verified; data: peer's "address port"
    LINK_DOWN = 2       # code: see below; data: detail in words (ASCII); the link id is gone
    CONTROL = 3         # data: payload of one CONTROL frame; code: its flags
    LINK_WANTED = 4     # the session has use for another link (bulk traffic on every one it has)
    DRAIN = 5           # peer asks for no new streams on this link
    LINK_CONNECTED = 6  # of connect_link: TCP stands, TLS begins
    PONG = 7            # the peer answered a ping_link
    UPSTREAM_FAULT = 8  # a dial or a datagram was refused, or is not answered; link: the upstream's id; code: -errno or
                        # ours. At most once a second for each upstream, and not at all where the ring is tight

class LinkDown(IntEnum):
    """Why a link ended; `data` of LINK_DOWN has the words."""
    CLOSED = 1          # by the peer, in order
    LOCAL = 2           # by close_link
    SYSTEM = 3          # kernel's error (refused, reset, unreachable, timed out)
    TLS = 4             # handshake or record failed
    PIN = 5             # the server's key is not the pinned one, or the certificate is not trusted
    PROTOCOL = 6        # the peer broke the link protocol
    DEAD = 7            # nothing arrived for 25 s
    HANDSHAKE = 8       # no TLS handshake within the deadline

class Limits(NamedTuple):
    """Of one route; 0 = what counts where nobody says otherwise. Where they act: docs/engine.md."""
    silence_s: float = 0.0              # of the upstream, until its response begins or goes on
    body_bytes_max: int = 0             # of a request's body
    line_bytes_max: int = 0             # of one line of a request's head
    udp_idle_s: float = 0.0             # of a peer or a flow, in both directions

class Policy(NamedTuple):
    """What a site asks of whoever comes to it."""
    limits: Limits = ...
    https_port: int = 0                 # visitors without TLS are sent there, by 308; 0 = they are served

class Site(NamedTuple):
    """What a route leads to: to exactly one of tunnels, upstream, directory and page."""
    tunnels: tuple[int, ...] = ()       # in this order, of those whose links are at the visitor's worker; else of the
                                        # others
    upstream: Upstream | None = None
    directory: Directory | None = None  # of HTTP requests: answered with its files
    page: str = ""                      # of HTTP requests: answered with the page of this code
    service: int = 0                    # what traffic is counted for beside the tunnel; 0 = nothing
    policy: Policy = ...

class Event(NamedTuple):
    kind: int
    link: int
    code: int
    data: bytes

class Upstream:
    """What finally answers at the client: one of several TCP addresses, or a Unix socket.

    `addresses` are literal IPs (the control plane resolves names), at most eight; tried in turn, beginning with the one
    that worked last. `host`: value for the Host header
    instead of the visitor's, "" = unchanged. `name`: shown in error pages, e.g. "127.0.0.1:8080". `fault_page`: code of
    the page for one that cannot be reached or ends without an answer, "" = the page of that fault. With SPK-ADMIN-DOWN,
    paths with `/api/` in them get every page in its JSON form where there is one.
    """
    id: int                             # of this object alone, in this process

    def __init__(self, *, addresses: list[tuple[str, int]] = ..., unix_path: str = "", host: str = "",
                 name: str = "", fault_page: str = "") -> None: ...
    def outcomes(self) -> tuple[int, float, list[int]]:
        """What came of asking it: (what came last, an index of FAULT_CODES, 0 = an answer; Unix time of that, 0.0 =
        it was never asked; how many faults of each kind so far)."""
    def has_answered(self) -> bool:
        """Ever."""

# Codes of an upstream's faults; two kinds may have one code. [0] is "": no fault.
FAULT_CODES: Final[tuple[str, ...]]

class Directory:
    """What finally answers at the client: the files below a directory, as long as it lives.

    Opened once: a directory that takes this one's place is another one. `identity`: device and inode. `beneath`: let
    the kernel hold files below it (openat2), where it can; otherwise symbolic links are not followed at all.
    Fails: OSError when there is no such directory.
    """
    identity: tuple[int, int]
    def __init__(self, path: str, *, beneath: bool = True) -> None: ...

class Certificate:
    """A chain and its key, as TLS ends with them; immutable. Made without the GIL.

    `names`: what it is used for. TLS sessions are resumed under the same names alone, and a request for a name that is
    not among them is misdirected (421). `staple`: an OCSP response in DER, given to those who ask. EngineError: it
    cannot be used, with the reason. `is_tried`: whether that is found out now, or by try_out, which takes ten times as
    long as all else; until then its first handshake would find it."""

    names: tuple[str, ...]
    def __init__(self, names: Iterable[str], chain_pem: bytes, key_pem: bytes, *, staple: bytes = b"",
                 is_tried: bool = True) -> None: ...
    def try_out(self) -> None: ...

class Engine:
    event_fd: int                       # readable while events wait; read nothing, call drain_events
    worker_count: int

    def __init__(self, *, workers: int, memory_limit_bytes: int, accepting: bool,
                 stream_count_max: int = ..., visitor_count_max: int = ...,
                 visitor_count_per_address_max: int = ..., handshakes_per_address_per_s: int = ...,
                 unmetered_networks: list[str] | None = ..., access_record_count_max: int = ...,
                 tunnel_stream_count_max: int = ..., via: bytes = ..., udp_idle_s: float = ...) -> None:
        """`accepting`: True at a server (links arrive, streams are opened by us), False at a client.

        `stream_count_max`: of one link. `visitor_count_per_address_max`: 0 = as many as all together.
        `handshakes_per_address_per_s`: TLS handshakes that one address (IPv6: one /64) may begin in the long run, ten
        seconds' worth at once; 0 = any number, as for addresses within `unmetered_networks` (CIDR, at most 32), which
        may fill a tunnel alone.
        `udp_idle_s`: how long a peer of a UDP service, or a flow to one, may be silent in both directions.
        `access_record_count_max`: access records kept until drain_access_records(), shared out among the workers;
        0 = none.
        `tunnel_stream_count_max`: of one tunnel, over all its links, and of the last quarter for one address as many as
        stay free; 0 = any number.
        `via`: our name in the Via of requests, at most 64 bytes, by which one that comes back is known; b"" = none.
        """
    def start(self) -> None: ...
    def stop(self) -> None:
        """Ends every worker, closes every fd. Idempotent."""

    # listeners: bound (and listening) non-blocking sockets with SO_REUSEPORT, one for each worker; the engine owns the
    # fd from now on
    def add_listener(self, kind: int, fd: int, *, worker: int, port: int) -> int: ...
    def remove_listener(self, listener: int) -> None:
        """Stops accepting; conns that came through it go on."""

    # tunnels and routes
    def open_tunnel(self) -> int:
        """A slot that routes can point at and links can be bound to. Off-line until a link is bound."""
    def close_tunnel(self, tunnel: int) -> None:
        """The slot may be given to another tunnel, ten seconds later at the earliest."""
    def tunnel_counters(self, tunnel: int) -> tuple[int, int, int, float]:
        """(bytes from visitors, bytes to visitors, streams open now, Unix time last heard of; 0.0 = never)."""
    # other nodes of the cluster: links to each of their workers, bound as links are
    def open_node(self) -> int:
        """A number for another node, 1 to 255."""
    def node_worker(self, node: int, worker: int) -> int:
        """The slot that links to this worker of the node are bound to. Streams that come down them are visitors of the
        other node: they go to tunnels that have links here, and no further."""
    def close_node(self, node: int) -> None:
        """Its slots may be given to others, as those of tunnels; no tunnel's visitors go there any more."""
    def set_via(self, tunnel: int, node: int = 0, workers: int = 0) -> None:
        """Where the tunnel's visitors go while it has no link here: to these workers of the node (a mask), which have
        its links. At once, without publish(); 0: nowhere."""
    def set_route(self, kind: int, key: str | int, site: Site) -> None:
        """In force with the next publish(); in the place of what the route led to."""

    # services: what routes lead to, counted one by one; a part of their tunnel's sum
    def open_service(self, tunnel: int) -> int:
        """A number that is not given again."""
    def close_service(self, service: int) -> None:
        """The caller has dropped its routes and published; what streams still carry counts for the tunnel alone."""
    def end_service(self, service: int, *, after_s: float = 0.0) -> None:
        """Ends the streams that serve it, or those that still do so long after. The caller has dropped its routes and
        published."""
    def service_counters(self, service: int) -> tuple[int, int, int, int, int]:
        """(bytes from visitors, bytes to visitors, streams in all, HTTP requests in all, streams open now)."""
    def take_traffic(self) -> list[tuple[int, int, int, int]]:
        """(service, bytes from visitors, bytes to visitors, streams begun) since the last call, of those that carried
        something. So after stop() as well."""
    def drain_access_records(self) -> list[tuple[int, str, int, int, float, float]]:
        """(service, visitor's address, bytes from it, bytes to it, Unix times of begin and end) of every visitor's conn
        that has ended since the last call. One conn makes one record for each service that it came to. So after
        stop() as well."""

    def drop_route(self, kind: int, key: str | int) -> None: ...
    def retire_upstream(self, upstream: Upstream) -> None:
        """No route leads to it any more (the caller has published): its idle conns are closed, and its flows of
        datagrams end, so that the next one goes to the new place. Other flows go on."""
    def end_upstream(self, upstream: Upstream, *, after_s: float = 0.0) -> None:
        """The same, and its other flows end as well, at once or so long after."""
    def publish(self) -> int:
        """Hands the routes set so far to the workers as one immutable table; nothing when none was changed. A change
        costs the same however many routes there are; a publication copies eight bytes for about a dozen routes.
        The table's version: in force once version_in_force() is as high. 0: the engine has stopped."""
    def version_in_force(self) -> int:
        """The newest version of the routes that every worker has; 0 before the first pass of one, and after stop()."""
    def set_page(self, code: str, *, status: int, content_type: str, body: bytes, retry_after_s: int = 0) -> None:
        """The answer the engine gives by itself for `code` (docs/errors.md); before start(). `retry_after_s`: says when
        to come back, 0 = does not. A code with `.json` behind it is the form for callers of an API."""

    # certificates; in force with the next publish()
    def set_certificate(self, name: str, certificate: Certificate) -> None:
        """TLS to this name (exact, or "*.domain" for what has no certificate of its own) ends here, with this one.
        An IP address stands for visitors who name no host and came to it, "" for all others who name none."""
    def drop_certificate(self, name: str) -> None: ...
    def set_link_certificate(self, certificate: Certificate) -> None:
        """What links that arrive are shown: its key is what clients pin. A link whose client offers to trust
        authorities instead is shown the certificate of the name that it calls."""
    def set_ticket_keys(self, keys: list[bytes]) -> None:
        """One to four keys of 80 random bytes: the first seals the tickets by which TLS sessions are resumed, all open
        them. At once. Until then the engine has one of its own, which ends with it."""

    # links
    def connect_link(self, address: str, port: int, *, server_name: str, pin_sha256: bytes = b"",
                     ca_file: str = "", worker: int = -1, peer_worker: int = -1) -> int:
        """Starts connecting to a literal IP; LINK_UP or LINK_DOWN follows. `pin_sha256`: SHA-256 of the server's
        SubjectPublicKeyInfo. Without a pin the certificate must chain to `ca_file` (or the system's) and match the
        name. `worker`: of ours that has it, `peer_worker`: of another node's that is asked to; -1 = any."""
    def send_control(self, link: int, payload: bytes, flags: int = 0) -> None:
        """One CONTROL frame, at most 65535 bytes. A link that is gone is ignored."""
    def bind_link(self, link: int, tunnel: int) -> None:
        """From now on its traffic counts for the tunnel; a server opens streams on it, a client serves by its routes
        those that come and refuses any that came before. A link is bound once."""
    def drain_link(self, link: int) -> None:
        """No new streams on it, and the peer is asked for none; those that are open go on."""
    def ping_link(self, link: int) -> None:
        """Asks the peer whether it is there; PONG follows when it is."""
    def close_link(self, link: int) -> None:
        """Sends what is queued, then closes. LINK_DOWN(LOCAL) follows."""
    def abort_link(self, link: int) -> None:
        """Closes at once."""
    def link_rtt_ms(self, link: int) -> float:
        """Last measured round trip; 0.0 when unknown."""

    # memory
    def note_kernel_memory(self, used_bytes: int, limit_bytes: int) -> None:
        """What the kernel uses for all TCP sockets of the machine, and what it may use before it limits everybody; 0 =
        not known. From three quarters on, streams that stand still end: of whoever has most, and at the limit of all.
        Each call ends a part of them; the caller tells it again."""

    # reading
    def drain_events(self, event_count_max: int = 256) -> list[Event]: ...
    def stats(self) -> dict[str, int]:
        """Sums over workers: visitors_open, visitors_total, links_open, streams_open, streams_total, upstreams_open,
        upstreams_idle, requests_total, bytes_in, bytes_out, buffer_bytes, buffer_limit_bytes, conns_open,
        timers_open, errors_total …"""
    def worker_stats(self) -> list[dict[str, int]]:
        """The counters by worker; a conn may close at another than it came to, so numbers of what is open mean nothing
        here but for streams and links, which stay where they are."""
