"""Sessions: signing in and out; and the server's own description."""

from __future__ import annotations

from spokes.admin.auth import LOGIN_LIFETIME_S, check_key, note_login
from spokes.admin.context import Admin, Caller
from spokes.admin.routing import Reply, SessionCookie
from spokes.admin.schema.envelope import Answer
from spokes.admin.schema.session import AuthRequest, InfoAnswer, LicenseAnswer
from spokes.errors import ControlError, NotSignedInError
from spokes.model.authority import key_is_active
from spokes.store import Principal, PrincipalKind, TunnelState

_ACTIVE = (TunnelState.INIT, TunnelState.ONLINE, TunnelState.OFFLINE)


def auth(admin: Admin, caller: Caller, body: AuthRequest) -> Reply:
    """An API key for a cookie. A right key gets in whatever went wrong before from the same address."""
    key = check_key(admin, body.key, caller)
    with admin.store.audit.checking(key_is_active(key.uid, key.scopes)):
        _, cookie = admin.store.logins.create(
            api_key_uid=key.uid, address=caller.address, agent=caller.agent, lifetime_s=LOGIN_LIFETIME_S
        )
    principal = Principal(kind=PrincipalKind.KEY, uid=key.uid, name=key.description, address=caller.address)
    note_login(admin, principal, {"agent": caller.agent, "version": body.version, "os": body.os, "arch": body.arch})
    return Reply(
        answer=Answer(message="signed in"), session=SessionCookie(value=cookie, max_age_s=LOGIN_LIFETIME_S)
    )


def info(admin: Admin, caller: Caller, body: None) -> InfoAnswer:
    """For a basic caller the figures are of their own tunnels."""
    if caller.is_admin:
        active_count, online_count = admin.store.tunnels.count_active()
        alert_count = admin.store.alerts.count_unacknowledged()
    else:
        states = [tunnel.state for tunnel in admin.store.tunnels.of_user(caller.user_uid)]
        active_count, online_count = sum(map(states.count, _ACTIVE)), states.count(TunnelState.ONLINE)
        alert_count = 0
    return InfoAnswer(
        version=admin.version,
        uptime=_uptime_s(admin),
        alerts=alert_count,
        active_tunnel_count=active_count,
        online_tunnel_count=online_count,
    )


def ping(admin: Admin, caller: Caller, body: None) -> Answer:
    """Tells whether the session lives, without making it live longer."""
    return Answer()


def keepalive(admin: Admin, caller: Caller, body: None) -> Answer | Reply:
    """Let the session live another day."""
    if not caller.login_uid:
        return Answer(message="a key needs no session")
    if not admin.store.logins.renew(caller.login_uid, lifetime_s=LOGIN_LIFETIME_S):
        raise NotSignedInError("the session has ended")
    return Reply(answer=Answer(), session=SessionCookie(value=caller.cookie, max_age_s=LOGIN_LIFETIME_S))


def logout(admin: Admin, caller: Caller, body: None) -> Reply:
    """End the session."""
    if not caller.login_uid or not admin.store.logins.end(caller.login_uid):
        raise NotSignedInError("there is no session to end")
    with admin.store.audit.acting(caller.principal()):     # whose session is over
        admin.store.audit.note("logout")
    return Reply(answer=Answer(message="signed out"), session=SessionCookie(value="", max_age_s=0))


def license_info(admin: Admin, caller: Caller, body: None) -> LicenseAnswer:
    """There is no licence, and so no limit that a program could run into."""
    return LicenseAnswer()


def _uptime_s(admin: Admin) -> int:
    """The server's; this process's own while the server is away."""
    try:
        return max(0, int(admin.control.call("status")["uptime_s"]))
    except (ControlError, KeyError, TypeError, ValueError):
        return int(admin.started.lasted_s())
