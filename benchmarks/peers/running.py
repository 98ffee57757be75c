"""A peer that is up: where visitors go in, and which processes carry them."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.processes import BenchmarkError, Process


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address for visitors; `host` is what they ask for in the Host header ("" = the address)."""

    address: str
    port: int
    host: str = ""
    is_secure: bool = False

    @property
    def url(self) -> str:
        return f"http{'s' if self.is_secure else ''}://{self.address}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningPeer:
    name: str
    endpoints: dict[str, Endpoint]      # by service: "http", "tcp" (the same upstream), "bulk" (iperf3)
    processes: dict[str, Process]       # by side: "server", and "client" where there is one
    fds_per_conn: int = 1                   # open files a visitor costs the busier side
    visitor_prefix: tuple[str, ...] = ()    # put before a visitor's command: `ip netns exec …`
    upstream_port: int = 0                  # where the client finds what answers, on its own machine
    control: object = field(default=None)   # what only this peer has (see peers/spokes.py)

    def endpoint(self, service: str) -> Endpoint:
        for process in self.processes.values():
            process.check()
        try:
            return self.endpoints[service]
        except KeyError:
            raise BenchmarkError(f"{self.name} offers no {service}") from None
