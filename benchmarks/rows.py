"""The rows of the report: which load on which peers, and what is to be reached."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.loads import Load
from benchmarks.loads.admin import admin_calls
from benchmarks.loads.admin_effects import admin_effects
from benchmarks.loads.admin_mutations import admin_mutations
from benchmarks.loads.bulk import bulk
from benchmarks.loads.certificates import certificates
from benchmarks.loads.crowd import crowd, slow_crowd
from benchmarks.loads.fleet import fleet
from benchmarks.loads.http import http_close, http_keepalive, latency, tcp_keepalive
from benchmarks.loads.https import https_keepalive, soak_https, tls_handshakes, tls_resumed
from benchmarks.loads.idle import idle_http, idle_https, idle_tcp
from benchmarks.loads.soak import soak_abort, soak_relogin, soak_short
from benchmarks.loads.soak_admin import soak_admin
from benchmarks.loads.wan import slow_line, wan
from benchmarks.peers.before import SUFFIX

OWN = "spokes"
HTTPS = "spokes-https"
HAPROXY_HTTPS = "haproxy-https"
WAN = "spokes-wan"
ADMIN = "spokes-admin"
SMALL = "spokes-1gb"
TWO = "spokes-two"
TWO_DEFAULT = "spokes-two-default"
SLOW = "spokes-slow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound on one of our metrics, or on its ratio to another one."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    peer: str = ""              # the ratio to the same metric of this peer
    own_metric: str = ""        # the ratio to this metric of our own

    def words(self) -> str:
        bound = f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"
        if self.peer:
            return f"{self.metric} {bound} x {self.peer}"
        return f"{self.metric} {bound} x own {self.own_metric}" if self.own_metric else f"{self.metric} {bound}"

    def is_reached(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    name: str
    title: str
    load: Load
    peers: tuple[str, ...]
    targets: tuple[Target, ...] = ()
    fresh: bool = False         # a new peer for every round: memory that was used once does not count as free
    round_count_max: int = 100
    own: str = OWN              # the peer whose numbers the targets bind

    @property
    def before(self) -> str:
        """The same peer of an earlier tree, where one is measured beside it."""
        return self.own + SUFFIX


def _nothing_left(*sides: str) -> tuple[Target, ...]:
    """Memory within 3 MB of what it was after the first 1 %, and nothing open."""
    return (
        *(Target(metric=f"{side}_growth_mb", at_most=3.0) for side in sides),
        *(Target(metric=metric, at_most=0) for metric in ("visitors_open", "streams_open", "buffer_bytes")),
    )


_CROWD_TARGETS = (
    Target(metric="crowded_p99_ms", at_most=2.0, own_metric="quiet_p99_ms"),
    Target(metric="crowded_mb_per_s", at_least=0.5, own_metric="quiet_mb_per_s"),
)

ROWS = (
    Row(
        name="http-keepalive", title="HTTP by host name, keep-alive", load=http_keepalive,
        peers=(OWN, "haproxy", "nginx-default", "nginx-tuned", "rathole"),
        targets=(
            Target(metric="requests_per_s", at_least=0.85, peer="haproxy"),
            Target(metric="requests_per_s", at_least=1.1, peer="nginx-default"),
            Target(metric="requests_per_s", at_least=0.85, peer="nginx-tuned"),
        ),
    ),
    Row(
        name="http-close", title="HTTP by host name, a conn per request", load=http_close,
        peers=(OWN, "haproxy", "nginx-tuned", "rathole"),
        targets=(
            Target(metric="requests_per_s", at_least=0.6, peer="haproxy"),
            Target(metric="requests_per_s", at_least=1.5, peer="rathole"),
        ),
    ),
    Row(
        name="tcp-keepalive", title="TCP port, keep-alive", load=tcp_keepalive,
        peers=(OWN, "haproxy", "rathole", "rathole-tls"),
        targets=(
            Target(metric="requests_per_s", at_least=1.3, peer="rathole"),
            Target(metric="requests_per_s", at_least=1.7, peer="rathole-tls"),
        ),
    ),
    Row(
        name="tcp-bulk", title="TCP port, one bulk stream", load=bulk,
        peers=(OWN, "haproxy", "rathole", "rathole-tls"),
        targets=(
            Target(metric="up_gbit_per_s", at_least=0.55, peer="haproxy"),
            Target(metric="down_gbit_per_s", at_least=0.55, peer="haproxy"),
            Target(metric="up_gbit_per_s", at_least=1.5, peer="rathole-tls"),
            Target(metric="down_gbit_per_s", at_least=1.5, peer="rathole-tls"),
        ),
    ),
    Row(
        name="latency", title="Latency, one conn", load=latency, peers=(OWN, "haproxy", "nginx-tuned", "rathole"),
        targets=(
            Target(metric="p50_ms", at_most=1.5, peer="haproxy"),
            Target(metric="p99_ms", at_most=3.0, own_metric="p50_ms"),
        ),
    ),
    Row(
        name="idle-tcp", title="Idle visitors of a TCP port", load=idle_tcp, peers=(OWN, "rathole", "rathole-tls"),
        targets=(
            Target(metric="server_bytes_per_conn", at_most=1024), Target(metric="client_bytes_per_conn", at_most=1024),
            Target(metric="conns_lost", at_most=0),
        ),
        fresh=True,
    ),
    Row(
        name="idle-http", title="Idle visitors after one HTTP request", load=idle_http, peers=(OWN, "rathole"),
        targets=(
            Target(metric="server_bytes_per_conn", at_most=1024), Target(metric="client_bytes_per_conn", at_most=1024),
            Target(metric="conns_lost", at_most=0),
        ),
        fresh=True,
    ),
    Row(
        name="https-keepalive", title="HTTPS by host name, keep-alive", load=https_keepalive,
        peers=(HTTPS, HAPROXY_HTTPS), own=HTTPS,
        targets=(Target(metric="requests_per_s", at_least=0.9, peer=HAPROXY_HTTPS),),
    ),
    *(
        Row(
            name=name, title=title, load=load, peers=(HTTPS, HAPROXY_HTTPS), own=HTTPS,
            targets=(
                Target(metric="handshakes_per_s", at_least=1.0, peer=HAPROXY_HTTPS),
                Target(metric="server_us_each", at_most=1.0, peer=HAPROXY_HTTPS),
            ),
        )
        for name, title, load in (
            ("tls-handshakes", "Full handshakes (TLS 1.3, ECDSA P-256)", tls_handshakes),
            ("tls-resumed", "Resumed handshakes (TLS 1.3)", tls_resumed),
        )
    ),
    Row(
        name="idle-https", title="Idle visitors after one HTTPS request", load=idle_https, peers=(HTTPS, HAPROXY_HTTPS),
        own=HTTPS,
        targets=(
            Target(metric="server_bytes_per_conn", at_most=1.05, peer=HAPROXY_HTTPS),
            Target(metric="conns_lost", at_most=0),
        ),
        fresh=True,
    ),
    Row(
        name="certificates", title="10,000 certificates put down by an operator", load=certificates, peers=(HTTPS,),
        own=HTTPS,
        targets=(
            Target(metric="load_s", at_most=3.0), Target(metric="bytes_each", at_most=5000),
            Target(metric="change_s", at_most=1.0), Target(metric="event_loop_ms_max", at_most=100),
        ),
        fresh=True, round_count_max=3,
    ),
    Row(
        name="soak-https", title="Handshakes and a request each, under renewals", load=soak_https, peers=(HTTPS,),
        own=HTTPS,
        targets=(
            *_nothing_left("server", "client"), Target(metric="failed", at_most=0),
            Target(metric="handshakes", at_least=500_000), Target(metric="renewals", at_least=1_000),
        ),
        fresh=True, round_count_max=1,
    ),
    Row(
        name="fleet", title="Idle tunnels on one server, heartbeats running", load=fleet, peers=(OWN,),
        targets=(
            Target(metric="bytes_per_tunnel", at_most=40 * 1024), Target(metric="cpu_percent_of_core", at_most=5),
            Target(metric="sql_statements_per_interval", at_most=1),
        ),
        fresh=True, round_count_max=1,
    ),
    Row(
        name="soak-short", title="Short conns, one after the other", load=soak_short, peers=(OWN,),
        targets=_nothing_left("server", "client"), fresh=True, round_count_max=1,
    ),
    Row(
        name="soak-abort", title="Visitors who abort a download", load=soak_abort, peers=(OWN,),
        targets=_nothing_left("server", "client"), fresh=True, round_count_max=1,
    ),
    Row(
        name="soak-relogin", title="Logins over silently dead sockets", load=soak_relogin, peers=(OWN,),
        targets=_nothing_left("server"), fresh=True, round_count_max=1,
    ),
    Row(
        name="wan", title="Long lossy path (40 ms round trip, 0.5 % loss, 300 Mbit/s)", load=wan, peers=(WAN,), own=WAN,
        targets=(
            Target(metric="download_mbit_per_s", at_least=200),
            Target(metric="beside_download_p99_ms", at_most=3.0, own_metric="alone_p99_ms"),
        ),
        fresh=True,
    ),
    Row(
        name="slow-line", title="Slow line (4 ms round trip, 1 Mbit/s)", load=slow_line, peers=(SLOW,), own=SLOW,
        targets=(Target(metric="beside_download_p50_ms", at_most=100),), fresh=True,
    ),
    *(
        Row(name=name, title=f"A neighbour beside {of_whom}, {pool}", load=load, peers=(peer,), own=peer,
            targets=_CROWD_TARGETS, fresh=True)
        for load, kind, of_whom in (
            (crowd, "crowd", "4,000 readers of nothing"), (slow_crowd, "slow-crowd", "600 readers of 2 KB in 4 s"),
        )
        for peer, name, pool in (
            (TWO, kind, "pool of 64 MiB"), (TWO_DEFAULT, f"{kind}-default", "pool of its own choice"),
        )
    ),
    Row(
        name="admin-calls", title="Admin API with 10,000 tunnels, alone and beside full load", load=admin_calls,
        peers=(ADMIN,), own=ADMIN,
        targets=(
            Target(metric="list_ms", at_most=50), Target(metric="search_ms", at_most=100),
            Target(metric="endpoint_p99_ms", at_most=30), Target(metric="calls_per_s", at_least=45),
            Target(metric="proxy_requests_per_s_with_api", at_least=0.97, own_metric="proxy_requests_per_s"),
            Target(metric="admin_pss_mb", at_most=120),
        ),
        fresh=True, round_count_max=1,
    ),
    Row(
        name="admin-mutations", title="Mutations by API, each told to a webhook", load=admin_mutations,
        peers=(ADMIN,), own=ADMIN,
        targets=(
            Target(metric="mutations_per_s", at_least=95), Target(metric="deliveries_missing", at_most=0),
            Target(metric="deliveries_out_of_order", at_most=0),
        ),
        fresh=True, round_count_max=1,
    ),
    Row(
        name="admin-effects", title="From an API call's answer to its effect", load=admin_effects,
        peers=(ADMIN,), own=ADMIN,
        targets=(
            Target(metric="rule_ms", at_most=200), Target(metric="user_off_ms", at_most=1000),
            Target(metric="tunnel_off_ms", at_most=1000), Target(metric="token_off_ms", at_most=1000),
            Target(metric="api_key_off_ms", at_most=1000),
        ),
        fresh=True, round_count_max=1,
    ),
    Row(
        name="soak-admin", title="A host of 1 GB: tunnels, traffic, API calls and a scraper", load=soak_admin,
        peers=(SMALL,), own=SMALL,
        targets=(
            Target(metric="server_growth_mb", at_most=10), Target(metric="admin_growth_mb", at_most=10),
            Target(metric="admin_pss_mb", at_most=120), Target(metric="host_peak_mb", at_most=1000),
        ),
        fresh=True, round_count_max=1,
    ),
)
