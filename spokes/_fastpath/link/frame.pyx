"""Link frames: 8-byte header and the payload of OPEN. Source: docs/protocol.md."""
from libc.string cimport memcpy, memset

from spokes._fastpath.base.types cimport RC_AGAIN, RC_PROTO


cdef ssize_t frame_parse(Frame *out, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef bint on_link
    if src_bytes < FRAME_HEADER_BYTES:
        return RC_AGAIN
    out.length = get_u16(src)
    out.type = src[2]
    out.flags = src[3]
    out.stream = get_u32(src + 4)
    if out.type > FRAME_WINDOW or out.type == 0:
        return FRAME_HEADER_BYTES                       # unknown: skipped by its length
    on_link = FRAME_PING <= out.type <= FRAME_DRAIN
    if on_link != (out.stream == 0) and out.type != FRAME_WINDOW:
        return RC_PROTO
    if out.type == FRAME_OPEN:
        if out.length < OPEN_FIXED_BYTES or out.length > OPEN_BYTES_MAX:
            return RC_PROTO
    elif out.type == FRAME_DATA:
        if out.length == 0:
            return RC_PROTO
    elif out.type == FRAME_FIN or out.type == FRAME_DRAIN:
        if out.length != 0:
            return RC_PROTO
    elif out.type == FRAME_RESET:
        if out.length != 2:
            return RC_PROTO
    elif out.type == FRAME_CREDIT or out.type == FRAME_PING or out.type == FRAME_PONG:
        if out.length != 8:
            return RC_PROTO
    elif out.type == FRAME_WINDOW:
        if out.length != (0 if out.stream == 0 else 4):
            return RC_PROTO
    elif out.type == FRAME_DATAGRAM:
        if out.length > 65507:
            return RC_PROTO
    return FRAME_HEADER_BYTES


cdef size_t open_put(uint8_t *dst, const Open *open) noexcept nogil:
    dst[0] = open.service
    dst[1] = open.flags | (OPEN_FLAG_SECURE if open.visitor.secure else 0)
    put_u16(dst + 2, open.visitor.port)
    dst[4] = open.visitor.hops
    dst[5] = open.visitor.address.family
    put_u16(dst + 6, open.visitor.address.port)
    memcpy(dst + 8, open.visitor.address.ip, 16)
    dst[24] = open.name_bytes
    memcpy(dst + OPEN_FIXED_BYTES, open.name, open.name_bytes)
    return OPEN_FIXED_BYTES + <size_t>open.name_bytes


cdef int open_parse(Open *out, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef uint8_t i
    if src_bytes < OPEN_FIXED_BYTES or src_bytes != OPEN_FIXED_BYTES + <size_t>src[24]:
        return RC_PROTO
    memset(out, 0, sizeof(Open))
    out.service = src[0]
    out.visitor.secure = src[1] & OPEN_FLAG_SECURE
    out.flags = src[1] & ~<uint8_t>OPEN_FLAG_SECURE
    out.visitor.port = get_u16(src + 2)
    out.visitor.hops = src[4]
    out.visitor.address.family = src[5]
    out.visitor.address.port = get_u16(src + 6)
    memcpy(out.visitor.address.ip, src + 8, 16)
    out.name_bytes = src[24]
    memcpy(out.name, src + OPEN_FIXED_BYTES, out.name_bytes)
    if out.service < SERVICE_HTTP or out.service > SERVICE_UDP:
        return RC_PROTO
    if out.visitor.address.family != 0 and out.visitor.address.family != 4 and out.visitor.address.family != 6:
        return RC_PROTO
    for i in range(out.name_bytes):                     # a canonical name has no byte outside this range
        if out.name[i] <= 32 or out.name[i] >= 127:
            return RC_PROTO
    return 0
