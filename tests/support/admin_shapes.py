"""The contract's objects as existing clients decode them: one wrong type spoils their whole call.

Written from the contract, not from our structs: what holds them together is the test that uses this.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Check = Callable[[Any], bool]


class Optional:
    """A member that may be left out."""

    def __init__(self, shape: Any) -> None:
        self.shape = shape


def _matching(pattern: str) -> Check:
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _within(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def text(value: Any) -> bool:
    return isinstance(value, str)


def flag(value: Any) -> bool:
    return isinstance(value, bool)


uid = _matching(r"[0-9a-f]{32}")
time = _matching(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
key_value = _matching(r"([0-9a-f]{64})?")
number = _within(-(2**63), 2**63 - 1)
count = _within(0, 2**63 - 1)
u16 = _within(0, 65535)

ENVELOPE = {"status": flag, "error": Optional(text), "message": Optional(text)}
USAGE = {"daily": count, "monthly": count}
HTTP_SERVICE = {
    "id": uid, "userID": uid, "tunID": uid, "active": flag, "available": flag, "secure": flag, "domainName": text,
    "bandwidth": USAGE,
}
PORT_SERVICE = {
    "id": uid, "userID": uid, "tunID": uid, "active": flag, "available": flag, "protocol": u16, "port": u16,
    "bandwidth": USAGE, "label": text,
}
TUNNEL = {
    "id": uid, "userID": uid, "created": time, "lastActive": time, "state": _within(1, 5), "uptime": count,
    "bandwidth": USAGE, "name": text, "hostname": text, "address": text, "version": text, "os": text, "arch": text,
}
DETAILED_TUNNEL = {**TUNNEL, "https": Optional([HTTP_SERVICE]), "ports": Optional([PORT_SERVICE])}
TOKEN = {"id": uid, "created": time, "modified": time, "active": flag, "description": text, "value": key_value}
LINK = {"uid": uid, "order": number, "count": number, "url": text}
PORT_TUN = {"port": u16, "tunID": uid}
FW_RULE = {"sequence": number, "action": text, "network": text}
SITE = {
    name: Optional(shape)
    for name, shape in {
        "domain": text, "secure": flag, "destination": text, "port": u16, "tls": u16, "upstreamURL": text,
        "webRoot": text, "useLetsEnc": flag, "ca": text, "privateKey": text, "firewall": [FW_RULE], "redirect": flag,
        "password": text, "requires2FA": flag, "basicHttpAuth": text, "redirectURL": text, "rewriteHost": text,
        "insecureUpstream": flag, "responseTimeout": number, "maxBody": number, "maxHeaderLine": number,
        "authPageOpts": {"title": Optional(text), "logoURL": Optional(text), "siteURL": Optional(text)},
    }.items()
}
PORT = {
    name: Optional(shape)
    for name, shape in {
        "port": u16, "destination": text, "dstPort": u16, "firewall": [FW_RULE], "udpTimeout": number,
    }.items()
}
PORT_MAP = {
    "listenPort": u16, "dstPort": u16, "destination": text, "transport": text, "label": Optional(text),
    "http": Optional(flag),
}
CONFIG = {
    name: Optional(shape)
    for name, shape in {
        "hostname": text, "serverKey": text, "serverHost": text, "key": text, "unmanaged": flag, "version": text,
        "os": text, "arch": text, "https": [SITE], "ports": [PORT], "portmaps": [PORT_MAP],
    }.items()
}


def check_shape(value: Any, shape: Any, where: str = "answer") -> None:
    """Exactly the members of `shape`, each of its type."""
    if isinstance(shape, dict):
        assert isinstance(value, dict), where
        assert value.keys() <= shape.keys(), f"{where}: unexpected {value.keys() - shape.keys()}"
        for name, inner in shape.items():
            if isinstance(inner, Optional):
                if name not in value:
                    continue
                inner = inner.shape
            assert name in value, f"{where}.{name} is missing"
            check_shape(value[name], inner, f"{where}.{name}")
    elif isinstance(shape, list):
        assert isinstance(value, list), where
        for index, item in enumerate(value):
            check_shape(item, shape[0], f"{where}[{index}]")
    else:
        assert shape(value), f"{where}: {value!r}"
