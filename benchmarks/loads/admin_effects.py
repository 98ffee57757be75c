"""How soon an answered call is felt: a rule at the client, a user, a tunnel or a token that is switched off."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import Callable

from benchmarks.loads import Metrics
from benchmarks.loads.admin import control_of
from benchmarks.loads.api_client import OWN, V1, ApiClient, create_key
from benchmarks.loads.light_client import ByeError, LightClient, LightClientError
from benchmarks.loads.stored_fleet import start_with_fleet
from benchmarks.peers import Endpoint, RunningPeer
from benchmarks.peers.spokes import DOMAIN, Control
from benchmarks.processes import BenchmarkError, wait_until
from benchmarks.scale import Scale

EFFECT_WITHIN_S = 20.0
LOOK_INTERVAL_S = 0.002


def admin_effects(peer: RunningPeer, scale: Scale) -> Metrics:
    """The slowest of `effect_count` tries of each, from the call's answer on."""
    control = control_of(peer)
    key = create_key(control)
    start_with_fleet(peer, scale.tunnel_count)
    client, endpoint = ApiClient(control, key), peer.endpoint("http")
    tunnel = _online_tunnel(client)
    numbers = range(scale.effect_count)
    return {
        "rule_ms": max(_rule_ms(client, endpoint, peer, tunnel, number) for number in numbers),
        "user_off_ms": max(_user_off_ms(client, control, number) for number in numbers),
        "tunnel_off_ms": max(_tunnel_off_ms(client, control, number) for number in numbers),
        "token_off_ms": max(_token_off_ms(client, control) for _ in numbers),
        "api_key_off_ms": max(_api_key_off_ms(client, control) for _ in numbers),
    }


def _online_tunnel(client: ApiClient) -> str:
    """The running client's: the only one that is on-line. The store hears of it a few seconds after its login."""
    found: list[str] = []

    def is_listed() -> bool:
        found.extend(one["id"] for one in client.call(f"{V1}/tunnel/list/online")["tunnels"])
        return bool(found)

    wait_until(is_listed, "the client is listed as on-line", EFFECT_WITHIN_S)
    return found[0]


def _rule_ms(client: ApiClient, endpoint: Endpoint, peer: RunningPeer, tunnel: str, number: int) -> float:
    """A rule for a new name: visitors are answered by the upstream behind the client."""
    domain, upstream_port = f"rule{number}.example.net", peer.upstream_port
    site = {"domain": domain, "destination": "127.0.0.1", "port": upstream_port}
    client.call(f"{V1}/tunnel/traffic/http/update/{tunnel}", {"sites": [site]})
    return _until_ms(lambda: _status(endpoint, domain) == 200, "a rule acts")


def _status(endpoint: Endpoint, host: str) -> int:
    conn = http.client.HTTPConnection(endpoint.address, endpoint.port, timeout=5.0)
    try:
        conn.request("GET", "/", headers={"Host": host})
        return conn.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        conn.close()


def _user_off_ms(client: ApiClient, control: Control, number: int) -> float:
    user = client.call(f"{V1}/user/create", {"Active": True, "fullname": f"off{number}"})["user"]["id"]
    return asyncio.run(_session_ends_ms(
        client, control, user, lambda _: client.call(f"{V1}/user/activate", {"userID": user, "Active": False}),
    ))


def _tunnel_off_ms(client: ApiClient, control: Control, number: int) -> float:
    return asyncio.run(_session_ends_ms(
        client, control, "0" * 32, lambda tunnel: client.call(f"{V1}/tunnel/shutdown/{tunnel}"),
    ))


async def _session_ends_ms(
    client: ApiClient, control: Control, user: str, switch_off: Callable[[str], object]
) -> float:
    """A session of a new tunnel of the user: how long it lives after that."""
    made = client.call(f"{V1}/user/tunnel/create", {"userID": user, "tunID": "0" * 32, "name": "off", "hostname": ""})
    link = await LightClient(control.link_address, control.link_port, DOMAIN).log_in(made["token"]["value"])
    await asyncio.to_thread(switch_off, made["tunnel"]["id"])
    began = time.perf_counter()
    try:
        await link.wait_for("nothing of this name")
    except LightClientError:            # `bye`, or the end
        return (time.perf_counter() - began) * 1000
    finally:
        link.close()
    raise BenchmarkError("a session outlived what it rests on")


def _token_off_ms(client: ApiClient, control: Control) -> float:
    """A registration token: nobody registers by it any more."""
    token = client.call(f"{V1}/token/registration/create", {"description": "off", "active": True})["token"]
    client.call(f"{V1}/token/registration/edit", {"tokenID": token["id"], "description": "off", "active": False})

    def is_refused() -> bool:
        try:
            asyncio.run(LightClient(control.link_address, control.link_port, DOMAIN).register(token["value"], "off"))
        except ByeError:
            return True
        return False

    return _until_ms(is_refused, "a token is refused")


def _api_key_off_ms(client: ApiClient, control: Control) -> float:
    """An API key: its session ends."""
    made = client.call(f"{OWN}/key/create", {"description": "off", "scopes": ["read"]})
    other = ApiClient(control, made["value"])
    client.call(f"{OWN}/key/edit", {"keyID": made["key"]["id"], "active": False})
    try:
        return _until_ms(lambda: not other.attempt(f"{V1}/ping")["status"], "an API key is refused")
    finally:
        other.close()


def _until_ms(is_so: Callable[[], bool], what: str) -> float:
    began = time.perf_counter()
    while not is_so():
        if time.perf_counter() - began > EFFECT_WITHIN_S:
            raise BenchmarkError(f"{what}: not within {EFFECT_WITHIN_S:g} s")
        time.sleep(LOOK_INTERVAL_S)
    return (time.perf_counter() - began) * 1000
