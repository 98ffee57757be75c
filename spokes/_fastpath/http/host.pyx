"""The one canonical form of a host: what routing, policy, certificates and logs compare.

Owns: nothing.
Bound: HOST_BYTES_MAX, LABEL_BYTES_MAX.
Fails: RC_PROTO.
Source: RFC 9110 §7.2 and RFC 3986 §3.2.2 for authorities, RFC 1035 §2.3.4 for names, RFC 5952 for IPv6 literals.
"""
from libc.string cimport memcpy, strlen

from spokes._fastpath.base.types cimport RC_PROTO, int32_t, uint8_t, uint32_t


cdef extern from "arpa/inet.h" nogil:
    int AF_INET6
    int inet_pton(int family, const char *text, void *address)
    const char *inet_ntop(int family, const void *address, char *text, uint32_t text_bytes)


cdef extern from * nogil:
    """
    /* Bytes of host names in lower case; 0 = none of theirs. */
    #define BYTES(base) base, base + 1, base + 2, base + 3, base + 4, base + 5, base + 6, base + 7, base + 8, base + 9
    #define LETTERS BYTES('a'), BYTES('k'), 'u', 'v', 'w', 'x', 'y', 'z'
    static const uint8_t host_byte[256] = {
        ['-'] = '-', '.', ['0'] = BYTES('0'), ['A'] = LETTERS, ['_'] = '_', ['a'] = LETTERS,
    };
    #undef LETTERS
    #undef BYTES
    """
    const uint8_t *host_byte


cdef enum:
    LABEL_BYTES_MAX = 63


cdef ssize_t canonical_name(char *dst, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef size_t i, label = 0            # where the present label starts
    cdef uint8_t c
    if src_bytes > 0 and src[src_bytes - 1] == c'.':
        src_bytes -= 1
    if src_bytes == 0 or src_bytes > HOST_BYTES_MAX:
        return RC_PROTO
    for i in range(src_bytes):
        c = host_byte[src[i]]
        dst[i] = <char>c
        if c > c'.':
            continue                    # a letter, a digit or "_"
        if c == 0 or i == label:        # not for hosts, or the first of its label
            return RC_PROTO
        if c == c'.':
            if src[i - 1] == c'-' or i - label > LABEL_BYTES_MAX:
                return RC_PROTO
            label = i + 1
    if src[src_bytes - 1] == c'-' or label == src_bytes or src_bytes - label > LABEL_BYTES_MAX:
        return RC_PROTO
    dst[src_bytes] = 0
    return <ssize_t>src_bytes


cdef ssize_t canonical_literal(char *dst, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """An IPv6 literal between its brackets, in the one text form of RFC 5952; no zones, no IPvFuture."""
    cdef char text[64]
    cdef uint8_t address[16]
    if src_bytes < 2 or src_bytes > 47:
        return RC_PROTO
    memcpy(text, src, src_bytes)
    text[src_bytes] = 0
    if strlen(text) != src_bytes or inet_pton(AF_INET6, text, address) != 1:
        return RC_PROTO
    dst[0] = c'['
    if inet_ntop(AF_INET6, address, dst + 1, 48) == NULL:
        return RC_PROTO
    src_bytes = strlen(dst)
    dst[src_bytes] = c']'
    dst[src_bytes + 1] = 0
    return <ssize_t>src_bytes + 1


cdef ssize_t canonical_authority(char *dst, const uint8_t *src, size_t src_bytes, int32_t *port) noexcept nogil:
    """host[:port] without userinfo: canonical host into dst, the port (PORT_NONE when absent or empty) beside it."""
    cdef size_t i, host_bytes = 0
    cdef ssize_t rc
    port[0] = PORT_NONE
    if src_bytes > 0 and src[0] == c'[':
        while host_bytes < src_bytes and src[host_bytes] != c']':
            host_bytes += 1
        if host_bytes == src_bytes:
            return RC_PROTO
        rc = canonical_literal(dst, src + 1, host_bytes - 1)
        host_bytes += 1
    else:
        while host_bytes < src_bytes and src[host_bytes] != c':':
            host_bytes += 1
        rc = canonical_name(dst, src, host_bytes)
    if rc < 0 or host_bytes == src_bytes:
        return rc
    if src[host_bytes] != c':' or src_bytes - host_bytes > 6:
        return RC_PROTO
    for i in range(host_bytes + 1, src_bytes):
        if not c'0' <= src[i] <= c'9':
            return RC_PROTO
        port[0] = (0 if port[0] == PORT_NONE else port[0] * 10) + src[i] - c'0'
    return rc if port[0] <= 65535 else RC_PROTO


cdef ssize_t canonical_host(char *dst, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef int32_t port
    return canonical_authority(dst, src, src_bytes, &port)
