"""The upstream's side of an exchange: response heads, bodies, and upstreams that break, close or leave.

Bound: one response head (32 KiB) kept while it is incomplete, INTERIM_COUNT_MAX interim responses.
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
from spokes._fastpath.flow.exchange cimport (
    exchange_abort, exchange_answered, exchange_drop_upstream, exchange_finish, exchange_note_fault, exchange_page,
)
from spokes._fastpath.flow.exchange_io cimport (
    body_pass, body_skip, bytes_pass, exchange_emit, exchange_forget_request, exchange_ready, exchange_write_chain,
)
from spokes._fastpath.flow.exchange_state cimport (
    DEADLINE_NONE, INTERIM_COUNT_MAX, REQUEST_DONE, RESPONSE_BODY, RESPONSE_HEAD, RESPONSE_NONE, STEP_INTERIM,
    STEP_RESENT, STEP_RESPONSE_HEAD, STEP_SWITCHED, Exchange, Replay, exchange_await, exchange_deadline,
    exchange_has_ended, exchange_is_switched, exchange_step,
)
from spokes._fastpath.flow.fault cimport fault_of_conn, fault_page, page_of_reason
from spokes._fastpath.flow.upstream cimport UpstreamConn, upstream_connect, upstream_says_keep_alive, upstream_unheard
from spokes._fastpath.http.http1 cimport (
    BODY_CHUNKED, BODY_UNTIL_CLOSE, HTTP_LINE_BYTES_MAX, HttpBody, HttpHead, HttpRewrite, http1_body_done,
    http1_head_end, http1_parse_response, http1_write_response,
)
from spokes._fastpath.http.page cimport PAGE_NONE, PAGE_OFFLINE, PAGE_UNKNOWN_HOST
from spokes._fastpath.io.conn cimport Conn
from spokes._fastpath.io.conn_state cimport HEAD_BYTES, End, EndOps, loop_date
from spokes._fastpath.io.end cimport end_fin, end_is_readable, end_resume, end_wait_room
from spokes._fastpath.io.loop cimport loop_task
from spokes._fastpath.link.link_state cimport Stream
from spokes._fastpath.route.outcome cimport (
    FAULT_BODY, FAULT_CLOSED, FAULT_CUT, FAULT_HEAD, FAULT_NONE, FAULT_NOT_HTTP, FAULT_TLS, outcome_answered,
)
from spokes._fastpath.route.tunnel cimport END_IDLE


# --- the head ---------------------------------------------------------------------------------------------------------

cdef ssize_t exchange_parse_response(Exchange *x, HttpHead *head, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Bytes of the head; 0 while it is incomplete, < 0 when the upstream broke HTTP: RC_LIMIT in the body behind it."""
    cdef bint over_link = x.upstream_conn == NULL
    cdef size_t resume = x.head_resume
    cdef ssize_t n = http1_head_end(src, src_bytes, HTTP_LINE_BYTES_MAX, over_link, &resume)
    cdef HttpBody body
    cdef ssize_t rc
    x.head_resume = <uint32_t>resume
    if n == 0 and memcmp(src, b"HTTP/", src_bytes if src_bytes < 5 else 5) != 0:
        return RC_PROTO                 # another protocol's first bytes: the end of a head may never come
    if n <= 0:
        return n
    exchange_forget_request(x)          # answered, well or badly: never sent twice
    rc = http1_parse_response(head, src, n, x.method, over_link)
    if rc < 0:
        return rc
    if head.body.kind == BODY_CHUNKED:
        # What has come behind the head is checked before that is passed on: only then can a page still be sent.
        body = head.body
        if body_skip(&body, src + n, src_bytes - n) < 0:
            return RC_LIMIT
    x.head_resume = 0
    return n


cdef void exchange_note_answer(Exchange *x) noexcept nogil:
    """Count the answer, where this end has the upstream's conn."""
    if x.upstream_conn != NULL:
        outcome_answered(&x.upstream_conn.upstream.outcomes, x.loop.wall_ms)


