"""How soon a client is back after an outage: `make outages`, a table with median and worst for each kind.

Server and client run in network namespaces of their own, joined by a cable (a veth pair); each outage is made for real,
but for two: the clock is moved for the client's process alone (a preloaded library), and a suspend is a stopped
process. The time that counts is from the moment the way is open again until a visitor's request passes.

Needs root, `ip`, and a C compiler for the clock. Bound: every wait has a deadline; namespaces and processes end with
the block.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import BenchmarkError, MissingError, find_program, wait_until

BIN = Path(sys.executable).parent
SERVER, CLIENT, MOVED = "10.77.0.1", "10.77.0.2", "10.77.0.3"
DOMAIN = "tun.test"
BACK_WITHIN_S = 90.0
DAY_S = 86_400

CLOCK_C = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
static int real(clockid_t id, struct timespec *t) {
    static int (*f)(clockid_t, struct timespec *);
    if (!f) f = dlsym(RTLD_NEXT, "clock_gettime");
    return f(id, t);
}
static long shift(void) {
    long s = 0; FILE *f = fopen(getenv("CLOCK_SHIFT"), "r");
    if (f) { if (fscanf(f, "%ld", &s) != 1) s = 0; fclose(f); }
    return s;
}
int clock_gettime(clockid_t id, struct timespec *t) {
    int rc = real(id, t);
    if (rc == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += shift();
    return rc;
}
"""

PROBE = """
import http.client, sys, time
for _ in sys.stdin:
    while True:
        began = time.monotonic()
        try:
            conn = http.client.HTTPConnection(sys.argv[1], 8080, timeout=0.3)
            conn.request("GET", "/", headers={"Host": sys.argv[2]})
            if conn.getresponse().status == 200:
                break
        except OSError:
            pass
        finally:
            conn.close()
        time.sleep(max(0.0, began + 0.05 - time.monotonic()))
    print(time.monotonic(), flush=True)
"""


