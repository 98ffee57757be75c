"""OPTIONS and TRACE with Max-Forwards: 0: this proxy is their last recipient and answers by itself.

Bound: one head, sent back in one piece. Fails: it cannot; the exchange may be dead afterwards.
Source: RFC 9110 §7.6.2, §9.3.7, §9.3.8.
"""
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from spokes._fastpath.flow.exchange_end cimport exchange_drop_up, exchange_end, exchange_next
from spokes._fastpath.flow.exchange_state cimport REQUEST_DONE
from spokes._fastpath.flow.exchange_write cimport exchange_emit
from spokes._fastpath.http.ascii cimport is_word
from spokes._fastpath.http.http1 cimport METHOD_TRACE, HttpField
from spokes._fastpath.http.httpdate cimport HTTP_DATE_BYTES
from spokes._fastpath.io.conn_state cimport loop_date

cdef enum:
    LAST_HEAD_BYTES_MAX = 256           # of the answer's own head


cdef bint is_secret(const HttpField *field, const uint8_t *src) noexcept nogil:
    """§9.3.8: what a script must not learn by having a request sent back."""
    cdef const uint8_t *name = src + field.name
    return (is_word(name, field.name_bytes, b"cookie", 6) or is_word(name, field.name_bytes, b"authorization", 13)
            or is_word(name, field.name_bytes, b"proxy-authorization", 19))


cdef size_t line_end(const HttpHead *head, size_t i) noexcept nogil:
    return head.fields[i + 1].name if i + 1 < head.field_count else head.head_bytes - 2


cdef void exchange_last(Exchange *x, const HttpHead *head, const uint8_t *src) noexcept nogil:
    cdef char text[LAST_HEAD_BYTES_MAX]
    cdef bint keep = x.keep_down and x.request_phase == REQUEST_DONE and not x.down.eof
    cdef bint is_trace = head.method == METHOD_TRACE
    cdef uint8_t *to = x.loop.head
    cdef size_t i, run = 0, echo_bytes = head.head_bytes
    cdef int n
    for i in range(head.field_count):
        if is_secret(&head.fields[i], src):
            echo_bytes -= line_end(head, i) - head.fields[i].name
    n = snprintf(text, sizeof(text),
                 b"HTTP/1.1 200 OK\r\nDate: %.*s\r\n%s\r\nContent-Length: %zu\r\nConnection: %s\r\n\r\n",
                 <int>HTTP_DATE_BYTES, loop_date(x.loop),
                 <const char *>b"Content-Type: message/http" if is_trace else
                 <const char *>b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE",
                 echo_bytes if is_trace else <size_t>0,
                 <const char *>b"keep-alive" if keep else <const char *>b"close")
    memcpy(to, text, n)
    to += n
    if is_trace:                        # HEAD_BYTES is twice what a head may have
        for i in range(head.field_count):
            if is_secret(&head.fields[i], src):
                memcpy(to, src + run, head.fields[i].name - run)
                to += head.fields[i].name - run
                run = line_end(head, i)
        memcpy(to, src + run, head.head_bytes - run)
        to += head.head_bytes - run
    exchange_drop_up(x, False)
    exchange_emit(x, x.down, &x.to_down, x.loop.head, to - x.loop.head)
    if keep:
        exchange_next(x)
    else:
        exchange_end(x, False)
