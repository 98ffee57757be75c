"""The upstream's side of an exchange: response heads, bodies, and upstreams that break, close or leave.

Bound: one response head (32 KiB) kept while it is incomplete, INTERIM_COUNT_MAX interim answers.
Fails: what the upstream sends wrong is 502 while nothing has been answered, and cuts the visitor's end after that.
Source: RFC 9112, RFC 9110.
"""
from libc.stdlib cimport free
from libc.string cimport memcmp, memset

from spokes._fastpath.base.buf cimport chain_clear
from spokes._fastpath.base.net cimport MSG_PEEK, recv
from spokes._fastpath.base.reason cimport REASON_GONE
from spokes._fastpath.base.types cimport (
    RC_LIMIT, RC_LOCAL, RC_PROTO, RC_TARGET, RC_TOO_LARGE, atomic_get, uint32_t, uint8_t,
)
from spokes._fastpath.flow.exchange_end cimport (
    exchange_answered, exchange_drop_up, exchange_end, exchange_finish, exchange_page,
)
from spokes._fastpath.flow.exchange_read cimport exchange_ready
from spokes._fastpath.flow.exchange_state cimport (
    DEADLINE_NONE, INTERIM_COUNT_MAX, REQUEST_DONE, RESPONSE_BODY, RESPONSE_HEAD, RESPONSE_NONE, Exchange, Replay,
    exchange_await, exchange_deadline,
)
from spokes._fastpath.flow.exchange_write cimport (
    end_write_chain, exchange_body, exchange_emit, exchange_forget_replay, exchange_raw,
)
from spokes._fastpath.flow.fault cimport fault_of_conn, fault_page, page_of_reason
from spokes._fastpath.flow.upstream cimport UpstreamConn, upstream_connect, upstream_says_keep_alive, upstream_unheard
from spokes._fastpath.http.http1 cimport (
    BODY_CHUNKED, BODY_UNTIL_CLOSE, HTTP_LINE_BYTES_MAX, HttpBody, HttpHead, HttpRewrite, http1_body_done,
    http1_body_step, http1_head_end, http1_parse_response, http1_write_response,
)
from spokes._fastpath.http.page cimport PAGE_NONE, PAGE_OFFLINE, PAGE_UNKNOWN_HOST
from spokes._fastpath.io.conn cimport Conn
from spokes._fastpath.io.conn_state cimport HEAD_BYTES, End, EndOps, loop_date
from spokes._fastpath.io.end cimport end_fin, end_is_readable, end_resume, end_wait_room
from spokes._fastpath.io.loop cimport loop_task
from spokes._fastpath.link.link_state cimport Stream
from spokes._fastpath.route.outcome cimport (
    FAULT_BODY, FAULT_CLOSED, FAULT_CUT, FAULT_HEAD, FAULT_NONE, FAULT_NOT_HTTP, FAULT_TLS, outcome_answered,
    outcome_fault,
)
from spokes._fastpath.route.tunnel cimport END_IDLE


