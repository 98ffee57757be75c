# Pages: the answers that the engine gives by itself.
from spokes._fastpath.base.types cimport uint32_t

# PAGE_BAD_REQUEST has the code SPK-BAD-REQUEST: names are codes (bindings/codes.pyx). Status and text: spokes/pages.py.
cpdef enum PageId:
    PAGE_NONE, PAGE_WELCOME, PAGE_UNKNOWN_HOST, PAGE_OFFLINE, PAGE_UPSTREAM_REFUSED, PAGE_UPSTREAM_UNREACHABLE
    PAGE_UPSTREAM_TIMEOUT, PAGE_UPSTREAM_BROKEN, PAGE_BAD_REQUEST, PAGE_HEAD_TOO_LARGE, PAGE_TIMEOUT, PAGE_MISDIRECTED
    PAGE_UNSUPPORTED, PAGE_LIMIT, PAGE_NO_FILE, PAGE_METHOD, PAGE_PRECONDITION, PAGE_RANGE, PAGE_WEBROOT
    PAGE_ADMIN_DOWN, PAGE_BANDWIDTH, PAGE_TARGET_TOO_LONG, PAGE_HTTP_VERSION
    PAGE_UPSTREAM_NAME, PAGE_UPSTREAM_RESET, PAGE_UPSTREAM_CLOSED, PAGE_UPSTREAM_HEAD, PAGE_UPSTREAM_TLS
    PAGE_LOOP, PAGE_HTTPS, PAGE_PLAIN_HTTP, PAGE_BODY_TOO_LARGE, PAGE_NO_RULE, PAGE_UPSTREAM_BODY
    PAGE_COUNT

cdef struct Page:
    char *head                          # status line and fields, without Connection and the last blank line
    uint32_t head_bytes
    uint32_t body_bytes
    char *body
