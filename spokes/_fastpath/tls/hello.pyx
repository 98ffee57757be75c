"""Server name and ALPN of a ClientHello, read without answering it, so that TLS can be passed through untouched.

Owns: nothing. Each byte is looked at once as it comes, and copied once when all are there: a peer that sends one byte
  at a time, or each in a record of its own, costs no more than that.
Bound: HELLO_BYTES_MAX, judged by what the header announces, before the bytes come.
Fails: RC_PROTO, RC_TOO_LARGE.
Source: RFC 8446 §4.1.2 and §5.1, RFC 6066 §3, RFC 7301 §3.1.
"""
from libc.string cimport memcmp, memcpy, memset

from spokes._fastpath.base.types cimport RC_PROTO, RC_TOO_LARGE, uint8_t, uint16_t, uint32_t
from spokes._fastpath.http.host cimport canonical_name


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


cdef uint8_t read_worker(const uint8_t *digits) noexcept nogil:
    """Three digits, 001 to 255; anything else is none."""
    cdef uint32_t worker = 0
    cdef int i
    for i in range(3):
        if not c'0' <= digits[i] <= c'9':
            return 0
        worker = worker * 10 + digits[i] - c'0'
    return <uint8_t>worker if worker <= 255 else 0


cdef int read_alpn(Hello *out, Reader *extension) noexcept nogil:
    cdef Reader protocols, protocol
    if not read_vector(extension, 2, &protocols) or extension.left or protocols.left == 0:
        return RC_PROTO
    while protocols.left:
        if not read_vector(&protocols, 1, &protocol) or protocol.left == 0:
            return RC_PROTO
        if protocol.left == 8 and memcmp(protocol.at, b"spokes/1", 8) == 0:
            out.has_link_alpn = 1
        elif protocol.left == 11 and memcmp(protocol.at, b"spokes-ca/1", 11) == 0:
            out.has_authority_alpn = 1
        elif protocol.left == 17 and memcmp(protocol.at, b"spokes-worker/", 14) == 0:
            out.worker = read_worker(protocol.at + 14)
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


cdef int walk_header(HelloWalk *walk, uint8_t c) noexcept nogil:
    """A byte of a record's header: its type, its version, its length."""
    if walk.header_bytes == 0:
        if c != CONTENT_HANDSHAKE:
            return RC_PROTO
    elif walk.header_bytes == 1:
        if c != 3:
            return RC_PROTO
    elif walk.header_bytes == 2:
        if c > 4:
            return RC_PROTO
    elif walk.header_bytes == 3:
        if c > RECORD_PLAINTEXT_BYTES_MAX >> 8:
            return RC_PROTO
        walk.record_left = <uint16_t>c << 8
    else:
        walk.record_left |= c
        if walk.record_left == 0 or walk.record_left > RECORD_PLAINTEXT_BYTES_MAX:
            return RC_PROTO
    walk.header_bytes += 1
    return 0


cdef int walk_message_header(HelloWalk *walk, uint8_t c) noexcept nogil:
    """A byte of the handshake header: its type, the message's length."""
    if walk.known == 0:
        if c != HANDSHAKE_CLIENT_HELLO:
            return RC_PROTO
    else:
        walk.message_bytes = walk.message_bytes << 8 | c
    walk.known += 1
    if walk.known == HANDSHAKE_HEADER_BYTES:
        walk.message_bytes += HANDSHAKE_HEADER_BYTES
    return RC_TOO_LARGE if walk.message_bytes > HELLO_BYTES_MAX else 0


cdef int hello_walk(HelloWalk *walk, const uint8_t *src, size_t src_bytes, uint8_t *message) noexcept nogil:
    cdef size_t at = 0, span
    cdef int rc
    while at < src_bytes:
        if walk.header_bytes < RECORD_HEADER_BYTES:
            rc = walk_header(walk, src[at])
            if rc < 0:
                return rc
            at += 1
            continue
        if walk.known < HANDSHAKE_HEADER_BYTES:
            if message != NULL:
                message[walk.known] = src[at]
            rc = walk_message_header(walk, src[at])
            if rc < 0:
                return rc
            span = 1
        else:
            span = min(min(src_bytes - at, <size_t>walk.record_left), walk.message_bytes - walk.known)
            if message != NULL:
                memcpy(message + walk.known, src + at, span)
            walk.known += <uint32_t>span
        at += span
        walk.record_left -= <uint16_t>span
        if walk.known >= HANDSHAKE_HEADER_BYTES and walk.known == walk.message_bytes:
            return 1
        if walk.record_left == 0:
            walk.header_bytes = 0
    return 0


cdef int hello_read(Hello *out, const uint8_t *message, size_t message_bytes) noexcept nogil:
    memset(out, 0, sizeof(Hello))
    return read_body(out, message + HANDSHAKE_HEADER_BYTES, message_bytes - HANDSHAKE_HEADER_BYTES)


cdef uint64_t hello_pack(const HelloWalk *walk) noexcept nogil:
    """17 bits, 24 bits, 15 bits, 3 bits: HELLO_BYTES_MAX, any length, RECORD_PLAINTEXT_BYTES_MAX, a header."""
    return (<uint64_t>walk.known | <uint64_t>walk.message_bytes << 17 | <uint64_t>walk.record_left << 41
            | <uint64_t>walk.header_bytes << 56)


cdef void hello_unpack(HelloWalk *walk, uint64_t word) noexcept nogil:
    walk.known = <uint32_t>(word & 0x1ffff)
    walk.message_bytes = <uint32_t>(word >> 17 & 0xffffff)
    walk.record_left = <uint16_t>(word >> 41 & 0x7fff)
    walk.header_bytes = <uint8_t>(word >> 56)
