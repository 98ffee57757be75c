"""What this end answers by itself: refusals of heads that cannot be read, files of a directory, OPTIONS and TRACE.

Bound: a head sent back in one piece; of a file one slot's bytes at a time, and no buffer held.
Fails: a file that became shorter ends the exchange at once.
Source: RFC 9110 §7.6.2, §9.3.7, §9.3.8.
"""
from libc.stdio cimport snprintf
from libc.string cimport memchr, memcmp, memcpy

from spokes._fastpath.base.types cimport RC_TARGET, RC_TOO_LARGE, RC_UNSUPPORTED, RC_VERSION
from spokes._fastpath.flow.exchange cimport (
    exchange_abort, exchange_answered, exchange_close, exchange_drop_file, exchange_drop_upstream, exchange_next,
    exchange_page, exchange_page_with,
)
from spokes._fastpath.flow.exchange_io cimport exchange_emit
from spokes._fastpath.flow.exchange_state cimport REQUEST_DONE, STEP_FILE, exchange_await, exchange_step
from spokes._fastpath.flow.files cimport FileAnswer, file_read, files_answer
from spokes._fastpath.http.ascii cimport CR, IS_TARGET, IS_TOKEN, LF, SP, byte_class, is_blank, is_word
from spokes._fastpath.http.http1 cimport METHOD_HEAD, METHOD_TRACE, HttpField, http1_canonical_host
from spokes._fastpath.http.httpdate cimport HTTP_DATE_BYTES
from spokes._fastpath.http.page cimport (
    PAGE_ADMIN_DOWN, PAGE_BAD_REQUEST, PAGE_HEAD_TOO_LARGE, PAGE_HTTP_VERSION, PAGE_NONE, PAGE_TARGET_TOO_LONG,
    PAGE_UNSUPPORTED,
)
from spokes._fastpath.io.conn_state cimport HEAD_BYTES, loop_date
from spokes._fastpath.io.end cimport end_room_unread, end_wait_room, end_write
from spokes._fastpath.link.link_state cimport STREAM_SLOT_BYTES
from spokes._fastpath.route.route cimport ROUTE_HTTP, route_find
from spokes._fastpath.route.site cimport SITE_UPSTREAM, Site

cdef extern from "string.h" nogil:
    void *memmem(const void *where, size_t where_bytes, const void *what, size_t what_bytes)

cdef enum:
    LAST_HEAD_BYTES_MAX = 256           # of the answer to OPTIONS and TRACE


# --- heads that cannot be read ----------------------------------------------------------------------------------------

cdef bint is_api(const uint8_t *path, size_t path_bytes) noexcept nogil:
    """A front proxy may put a prefix before it."""
    return memmem(path, path_bytes, b"/api/", 5) != NULL


