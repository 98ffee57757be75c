"""Sites as Python has them: plain values, from which the engine's own are made."""
from libc.string cimport memset

from spokes._fastpath.base.types cimport uint16_t, uint32_t, uint8_t
from spokes._fastpath.bindings.directory cimport Directory
from spokes._fastpath.bindings.upstream cimport Upstream
from spokes._fastpath.http.http1 cimport HTTP_HEAD_BYTES_MAX
from spokes._fastpath.route.site cimport (
    SITE_TUNNEL_COUNT_MAX, Limits as LimitsStruct, Policy as PolicyStruct, site_to_directory, site_to_page,
    site_to_tunnels, site_to_upstream,
)
from spokes._fastpath.route.tunnel cimport Service, Tunnel

from typing import NamedTuple

from spokes._fastpath.bindings.codes import page_id
from spokes._fastpath.bindings.slots import END_AFTER_S_MAX
from spokes.errors import EngineError


class Limits(NamedTuple):
    silence_s: float = 0.0
    body_bytes_max: int = 0
    line_bytes_max: int = 0
    udp_idle_s: float = 0.0


class Policy(NamedTuple):
    limits: Limits = Limits()
    https_port: int = 0


class Site(NamedTuple):
    tunnels: tuple = ()
    upstream: object = None
    directory: object = None
    page: str = ""
    service: int = 0
    policy: Policy = Policy()


cdef int write_policy(PolicyStruct *out, policy) except -1:
    memset(out, 0, sizeof(PolicyStruct))
    if not 0 <= policy.https_port <= 65535:
        raise EngineError(f"https_port={policy.https_port} is no port")
    out.https_port = <uint16_t>policy.https_port
    return write_limits(&out.limits, policy.limits)


cdef int write_limits(LimitsStruct *out, limits) except -1:
    for seconds in (limits.silence_s, limits.udp_idle_s):
        if not (seconds == 0 or 0.1 <= seconds <= END_AFTER_S_MAX):
            raise EngineError(f"a limit of {seconds} s is not between 0.1 and {END_AFTER_S_MAX}")
    if not 0 <= limits.line_bytes_max <= <int>HTTP_HEAD_BYTES_MAX:
        raise EngineError(f"a line of {limits.line_bytes_max} bytes is more than a head may have")
    out.silence_ms = <uint32_t>(limits.silence_s * 1000)
    out.body_bytes_max = limits.body_bytes_max
    out.line_bytes_max = limits.line_bytes_max
    out.udp_idle_ms = <uint32_t>(limits.udp_idle_s * 1000)
    return 0


cdef SiteStruct *new_site(Slots slots, site) except NULL:
    """With one reference, the caller's."""
    cdef PolicyStruct policy
    cdef Tunnel *tunnels[SITE_TUNNEL_COUNT_MAX]
    cdef Service *service = NULL
    cdef SiteStruct *made = NULL
    cdef uint8_t count = 0
    if bool(site.tunnels) + (site.upstream is not None) + (site.directory is not None) + bool(site.page) != 1:
        raise EngineError("a site leads to tunnels, an upstream, a directory or a page: to one of them")
    write_policy(&policy, site.policy)
    if site.tunnels:
        if len(site.tunnels) > SITE_TUNNEL_COUNT_MAX:
            raise EngineError(f"a site with more than {SITE_TUNNEL_COUNT_MAX} tunnels")
        for slot in site.tunnels:
            tunnels[count] = slots.tunnel_at(slot)
            count += 1
        if site.service:
            service = slots.service_at(site.service)
        made = site_to_tunnels(tunnels, count, service, &policy)
    elif site.upstream is not None:
        made = site_to_upstream((<Upstream?>site.upstream).c, &policy)
    elif site.directory is not None:
        made = site_to_directory((<Directory?>site.directory).c, &policy)
    else:
        made = site_to_page(page_id(site.page))
    if made == NULL:
        raise MemoryError
    return made
