"""HTTP/1.1 exchanges between two ends: request head, route, request body, response; then the next request.

The same code serves the visitor's own end at a server and its stream at a client. Here an exchange begins, changes its
worker, goes on to the next request, meets its deadlines and ends. Its bytes are moved by `exchange_io`; the two sides
are `exchange_request` and `exchange_response`; what this end answers by itself is in `exchange_answer`.

Owns: the exchange and, while one is under way, the upstream end. The downstream end lives as long as the exchange.
Bound: one head (32 KiB) kept per direction while it is incomplete; everything else waits in the ends' own bounds.
Fails: whatever the visitor sends wrong is 400 and close; whatever the upstream sends wrong is 502 and close; neither
  side's fault touches another exchange.
Source: RFC 9112.
"""
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from spokes._fastpath.base.buf cimport chain_clear, slab_get, slab_init
from spokes._fastpath.base.reason cimport REASON_GONE, REASON_TIMEOUT
from spokes._fastpath.base.timer cimport timer_clear, timer_set
from spokes._fastpath.base.types cimport RC_MEMORY, uint8_t
from spokes._fastpath.flow.exchange_io cimport (
    exchange_emit, exchange_forget_request, exchange_task, exchange_write_chain,
)
from spokes._fastpath.flow.exchange_state cimport (
    DEADLINE_ASK, DEADLINE_BODY, DEADLINE_HEAD, DEADLINE_KEEP_ALIVE, DEADLINE_NONE, DEADLINE_RESPONSE, HALF_CLOSED_MS,
    HEAD_MS, KEEP_ALIVE_MS, REQUEST_DONE, RESPONSE_BODY, RESPONSE_HEAD, RESPONSE_IDLE_MS, STEP_ENDED, STEP_NEXT,
    Exchange, exchange_deadline, exchange_defer_free, exchange_has_ended, exchange_step,
)
from spokes._fastpath.flow.files cimport file_close
from spokes._fastpath.flow.upstream cimport UpstreamConn, upstream_count_fault, upstream_give_back
from spokes._fastpath.http.http1 cimport METHOD_HEAD
from spokes._fastpath.http.httpdate cimport HTTP_DATE_BYTES
from spokes._fastpath.http.page cimport (
    PAGE_BAD_REQUEST, PAGE_HEAD_TOO_LARGE, PAGE_TIMEOUT, PAGE_UPSTREAM_TIMEOUT, Page,
)
from spokes._fastpath.io.conn_state cimport End, Loop, loop_date
from spokes._fastpath.io.end cimport end_abort, end_close, end_is_readable, end_linger
from spokes._fastpath.io.loop cimport loop_task
from spokes._fastpath.route.outcome cimport FAULT_SILENT

cdef enum:
    DATE_FIELD_BYTES = HTTP_DATE_BYTES + 8


# --- beginning --------------------------------------------------------------------------------------------------------

cdef Exchange *exchange_new(End *downstream, Loop *loop, const Exchange *copy) noexcept nogil:
    cdef Exchange *x
    if loop.exchanges_slab.object_bytes == 0:
        slab_init(&loop.exchanges_slab, sizeof(Exchange))
    x = <Exchange *>slab_get(&loop.exchanges_slab)
    if x == NULL:
        return NULL
    if copy != NULL:
        memcpy(x, copy, sizeof(Exchange))
    x.downstream = downstream
    x.loop = loop
    x.moving = 0
    x.silence_ms = RESPONSE_IDLE_MS
    x.task.run = exchange_task
    x.task.owner = x
    x.timer.fire = exchange_expired
    x.timer.owner = x
    downstream.owner = x
    return x


cdef void exchange_begin(Exchange *x) noexcept nogil:
    exchange_deadline(x, DEADLINE_HEAD, HEAD_MS)
    if x.downstream.rx.bytes > 0 or end_is_readable(x.downstream):
        loop_task(x.loop, &x.task)


cdef Exchange *exchange_detach(Exchange *x) noexcept nogil:
    cdef Exchange *copy = <Exchange *>malloc(sizeof(Exchange))
    if copy == NULL:
        return NULL
    exchange_drop_upstream(x, False)
    timer_clear(&x.loop.wheel, &x.timer)
    memcpy(copy, x, sizeof(Exchange))
    exchange_defer_free(x)
    return copy


cdef int exchange_attach(Exchange *copy, End *downstream, Loop *loop) noexcept nogil:
    cdef Exchange *x = exchange_new(downstream, loop, copy)
    free(copy)
    if x == NULL:
        return RC_MEMORY
    exchange_begin(x)
    return 0


