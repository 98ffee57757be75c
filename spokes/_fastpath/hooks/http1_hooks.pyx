"""Test hooks of HTTP/1.1: the same functions with Python answers, and loops that time them.

Inputs are copied to memory of exactly their size, so that a sanitizer build sees one byte too many.
"""
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from spokes._fastpath.base.types cimport int64_t, uint64_t, uint8_t
from spokes._fastpath.http.http1_body cimport (
    BODY_ROOM_ANY, BODY_STATE_START, HttpBody, http1_body_done, http1_body_step,
)
from spokes._fastpath.http.http1_head cimport (
    HttpHead, http1_came_through, http1_check_lines, http1_head_end, http1_parse_request, http1_parse_response,
    http1_skip_crlf,
)
from spokes._fastpath.http.http1_message cimport HTTP_HEAD_BYTES_MAX, HTTP_LINE_BYTES_MAX, METHOD_GET, HttpField
from spokes._fastpath.http.http1_write cimport HttpRewrite, http1_write_request, http1_write_response


cdef uint8_t *copy_exactly(bytes data) except NULL:
    cdef uint8_t *memory = <uint8_t *>malloc(max(len(data), 1))
    if memory == NULL:
        raise MemoryError
    memcpy(memory, <const char *>data, len(data))
    return memory


def head_end(bytes data not None, size_t resume=0, size_t line_bytes_max=HTTP_LINE_BYTES_MAX, bint over_link=False):
    """(result of http1_head_end, resume)"""
    cdef uint8_t *src = copy_exactly(data)
    cdef ssize_t rc = http1_head_end(src, len(data), line_bytes_max, over_link, &resume)
    free(src)
    return rc, resume


def skip_crlf(bytes data not None):
    return http1_skip_crlf(<const uint8_t *><const char *>data, len(data))


cdef dict describe(const HttpHead *head, bytes data):
    cdef list fields = []
    cdef size_t i
    cdef const HttpField *field
    for i in range(head.field_count):
        field = &head.fields[i]
        fields.append((
            data[field.name:field.name + field.name_bytes], data[field.value:field.value + field.value_bytes], field.id,
        ))
    return {
        "method": head.method, "method_name": data[:head.method_bytes],
        "target": data[head.target:head.target + head.target_bytes],
        "path": data[head.path:head.path + head.path_bytes],
        "status": head.status, "reason": data[head.reason:head.reason + head.reason_bytes],
        "minor": head.minor, "keep_alive": bool(head.keep_alive), "upgrade": bool(head.upgrade),
        "expect_continue": bool(head.expect_continue), "has_date": bool(head.has_date),
        "max_forwards": head.max_forwards, "keep_alive_s": head.keep_alive_s,
        "host": (<const char *>head.host)[:head.host_bytes], "fields": fields,
        "body": (head.body.kind, head.body.left),
    }


def parse_request(bytes data not None, size_t line_bytes_max=HTTP_LINE_BYTES_MAX, bint over_link=False):
    """What the head says, or a code."""
    cdef HttpHead head
    cdef uint8_t *src = copy_exactly(data)
    cdef int rc = http1_parse_request(&head, src, len(data), over_link)
    if rc == 0:
        rc = http1_check_lines(&head, line_bytes_max)
    free(src)
    return rc if rc < 0 else describe(&head, data)


def parse_response(bytes data not None, uint8_t request_method=METHOD_GET, bint over_link=False):
    """What the head says, or a code."""
    cdef HttpHead head
    cdef uint8_t *src = copy_exactly(data)
    cdef int rc = http1_parse_response(&head, src, len(data), request_method, over_link)
    if rc == 0:
        rc = http1_check_lines(&head, HTTP_LINE_BYTES_MAX)
    free(src)
    return rc if rc < 0 else describe(&head, data)


def walk_body(uint8_t kind, uint64_t left, list chunks not None, uint8_t strip=0, bint is_response=False,
              uint64_t room=BODY_ROOM_ANY):
    """Walk a body over chunks: (bytes passed on, bytes taken, done or a code)."""
    cdef HttpBody body
    cdef uint8_t pass_on
    cdef uint8_t *src
    cdef ssize_t rc = 0
    cdef size_t at, taken = 0
    cdef bytes chunk
    cdef list passed = []
    body.left = left
    body.skipped = 0
    body.kind = kind
    body.state = BODY_STATE_START
    body.digits = 0
    body.strip = strip
    body.is_response = is_response
    body.room = room
    for chunk in chunks:
        src = copy_exactly(chunk)
        at = 0
        while at < <size_t>len(chunk) and not http1_body_done(&body):
            rc = http1_body_step(&body, src + at, len(chunk) - at, &pass_on)
            if rc <= 0:
                break
            if pass_on:
                passed.append(chunk[at:at + rc])
            at += rc
        free(src)
        taken += at
        if rc < 0:
            return b"".join(passed), taken, rc
        if http1_body_done(&body):
            break
    return b"".join(passed), taken, bool(http1_body_done(&body))


