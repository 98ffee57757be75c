"""What finally answers, the same for every peer: one nginx worker with a small static answer, and iperf3."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.processes import MissingError, Process, Room, find_program, free_port, run_load, wait_until

ANSWER = "spokes benchmark upstream\n"
DOWNLOAD_PATH = "/download"
DOWNLOAD_BYTES = 100 * 1000 * 1000
ENDLESS_PATH = "/endless"
ENDLESS_BYTES = 100 * 1000 * 1000 * 1000

# keepalive_requests far above any run, so that nginx never closes a conn that a peer wants to keep.
_NGINX = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 60000;
pid {path}/upstream-{port}.pid;
error_log {path}/upstream-{port}.error.log crit;
events {{ worker_connections 50000; multi_accept on; }}
http {{
    access_log off;
    sendfile on;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
    client_header_timeout 3600s;
    default_type text/plain;
    client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/fastcgi;
    uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;
    server {{
        listen {address}:{port} backlog=4096;
        location / {{ return 200 "{answer}"; }}
        location = {download_path} {{ alias {path}/download.bin; }}
        location = {endless_path} {{ alias {path}/endless.bin; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Upstream:
    address: str
    http_port: int
    bulk_port: int              # iperf3; 0 where it is not installed
    process: Process

    def wait_until_idle(self) -> None:
        """iperf3 serves one test at a time, and takes a peer's look whether a port answers for a test: the next client
        would be reset."""
        if self.bulk_port:
            argv = [find_program("iperf3"), "--client", self.address, "--port", str(self.bulk_port), "--bytes", "4K"]
            wait_until(lambda: run_load(argv, within_s=10.0).returncode == 0, "iperf3 is free")


def start_upstream(room: Room) -> Upstream:
    nginx = find_program("nginx")
    http_port, bulk_port = free_port(), 0
    for name, size_bytes in (("download.bin", DOWNLOAD_BYTES), ("endless.bin", ENDLESS_BYTES)):
        with (room.path / name).open("wb") as file:     # sparse: its zeros are read from memory, not from a disk
            file.truncate(size_bytes)
    config = room.path / f"upstream-{http_port}.conf"
    config.write_text(_NGINX.format(
        path=room.path, address="127.0.0.1", port=http_port, answer=ANSWER.strip() + "\\n", download_path=DOWNLOAD_PATH,
        endless_path=ENDLESS_PATH,
    ))
    process = room.start("upstream", [nginx, "-e", "stderr", "-c", str(config)])
    try:
        iperf3 = find_program("iperf3")
    except MissingError:
        pass
    else:
        bulk_port = free_port()
        room.start("iperf3", [iperf3, "--server", "--bind", "127.0.0.1", "--port", str(bulk_port), "--forceflush"])
    if not room.prefix:         # inside another network namespace nobody out here can connect
        process.wait_for_port("127.0.0.1", http_port)
    return Upstream("127.0.0.1", http_port, bulk_port, process)
