"""How much of everything a run does: the whole of it, or a crumb that proves the tools still work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    rounds: int = 5
    duration_s: float = 10.0            # of each timed load
    warmup_s: float = 1.0               # of the same load, before the first round
    conn_count: int = 64
    idle_conn_count: int = 10_000
    tunnel_count: int = 10_000
    heartbeat_s: float = 60.0           # how long the fleet is watched
    short_conn_count: int = 1_000_000
    abort_count: int = 10_000
    relogin_count: int = 10_000
    handshake_count: int = 500_000
    renewal_count: int = 1_000
    certificate_count: int = 10_000
    crowd_count: int = 4_000            # that read nothing
    slow_crowd_count: int = 600         # that read a little
    wan_duration_s: float = 15.0
    api_duration_s: float = 90.0        # of calls to the administration beside full load: 100 of each endpoint
    api_repeat_count: int = 21          # of one call to it, alone
    mutation_s: float = 30.0
    effect_count: int = 20
    soak_s: float = 3600.0              # of a small host's ordinary life
    soak_tunnel_count: int = 1_000


FULL = Scale()
TINY = Scale(
    rounds=1, duration_s=1.0, warmup_s=0.0, conn_count=4, idle_conn_count=20, tunnel_count=3, heartbeat_s=1.0,
    short_conn_count=500, abort_count=10, relogin_count=3, crowd_count=10, slow_crowd_count=10,
    handshake_count=100, renewal_count=3, certificate_count=20,
    wan_duration_s=2.0, api_duration_s=4.0, api_repeat_count=2, mutation_s=1.0, effect_count=2, soak_s=4.0,
    soak_tunnel_count=3,
)
