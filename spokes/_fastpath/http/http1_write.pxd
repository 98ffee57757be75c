# Heads of HTTP/1.1 messages as they are forwarded.
from spokes._fastpath.base.types cimport uint8_t, uint16_t
from spokes._fastpath.http.http1_head cimport HttpHead

cdef struct HttpRewrite:                # what is put into a forwarded head besides the fields passed on
    const char *host                    # Host value instead of the visitor's; NULL = as received
    uint16_t host_bytes
    const char *via                     # request: our name in a Via of its own; NULL = add none
    uint8_t via_bytes
    const char *visitor                 # visitor's address as text; NULL = leave FIELD_FORWARDED fields as they are
    uint8_t visitor_bytes
    uint8_t secure                      # X-Forwarded-Proto: https or http
    uint8_t keep_alive                  # response to the visitor: 1 = keep, 0 = send Connection: close
    const char *date                    # response: HTTP_DATE_BYTES for one that lacks a Date; NULL = add none
    uint8_t to_minor                    # response: HTTP minor version of the visitor (keep-alive must be said to 1.0)

# Write the head to be forwarded into dst: its length, or RC_LIMIT when dst is too small. head_bytes + 1024 always
# suffices for a visitor of at most 46 bytes (any address) and a host of at most 260: the check is made once, for the
# worst case. Drops hop-by-hop and nominated fields; keeps Upgrade and "Connection: upgrade" when head.upgrade. The
# request line has the origin form; the version sent is always HTTP/1.1.
# With a visitor, FIELD_FORWARDED fields are replaced by X-Forwarded-For, X-Real-IP, X-Forwarded-Proto and
# X-Forwarded-Host (the visitor's canonical host), and Max-Forwards is one less.
cdef ssize_t http1_write_request(uint8_t *dst, size_t dst_bytes, const HttpHead *head, const uint8_t *src,
                                 const HttpRewrite *rewrite) noexcept nogil
# Content-Length and Transfer-Encoding are dropped from 1xx and 204, blanks before a colon everywhere. A response says
# close whatever rewrite.keep_alive is when its end is the end of the conn: BODY_UNTIL_CLOSE, and BODY_CHUNKED to an
# HTTP/1.0 visitor. For the latter the caller sets body.strip, so that the data alone is passed on, and closes. 1xx must
# not be written to an HTTP/1.0 visitor at all.
cdef ssize_t http1_write_response(uint8_t *dst, size_t dst_bytes, const HttpHead *head, const uint8_t *src,
                                  const HttpRewrite *rewrite) noexcept nogil
