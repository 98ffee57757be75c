"""Literal addresses of Python's as the kernel wants them."""
from libc.string cimport memcpy, memset

from spokes._fastpath.base.net cimport AF_INET, AF_INET6, htons, sockaddr_in, sockaddr_in6
from spokes._fastpath.base.types cimport uint16_t

import ipaddress

from spokes.errors import EngineError


cdef socklen_t write_address(sockaddr_storage *out, str host, int port) except 0:
    """A literal IP and port. EngineError: it is none."""
    cdef sockaddr_in *v4 = <sockaddr_in *>out
    cdef sockaddr_in6 *v6 = <sockaddr_in6 *>out
    cdef bytes packed
    memset(out, 0, sizeof(sockaddr_storage))
    if not 0 < port < 65536:
        raise EngineError(f"port {port} is not between 1 and 65535")
    try:
        packed = ipaddress.ip_address(host).packed
    except ValueError:
        raise EngineError(f"{host!r} is not a literal IP address") from None
    if len(packed) == 4:
        v4.sin_family = AF_INET
        v4.sin_port = htons(<uint16_t>port)
        memcpy(&v4.sin_addr, <const char *>packed, 4)
        return sizeof(sockaddr_in)
    v6.sin6_family = AF_INET6
    v6.sin6_port = htons(<uint16_t>port)
    memcpy(&v6.sin6_addr, <const char *>packed, 16)
    return sizeof(sockaddr_in6)