cdef inline int exchange_write_head(Exchange *x, const HttpHead *head, const uint8_t *src, uint8_t to_minor,
                                    uint8_t keep_alive) noexcept nogil:
    """Pass a response's head on to the visitor: 0, or < 0 where it does not fit."""
    cdef HttpRewrite rewrite
    cdef ssize_t n
    memset(&rewrite, 0, sizeof(rewrite))
    rewrite.keep_alive = keep_alive
    rewrite.to_minor = to_minor
    if not head.has_date:
        rewrite.date = loop_date(x.loop)
    n = http1_write_response(x.loop.head, HEAD_BYTES, head, src, &rewrite)
    if n < 0:
        return <int>n
    exchange_emit(x, x.downstream, &x.to_downstream, x.loop.head, n)
    return 0


cdef int exchange_take_interim(Exchange *x, const HttpHead *head, const uint8_t *src) noexcept nogil:
    """1xx: passed on, and the response is still to come."""
    cdef int rc
    x.interims += 1
    if x.interims > INTERIM_COUNT_MAX:
        return RC_PROTO
    exchange_step(x, STEP_INTERIM)
    if x.minor == 0:
        return 0                        # HTTP/1.0 knows no interim responses
    rc = exchange_write_head(x, head, src, 1, True)
    if rc == 0:
        exchange_await(x)
    return rc


cdef int exchange_take_switch(Exchange *x, const HttpHead *head, const uint8_t *src) noexcept nogil:
    """101: from now on bytes go both ways. Some may have waited for it."""
    cdef int rc
    if not x.wants_upgrade or not head.upgrade:
        return RC_PROTO
    rc = exchange_write_head(x, head, src, x.minor, True)
    if rc < 0:
        return rc
    exchange_note_answer(x)
    exchange_step(x, STEP_SWITCHED)
    x.answered = 1
    exchange_deadline(x, DEADLINE_NONE, 0)
    x.downstream.paused = 0
    loop_task(x.loop, &x.task)
    return 0


cdef int exchange_take_final(Exchange *x, const HttpHead *head, const uint8_t *src) noexcept nogil:
    """The response itself: what its head says of its body, and of the conns that it comes and goes by."""
    cdef int rc
    exchange_note_answer(x)
    x.response = head.body
    if x.upstream_conn != NULL:
        upstream_says_keep_alive(x.upstream_conn.conn, head.keep_alive_s)
    if not head.keep_alive or head.body.kind == BODY_UNTIL_CLOSE:
        x.keep_upstream = 0
    if x.minor == 0 and head.body.kind == BODY_CHUNKED:
        x.response.strip = 1            # HTTP/1.0 knows no chunks: the data alone, until close
        x.keep_downstream = 0
    if head.body.kind == BODY_UNTIL_CLOSE or x.request_phase != REQUEST_DONE or x.downstream.eof:
        x.keep_downstream = 0
    rc = exchange_write_head(x, head, src, x.minor, x.keep_downstream)
    if rc < 0:
        return rc
    exchange_step(x, STEP_RESPONSE_HEAD)
    x.answered = 1
    exchange_await(x)
    return 0


