"""The upstream's side of an exchange: response heads, bodies, and upstreams that break, close or leave.

Bound: one response head (32 KiB) kept while it is incomplete, INTERIM_COUNT_MAX interim answers.
Fails: what the upstream sends wrong is 502 while nothing has been answered, and cuts the visitor's end after that.
Source: RFC 9112, RFC 9110.
"""
from libc.stdlib cimport free
from libc.string cimport memset

from spokes._fastpath.buf cimport chain_clear, chain_copy
from spokes._fastpath.conn cimport (
    END_CONN, END_STREAM, HEAD_BYTES, PAGE_LIMIT, PAGE_NONE, PAGE_OFFLINE, PAGE_UNKNOWN_HOST, PAGE_UPSTREAM_BROKEN,
    PAGE_UPSTREAM_REFUSED, PAGE_UPSTREAM_TIMEOUT, PAGE_UPSTREAM_UNREACHABLE, RX_BYTES, Conn, End, EndOps, Loop,
    conn_recv_raw, loop_date, loop_task,
)
from spokes._fastpath.exchange_end cimport (
    exchange_answered, exchange_drop_up, exchange_end, exchange_finish, exchange_forget_replay, exchange_page,
)
from spokes._fastpath.exchange_read cimport exchange_conn_ready
from spokes._fastpath.exchange_state cimport (
    DEADLINE_NONE, DEADLINE_RESPONSE, INTERIM_COUNT_MAX, REQUEST_DONE, RESPONSE_BODY, RESPONSE_HEAD, RESPONSE_IDLE_MS,
    RESPONSE_NONE, Exchange, exchange_deadline,
)
from spokes._fastpath.exchange_write cimport end_write_chain, exchange_body, exchange_emit, exchange_raw
from spokes._fastpath.frame cimport REASON_LIMIT, REASON_NO_SERVICE, REASON_REFUSED, REASON_TIMEOUT, REASON_UNREACHABLE
from spokes._fastpath.http1 cimport (
    BODY_CHUNKED, BODY_UNTIL_CLOSE, HttpHead, HttpRewrite, http1_body_done, http1_head_end, http1_parse_response,
    http1_write_response,
)
from spokes._fastpath.mux cimport Stream, end_fin, end_pull, end_wait_room
from spokes._fastpath.relay cimport reason_of
from spokes._fastpath.route cimport END_IDLE
from spokes._fastpath.types cimport atomic_get, uint8_t, uint16_t
from spokes._fastpath.upstream cimport UpstreamConn, upstream_connect


