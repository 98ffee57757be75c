# Bodies of HTTP/1.1 messages, walked as they pass.
from spokes._fastpath.base.types cimport uint8_t, uint16_t, uint64_t

cdef enum:
    HTTP_STEP_FIELD_BYTES_MAX = 4096    # chunk extensions and trailers together, per body
    BODY_STATE_START = 0
    BODY_ROOM_ANY = 0xffffffffffffffff

cdef enum HttpBodyKind:
    BODY_NONE, BODY_LENGTH, BODY_CHUNKED, BODY_UNTIL_CLOSE

cdef struct HttpBody:                   # where a message's body is; 24 bytes, kept while the message is under way
    uint64_t left                       # bytes of the length or of the present chunk still to come
    uint64_t room                       # bytes that chunks may still have
    uint16_t skipped                    # bytes of extensions and trailers seen so far
    uint8_t kind                        # HttpBodyKind
    uint8_t state                       # within chunked framing
    uint8_t digits                      # of the present chunk size
    uint8_t strip                       # set by the caller: drop the chunked framing too, for HTTP/1.0 visitors
    uint8_t is_response                 # what a proxy mends in responses and refuses in requests

# Walk one step of a body: bytes taken from src (> 0), 0 when src is empty or the body is over (see http1_body_done),
# RC_PROTO, or RC_LIMIT where a chunk is announced that is more than `room`. *pass_on says whether the bytes taken are
# forwarded (data and framing) or dropped (chunk extensions, trailers). Adjacent bytes with the same answer come in one
# step as far as possible; good bytes come before a code.
cdef ssize_t http1_body_step(HttpBody *body, const uint8_t *src, size_t src_bytes, uint8_t *pass_on) noexcept nogil
# Never true for BODY_UNTIL_CLOSE: the end of the conn is its end.
cdef bint http1_body_done(const HttpBody *body) noexcept nogil
