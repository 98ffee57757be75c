"""Test hooks of ClientHellos and certificates."""
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from spokes._fastpath.base.types cimport atomic_get, uint64_t, uint8_t
from spokes._fastpath.tls.certificate cimport certificates_live, parsed_count
from spokes._fastpath.tls.hello cimport (
    HELLO_BYTES_MAX, Hello, HelloWalk, hello_pack, hello_read, hello_unpack, hello_walk,
)


def parse_hello(bytes data not None, size_t step=0):
    """What the ClientHello says, looked at `step` bytes at a time (0: all at once); 0 while it is incomplete, or a
    code."""
    cdef Hello hello
    cdef HelloWalk walk
    cdef uint8_t *message
    cdef uint8_t *src
    cdef size_t at = 0, part
    cdef uint64_t word = 0
    cdef int rc = 0
    message = <uint8_t *>malloc(HELLO_BYTES_MAX)
    if message == NULL:
        raise MemoryError
    while rc == 0 and at < <size_t>len(data):
        part = min(step or len(data), len(data) - at)
        src = <uint8_t *>malloc(part)                           # of exactly this size, for sanitizers
        memcpy(src, <const char *>data + at, part)
        hello_unpack(&walk, word)
        rc = hello_walk(&walk, src, part, message)
        word = hello_pack(&walk)
        free(src)
        at += part
    if rc > 0:
        rc = hello_read(&hello, message, walk.message_bytes)
    free(message)
    if rc <= 0:
        return rc
    return {
        "name": (<const char *>hello.name)[:hello.name_bytes],
        "has_link_alpn": bool(hello.has_link_alpn),
        "has_authority_alpn": bool(hello.has_authority_alpn),
        "has_acme_alpn": bool(hello.has_acme_alpn),
        "worker": hello.worker,
        "has_tls13": bool(hello.has_tls13),
    }


def live_certificates():
    """(certificates that somebody holds: tables, Python; those of them that are parsed), of this process."""
    return atomic_get(&certificates_live), atomic_get(&parsed_count)
