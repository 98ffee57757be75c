"""HTTP/1.1 exchanges between two ends: request head, route, request body, response; then the next request.

The same code serves the visitor's own end at a server and its stream at a client. Here: how one begins, how it changes
its worker, and what its deadlines do. The two sides are `exchange_request` and `exchange_response`.

Owns: the exchange and, while one is under way, the upstream end. The down end lives as long as the exchange.
Bound: one head (32 KiB) kept per direction while it is incomplete; everything else waits in the ends' own bounds.
Fails: whatever the visitor sends wrong is 400 and close; whatever the upstream sends wrong is 502 and close; neither
  side's fault touches another exchange.
Source: RFC 9112.
"""
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from spokes._fastpath.base.buf cimport slab_get, slab_init
from spokes._fastpath.base.reason cimport REASON_TIMEOUT
from spokes._fastpath.base.timer cimport timer_clear, timer_set
from spokes._fastpath.base.types cimport uint64_t, uint8_t
from spokes._fastpath.flow.exchange_end cimport exchange_drop_up, exchange_end, exchange_page
from spokes._fastpath.flow.exchange_read cimport exchange_task
from spokes._fastpath.flow.exchange_request cimport down_ops
from spokes._fastpath.flow.exchange_response cimport up_count
from spokes._fastpath.flow.exchange_state cimport (
    DEADLINE_ASK, DEADLINE_BODY, DEADLINE_HEAD, DEADLINE_KEEP_ALIVE, DEADLINE_NONE, DEADLINE_RESPONSE, HALF_CLOSED_MS,
    HEAD_MS, RESPONSE_BODY, RESPONSE_HEAD, RESPONSE_IDLE_MS, Exchange, exchange_deadline, exchange_defer_free,
)
from spokes._fastpath.flow.exchange_write cimport exchange_emit
from spokes._fastpath.http.page cimport PAGE_TIMEOUT, PAGE_UPSTREAM_TIMEOUT
from spokes._fastpath.io.conn_state cimport End, Loop
from spokes._fastpath.io.end cimport end_abort, end_is_readable
from spokes._fastpath.io.loop cimport loop_task
from spokes._fastpath.route.outcome cimport FAULT_SILENT


cdef int exchange_start(End *down, Loop *loop, const Visitor *visitor, bint faces_visitor,
                        uint64_t coverage) noexcept nogil:
    cdef Exchange *x
    if loop.exchanges_slab.object_bytes == 0:
        slab_init(&loop.exchanges_slab, sizeof(Exchange))
    x = <Exchange *>slab_get(&loop.exchanges_slab)
    if x == NULL:
        return -12
    x.down = down
    x.visitor = visitor[0]
    x.faces_visitor = faces_visitor
    x.coverage = coverage
    down.ops = &down_ops
    down.owner = x
    exchange_begin(x, loop)
    return 0


cdef Exchange *exchange_detach(Exchange *x) noexcept nogil:
    cdef Exchange *copy = <Exchange *>malloc(sizeof(Exchange))
    if copy == NULL:
        return NULL
    exchange_drop_up(x, False)
    timer_clear(&x.loop.wheel, &x.timer)
    memcpy(copy, x, sizeof(Exchange))
    exchange_defer_free(x)
    return copy


cdef int exchange_attach(Exchange *copy, End *down, Loop *loop) noexcept nogil:
    cdef Exchange *x
    if loop.exchanges_slab.object_bytes == 0:
        slab_init(&loop.exchanges_slab, sizeof(Exchange))
    x = <Exchange *>slab_get(&loop.exchanges_slab)
    if x == NULL:
        return -12
    memcpy(x, copy, sizeof(Exchange))
    free(copy)
    x.down = down
    x.moving = 0
    down.owner = x
    exchange_begin(x, loop)
    return 0


cdef void exchange_begin(Exchange *x, Loop *loop) noexcept nogil:
    x.loop = loop
    x.task.run = exchange_task
    x.task.owner = x
    x.timer.fire = exchange_expired
    x.timer.owner = x
    x.silence_ms = RESPONSE_IDLE_MS
    exchange_deadline(x, DEADLINE_HEAD, HEAD_MS)
    if x.down.rx.bytes > 0 or end_is_readable(x.down):
        loop_task(loop, &x.task)


# --- deadlines --------------------------------------------------------------------------------------------------------

cdef void exchange_expired(void *owner) noexcept nogil:
    cdef Exchange *x = <Exchange *>owner
    if x.deadline_kind == DEADLINE_NONE or x.moving:
        return                          # about to be handed over: the other worker begins a new deadline
    if x.loop.now_ms < x.deadline_ms:
        timer_set(&x.loop.wheel, &x.timer, x.deadline_ms)
        return
    if x.deadline_kind == DEADLINE_KEEP_ALIVE:
        exchange_end(x, False)
    elif x.deadline_kind == DEADLINE_RESPONSE and visitor_is_slow(x):
        timer_set(&x.loop.wheel, &x.timer, x.deadline_ms - x.deadline_after_ms + RESPONSE_IDLE_MS)
    elif x.deadline_kind == DEADLINE_RESPONSE:
        upstream_silent(x)
        if x.response_phase == RESPONSE_HEAD:
            exchange_page(x, PAGE_UPSTREAM_TIMEOUT)
        else:
            exchange_end(x, True)
    elif x.deadline_kind == DEADLINE_ASK:
        exchange_ask(x)
    elif x.deadline_kind == DEADLINE_BODY and (x.down.paused or x.to_up.bytes > 0):
        upstream_silent(x)              # the visitor has more to say; nobody takes it
        exchange_page(x, PAGE_UPSTREAM_TIMEOUT)
    else:
        exchange_page(x, PAGE_TIMEOUT)


cdef bint visitor_is_slow(Exchange *x) noexcept nogil:
    """More of the response is here. Its rule is impatient with upstreams; visitors have the usual time to take it."""
    if x.response_phase != RESPONSE_BODY or x.half_closed \
            or x.loop.now_ms >= x.deadline_ms - x.deadline_after_ms + RESPONSE_IDLE_MS:
        return False
    return x.to_down.bytes > 0 or (x.up != NULL and x.up.paused)


cdef void upstream_silent(Exchange *x) noexcept nogil:
    """Whoever has the upstream's conn counts it. A visitor that has shut its side is not waited for long enough."""
    if x.half_closed or x.up == NULL:
        return
    if x.upstream != NULL:
        up_count(x, FAULT_SILENT)
    else:
        end_abort(x.up, REASON_TIMEOUT)
        x.up = NULL


cdef void exchange_ask(Exchange *x) noexcept nogil:
    """A visitor that is gone answers any byte with RST. This answer may come at any time (RFC 9110, section 15.2), and
    whoever is still there skips it."""
    exchange_emit(x, x.down, &x.to_down, <const uint8_t *>b"HTTP/1.1 100 Continue\r\n\r\n", 25)
    exchange_deadline(x, DEADLINE_RESPONSE, HALF_CLOSED_MS)