cdef ssize_t exchange_response_head(Exchange *x, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Bytes of the head taken, 0 when it is incomplete, < 0 when the upstream broke HTTP."""
    cdef HttpHead head
    cdef ssize_t n = exchange_parse_response(x, &head, src, src_bytes)
    cdef int rc
    if n <= 0:
        return n
    if head.status == 101:
        rc = exchange_take_switch(x, &head, src)
    elif head.status < 200:
        rc = exchange_take_interim(x, &head, src)
    else:
        rc = exchange_take_final(x, &head, src)
    return n if rc == 0 else rc


# --- the upstream's end -----------------------------------------------------------------------------------------------

cdef size_t upstream_on_data(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef Exchange *x = <Exchange *>end.owner
    cdef size_t taken = 0
    cdef ssize_t n
    cdef int broken = 0
    while not exchange_has_ended(x) and x.upstream == end:
        if exchange_is_switched(x):
            return taken + bytes_pass(end, x.downstream, &x.to_downstream, src + taken, src_bytes - taken)
        if x.response_phase == RESPONSE_HEAD:
            if taken == src_bytes:
                break
            n = exchange_response_head(x, src + taken, src_bytes - taken)
            if n == 0:
                break
            if n < 0:
                exchange_fail(x, fault_of_head(src + taken, src_bytes - taken, n))
                break
            taken += n
            continue
        if x.response_phase != RESPONSE_BODY:
            # Bytes that nobody asked for: this end cannot be trusted with another request.
            exchange_drop_upstream(x, False)
            break
        if not http1_body_done(&x.response):
            if taken == src_bytes:
                break
            n = body_pass(&x.response, end, x.downstream, &x.to_downstream, src + taken, src_bytes - taken, &broken)
            taken += n
            if broken < 0:
                exchange_note_fault(x, FAULT_BODY)
                exchange_abort(x)
                break
            if n > 0:
                exchange_await(x)
        if http1_body_done(&x.response):
            if taken < src_bytes or x.upstream.rx.bytes > src_bytes:
                x.keep_upstream = 0     # more than the message: never reuse
            exchange_answered(x)
            break
        if taken == src_bytes or end.paused:
            break
    return taken


cdef void upstream_eof(End *end) noexcept nogil:
    cdef Exchange *x = <Exchange *>end.owner
    if exchange_is_switched(x):
        if end.fin:
            exchange_finish(x)
        else:
            end_fin(x.downstream)
    elif x.response_phase == RESPONSE_BODY and x.response.kind == BODY_UNTIL_CLOSE and not x.request_stopped:
        exchange_answered(x)
    else:
        exchange_lose_upstream(x, FAULT_CLOSED)


cdef void upstream_room(End *end) noexcept nogil:
    """The upstream can take more of the request."""
    cdef Exchange *x = <Exchange *>end.owner
    if x.to_upstream.bytes > 0:
        exchange_write_chain(x, end, &x.to_upstream, False)
        if x.to_upstream.bytes > 0:
            end_wait_room(end)
            return
    end_resume(x.downstream)
    if not exchange_has_ended(x) and end_is_readable(x.downstream):
        loop_task(x.loop, &x.task)


# --- losing the upstream ----------------------------------------------------------------------------------------------

cdef uint8_t fault_of_head(const uint8_t *src, size_t src_bytes, ssize_t rc) noexcept nogil:
    """The fault that bytes in place of a head show. A TLS record is an alert (21) or a handshake (22) of version 3."""
    if rc == RC_TOO_LARGE or rc == RC_TARGET:
        return FAULT_HEAD
    if rc == RC_LIMIT:
        return FAULT_BODY
    if src_bytes >= 2 and (src[0] == 21 or src[0] == 22) and src[1] == 3:
        return FAULT_TLS
    return FAULT_NOT_HTTP


cdef void exchange_fail(Exchange *x, uint8_t fault) noexcept nogil:
    """Answer with a page: nothing was answered yet, and the upstream will not."""
    exchange_note_fault(x, fault)
    if x.upstream_conn != NULL and x.fault_page != PAGE_NONE:
        exchange_page(x, x.fault_page)
    else:
        exchange_page(x, fault_page(fault))


cdef bint exchange_resend(Exchange *x) noexcept nogil:
    """An idle conn was closed as the request was sent: send it once more, on a new conn. RFC 9110, 9.2.2: what is
    idempotent may be sent twice; what is not, where it is known that nobody has read it."""
    cdef UpstreamConn *lost = x.upstream_conn
    cdef Conn *conn
    cdef Replay *replay = x.replay
    if replay == NULL or lost == NULL or x.upstream.rx.bytes > 0 or x.interims > 0:
        return False
    if not x.idempotent and not upstream_unheard(lost.conn):
        return False
    if atomic_get(&lost.upstream.end_ms) > END_IDLE:
        return False                    # its rule is gone, and its flows end
    conn = upstream_connect(x.loop, lost.upstream, &upstream_ops, x)
    if conn == NULL:
        return False
    x.replay = NULL                     # once: the next conn is no idle one
    exchange_drop_upstream(x, False)
    x.upstream = &conn.end
    x.upstream_conn = <UpstreamConn *>conn.extra
    exchange_emit(x, x.upstream, &x.to_upstream, replay.data, replay.bytes)
    x.loop.replay_bytes -= replay.size
    free(replay)
    exchange_step(x, STEP_RESENT)
    if x.downstream.paused:
        end_wait_room(x.upstream)       # the rest of the body has waited for the other one
    return True


cdef void exchange_lose_upstream(Exchange *x, uint8_t fault) noexcept nogil:
    """The upstream end has closed or failed."""
    if x.response_phase == RESPONSE_NONE:
        exchange_drop_upstream(x, False)
    elif x.response_phase != RESPONSE_HEAD or x.answered:
        if not exchange_is_switched(x) and fault != FAULT_NONE:
            exchange_note_fault(x, FAULT_CUT)
        exchange_abort(x)
    elif not exchange_resend(x):
        exchange_fail(x, fault)


cdef bint exchange_stop_request(Exchange *x, Conn *conn) noexcept nogil:
    """Stop sending the request to an upstream that has closed, and read its conn to the end. One that answers without
    reading the whole request resets its conn: our writes fail, while its answer waits in the kernel. False: nothing
    waits there."""
    cdef uint8_t byte
    if x.request_stopped or exchange_is_switched(x) or x.response_phase == RESPONSE_NONE:
        return False
    if conn.fd < 0 or conn.tls != NULL or conn.connecting or conn.end.eof:
        return False
    if conn.end.rx.bytes == 0 and recv(conn.fd, &byte, 1, MSG_PEEK) <= 0:
        return False
    x.request_stopped = 1
    x.keep_upstream = 0
    conn.error = 0
    conn.writable = 0
    conn.readable = 1
    conn.end.wants_room = 0
    chain_clear(&x.loop.pool, &conn.out)
    chain_clear(&x.loop.pool, &x.to_upstream)
    exchange_forget_request(x)
    x.downstream.paused = 0
    loop_task(x.loop, &x.task)
    return True


cdef void upstream_gone(End *end, int rc) noexcept nogil:
    cdef Exchange *x = <Exchange *>end.owner
    cdef uint8_t fault = fault_of_conn(rc)
    if x.upstream_conn != NULL:
        if rc != RC_LOCAL and exchange_stop_request(x, x.upstream_conn.conn):
            return                      # RC_LOCAL: its rule was removed, and its flows end
        if x.upstream_conn.fault != FAULT_NONE:
            fault = x.upstream_conn.fault
        exchange_lose_upstream(x, fault)
        return
    if x.response_phase != RESPONSE_HEAD or x.answered:
        exchange_lose_upstream(x, fault)
    elif rc == RC_LOCAL:
        exchange_page(x, PAGE_UNKNOWN_HOST)     # its rule was removed here
    elif (<Stream *>end).link.down and (end.reset_reason == 0 or end.reset_reason == REASON_GONE):  # of x.tunnel
        exchange_page(x, PAGE_OFFLINE)
    else:
        exchange_page(x, page_of_reason(end.reset_reason))


cdef EndOps upstream_ops
upstream_ops.on_data = upstream_on_data
upstream_ops.eof = upstream_eof
upstream_ops.room = upstream_room
upstream_ops.gone = upstream_gone
upstream_ops.ready = exchange_ready
