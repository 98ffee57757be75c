"""Signing in, and what the server says of itself."""

from __future__ import annotations

import msgspec

from spokes.admin.schema.envelope import Answer, Request
from spokes.wire.api_types import FAR_TIME, Count, Seconds, Secret, Text, Time

TUNNEL_COUNT_MAX = 1_000_000             # there is no licence; 0 would look like "none allowed" to existing programs


class AuthRequest(Request):
    key: Secret
    version: Text = ""                   # of the calling program
    os: Text = ""
    arch: Text = ""


class InfoAnswer(Answer):
    version: str
    uptime: Seconds
    alerts: Count                        # not yet acknowledged
    active_tunnel_count: Count = msgspec.field(name="activeTuns")
    online_tunnel_count: Count = msgspec.field(name="onlineTuns")
    tunnel_count_max: Count = msgspec.field(name="maxTuns", default=TUNNEL_COUNT_MAX)
    license_expires: Time = msgspec.field(name="licenseExpires", default=FAR_TIME)


class LicenseAnswer(Answer):
    tunnel_count_max: Count = msgspec.field(name="maxTunnels", default=TUNNEL_COUNT_MAX)
    expires: Time = FAR_TIME
