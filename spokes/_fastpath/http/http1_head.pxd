# Heads of HTTP/1.1 messages: find their end, parse them once.
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.http.http1_message cimport HttpHead

# Bytes of an empty line before a request: 2, or 0 when there is none (or only its CR so far: then http1_head_end
# answers 0 too). For use while *resume is 0; the caller counts: one per request, however the bytes arrive.
cdef size_t http1_skip_crlf(const uint8_t *src, size_t src_bytes) noexcept nogil
# Length of the head at src (> 0), 0 while its end has not come, RC_PROTO at the first byte no head can have (bare CR
# or LF, NUL, a first byte that is no token), RC_TOO_LARGE past HTTP_HEAD_BYTES_MAX or line_bytes_max; where it is
# the request line that has no end, RC_TARGET or, for a method longer than HTTP_METHOD_BYTES_MAX, RC_UNSUPPORTED.
# *resume (0 at first, opaque, fits 32 bits) remembers how far the search came, so bytes are looked at once.
# At most one empty line (CRLF) before a request is skipped by http1_skip_crlf, not here.
# over_link (here and below): it came through the other end of a link, which has added to what it held to the limits.
cdef ssize_t http1_head_end(const uint8_t *src, size_t src_bytes, size_t line_bytes_max, bint over_link,
                            size_t *resume) noexcept nogil
# Parse a whole head of head_bytes: 0 done, RC_PROTO (400, or 502 for a response), RC_TOO_LARGE (431), RC_VERSION
# (505), RC_UNSUPPORTED (501: CONNECT, a method longer than any, a transfer coding other than chunked).
# Safe on any bytes, also on some that http1_head_end has not seen.
cdef int http1_parse_request(HttpHead *out, const uint8_t *src, size_t head_bytes, bint over_link) noexcept nogil
# 0, or what http1_head_end would have said of a line that is longer, of a head that is parsed.
cdef int http1_check_lines(const HttpHead *head, size_t line_bytes_max) noexcept nogil
# Does a Via name this proxy?
cdef bint http1_came_through(const HttpHead *head, const uint8_t *src, const char *name,
                             size_t name_bytes) noexcept nogil
# request_method decides about the body of the response (HEAD; 2xx to CONNECT).
# 204 that announces a body has none, and keep_alive is 0: what may follow on that conn is no response.
cdef int http1_parse_response(HttpHead *out, const uint8_t *src, size_t head_bytes, uint8_t request_method,
                              bint over_link) noexcept nogil