# --- the next request -------------------------------------------------------------------------------------------------

cdef void exchange_next(Exchange *x) noexcept nogil:
    """Await the next request. What has come of it is read in a task: never inside the callbacks of the last one."""
    exchange_step(x, STEP_NEXT)
    x.head_resume = 0
    x.answered = x.interims = x.half_closed = x.empty_line = x.request_stopped = x.wants_json = 0
    x.method = 0
    exchange_deadline(x, DEADLINE_KEEP_ALIVE, KEEP_ALIVE_MS)
    if x.downstream.eof:
        exchange_close(x, False)
    elif x.downstream.rx.bytes > 0 or end_is_readable(x.downstream):
        loop_task(x.loop, &x.task)


cdef void exchange_answered(Exchange *x) noexcept nogil:
    """The response is complete. Where it came before the request's end, the rest of that is not worth reading."""
    cdef bint is_mid_request = x.request_phase != REQUEST_DONE
    if x.upstream != NULL:
        if is_mid_request or not x.keep_upstream:
            exchange_drop_upstream(x, False)
        elif x.upstream_conn != NULL:
            # What is left in rx has been taken just now: more than the message would have cleared keep_upstream.
            chain_clear(&x.loop.pool, &x.upstream.rx)
            exchange_drop_upstream(x, True)
    if is_mid_request or not x.keep_downstream:
        exchange_close(x, is_mid_request)
    else:
        exchange_next(x)


# --- pages ------------------------------------------------------------------------------------------------------------

cdef void exchange_page(Exchange *x, uint8_t page_id) noexcept nogil:
    exchange_page_with(x, page_id, NULL, 0)


cdef void exchange_page_with(Exchange *x, uint8_t page_id, const char *lines, size_t lines_bytes) noexcept nogil:
    """The conn goes on only when the request was read to its end and nothing was answered yet."""
    cdef const Page *page = &x.loop.pages[page_id]
    cdef const Page *json = &x.loop.json_pages[page_id]
    cdef bint keep = x.keep_downstream and x.request_phase == REQUEST_DONE and not x.downstream.eof
    cdef const char *close_field = b"Connection: close\r\n\r\n"
    cdef const char *keep_field = b"Connection: keep-alive\r\n\r\n"
    cdef char date[DATE_FIELD_BYTES]
    if x.wants_json and json.head != NULL:
        page = json
    if x.answered:                      # a second answer would be read as part of the first
        exchange_abort(x)
        return
    if page_id == PAGE_BAD_REQUEST or page_id == PAGE_HEAD_TOO_LARGE or page_id == PAGE_TIMEOUT:
        keep = False
    memcpy(date, b"Date: ", 6)
    memcpy(date + 6, loop_date(x.loop), HTTP_DATE_BYTES)
    memcpy(date + 6 + HTTP_DATE_BYTES, b"\r\n", 2)
    x.loop.stats.pages_total += 1
    exchange_drop_upstream(x, False)
    exchange_emit(x, x.downstream, &x.to_downstream, <const uint8_t *>page.head, page.head_bytes)
    exchange_emit(x, x.downstream, &x.to_downstream, <const uint8_t *>date, DATE_FIELD_BYTES)
    if lines_bytes > 0:
        exchange_emit(x, x.downstream, &x.to_downstream, <const uint8_t *>lines, lines_bytes)
    if keep:
        exchange_emit(x, x.downstream, &x.to_downstream, <const uint8_t *>keep_field, 26)
    else:
        exchange_emit(x, x.downstream, &x.to_downstream, <const uint8_t *>close_field, 21)
    if x.method != METHOD_HEAD:
        exchange_emit(x, x.downstream, &x.to_downstream, <const uint8_t *>page.body, page.body_bytes)
    if keep:
        exchange_next(x)
    else:                               # a visitor that was too slow is not waited for again
        exchange_close(x, x.request_phase != REQUEST_DONE and page_id != PAGE_TIMEOUT)


# --- deadlines --------------------------------------------------------------------------------------------------------