cdef bint is_own_host(Exchange *x, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Does the first Host line of a head that cannot be read lead to the administration? True also where there is none:
    the address it came to is the server's."""
    cdef const uint8_t *line = src
    cdef const uint8_t *end = src + src_bytes
    cdef const uint8_t *value
    cdef char host[256]
    cdef ssize_t host_bytes
    cdef Site *site
    while True:
        line = <const uint8_t *>memchr(line, LF, end - line)
        if line == NULL:
            return True
        line += 1
        if end - line < 5 or not is_word(line, 5, b"host:", 5):
            continue
        value = line + 5
        while value < end and is_blank(value[0]):
            value += 1
        line = value
        while line < end and byte_class[line[0]] & IS_TARGET:
            line += 1
        host_bytes = http1_canonical_host(host, value, line - value)
        if host_bytes < 0 or (line < end and line[0] != CR):
            return True
        site = route_find(x.loop.routes, ROUTE_HTTP, host, host_bytes)
        return site != NULL and site.kind == SITE_UPSTREAM and site.upstream.fault_page == PAGE_ADMIN_DOWN


cdef bint is_for_api(Exchange *x, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Is a head that cannot be read a request to our own API?"""
    cdef size_t target = 0, end
    while target < src_bytes and byte_class[src[target]] & IS_TOKEN:
        target += 1
    if target == 0 or target == src_bytes or src[target] != SP:
        return False
    end = target + 1
    while end < src_bytes and byte_class[src[end]] & IS_TARGET:
        end += 1
    return is_api(src + target, end - target) and is_own_host(x, src, src_bytes)


cdef void exchange_refuse(Exchange *x, int rc, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """What the head says in its first bytes may still be known: its method, its path, its host."""
    cdef uint8_t page = PAGE_BAD_REQUEST
    if rc == RC_TOO_LARGE:
        page = PAGE_HEAD_TOO_LARGE
    elif rc == RC_UNSUPPORTED:
        page = PAGE_UNSUPPORTED
    elif rc == RC_TARGET:
        page = PAGE_TARGET_TOO_LONG
    elif rc == RC_VERSION:
        page = PAGE_HTTP_VERSION
    if src_bytes >= 5 and memcmp(src, b"HEAD ", 5) == 0:
        x.method = METHOD_HEAD          # gets no body whatever is wrong with it
    x.wants_json = is_for_api(x, src, src_bytes)
    exchange_page(x, page)


# --- OPTIONS and TRACE ------------------------------------------------------------------------------------------------

cdef bint is_secret(const HttpField *field, const uint8_t *src) noexcept nogil:
    """§9.3.8: what a script must not learn by having a request sent back."""
    cdef const uint8_t *name = src + field.name
    return (is_word(name, field.name_bytes, b"cookie", 6) or is_word(name, field.name_bytes, b"authorization", 13)
            or is_word(name, field.name_bytes, b"proxy-authorization", 19))


cdef size_t line_end(const HttpHead *head, size_t i) noexcept nogil:
    return head.fields[i + 1].name if i + 1 < head.field_count else head.head_bytes - 2


cdef void exchange_last(Exchange *x, const HttpHead *head, const uint8_t *src) noexcept nogil:
    """This proxy is the last recipient: TRACE gets its head back, less what is secret."""
    cdef char text[LAST_HEAD_BYTES_MAX]
    cdef bint keep = x.keep_downstream and x.request_phase == REQUEST_DONE and not x.downstream.eof
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
    exchange_drop_upstream(x, False)
    exchange_emit(x, x.downstream, &x.to_downstream, x.loop.head, to - x.loop.head)
    if keep:
        exchange_next(x)
    else:
        exchange_close(x, False)


# --- files ------------------------------------------------------------------------------------------------------------

cdef void exchange_to_directory(Exchange *x, const Directory *directory, const HttpHead *head,
                                const uint8_t *src) noexcept nogil:
    """The head is sent at once. The file's bytes are read later, in the scheduling slots of the visitor's end."""
    cdef FileAnswer answer
    exchange_drop_upstream(x, False)
    if x.request_phase != REQUEST_DONE or x.downstream.eof:
        x.keep_downstream = 0
    files_answer(&answer, directory, head, src, x.loop.wall_ms // 1000, x.keep_downstream, x.loop.head, HEAD_BYTES)
    if answer.page != PAGE_NONE:
        exchange_page_with(x, answer.page, answer.field, answer.field_bytes)
        return
    x.file = answer.body
    exchange_step(x, STEP_FILE)
    x.answered = 1
    exchange_emit(x, x.downstream, &x.to_downstream, x.loop.head, answer.head_bytes)
    exchange_await(x)
    if x.file == NULL:
        exchange_answered(x)
    else:
        end_wait_room(x.downstream)


cdef void exchange_send_file(Exchange *x) noexcept nogil:
    """Read what the visitor's end has room for, and no more."""
    cdef size_t room = end_room_unread(x.downstream)
    cdef ssize_t n
    if room > 0:
        n = file_read(x.file, x.loop.head, room if room < STREAM_SLOT_BYTES else STREAM_SLOT_BYTES)
        if n <= 0:
            exchange_abort(x)           # shorter than was promised, or unreadable: never a body that only seems whole
            return
        end_write(x.downstream, x.loop.head, n)
        exchange_await(x)
        if x.file.left == 0:
            exchange_drop_file(x)
            exchange_answered(x)
            return
    end_wait_room(x.downstream)