cdef bint body_begins_well(const HttpHead *head, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """What has come behind the head is looked at before that is passed on: only then can the answer be ours."""
    cdef HttpBody body = head.body
    cdef size_t taken = 0
    cdef ssize_t n
    cdef uint8_t pass_on = 0
    while taken < src_bytes and not http1_body_done(&body):
        n = http1_body_step(&body, src + taken, src_bytes - taken, &pass_on)
        if n < 0:
            return False
        taken += n
    return True


cdef ssize_t exchange_response_head(Exchange *x, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Bytes of the head taken, 0 when incomplete, < 0 when the upstream broke HTTP: RC_LIMIT in its body."""
    cdef HttpHead head
    cdef HttpRewrite rewrite
    cdef bint over_link = x.upstream == NULL
    cdef size_t resume = x.head_resume
    cdef ssize_t n = http1_head_end(src, src_bytes, HTTP_LINE_BYTES_MAX, over_link, &resume)
    cdef ssize_t m
    x.head_resume = <uint32_t>resume
    if n == 0 and memcmp(src, b"HTTP/", src_bytes if src_bytes < 5 else 5) != 0:
        return RC_PROTO                 # a greeting of another protocol: its end may never come
    if n <= 0:
        return n
    exchange_forget_replay(x)           # answered, well or badly: never sent twice
    m = http1_parse_response(&head, src, n, x.method, over_link)
    if m < 0:
        return m
    if head.body.kind == BODY_CHUNKED and not body_begins_well(&head, src + n, src_bytes - n):
        return RC_LIMIT
    x.head_resume = 0
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
        up_answered(x)
    else:
        up_answered(x)
        x.response = head.body
        x.response_phase = RESPONSE_BODY
        if x.upstream != NULL:
            upstream_says_keep_alive(x.upstream.conn, head.keep_alive_s)
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
    if x.raw:
        exchange_deadline(x, DEADLINE_NONE, 0)
    else:
        exchange_await(x)
    return n


cdef size_t up_on_data(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef Exchange *x = <Exchange *>end.owner
    cdef size_t taken = 0
    cdef ssize_t n
    cdef int broken = 0
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
                up_faulty(x, fault_of_head(src + taken, src_bytes - taken, n))
                break
            taken += n
            if x.raw:
                end_resume_later(x)
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
            if broken < 0:
                up_count(x, FAULT_BODY)
                exchange_end(x, True)
                break
            if n > 0:
                exchange_await(x)
        if http1_body_done(&x.response):
            if taken < src_bytes or x.up.rx.bytes > src_bytes:
                x.keep_up = 0           # more than the message: never reuse
            exchange_answered(x)
            break
        if taken == src_bytes or end.paused:
            break
    return taken


cdef void end_resume_later(Exchange *x) noexcept nogil:
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
    elif x.response_phase == RESPONSE_BODY and x.response.kind == BODY_UNTIL_CLOSE and not x.deaf:
        exchange_answered(x)
    else:
        up_lost(x, FAULT_CLOSED)


cdef void up_room(End *end) noexcept nogil:
    cdef Exchange *x = <Exchange *>end.owner
    if x.to_up.bytes > 0:
        end_write_chain(x, end, &x.to_up)
        if x.to_up.bytes > 0:
            end_wait_room(end)
            return
    end_resume(x.down)
    if not x.dead and end_is_readable(x.down):
        loop_task(x.loop, &x.task)


# --- losing the upstream ----------------------------------------------------------------------------------------------

cdef void up_answered(Exchange *x) noexcept nogil:
    cdef UpstreamConn *up = x.upstream
    if up != NULL:
        outcome_answered(&up.upstream.outcomes, x.loop.wall_ms)


cdef void up_count(Exchange *x, uint8_t fault) noexcept nogil:
    cdef UpstreamConn *up = x.upstream
    if up != NULL and up.fault == FAULT_NONE and fault != FAULT_NONE:
        up.fault = fault
        outcome_fault(&up.upstream.outcomes, fault, x.loop.wall_ms)


cdef uint8_t fault_of_head(const uint8_t *src, size_t src_bytes, ssize_t rc) noexcept nogil:
    """Of bytes that are no head: what else they are. A TLS record is an alert (21) or a handshake (22) of version 3."""
    if rc == RC_TOO_LARGE or rc == RC_TARGET:
        return FAULT_HEAD
    if rc == RC_LIMIT:
        return FAULT_BODY
    if src_bytes >= 2 and (src[0] == 21 or src[0] == 22) and src[1] == 3:
        return FAULT_TLS
    return FAULT_NOT_HTTP


cdef void up_faulty(Exchange *x, uint8_t fault) noexcept nogil:
    """Nothing was answered yet, and nothing will be."""
    up_count(x, fault)
    if x.upstream != NULL and x.fault_page != PAGE_NONE:
        exchange_page(x, x.fault_page)
    else:
        exchange_page(x, fault_page(fault))


cdef bint up_replay(Exchange *x) noexcept nogil:
    """The idle conn closed under the request: send it once more, on a new conn. RFC 9110, 9.2.2: what is idempotent may
    be sent twice; what is not, where it is known that nobody has read it."""
    cdef UpstreamConn *lost = x.upstream
    cdef Conn *conn
    cdef Replay *replay = x.replay
    if replay == NULL or lost == NULL or x.up.rx.bytes > 0 or x.interims > 0:
        return False
    if not x.idempotent and not upstream_unheard(lost.conn):
        return False
    if atomic_get(&lost.upstream.end_ms) > END_IDLE:
        return False                    # its rule is gone, and its flows end
    conn = upstream_connect(x.loop, lost.upstream, &up_ops, x)
    if conn == NULL:
        return False
    x.replay = NULL                     # once: the next conn is no idle one
    exchange_drop_up(x, False)
    x.up = &conn.end
    x.upstream = <UpstreamConn *>conn.extra
    exchange_emit(x, x.up, &x.to_up, replay.data, replay.bytes)
    x.loop.replay_bytes -= replay.size
    free(replay)
    if x.down.paused:
        end_wait_room(x.up)             # the rest of the body has waited for the other one
    return True


cdef void up_lost(Exchange *x, uint8_t fault) noexcept nogil:
    """The upstream end is of no use any more; x.up may already be closed by its peer."""
    if x.response_phase == RESPONSE_NONE:
        exchange_drop_up(x, False)
    elif x.response_phase == RESPONSE_BODY or x.answered or x.raw:
        if not x.raw and fault != FAULT_NONE:
            up_count(x, FAULT_CUT)
        exchange_end(x, True)
    elif not up_replay(x):
        up_faulty(x, fault)


cdef bint up_goes_deaf(Exchange *x, Conn *conn) noexcept nogil:
    """An upstream that answers and closes without reading the whole request resets its conn: our writes fail, while its
    answer waits in the kernel. True: something does; from now on the rest of the request is dropped and the conn read
    to its end."""
    cdef uint8_t byte
    if x.deaf or x.raw or x.response_phase == RESPONSE_NONE or conn.fd < 0 or conn.tls != NULL or conn.connecting \
            or conn.end.eof:
        return False
    if conn.end.rx.bytes == 0 and recv(conn.fd, &byte, 1, MSG_PEEK) <= 0:
        return False
    x.deaf = 1
    x.keep_up = 0
    conn.error = 0
    conn.writable = 0
    conn.readable = 1
    conn.end.wants_room = 0
    chain_clear(&x.loop.pool, &conn.out)
    chain_clear(&x.loop.pool, &x.to_up)
    exchange_forget_replay(x)
    x.down.paused = 0
    loop_task(x.loop, &x.task)
    return True


cdef void up_gone(End *end, int rc) noexcept nogil:
    cdef Exchange *x = <Exchange *>end.owner
    cdef uint8_t fault = fault_of_conn(rc)
    if x.upstream != NULL:
        if rc != RC_LOCAL and up_goes_deaf(x, x.upstream.conn):     # else its rule was removed, and its flows end
            return
        if x.upstream.fault != FAULT_NONE:
            fault = x.upstream.fault
        up_lost(x, fault)
        return
    if x.response_phase != RESPONSE_HEAD or x.answered or x.raw:
        up_lost(x, fault)
    elif rc == RC_LOCAL:
        exchange_page(x, PAGE_UNKNOWN_HOST)     # its rule was removed here
    elif (<Stream *>end).link.down and (end.reset_reason == 0 or end.reset_reason == REASON_GONE):  # of x.tunnel
        exchange_page(x, PAGE_OFFLINE)
    else:
        exchange_page(x, page_of_reason(end.reset_reason))


cdef EndOps up_ops
up_ops.on_data = up_on_data
up_ops.eof = up_eof
up_ops.room = up_room
up_ops.gone = up_gone
up_ops.ready = exchange_ready