@dataclass
class Field:
    """Both ends, running."""

    directory: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    server: subprocess.Popen[bytes] | None = None
    client: subprocess.Popen[bytes] | None = None
    probe: subprocess.Popen[str] | None = None
    hostname: str = ""

    def __post_init__(self) -> None:
        self.inside = f"spokes-out-{os.getpid()}-c"
        self.outside = f"spokes-out-{os.getpid()}-s"
        self.shift = self.directory / "shift"

    # the network

    def wire(self) -> None:
        for name in (self.inside, self.outside):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        ends = ("type", "veth", "peer", "name", "cable", "netns", self.inside)
        run("ip", "-n", self.outside, "link", "add", "cable", *ends)
        for name, address in ((self.outside, SERVER), (self.inside, CLIENT)):
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "cable")
            run("ip", "-n", name, "link", "set", "cable", "up")
        self.names = Path("/etc/netns") / self.inside
        self.names.mkdir(parents=True)
        (self.names / "resolv.conf").write_text(f"nameserver {SERVER}\n")  # nobody answers there
        self.name_server(known=True)

    def name_server(self, *, known: bool) -> None:
        with (self.names / "hosts").open("r+" if (self.names / "hosts").exists() else "w") as hosts:
            hosts.truncate(0)
            hosts.write("127.0.0.1 localhost\n" + (f"{SERVER} server.example\n" if known else ""))

    def unwire(self) -> None:
        for process in self.processes:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGCONT)
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for name in (self.inside, self.outside):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
        for path in (self.names / "hosts", self.names / "resolv.conf"):
            path.unlink(missing_ok=True)
        self.names.rmdir()

    def spawn(self, name: str, *words: object, log: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        with (self.directory / f"{log}.log").open("ab") as out:
            process = subprocess.Popen(
                ["ip", "netns", "exec", name, *map(str, words)], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env={**os.environ, **(env or {})}, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    # both ends

    def start_server(self) -> None:
        ready = self.directory / "server.log"
        before = ready.read_text().count("Spokes is ready") if ready.exists() else 0
        self.server = self.spawn(
            self.outside, BIN / "spokes", "server", "--data", self.directory / "data", "--domain", DOMAIN,
            "--http", f"{SERVER}:8080", "--https", f"{SERVER}:8443", "--tcp-address", SERVER, "--admin", "false",
            log="server",
        )  # fmt: skip
        wait_until(lambda: ready.read_text().count("Spokes is ready") > before, "the server is ready", 60)

    def stop_server(self) -> None:
        assert self.server is not None
        os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait()

    def start_client(self) -> None:
        config = self.directory / "client.json"
        data = self.directory / "data"
        key = run(BIN / "spokes", "status", "--data", data, "--json")
        fingerprint = json.loads(key)["link_key"]
        facts = run(
            "ip", "netns", "exec", self.inside, BIN / "spoke", "configure", "--url", "https://server.example:8443",
            "--server-key", fingerprint, "--token-file", data / "first-token", "--config", config, "--json",
        )  # fmt: skip
        self.hostname = json.loads(facts)["hostname"]
        (self.directory / "web").mkdir()
        self.spawn(self.inside, sys.executable, "-m", "http.server", "8000", "--bind", "127.0.0.1", "--directory",
                   self.directory / "web", log="web")  # fmt: skip
        library = self.directory / "clock.so"
        (self.directory / "clock.c").write_text(CLOCK_C)
        run("cc", "-shared", "-fPIC", "-o", library, self.directory / "clock.c", "-ldl")
        self.shift.write_text("0\n")
        self.client = self.spawn(
            self.inside, BIN / "spoke", "http", 8000, "--config", config, "--log-level", "info", log="client",
            env={"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(self.shift)},
        )  # fmt: skip
        self.probe = subprocess.Popen(
            ["ip", "netns", "exec", self.outside, sys.executable, "-c", PROBE, SERVER, self.hostname],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.back_after_s(time.monotonic())

    def back_after_s(self, since: float) -> float:
        """From `since` until a request passes."""
        probe = self.probe
        assert probe is not None and probe.stdin is not None and probe.stdout is not None
        probe.stdin.write("go\n")
        probe.stdin.flush()
        timer = signal.setitimer(signal.ITIMER_REAL, BACK_WITHIN_S)
        assert timer is not None
        try:
            return float(probe.stdout.readline()) - since
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    # outages

    def cable(self, away_s: float) -> float:
        run("ip", "-n", self.inside, "link", "set", "cable", "down")
        time.sleep(away_s)
        run("ip", "-n", self.inside, "link", "set", "cable", "up")
        return self.back_after_s(time.monotonic())

    def far_cut(self, away_s: float) -> float:
        """Somewhere on the way, so that the client hears nothing, and nothing of it: what the server sends is lost."""
        for address in (CLIENT, MOVED):
            run("ip", "-n", self.outside, "route", "add", "blackhole", f"{address}/32")
        time.sleep(away_s)
        for address in (CLIENT, MOVED):
            run("ip", "-n", self.outside, "route", "delete", "blackhole", f"{address}/32")
        return self.back_after_s(time.monotonic())

    def address(self, _away_s: float) -> float:
        shown = run("ip", "-n", self.inside, "-4", "-o", "address", "show", "dev", "cable")
        old, new = (CLIENT, MOVED) if f"{CLIENT}/" in shown else (MOVED, CLIENT)
        run("ip", "-n", self.inside, "address", "delete", f"{old}/24", "dev", "cable")
        run("ip", "-n", self.inside, "address", "add", f"{new}/24", "dev", "cable")
        return self.back_after_s(time.monotonic())

    def server_gone(self, away_s: float) -> float:
        self.stop_server()
        time.sleep(away_s)
        self.start_server()
        return self.back_after_s(time.monotonic())

    def names_gone(self, away_s: float) -> float:
        """The server begins anew while its name cannot be resolved."""
        self.name_server(known=False)
        try:
            return self.server_gone(away_s)
        finally:
            self.name_server(known=True)

    def suspend(self, away_s: float) -> float:
        assert self.client is not None
        os.killpg(self.client.pid, signal.SIGSTOP)
        time.sleep(away_s)
        os.killpg(self.client.pid, signal.SIGCONT)
        return self.back_after_s(time.monotonic())

    def clock_set(self, by_s: float) -> float:
        """With a cut, so that the client has to begin anew under the other clock."""
        self.shift.write_text(f"{int(by_s)}\n")
        try:
            return self.server_gone(1.0)
        finally:
            self.shift.write_text("0\n")


Outage = Callable[[Field, float], float]


def kinds(*, long: bool) -> dict[str, tuple[Outage, float]]:
    """What is done, and for how many seconds; in the order of the table."""
    short: dict[str, tuple[Outage, float]] = {
        "cable 1 s": (Field.cable, 1.0),
        "cable 15 s": (Field.cable, 15.0),
        "cut on the way 8 s": (Field.far_cut, 8.0),
        "address change": (Field.address, 0.0),
        "name server dead": (Field.names_gone, 3.0),
        "server gone 1 s": (Field.server_gone, 1.0),
        "suspend 30 s": (Field.suspend, 30.0),
        "clock +1 day": (Field.clock_set, float(DAY_S)),
        "clock -1 day": (Field.clock_set, float(-DAY_S)),
    }
    if not long:
        return short
    return short | {
        "cable 30 s": (Field.cable, 30.0),
        "cut on the way 40 s": (Field.far_cut, 40.0),
        "server gone 1 min": (Field.server_gone, 60.0),
        "server gone 10 min": (Field.server_gone, 600.0),
    }


def table(measured: dict[str, list[float]]) -> str:
    lines = ["| outage | times | median s | worst s |", "|---|---|---|---|"]
    lines += [
        f"| {kind} | {len(waits)} | {statistics.median(waits):.2f} | {max(waits):.2f} |"
        for kind, waits in measured.items()
    ]
    return "\n".join(lines)


def run(*words: object) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise BenchmarkError(f"{' '.join(map(str, words))}: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


@contextlib.contextmanager
def running_field() -> Iterator[Field]:
    find_program("ip")
    if os.geteuid() != 0:
        raise MissingError("network namespaces need root")
    with tempfile.TemporaryDirectory(prefix="spokes-outages-") as directory:
        ends = Field(Path(directory))
        try:
            ends.wire()
            ends.start_server()
            ends.start_client()
            yield ends
        finally:
            if ends.probe is not None:
                ends.probe.kill()
                ends.probe.wait()
            ends.unwire()


def _too_late(_number: int, _frame: object) -> None:
    raise BenchmarkError(f"the client was not back within {BACK_WITHIN_S:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1, help="outages of each kind")
    parser.add_argument("--long", action="store_true", help="those of a minute and more too")
    parser.add_argument("--only", default="", help="kinds whose name holds this text")
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, _too_late)
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))  # through what takes the namespaces away
    measured: dict[str, list[float]] = {}
    with running_field() as ends:
        for _ in range(arguments.rounds):
            for kind, (outage, seconds) in kinds(long=arguments.long).items():
                if arguments.only in kind:
                    measured.setdefault(kind, []).append(outage(ends, seconds))
    print(table(measured))


if __name__ == "__main__":
    main()
