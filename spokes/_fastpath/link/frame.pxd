# Frames of docs/protocol.md, sans-io.
from spokes._fastpath.base.address cimport Address
from spokes._fastpath.base.types cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    FRAME_HEADER_BYTES = 8
    FRAME_PAYLOAD_BYTES_MAX = 65535
    FRAME_CONTROL_MORE = 1              # flag of CONTROL
    OPEN_FIXED_BYTES = 25
    OPEN_BYTES_MAX = 280
    OPEN_FLAG_SECURE = 1
    STREAM_WINDOW_BYTES = 262144        # first limit of each direction, unless a WINDOW narrows it; yamux's default

cdef enum FrameType:
    FRAME_OPEN = 1, FRAME_DATA = 2, FRAME_FIN = 3, FRAME_RESET = 4, FRAME_CREDIT = 5
    FRAME_PING = 6, FRAME_PONG = 7, FRAME_CONTROL = 8, FRAME_DRAIN = 9, FRAME_DATAGRAM = 10
    FRAME_WINDOW = 11

cdef enum Service:
    SERVICE_HTTP = 1, SERVICE_TCP = 2, SERVICE_TLS = 3, SERVICE_UDP = 4

cdef struct Frame:
    uint32_t stream
    uint16_t length
    uint8_t type
    uint8_t flags

cdef struct Visitor:                    # who asks, however its bytes come here
    Address address                     # family 0 = not known
    uint16_t port                       # public port it came to
    uint8_t secure                      # its TLS ended at the server
    uint8_t hops                        # of a raw flow: times that it has been here before

cdef struct Open:
    Visitor visitor
    uint8_t service
    uint8_t flags                       # others than OPEN_FLAG_SECURE, which is the visitor's
    uint8_t name_bytes
    char name[256]

cdef inline void put_u16(uint8_t *dst, uint32_t value) noexcept nogil:
    dst[0] = <uint8_t>(value >> 8)
    dst[1] = <uint8_t>value

cdef inline void put_u32(uint8_t *dst, uint32_t value) noexcept nogil:
    put_u16(dst, value >> 16)
    put_u16(dst + 2, value & 0xFFFF)

cdef inline void put_u64(uint8_t *dst, uint64_t value) noexcept nogil:
    put_u32(dst, <uint32_t>(value >> 32))
    put_u32(dst + 4, <uint32_t>value)

cdef inline uint16_t get_u16(const uint8_t *src) noexcept nogil:
    return <uint16_t>((src[0] << 8) | src[1])

cdef inline uint32_t get_u32(const uint8_t *src) noexcept nogil:
    return (<uint32_t>get_u16(src) << 16) | get_u16(src + 2)

cdef inline uint64_t get_u64(const uint8_t *src) noexcept nogil:
    return (<uint64_t>get_u32(src) << 32) | get_u32(src + 4)

cdef inline void frame_put(uint8_t *dst, uint8_t type, uint8_t flags, uint32_t stream, uint32_t length) noexcept nogil:
    put_u16(dst, length)
    dst[2] = type
    dst[3] = flags
    put_u32(dst + 4, stream)

# Bytes consumed (FRAME_HEADER_BYTES), RC_AGAIN while short, RC_PROTO: impossible length or stream for a known type.
cdef ssize_t frame_parse(Frame *out, const uint8_t *src, size_t src_bytes) noexcept nogil
cdef size_t open_put(uint8_t *dst, const Open *open) noexcept nogil       # payload bytes written, <= OPEN_BYTES_MAX
cdef int open_parse(Open *out, const uint8_t *src, size_t src_bytes) noexcept nogil   # 0 or RC_PROTO