cdef void exchange_expired(void *owner) noexcept nogil:
    cdef Exchange *x = <Exchange *>owner
    if x.deadline_kind == DEADLINE_NONE or x.moving:
        return                          # about to be handed over: the other worker begins a new deadline
    if x.loop.now_ms < x.deadline_ms:
        timer_set(&x.loop.wheel, &x.timer, x.deadline_ms)
        return
    if x.deadline_kind == DEADLINE_KEEP_ALIVE:
        exchange_close(x, False)
    elif x.deadline_kind == DEADLINE_RESPONSE and visitor_is_slow(x):
        timer_set(&x.loop.wheel, &x.timer, x.deadline_ms - x.deadline_after_ms + RESPONSE_IDLE_MS)
    elif x.deadline_kind == DEADLINE_RESPONSE:
        exchange_note_silence(x)
        if x.response_phase == RESPONSE_HEAD:
            exchange_page(x, PAGE_UPSTREAM_TIMEOUT)
        else:
            exchange_abort(x)
    elif x.deadline_kind == DEADLINE_ASK:
        exchange_ask(x)
    elif x.deadline_kind == DEADLINE_BODY and (x.downstream.paused or x.to_upstream.bytes > 0):
        exchange_note_silence(x)        # the visitor has more to send, and the upstream does not take it
        exchange_page(x, PAGE_UPSTREAM_TIMEOUT)
    else:
        exchange_page(x, PAGE_TIMEOUT)


cdef bint visitor_is_slow(Exchange *x) noexcept nogil:
    """More of the response waits here. The rule's deadline is for its upstream; visitors have the usual time."""
    if x.response_phase != RESPONSE_BODY or x.half_closed \
            or x.loop.now_ms >= x.deadline_ms - x.deadline_after_ms + RESPONSE_IDLE_MS:
        return False
    return x.to_downstream.bytes > 0 or (x.upstream != NULL and x.upstream.paused)


cdef void exchange_note_silence(Exchange *x) noexcept nogil:
    """The engine that has the upstream's conn counts it. After the visitor has shut its side the upstream had too
    little time for that."""
    if x.half_closed or x.upstream == NULL:
        return
    if x.upstream_conn != NULL:
        exchange_note_fault(x, FAULT_SILENT)
    else:
        end_abort(x.upstream, REASON_TIMEOUT)
        x.upstream = NULL


cdef void exchange_ask(Exchange *x) noexcept nogil:
    """Ask whether the visitor is still there. One that is gone answers any byte with RST. Others skip this response,
    which may come at any time (RFC 9110, section 15.2)."""
    exchange_emit(x, x.downstream, &x.to_downstream, <const uint8_t *>b"HTTP/1.1 100 Continue\r\n\r\n", 25)
    exchange_deadline(x, DEADLINE_RESPONSE, HALF_CLOSED_MS)


cdef void exchange_note_fault(Exchange *x, uint8_t fault) noexcept nogil:
    if x.upstream_conn != NULL:
        upstream_count_fault(x.upstream_conn, fault)


# --- ending -----------------------------------------------------------------------------------------------------------

cdef void exchange_drop_file(Exchange *x) noexcept nogil:
    if x.file != NULL:
        file_close(x.file)
        x.file = NULL


cdef void exchange_drop_upstream(Exchange *x, bint reusable) noexcept nogil:
    cdef End *upstream = x.upstream
    cdef UpstreamConn *upstream_conn = x.upstream_conn
    x.upstream = NULL
    x.upstream_conn = NULL
    x.tunnel = NULL
    exchange_drop_file(x)
    chain_clear(&x.loop.pool, &x.to_upstream)
    exchange_forget_request(x)
    if upstream == NULL:
        return
    if upstream_conn != NULL and reusable:
        upstream_give_back(upstream_conn.conn)
    else:
        end_close(upstream)


cdef void exchange_free(Exchange *x) noexcept nogil:
    exchange_step(x, STEP_ENDED)
    timer_clear(&x.loop.wheel, &x.timer)
    chain_clear(&x.loop.pool, &x.to_downstream)
    if not x.task.queued:
        exchange_defer_free(x)


cdef void exchange_close(Exchange *x, bint is_mid_request) noexcept nogil:
    if exchange_has_ended(x):
        return
    exchange_drop_upstream(x, False)
    exchange_write_chain(x, x.downstream, &x.to_downstream, True)
    end_linger(x.downstream, is_mid_request)
    exchange_free(x)


cdef void exchange_abort(Exchange *x) noexcept nogil:
    if exchange_has_ended(x):
        return
    exchange_drop_upstream(x, False)
    end_abort(x.downstream, REASON_GONE)
    exchange_free(x)


cdef void exchange_finish(Exchange *x) noexcept nogil:
    """What is queued still goes out, both ways."""
    cdef End *upstream = x.upstream
    x.upstream = NULL
    end_linger(upstream, False)
    exchange_close(x, False)
