"""nginx as reverse proxy with one hop: as its package proxies with nothing said, and with upstream conns kept."""

from __future__ import annotations

from benchmarks.peers.running import Endpoint, RunningPeer
from benchmarks.processes import Room, find_program, free_port
from benchmarks.upstream import Upstream

# What both share: a worker for each core, no logging, visitors' conns never closed for their number of requests.
_CONFIG = """
daemon off;
worker_processes auto;
worker_rlimit_nofile 20000;
pid {path}/nginx.pid;
error_log {path}/nginx.error.log crit;
events {{ worker_connections 8000; multi_accept on; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    client_body_temp_path {path}/nginx-body; proxy_temp_path {path}/nginx-proxy; fastcgi_temp_path {path}/nginx-fastcgi;
    uwsgi_temp_path {path}/nginx-uwsgi; scgi_temp_path {path}/nginx-scgi;
    {upstream_block}
    server {{
        listen {address}:{port} reuseport backlog=4096;
        location / {{
            {proxy_lines}
        }}
    }}
}}
"""
# proxy_pass alone: HTTP/1.0 to the upstream, a conn for each request.
_DEFAULT_LINES = "proxy_pass http://127.0.0.1:{upstream};"
_TUNED_BLOCK = """upstream answer {{
        server 127.0.0.1:{upstream};
        keepalive 256;
        keepalive_requests 1000000000;
    }}"""
_TUNED_LINES = """proxy_pass http://answer;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;"""


def start_default(room: Room, upstream: Upstream) -> RunningPeer:
    return _start(room, upstream, name="nginx-default", upstream_block="", proxy_lines=_DEFAULT_LINES)


def start_tuned(room: Room, upstream: Upstream) -> RunningPeer:
    return _start(room, upstream, name="nginx-tuned", upstream_block=_TUNED_BLOCK, proxy_lines=_TUNED_LINES)


def _start(room: Room, upstream: Upstream, *, name: str, upstream_block: str, proxy_lines: str) -> RunningPeer:
    program = find_program("nginx")
    port = free_port()
    folder = room.path / name           # both may run in one room
    folder.mkdir()
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(
        path=folder, address=room.address, port=port,
        upstream_block=upstream_block.format(upstream=upstream.http_port),
        proxy_lines=proxy_lines.format(upstream=upstream.http_port),
    ))
    server = room.start(name, [program, "-e", "stderr", "-c", str(config)])
    server.wait_for_port(room.address, port)
    return RunningPeer(
        name=name, endpoints={"http": Endpoint(room.address, port)}, processes={"server": server},
    )