cdef HttpRewrite rewrite_of(bytes host, bytes visitor, bint secure, bint keep_alive, uint8_t to_minor):
    cdef HttpRewrite rewrite
    memset(&rewrite, 0, sizeof(HttpRewrite))
    if host is not None:
        rewrite.host = host
        rewrite.host_bytes = len(host)
    if visitor is not None:
        rewrite.visitor = visitor
        rewrite.visitor_bytes = len(visitor)
    rewrite.secure = secure
    rewrite.keep_alive = keep_alive
    rewrite.to_minor = to_minor
    return rewrite


def came_through(bytes data not None, bytes name not None):
    """Does a Via of the request name this proxy?"""
    cdef HttpHead head
    cdef uint8_t *src = copy_exactly(data)
    cdef int rc = http1_parse_request(&head, src, len(data), False)
    found = bool(http1_came_through(&head, src, name, len(name))) if rc == 0 else rc
    free(src)
    return found


def rewrite_request(bytes data not None, bytes host=None, bytes visitor=None, bint secure=False, room=None,
                    bytes via=None):
    """The head to be forwarded, or a code."""
    cdef HttpHead head
    cdef HttpRewrite rewrite = rewrite_of(host, visitor, secure, True, 1)
    cdef const char *via_text = <const char *>via if via is not None else NULL
    cdef size_t dst_bytes = len(data) + 1024 if room is None else room
    cdef uint8_t *src = copy_exactly(data)
    cdef uint8_t *dst = copy_exactly(bytes(dst_bytes))
    cdef ssize_t rc = http1_parse_request(&head, src, len(data), False)
    rewrite.via = via_text
    rewrite.via_bytes = <uint8_t>(len(via) if via is not None else 0)
    if rc == 0:
        rc = http1_write_request(dst, dst_bytes, &head, src, &rewrite)
    written = rc if rc < 0 else dst[:rc]
    free(src)
    free(dst)
    return written


def rewrite_response(bytes data not None, uint8_t request_method=METHOD_GET, bint keep_alive=True, uint8_t to_minor=1,
                     room=None, bytes date=None):
    """The head to be forwarded, or a code."""
    cdef HttpHead head
    cdef HttpRewrite rewrite = rewrite_of(None, None, False, keep_alive, to_minor)
    cdef const char *date_text = <const char *>date if date is not None else NULL
    cdef size_t dst_bytes = len(data) + 1024 if room is None else room
    cdef uint8_t *src = copy_exactly(data)
    cdef uint8_t *dst = copy_exactly(bytes(dst_bytes))
    cdef ssize_t rc = http1_parse_response(&head, src, len(data), request_method, False)
    rewrite.date = date_text
    if rc == 0:
        rc = http1_write_response(dst, dst_bytes, &head, src, &rewrite)
    written = rc if rc < 0 else dst[:rc]
    free(src)
    free(dst)
    return written


def time_request(bytes data not None, bytes visitor not None, int64_t count):
    """Nanoseconds per head for (finding its end, parsing, writing), each over `count` rounds."""
    cdef HttpHead head
    cdef HttpRewrite rewrite = rewrite_of(None, visitor, True, True, 1)
    cdef uint8_t dst[HTTP_HEAD_BYTES_MAX + 1024]
    cdef const uint8_t *src = <const uint8_t *><const char *>data
    cdef size_t src_bytes = len(data), resume
    cdef int64_t start, found, parsed, written, _
    cdef ssize_t checksum = 0
    with nogil:
        start = now_ns()
        for _ in range(count):
            resume = 0
            checksum += http1_head_end(src, src_bytes, HTTP_LINE_BYTES_MAX, False, &resume)
        found = now_ns()
        for _ in range(count):
            checksum += http1_parse_request(&head, src, src_bytes, False)
        parsed = now_ns()
        for _ in range(count):
            checksum += http1_write_request(dst, sizeof(dst), &head, src, &rewrite)
        written = now_ns()
    if checksum <= 0:
        raise ValueError("not a request")
    return (found - start) / count, (parsed - found) / count, (written - parsed) / count


def time_response(bytes data not None, int64_t count):
    """As time_request, for a response."""
    cdef HttpHead head
    cdef HttpRewrite rewrite = rewrite_of(None, None, False, True, 1)
    cdef uint8_t dst[HTTP_HEAD_BYTES_MAX + 1024]
    cdef const uint8_t *src = <const uint8_t *><const char *>data
    cdef size_t src_bytes = len(data), resume
    cdef int64_t start, found, parsed, written, _
    cdef ssize_t checksum = 0
    with nogil:
        start = now_ns()
        for _ in range(count):
            resume = 0
            checksum += http1_head_end(src, src_bytes, HTTP_LINE_BYTES_MAX, False, &resume)
        found = now_ns()
        for _ in range(count):
            checksum += http1_parse_response(&head, src, src_bytes, METHOD_GET, False)
        parsed = now_ns()
        for _ in range(count):
            checksum += http1_write_response(dst, sizeof(dst), &head, src, &rewrite)
        written = now_ns()
    if checksum <= 0:
        raise ValueError("not a response")
    return (found - start) / count, (parsed - found) / count, (written - parsed) / count


cdef int64_t now_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec
