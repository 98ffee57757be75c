"""How an exchange ends: answered, by a page of ours, in order or at once; and how the next one begins.

Owns: nothing beyond the exchange, which may be dead after any call from here. Fails: it cannot.
"""
from libc.string cimport memcpy

from spokes._fastpath.base.buf cimport chain_clear
from spokes._fastpath.base.reason cimport REASON_GONE
from spokes._fastpath.base.timer cimport timer_clear
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.flow.exchange_state cimport (
    DEADLINE_KEEP_ALIVE, KEEP_ALIVE_MS, REQUEST_DONE, REQUEST_HEAD, RESPONSE_NONE, Exchange, exchange_deadline,
    exchange_defer_free,
)
from spokes._fastpath.flow.exchange_write cimport exchange_emit, exchange_forget_replay, exchange_write_rest
from spokes._fastpath.flow.files cimport file_close
from spokes._fastpath.flow.upstream cimport UpstreamConn, upstream_give_back
from spokes._fastpath.http.http1 cimport METHOD_HEAD
from spokes._fastpath.http.httpdate cimport HTTP_DATE_BYTES
from spokes._fastpath.http.page cimport PAGE_BAD_REQUEST, PAGE_HEAD_TOO_LARGE, PAGE_TIMEOUT, Page
from spokes._fastpath.io.conn_state cimport End, loop_date
from spokes._fastpath.io.end cimport end_abort, end_close, end_is_readable, end_linger
from spokes._fastpath.io.loop cimport loop_task

cdef enum:
    DATE_FIELD_BYTES = HTTP_DATE_BYTES + 8


# --- the upstream's end -----------------------------------------------------------------------------------------------

cdef void exchange_drop_file(Exchange *x) noexcept nogil:
    if x.file != NULL:
        file_close(x.file)
        x.file = NULL


cdef void exchange_drop_up(Exchange *x, bint reusable) noexcept nogil:
    cdef End *up = x.up
    cdef UpstreamConn *upstream = x.upstream
    x.up = NULL
    x.upstream = NULL
    x.tunnel = NULL
    exchange_drop_file(x)
    chain_clear(&x.loop.pool, &x.to_up)
    exchange_forget_replay(x)
    if up == NULL:
        return
    if upstream != NULL and reusable:
        upstream_give_back(upstream.conn)
    else:
        end_close(up)


# --- ending -----------------------------------------------------------------------------------------------------------

cdef void exchange_free(Exchange *x) noexcept nogil:
    x.dead = 1
    timer_clear(&x.loop.wheel, &x.timer)
    chain_clear(&x.loop.pool, &x.to_down)
    if not x.task.queued:
        exchange_defer_free(x)


cdef void exchange_end(Exchange *x, bint abort) noexcept nogil:
    """The visitor's end closes: in order (what was written is still sent) or at once."""
    if abort and not x.dead:
        exchange_drop_up(x, False)
        end_abort(x.down, REASON_GONE)
        exchange_free(x)
    else:
        exchange_leave(x, False)


cdef void exchange_leave(Exchange *x, bint is_mid_request) noexcept nogil:
    """In order; the visitor may be in the middle of its request, and see our answer only when it is done."""
    if x.dead:
        return
    exchange_drop_up(x, False)
    exchange_write_rest(x)
    end_linger(x.down, is_mid_request)
    exchange_free(x)


cdef void exchange_end_early(Exchange *x, bint drain) noexcept nogil:
    """Behind an answer."""
    exchange_leave(x, drain and x.request_phase != REQUEST_DONE)


cdef void exchange_finish(Exchange *x) noexcept nogil:
    """Both directions of a raw flow have ended: what is queued still goes out, both ways."""
    cdef End *up = x.up
    x.up = NULL
    end_linger(up, False)
    exchange_end(x, False)


# --- pages ------------------------------------------------------------------------------------------------------------

cdef void exchange_page(Exchange *x, uint8_t page_id) noexcept nogil:
    exchange_page_with(x, page_id, NULL, 0)


cdef void exchange_page_with(Exchange *x, uint8_t page_id, const char *field, size_t field_bytes) noexcept nogil:
    """Answer by ourselves, perhaps with one more field. The conn goes on only when the request was read to its end and
    nothing was answered yet."""
    cdef const Page *page = &x.loop.pages[page_id]
    cdef const Page *json = &x.loop.json_pages[page_id]
    cdef bint keep = x.keep_down and x.request_phase == REQUEST_DONE and not x.down.eof
    cdef const char *close_field = b"Connection: close\r\n\r\n"
    cdef const char *keep_field = b"Connection: keep-alive\r\n\r\n"
    cdef char date[DATE_FIELD_BYTES]
    if x.wants_json and json.head != NULL:
        page = json
    if x.answered:                      # a second answer would be read as part of the first
        exchange_end(x, True)
        return
    if page_id == PAGE_BAD_REQUEST or page_id == PAGE_HEAD_TOO_LARGE or page_id == PAGE_TIMEOUT:
        keep = False
    memcpy(date, b"Date: ", 6)
    memcpy(date + 6, loop_date(x.loop), HTTP_DATE_BYTES)
    memcpy(date + 6 + HTTP_DATE_BYTES, b"\r\n", 2)
    x.loop.stats.pages_total += 1
    exchange_drop_up(x, False)
    exchange_emit(x, x.down, &x.to_down, <const uint8_t *>page.head, page.head_bytes)
    exchange_emit(x, x.down, &x.to_down, <const uint8_t *>date, DATE_FIELD_BYTES)
    if field_bytes > 0:
        exchange_emit(x, x.down, &x.to_down, <const uint8_t *>field, field_bytes)
    if keep:
        exchange_emit(x, x.down, &x.to_down, <const uint8_t *>keep_field, 26)
    else:
        exchange_emit(x, x.down, &x.to_down, <const uint8_t *>close_field, 21)
    if x.method != METHOD_HEAD:
        exchange_emit(x, x.down, &x.to_down, <const uint8_t *>page.body, page.body_bytes)
    if keep:
        exchange_next(x)
    else:
        exchange_end_early(x, page_id != PAGE_TIMEOUT)      # who was too slow has been waited for


# --- the next exchange ------------------------------------------------------------------------------------------------

cdef void exchange_next(Exchange *x) noexcept nogil:
    """Ready for the next request. What waits already is looked at in a task: never inside the last one's callbacks."""
    x.request_phase = REQUEST_HEAD
    x.response_phase = RESPONSE_NONE
    x.head_resume = 0
    x.answered = x.interims = x.half_closed = x.empty_line = x.deaf = x.wants_json = 0
    x.method = 0
    exchange_deadline(x, DEADLINE_KEEP_ALIVE, KEEP_ALIVE_MS)
    if x.down.eof:
        exchange_end(x, False)
    elif x.down.rx.bytes > 0 or end_is_readable(x.down):
        loop_task(x.loop, &x.task)


cdef void exchange_answered(Exchange *x) noexcept nogil:
    """The response is complete."""
    cdef bint keep = x.keep_down
    if x.request_phase != REQUEST_DONE:
        keep = False                    # answered early: the rest of the request is not worth reading
        x.keep_up = 0
    if x.up != NULL:
        if not x.keep_up:
            exchange_drop_up(x, False)
        elif x.upstream != NULL:
            chain_clear(&x.loop.pool, &x.up.rx)     # taken just now: more than the message would have cleared keep_up
            exchange_drop_up(x, True)
    if not keep:
        exchange_end_early(x, True)
    else:
        exchange_next(x)