cdef ssize_t exchange_response_head(Exchange *x, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Bytes of the head taken, 0 when incomplete, < 0 when the upstream broke HTTP."""
    cdef HttpHead head
    cdef HttpRewrite rewrite
    cdef ssize_t n = http1_head_end(src, src_bytes, &x.response_resume)
    cdef ssize_t m
    if n <= 0:
        return n
    exchange_forget_replay(x)
    m = http1_parse_response(&head, src, n, x.method)
    if m < 0:
        return m
    x.response_resume = 0
    memset(&rewrite, 0, sizeof(rewrite))
    rewrite.keep_alive = 1
    rewrite.to_minor = x.minor
    if not head.has_date:
        rewrite.date = loop_date(x.loop)
    if head.status < 200 and head.status != 101:
        x.interims += 1
        if x.interims > INTERIM_COUNT_MAX:
            return -1
        if x.minor == 0:
            return n                    # HTTP/1.0 knows no interim answers
        rewrite.to_minor = 1
    elif head.status == 101:
        if not x.wants_upgrade or not head.upgrade:
            return -1
        x.raw = 1
    else:
        x.response = head.body
        x.response_phase = RESPONSE_BODY
        if not head.keep_alive or head.body.kind == BODY_UNTIL_CLOSE:
            x.keep_up = 0
        if x.minor == 0 and head.body.kind == BODY_CHUNKED:
            x.response.strip = 1        # HTTP/1.0 knows no chunks: the data alone, until close
            x.keep_down = 0
        if head.body.kind == BODY_UNTIL_CLOSE or x.request_phase != REQUEST_DONE or x.down.eof:
            x.keep_down = 0
        rewrite.keep_alive = x.keep_down
        x.answered = 1
    m = http1_write_response(x.loop.head, HEAD_BYTES, &head, src, &rewrite)
    if m < 0:
        return m
    x.answered = 1 if head.status >= 200 or x.raw else x.answered
    exchange_emit(x, x.down, &x.to_down, x.loop.head, m)
    exchange_deadline(x, DEADLINE_NONE if x.raw else DEADLINE_RESPONSE, RESPONSE_IDLE_MS)
    return n


cdef size_t up_take(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef Exchange *x = <Exchange *>end.owner
    cdef size_t taken = 0
    cdef ssize_t n
    cdef bint broken = False
    while not x.dead and x.up == end:
        if x.raw:
            return taken + exchange_raw(x, end, x.down, &x.to_down, src + taken, src_bytes - taken)
        if x.response_phase == RESPONSE_HEAD:
            if taken == src_bytes:
                break
            n = exchange_response_head(x, src + taken, src_bytes - taken)
            if n == 0:
                break
            if n < 0:
                exchange_page(x, PAGE_UPSTREAM_BROKEN)
                break
            taken += n
            if x.raw:
                end_pull_later(x)
            continue
        if x.response_phase != RESPONSE_BODY:
            # Bytes nobody asked for: this end cannot be trusted with another request.
            exchange_drop_up(x, False)
            break
        if not http1_body_done(&x.response):
            if taken == src_bytes:
                break
            n = exchange_body(x, &x.response, end, x.down, &x.to_down, src + taken, src_bytes - taken, &broken)
            taken += n
            if broken:
                exchange_end(x, True)
                break
            if n > 0:
                exchange_deadline(x, DEADLINE_RESPONSE, RESPONSE_IDLE_MS)
        if http1_body_done(&x.response):
            if taken < src_bytes or x.up.rx.bytes > src_bytes:
                x.keep_up = 0           # more than the message: never reuse
            exchange_answered(x)
            break
        if taken == src_bytes or end.paused:
            break
    return taken


cdef void end_pull_later(Exchange *x) noexcept nogil:
    """After 101 both sides are read again: bytes may have waited for it."""
    x.down.paused = 0
    loop_task(x.loop, &x.task)


cdef void up_eof(End *end) noexcept nogil:
    cdef Exchange *x = <Exchange *>end.owner
    if x.raw:
        if end.fin:
            exchange_finish(x)
        else:
            end_fin(x.down)
    elif x.response_phase == RESPONSE_BODY and x.response.kind == BODY_UNTIL_CLOSE:
        exchange_answered(x)
    else:
        up_lost(x, PAGE_UPSTREAM_BROKEN)


cdef void up_room(End *end) noexcept nogil:
    cdef Exchange *x = <Exchange *>end.owner
    if x.to_up.bytes > 0:
        end_write_chain(x, end, &x.to_up)
        if x.to_up.bytes > 0:
            end_wait_room(end)
            return
    end_pull(x.down)
    if not x.dead and x.down.type == END_CONN and (<Conn *>x.down).readable:
        loop_task(x.loop, &x.task)


# --- losing the upstream ----------------------------------------------------------------------------------------------

cdef void up_lost(Exchange *x, uint8_t page) noexcept nogil:
    """The upstream end is of no use any more; x.up may already be closed by its peer."""
    cdef Conn *conn
    cdef uint8_t *replay = x.replay
    if x.response_phase == RESPONSE_NONE:
        exchange_drop_up(x, False)
        return
    if x.response_phase == RESPONSE_BODY or x.answered or x.raw:
        exchange_end(x, True)
        return
    if replay != NULL and x.up != NULL and x.up.type == END_CONN and x.up.rx.bytes == 0 and x.interims == 0 \
            and atomic_get(&(<UpstreamConn *>(<Conn *>x.up).extra).upstream.end_ms) <= END_IDLE:
        # The idle conn closed under the request (RFC 9110, 9.2.2: idempotent, may be sent again), once, on a new conn.
        x.replay = NULL
        conn = upstream_connect(x.loop, (<UpstreamConn *>(<Conn *>x.up).extra).upstream, &up_ops, x,
                                exchange_conn_ready)
        exchange_drop_up(x, False)
        if conn != NULL:
            x.up = &conn.end
            exchange_emit(x, x.up, &x.to_up, replay, x.replay_bytes)
            free(replay)
            return
        free(replay)
    if x.up != NULL and x.up.type == END_CONN and (<Conn *>x.up).extra != NULL:
        if x.fault_page != PAGE_NONE:
            page = x.fault_page
    exchange_page(x, page)


cdef bint up_last_words(Exchange *x, Conn *conn) noexcept nogil:
    """An upstream that answers and closes without reading the whole request resets its conn: our writes fail, while its
    answer waits in the kernel. True: it was there."""
    cdef Loop *loop = x.loop
    cdef size_t have
    cdef ssize_t n
    if x.response_phase != RESPONSE_HEAD or conn.fd < 0 or conn.tls != NULL or conn.connecting or conn.end.eof:
        return False
    have = chain_copy(&conn.end.rx, loop.rx, RX_BYTES // 2)
    n = conn_recv_raw(conn, loop.rx + have, RX_BYTES // 2)
    if n <= 0:
        return False
    chain_clear(&loop.pool, &conn.end.rx)
    up_take(&conn.end, loop.rx, have + n)
    return x.dead or x.up != &conn.end


cdef void up_gone(End *end, int rc) noexcept nogil:
    cdef Exchange *x = <Exchange *>end.owner
    cdef uint16_t reason = (<Stream *>end).reset_reason if end.type == END_STREAM else reason_of(rc)
    cdef uint8_t page = PAGE_UPSTREAM_BROKEN
    if end.type == END_CONN and up_last_words(x, <Conn *>end):
        return
    if reason == REASON_REFUSED:
        page = PAGE_UPSTREAM_REFUSED
    elif reason == REASON_UNREACHABLE:
        page = PAGE_UPSTREAM_UNREACHABLE
    elif reason == REASON_TIMEOUT:
        page = PAGE_UPSTREAM_TIMEOUT
    elif reason == REASON_NO_SERVICE:
        page = PAGE_UNKNOWN_HOST
    elif reason == REASON_LIMIT:
        page = PAGE_LIMIT
    elif end.type == END_STREAM and (<Stream *>end).link.down:
        page = PAGE_OFFLINE
    up_lost(x, page)


cdef EndOps up_ops
up_ops.take = up_take
up_ops.eof = up_eof
up_ops.room = up_room
up_ops.gone = up_gone
