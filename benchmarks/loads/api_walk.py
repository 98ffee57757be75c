"""One walk through all endpoints of v1.0, as a program that keeps customers' tunnels would call them.

What it makes it takes away again, so that walks can follow each other, and several go at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.loads.stored_fleet import StoredFleet
from spokes.ids import ZERO_UID, new_uid

Answer = dict[str, Any]
Call = Callable[..., Answer]            # (endpoint, rest of the path or "", body or None) → the answer

# Lists of everything in one answer, which grow with the fleet: measured by themselves.
COMPLETE_LISTS = ("tunnel/list/active", "tunnel/list/active?details=true")


def walk(call: Call, fleet: StoredFleet, key: str, number: int) -> None:
    """`number` says whose turn it is among all walks: each takes other tunnels and names."""
    name = f"walk{number}"
    tunnel_uid = fleet.tunnel_uids[number % len(fleet.tunnel_uids)]
    call("auth", "", {"key": key})
    for endpoint in ("info", "ping", "keepalive", "license/info", "port/list", "port/range", "token/registration/list"):
        call(endpoint)
    token = call("token/registration/create", "", {"description": name, "active": True})["token"]["id"]
    call("token/registration/edit", "", {"tokenID": token, "description": name, "active": False})
    call("token/registration/delete", "", {"tokenID": token})
    links = call("tunnel/list")["links"]
    call("tunnel/page", f"/{links[number % len(links)]['uid']}")
    call("tunnel/search", "", {"term": f"till {number % 100}", "os": "", "arch": "", "version": ""})
    call("tunnel/list/online")
    for endpoint in ("tunnel/info", "tunnel/auth", "tunnel/config"):
        call(endpoint, f"/{tunnel_uid}")
    user = _walk_users(call, name)
    _walk_rules(call, user, name)
    call("user/delete", f"/{user}")
    call("user/list")
    call("logout")


def _walk_users(call: Call, name: str) -> str:
    uid = new_uid()
    call("user/create", "", {"userID": uid, "Active": True, "fullname": name, "email": f"{name}@example.net"})
    imported = new_uid()
    call("user/import", "", {"userID": imported, "Active": True, "fullname": name})
    call("user/delete", f"/{imported}")
    call("user/edit", "", {"userID": uid, "Active": True, "phone": "+49 30 1234"})
    call("user/get", f"/{uid}")
    call("user/bandwidth/cap", "", {"userID": uid, "max": 2000})
    call("user/domain/allow", "", {"userID": uid, "domains": [f"{name}.example.net", "*.example.net"]})
    call("user/domain/list", f"/{uid}")
    call("user/domain/remove", "", {"userID": uid, "domains": [f"{name}.example.net"]})
    call("user/domain/reset", f"/{uid}")
    call("user/activate", "", {"userID": uid, "Active": True})
    return uid


def _walk_rules(call: Call, user: str, name: str) -> None:
    made = call("user/tunnel/create", "", {"userID": user, "tunID": ZERO_UID, "name": name, "hostname": ""})
    uid, domain = made["tunnel"]["id"], f"{name}.example.net"
    call("user/tunnel/list", f"/{user}")
    rules = "tunnel/traffic"
    call(f"{rules}/http/update", f"/{uid}", {"sites": [{"domain": domain, "destination": "127.0.0.1", "port": 8080}]})
    call(f"{rules}/http/remove", f"/{uid}", {"domains": [domain]})
    port = call(f"{rules}/tcp/allocate", f"/{uid}")["ports"][0]["port"]
    call(f"{rules}/tcp/update", f"/{uid}", {"ports": [{"port": port, "destination": "127.0.0.1", "dstPort": 22}]})
    call(f"{rules}/tcp/reset", f"/{uid}", {"ports": [port]})
    call(f"{rules}/tcp/release", f"/{uid}", {"port": port})
    portmap = {"listenPort": 5432, "dstPort": port, "destination": "", "transport": "tcp"}
    call(f"{rules}/portmap/update", f"/{uid}", {"portmaps": [portmap]})
    call(f"{rules}/portmap/remove", f"/{uid}", {"listenPorts": [5432]})
    call("user/tunnel/stop", f"/{uid}")
    call("tunnel/shutdown", f"/{uid}")
