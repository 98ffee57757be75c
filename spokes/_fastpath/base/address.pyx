"""Addresses of visitors: reading them of sockets, and writing them as text."""
from libc.string cimport memcpy, memset

from spokes._fastpath.base.net cimport AF_INET, AF_INET6, ntohs, sockaddr_in, sockaddr_in6

cdef extern from "arpa/inet.h" nogil:
    const char *inet_ntop(int family, const void *src, char *dst, unsigned int n)

cdef extern from "string.h" nogil:
    size_t strlen(const char *text)


cdef size_t octet_text(char *dst, uint8_t octet) noexcept nogil:
    cdef size_t n = 0
    if octet >= 100:
        dst[n] = <char>(c'0' + octet // 100)
        n += 1
    if octet >= 10:
        dst[n] = <char>(c'0' + octet // 10 % 10)
        n += 1
    dst[n] = <char>(c'0' + octet % 10)
    return n + 1


cdef size_t address_text(char *dst, const Address *address) noexcept nogil:
    """IPv4 by hand: it is written for every request, and printf took a fiftieth of the server's time for it."""
    cdef char text[64]
    cdef size_t n
    cdef int i
    if address.family == 4:
        n = octet_text(dst, address.ip[0])
        for i in range(1, 4):
            dst[n] = c'.'
            n += 1 + octet_text(dst + n + 1, address.ip[i])
        return n
    elif address.family == 6 and inet_ntop(AF_INET6, address.ip, text, 64) != NULL:
        n = strlen(text)
    else:
        text[0] = c'-'
        n = 1
    memcpy(dst, text, n)
    return n


cdef void address_read(Address *out, const void *sockaddr_any) noexcept nogil:
    """IPv4-mapped IPv6 addresses (::ffff:a.b.c.d, dual-stack listeners) are read as IPv4."""
    cdef const sockaddr_in *v4 = <const sockaddr_in *>sockaddr_any
    cdef const sockaddr_in6 *v6 = <const sockaddr_in6 *>sockaddr_any
    cdef const uint8_t *ip
    memset(out, 0, sizeof(Address))
    if v4.sin_family == AF_INET:
        out.family = 4
        out.port = ntohs(v4.sin_port)
        memcpy(out.ip, &v4.sin_addr, 4)
    elif v4.sin_family == AF_INET6:
        out.port = ntohs(v6.sin6_port)
        ip = <const uint8_t *>&v6.sin6_addr
        if ip[0] == 0 and ip[1] == 0 and ip[9] == 0 and ip[10] == 0xFF and ip[11] == 0xFF:
            out.family = 4
            memcpy(out.ip, ip + 12, 4)
        else:
            out.family = 6
            memcpy(out.ip, ip, 16)
