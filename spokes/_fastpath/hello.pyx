"""Server name and ALPN of a ClientHello, read without answering it, so that TLS can be passed through untouched.

Owns: nothing. Keeps no state between calls: while bytes are missing only record headers are walked.
Bound: HELLO_BYTES_MAX, HELLO_RECORD_COUNT_MAX; both are judged by what headers announce, before the bytes come.
Fails: RC_PROTO, RC_TOO_LARGE.
Source: RFC 8446 §4.1.2 and §5.1, RFC 6066 §3, RFC 7301 §3.1.
"""
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from spokes._fastpath.host cimport canonical_name
from spokes._fastpath.types cimport RC_PROTO, RC_TOO_LARGE, uint8_t, uint32_t


cdef enum:
    RECORD_HEADER_BYTES = 5
    RECORD_PLAINTEXT_BYTES_MAX = 16384
    CONTENT_HANDSHAKE = 22
    HANDSHAKE_HEADER_BYTES = 4
    HANDSHAKE_CLIENT_HELLO = 1

    RANDOM_BYTES = 32
    SESSION_ID_BYTES_MAX = 32

    EXTENSION_SERVER_NAME = 0
    EXTENSION_ALPN = 16
    EXTENSION_SUPPORTED_VERSIONS = 43
    NAME_TYPE_HOST = 0
    VERSION_TLS13 = 0x0304

    SEEN_SERVER_NAME = 1
    SEEN_ALPN = 2
    SEEN_VERSIONS = 4

cdef struct Reader:                     # bytes not yet read; every read checks that they are there
    const uint8_t *at
    size_t left


cdef inline bint read_number(Reader *reader, size_t byte_count, uint32_t *value) noexcept nogil:
    """A big-endian number of 1, 2 or 3 bytes."""
    cdef size_t i
    if reader.left < byte_count:
        return False
    value[0] = 0
    for i in range(byte_count):
        value[0] = value[0] << 8 | reader.at[i]
    reader.at += byte_count
    reader.left -= byte_count
    return True


cdef inline bint read_vector(Reader *reader, size_t length_bytes, Reader *vector) noexcept nogil:
    """A vector with its length in front: what is inside becomes a reader of its own."""
    cdef uint32_t vector_bytes = 0
    if not read_number(reader, length_bytes, &vector_bytes) or reader.left < vector_bytes:
        return False
    vector.at = reader.at
    vector.left = vector_bytes
    reader.at += vector_bytes
    reader.left -= vector_bytes
    return True


cdef int read_server_name(Hello *out, Reader *extension) noexcept nogil:
    cdef Reader names, name
    cdef uint32_t name_type = 0
    cdef ssize_t rc
    if not read_vector(extension, 2, &names) or extension.left or names.left == 0:
        return RC_PROTO
    while names.left:
        if not read_number(&names, 1, &name_type) or not read_vector(&names, 2, &name):
            return RC_PROTO
        if name_type != NAME_TYPE_HOST:
            continue
        if out.name_bytes:
            return RC_PROTO
        rc = canonical_name(out.name, name.at, name.left)
        if rc < 0:
            return RC_PROTO
        out.name_bytes = <uint8_t>rc
    return 0


cdef int read_alpn(Hello *out, Reader *extension) noexcept nogil:
    cdef Reader protocols, protocol
    if not read_vector(extension, 2, &protocols) or extension.left or protocols.left == 0:
        return RC_PROTO
    while protocols.left:
        if not read_vector(&protocols, 1, &protocol) or protocol.left == 0:
            return RC_PROTO
        if protocol.left == 8 and memcmp(protocol.at, b"spokes/1", 8) == 0:
            out.has_link_alpn = 1
        elif protocol.left == 10 and memcmp(protocol.at, b"acme-tls/1", 10) == 0:
            out.has_acme_alpn = 1
    return 0


cdef int read_versions(Hello *out, Reader *extension) noexcept nogil:
    cdef Reader versions
    cdef uint32_t version = 0
    if not read_vector(extension, 1, &versions) or extension.left or versions.left == 0:
        return RC_PROTO
    while versions.left:
        if not read_number(&versions, 2, &version):
            return RC_PROTO
        if version == VERSION_TLS13:
            out.has_tls13 = 1
    return 0


cdef int read_extensions(Hello *out, Reader *extensions) noexcept nogil:
    cdef Reader extension
    cdef uint32_t extension_type = 0
    cdef uint8_t seen = 0, bit
    cdef int rc
    while extensions.left:
        if not read_number(extensions, 2, &extension_type) or not read_vector(extensions, 2, &extension):
            return RC_PROTO
        if extension_type == EXTENSION_SERVER_NAME:
            bit = SEEN_SERVER_NAME
            rc = read_server_name(out, &extension)
        elif extension_type == EXTENSION_ALPN:
            bit = SEEN_ALPN
            rc = read_alpn(out, &extension)
        elif extension_type == EXTENSION_SUPPORTED_VERSIONS:
            bit = SEEN_VERSIONS
            rc = read_versions(out, &extension)
        else:
            continue
        if rc < 0 or seen & bit:                        # an extension that comes twice has two meanings
            return RC_PROTO
        seen |= bit
    return 1


cdef int read_body(Hello *out, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """A ClientHello without its handshake header, whole and in one piece."""
    cdef Reader reader, part
    cdef uint32_t version = 0
    reader.at = src
    reader.left = src_bytes
    if not read_number(&reader, 2, &version) or version >> 8 != 3 or reader.left < RANDOM_BYTES:
        return RC_PROTO
    reader.at += RANDOM_BYTES
    reader.left -= RANDOM_BYTES
    if not read_vector(&reader, 1, &part) or part.left > SESSION_ID_BYTES_MAX:
        return RC_PROTO
    if not read_vector(&reader, 2, &part) or part.left < 2 or part.left & 1:            # cipher suites
        return RC_PROTO
    if not read_vector(&reader, 1, &part) or part.left == 0:                            # compression methods
        return RC_PROTO
    if reader.left == 0:
        return 1                                        # no extensions at all, as before TLS 1.2
    if not read_vector(&reader, 2, &part) or reader.left:
        return RC_PROTO
    return read_extensions(out, &part)


cdef ssize_t measure_message(const uint8_t *src, size_t src_bytes, int *record_count) noexcept nogil:
    """Bytes of the ClientHello with its handshake header once all of it is here; 0 while it is not; a code.
    Each byte is judged as soon as it is there, so that garbage and giants are known by their first bytes."""
    cdef uint8_t header[HANDSHAKE_HEADER_BYTES]
    cdef size_t at = 0                  # where the present record starts
    cdef size_t known = 0               # handshake bytes in the records walked so far
    cdef size_t message_bytes = 0       # 0 while the handshake header is not known
    cdef size_t record_bytes, span, i
    record_count[0] = 0
    while message_bytes == 0 or known < message_bytes:
        if at < src_bytes and src[at] != CONTENT_HANDSHAKE:
            return RC_PROTO
        if at + 1 < src_bytes and src[at + 1] != 3:
            return RC_PROTO
        if at + 2 < src_bytes and src[at + 2] > 4:
            return RC_PROTO
        if src_bytes < at + RECORD_HEADER_BYTES:
            return 0
        record_bytes = <size_t>src[at + 3] << 8 | src[at + 4]
        if record_bytes == 0 or record_bytes > RECORD_PLAINTEXT_BYTES_MAX:
            return RC_PROTO
        record_count[0] += 1
        if record_count[0] > HELLO_RECORD_COUNT_MAX:
            return RC_TOO_LARGE
        at += RECORD_HEADER_BYTES
        i = 0
        while i < record_bytes and known + i < HANDSHAKE_HEADER_BYTES:
            if at + i >= src_bytes:
                return 0
            header[known + i] = src[at + i]
            if header[0] != HANDSHAKE_CLIENT_HELLO:
                return RC_PROTO
            i += 1
        if message_bytes == 0 and known + i == HANDSHAKE_HEADER_BYTES:
            message_bytes = HANDSHAKE_HEADER_BYTES + (<size_t>header[1] << 16 | <size_t>header[2] << 8 | header[3])
        span = record_bytes
        if message_bytes:
            if at + message_bytes - known > HELLO_BYTES_MAX:
                return RC_TOO_LARGE
            span = min(span, message_bytes - known)
        if src_bytes < at + span:
            return 0
        known += span
        at += record_bytes
    return <ssize_t>message_bytes


cdef void join_records(uint8_t *dst, const uint8_t *src, size_t message_bytes) noexcept nogil:
    """Copy a message that measure_message found whole, without the record headers in it."""
    cdef size_t at = 0, known = 0, record_bytes, span
    while known < message_bytes:
        record_bytes = <size_t>src[at + 3] << 8 | src[at + 4]
        span = min(record_bytes, message_bytes - known)
        memcpy(dst + known, src + at + RECORD_HEADER_BYTES, span)
        known += span
        at += RECORD_HEADER_BYTES + record_bytes


cdef int hello_parse(Hello *out, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef uint8_t joined[HELLO_BYTES_MAX]
    cdef const uint8_t *message = src + RECORD_HEADER_BYTES
    cdef int record_count
    cdef ssize_t message_bytes = measure_message(src, src_bytes, &record_count)
    if message_bytes <= 0:
        return <int>message_bytes
    if record_count > 1:
        join_records(joined, src, <size_t>message_bytes)
        message = joined
    memset(out, 0, sizeof(Hello))
    return read_body(out, message + HANDSHAKE_HEADER_BYTES, <size_t>message_bytes - HANDSHAKE_HEADER_BYTES)


# --- test door -------------------------------------------------------------------------------------------------------

def parse_hello(bytes data not None):
    """What the ClientHello says, 0 while it is incomplete, or a code."""
    cdef Hello hello
    cdef uint8_t *src = <uint8_t *>malloc(max(len(data), 1))    # of exactly this size, for sanitizers
    cdef int rc
    if src == NULL:
        raise MemoryError
    memcpy(src, <const char *>data, len(data))
    rc = hello_parse(&hello, src, len(data))
    free(src)
    if rc <= 0:
        return rc
    return {
        "name": (<const char *>hello.name)[:hello.name_bytes],
        "has_link_alpn": bool(hello.has_link_alpn),
        "has_acme_alpn": bool(hello.has_acme_alpn),
        "has_tls13": bool(hello.has_tls13),
    }
