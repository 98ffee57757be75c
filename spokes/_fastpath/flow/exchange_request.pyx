"""The visitor's side of an exchange: request heads, the route of each, bodies.

A head is parsed, then it is decided where the request goes (route and policies), then it is passed on.

Bound: one request head (32 KiB) kept while it is incomplete. Fails: what the visitor sends wrong is 400 and close.
Source: RFC 9112.
"""
from libc.string cimport memset

from spokes._fastpath.base.address cimport address_text
from spokes._fastpath.base.reason cimport REASON_TIMEOUT
from spokes._fastpath.base.types cimport RC_LIMIT, RC_MEMORY, atomic_add, atomic_get, uint32_t, uint8_t
from spokes._fastpath.flow.exchange cimport (
    exchange_abort, exchange_begin, exchange_close, exchange_drop_upstream, exchange_finish, exchange_new,
    exchange_note_fault, exchange_page, exchange_page_with,
)
from spokes._fastpath.flow.exchange_answer cimport (
    exchange_last, exchange_refuse, exchange_send_file, exchange_to_directory, is_api,
)
from spokes._fastpath.flow.exchange_io cimport (
    body_pass, body_skip, bytes_pass, exchange_emit, exchange_forget_request, exchange_half_closed,
    exchange_keep_request, exchange_ready, exchange_write_chain,
)
from spokes._fastpath.flow.exchange_response cimport upstream_ops
from spokes._fastpath.flow.exchange_state cimport (
    BODY_IDLE_MS, DEADLINE_BODY, DEADLINE_HEAD, HEAD_MS, REPLAY_BYTES_MAX, REPLAY_TOTAL_BYTES_MAX, REQUEST_BODY,
    REQUEST_DONE, REQUEST_HEAD, RESPONSE_IDLE_MS, RESPONSE_NONE, STEP_PASSED_ON, STEP_REQUEST_END, STEP_REQUEST_HEAD,
    STEP_REQUEST_WHOLE, Exchange, exchange_await, exchange_deadline, exchange_has_ended, exchange_is_switched,
    exchange_step,
)
from spokes._fastpath.flow.upstream cimport UpstreamConn, upstream_connect, upstream_take_idle
from spokes._fastpath.http.http1 cimport (
    BODY_CHUNKED, BODY_NONE, HTTP_HEAD_BYTES_MAX, HTTP_LINE_BYTES_MAX, METHOD_DELETE, METHOD_GET, METHOD_HEAD,
    METHOD_OPTIONS, METHOD_OTHER, METHOD_PUT, METHOD_TRACE, HttpHead, HttpRewrite, http1_body_done, http1_came_through,
    http1_head_end, http1_parse_request, http1_skip_crlf, http1_write_request,
)
from spokes._fastpath.http.page cimport (
    PAGE_ADMIN_DOWN, PAGE_BAD_REQUEST, PAGE_BODY_TOO_LARGE, PAGE_HEAD_TOO_LARGE, PAGE_LIMIT, PAGE_LOOP, PAGE_METHOD,
    PAGE_MISDIRECTED, PAGE_NONE, PAGE_NO_RULE, PAGE_OFFLINE, PAGE_UNKNOWN_HOST, PAGE_UNSUPPORTED, PAGE_WELCOME,
)
from spokes._fastpath.io.conn cimport Conn
from spokes._fastpath.io.conn_state cimport HEAD_BYTES, EndOps
from spokes._fastpath.io.end cimport end_fin, end_hand_over, end_is_readable, end_resume, end_wait_room
from spokes._fastpath.io.loop cimport loop_task
from spokes._fastpath.link.frame cimport SERVICE_HTTP, Open
from spokes._fastpath.link.link_choice cimport link_is_busy, link_pick
from spokes._fastpath.link.link_state cimport Link, Stream
from spokes._fastpath.link.site_links cimport Path, site_is_here, site_pick, site_workers
from spokes._fastpath.link.stream_count cimport stream_serve
from spokes._fastpath.link.stream_open cimport stream_open
from spokes._fastpath.policy.policies cimport policies_ask
from spokes._fastpath.policy.policy cimport POLICY_ANSWER, Request
from spokes._fastpath.route.outcome cimport FAULT_SILENT
from spokes._fastpath.route.route cimport ROUTE_HTTP, ROUTE_TLS, route_find, route_find_certificate
from spokes._fastpath.route.site cimport SITE_DIRECTORY, SITE_PAGE, SITE_TUNNELS, SITE_UPSTREAM, Site, site_has
from spokes._fastpath.route.tunnel cimport Service

cdef enum:
    REPLAY_GROWTH_BYTES = 1024          # what a head grows by as it is rewritten: our fields, another host

cdef struct Decision:                   # where a request goes
    Site *site                          # NULL: to none
    uint8_t page                        # PageId to answer with in place of the site, or PAGE_NONE
    size_t lines_bytes                  # … and lines of that page's head, in loop.head


cdef int exchange_start(End *downstream, Loop *loop, const Visitor *visitor, bint faces_visitor,
                        uint64_t coverage) noexcept nogil:
    cdef Exchange *x = exchange_new(downstream, loop, NULL)
    if x == NULL:
        return RC_MEMORY
    x.visitor = visitor[0]
    x.faces_visitor = faces_visitor
    x.coverage = coverage
    downstream.ops = &downstream_ops
    exchange_begin(x)
    return 0


# --- parsing ----------------------------------------------------------------------------------------------------------

cdef size_t line_bytes_max(const Exchange *x) noexcept nogil:
    """While it is not known where the request goes: the most that a rule allows. Where this end does not face the
    visitor, the one that does has checked the lines."""
    if not x.faces_visitor:
        return HTTP_HEAD_BYTES_MAX
    if x.loop.routes != NULL and x.loop.routes.line_bytes_max > HTTP_LINE_BYTES_MAX:
        return x.loop.routes.line_bytes_max
    return HTTP_LINE_BYTES_MAX


cdef ssize_t exchange_parse_request(Exchange *x, HttpHead *head, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Bytes of the head; 0 while it is incomplete, or < 0 when it is refused."""
    cdef size_t resume = x.head_resume
    cdef ssize_t n = http1_head_end(src, src_bytes, line_bytes_max(x), not x.faces_visitor, &resume)
    cdef int rc
    x.head_resume = <uint32_t>resume
    if n == 0:
        return 0
    x.method = x.wants_json = 0
    x.keep_downstream = 0
    rc = http1_parse_request(head, src, n, not x.faces_visitor) if n > 0 else <int>n
    if rc < 0:
        return rc
    x.head_resume = 0
    x.method = head.method
    x.minor = head.minor
    x.keep_downstream = head.keep_alive
    x.request = head.body
    return n


# --- deciding ---------------------------------------------------------------------------------------------------------

cdef uint8_t exchange_route(Exchange *x, const HttpHead *head, Site **out) noexcept nogil:
    """Find the site that the request's host leads to: PAGE_NONE, or the page to answer with."""
    cdef Site *site
    cdef Site *certificate
    if x.coverage != 0 and head.host_bytes > 0:
        certificate = route_find_certificate(x.loop.routes, head.host, head.host_bytes)
        if certificate == NULL or certificate.certificate.coverage != x.coverage \
                or route_find(x.loop.routes, ROUTE_TLS, head.host, head.host_bytes) != NULL:
            return PAGE_MISDIRECTED     # another certificate's name, or one whose TLS ends at its tunnel
    site = route_find(x.loop.routes, ROUTE_HTTP, head.host, head.host_bytes)
    if site == NULL:
        site = route_find(x.loop.routes, ROUTE_HTTP, b"", 0)
    if site == NULL:
        # The server knew whose name it is, and its client is here: it has no rule for it.
        return PAGE_UNKNOWN_HOST if x.faces_visitor else PAGE_NO_RULE
    if head.host_bytes == 0 and site.kind != SITE_PAGE:
        return PAGE_UNKNOWN_HOST        # HTTP/1.0 without Host: nothing to forward it under
    if site.kind == SITE_PAGE:
        return site.page
    out[0] = site
    return PAGE_NONE


cdef bint has_come_back(Exchange *x, const HttpHead *head, const uint8_t *src) noexcept nogil:
    """Has the request been here before, as its Via says?"""
    return head.has_via and x.faces_visitor and x.loop.via != NULL \
        and http1_came_through(head, src, x.loop.via, x.loop.via_bytes)


cdef int exchange_decide(Exchange *x, const HttpHead *head, const uint8_t *src, Decision *out) noexcept nogil:
    """Find where the request goes, and ask the policies of that site: 0, or < 0 for a head that is refused."""
    cdef Request request
    cdef int verdict
    out.site = NULL
    out.lines_bytes = 0
    if has_come_back(x, head, src):
        x.loop.stats.loops_total += 1
        out.page = PAGE_LOOP
    else:
        out.page = exchange_route(x, head, &out.site)
    memset(&request, 0, sizeof(request))
    request.head = head
    request.src = src
    request.loop = x.loop
    request.body = &x.request
    request.line_bytes_max = line_bytes_max(x)
    request.faces_visitor = x.faces_visitor
    verdict = policies_ask(&request, &x.visitor, out.site)
    if verdict < 0:
        return verdict
    if verdict == POLICY_ANSWER:
        out.page = request.page
        out.lines_bytes = request.field_bytes
    x.silence_ms = RESPONSE_IDLE_MS
    if out.page == PAGE_NONE and out.site.policy.limits.silence_ms:
        x.silence_ms = out.site.policy.limits.silence_ms
    return 0


# --- the upstream's end -----------------------------------------------------------------------------------------------

cdef Link *best_link(Exchange *x, const Site *site) noexcept nogil:
    """What a new stream would go down, of the tunnel that the last request went to; or of its node."""
    cdef Link *link = link_pick(x.tunnel, x.loop)
    return link if link != NULL else site_pick(site, x.loop, x.visitor.hops, x.workers_tried).link


cdef uint8_t exchange_to_tunnel(Exchange *x, Site *site) noexcept nogil:
    """Take a stream to a tunnel of the site: the one at hand, or a new one. PAGE_NONE, or the page to answer with.
    Where another worker has the site's links the exchange is moving there."""
    cdef Link *link
    cdef Path path
    cdef Stream *stream
    cdef Open open
    cdef Service *service = site.service if x.visitor.hops == 0 else NULL   # counted where the visitor came in
    if x.upstream != NULL and site_has(site, x.tunnel) and not x.upstream.eof and not x.upstream.fin:
        link = (<Stream *>x.upstream).link
        if not link.draining and (link.tunnel == x.tunnel or atomic_get(&x.tunnel.worker_mask) == 0) \
                and not (link_is_busy(link) and best_link(x, site) != link):
            stream_serve(<Stream *>x.upstream, service)
            return PAGE_NONE
    exchange_drop_upstream(x, False)
    path = site_pick(site, x.loop, x.visitor.hops, x.workers_tried)
    if path.link == NULL:
        if end_hand_over(x.downstream, site_workers(site, x.loop, x.visitor.hops, x.workers_tried), &x.workers_tried):
            x.moving = 1
            return PAGE_NONE
        # A link that is here and was not picked is full.
        return PAGE_LIMIT if site_is_here(site, x.loop) else PAGE_OFFLINE
    x.workers_tried = 0
    memset(&open, 0, sizeof(open))
    open.service = SERVICE_HTTP
    open.visitor = x.visitor
    stream = stream_open(path.link, path.tunnel, &open, service)
    if stream == NULL:
        return PAGE_LIMIT
    stream.end.ops = &upstream_ops
    stream.end.owner = x
    x.upstream = &stream.end
    x.tunnel = path.tunnel
    return PAGE_NONE


cdef bint can_repeat(Exchange *x, const HttpHead *head) noexcept nogil:
    """The request may be sent twice, and can be kept for that: then a conn that its upstream closes meanwhile costs
    nothing but time."""
    if not x.idempotent or head.body.kind == BODY_CHUNKED or x.loop.replay_bytes > REPLAY_TOTAL_BYTES_MAX // 2:
        return False
    return head.head_bytes + REPLAY_GROWTH_BYTES + head.body.left <= REPLAY_BYTES_MAX


cdef uint8_t exchange_to_upstream(Exchange *x, Site *site, const HttpHead *head) noexcept nogil:
    """Take an idle conn to the site's upstream, or dial one: PAGE_NONE, or the page to answer with."""
    cdef Conn *conn
    exchange_drop_upstream(x, False)
    x.idempotent = (head.method == METHOD_GET or head.method == METHOD_HEAD or head.method == METHOD_OPTIONS
                    or head.method == METHOD_TRACE or head.method == METHOD_PUT or head.method == METHOD_DELETE)
    conn = upstream_take_idle(x.loop, site.upstream, &upstream_ops, x, not can_repeat(x, head))
    if conn == NULL:
        conn = upstream_connect(x.loop, site.upstream, &upstream_ops, x)
    if conn == NULL:
        return PAGE_LIMIT
    x.upstream = &conn.end
    x.upstream_conn = <UpstreamConn *>conn.extra
    return PAGE_NONE


cdef uint8_t exchange_connect(Exchange *x, Site *site, const HttpHead *head, const uint8_t *src) noexcept nogil:
    """Take an end that leads to the site: PAGE_NONE, or the page to answer with."""
    cdef uint8_t page
    if site.kind == SITE_TUNNELS:
        page = exchange_to_tunnel(x, site)
        if page == PAGE_NONE and not x.moving and site.service != NULL and x.visitor.hops == 0:
            atomic_add(&site.service.requests_total, 1)
        return page
    if site.kind == SITE_UPSTREAM:
        x.fault_page = site.upstream.fault_page
        x.wants_json = x.fault_page == PAGE_ADMIN_DOWN and is_api(src + head.path, head.path_bytes)
        return exchange_to_upstream(x, site, head)
    return PAGE_NONE if site.kind == SITE_DIRECTORY else PAGE_UNKNOWN_HOST


# --- answering or passing on ------------------------------------------------------------------------------------------

cdef void exchange_answer_page(Exchange *x, const Decision *decision) noexcept nogil:
    """Answer with the page that was decided on. The welcome page is there for GET and HEAD."""
    if decision.lines_bytes > 0:
        exchange_page_with(x, decision.page, <const char *>x.loop.head, decision.lines_bytes)
    elif decision.page != PAGE_WELCOME or x.method == METHOD_GET or x.method == METHOD_HEAD:
        exchange_page(x, decision.page)
    elif x.method == METHOD_OTHER:
        exchange_page(x, PAGE_UNSUPPORTED)
    else:
        exchange_page_with(x, PAGE_METHOD, b"Allow: GET, HEAD\r\n", 18)


cdef void exchange_pass_on(Exchange *x, const Site *site, const HttpHead *head, const uint8_t *src) noexcept nogil:
    """Write the head to the upstream's end, and await the body or the response."""
    cdef HttpRewrite rewrite
    cdef char visitor[64]
    cdef ssize_t n
    memset(&rewrite, 0, sizeof(rewrite))
    if x.faces_visitor:                 # further on its address is known from here
        rewrite.visitor = visitor
        rewrite.visitor_bytes = <uint8_t>address_text(visitor, &x.visitor.address)
        rewrite.secure = x.visitor.secure
        rewrite.via = x.loop.via
        rewrite.via_bytes = x.loop.via_bytes
    if site.kind == SITE_UPSTREAM and site.upstream.host_bytes:
        rewrite.host = site.upstream.host
        rewrite.host_bytes = site.upstream.host_bytes
    rewrite.keep_alive = 1
    n = http1_write_request(x.loop.head, HEAD_BYTES, head, src, &rewrite)
    if n < 0:
        exchange_page(x, PAGE_HEAD_TOO_LARGE)
        return
    x.wants_upgrade = head.upgrade
    x.keep_upstream = 1
    exchange_step(x, STEP_PASSED_ON)
    if x.upstream_conn != NULL and x.upstream_conn.reused:
        exchange_keep_request(x, x.loop.head, n)
    exchange_emit(x, x.upstream, &x.to_upstream, x.loop.head, n)
    if x.request_phase == REQUEST_DONE:
        exchange_await(x)
    else:
        exchange_deadline(x, DEADLINE_BODY, BODY_IDLE_MS)


cdef void exchange_begin_request(Exchange *x) noexcept nogil:
    """Count the request and change its phase: its head has been read, and no other worker takes it."""
    x.loop.stats.requests_total += 1
    if x.request.kind == BODY_NONE:
        exchange_step(x, STEP_REQUEST_WHOLE)
    else:
        exchange_step(x, STEP_REQUEST_HEAD)


cdef bint exchange_take_head(Exchange *x, const HttpHead *head, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Decide about a head, and answer the request or pass it on. False: the head is not taken, since another worker is
    to read it or it was refused."""
    cdef Decision decision
    cdef int rc
    if head.max_forwards == 0 and x.faces_visitor:
        exchange_begin_request(x)
        exchange_last(x, head, src)
        return True
    rc = exchange_decide(x, head, src, &decision)
    if rc < 0:
        exchange_refuse(x, rc, src, src_bytes)
        return False
    if decision.page == PAGE_NONE:
        decision.page = exchange_connect(x, decision.site, head, src)
        if x.moving:
            x.method = 0
            return False
    exchange_begin_request(x)
    if decision.page != PAGE_NONE:
        exchange_answer_page(x, &decision)
    elif decision.site.kind == SITE_DIRECTORY:
        exchange_to_directory(x, decision.site.directory, head, src)
    else:
        exchange_pass_on(x, decision.site, head, src)
    return True


cdef size_t exchange_request_head(Exchange *x, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Bytes taken of a head and of an empty line before it; 0 when it is incomplete or has to wait. The exchange may
    have ended afterwards."""
    cdef HttpHead head
    cdef size_t skipped = 0
    cdef ssize_t n
    if x.response_phase != RESPONSE_NONE or x.to_downstream.bytes > 0:
        return 0                        # the last response is still on its way
    if x.head_resume == 0 and not x.empty_line:
        skipped = http1_skip_crlf(src, src_bytes)
    n = exchange_parse_request(x, &head, src + skipped, src_bytes - skipped)
    if n < 0:
        exchange_refuse(x, <int>n, src + skipped, src_bytes - skipped)
        return 0
    if n == 0:
        x.empty_line |= skipped > 0
        if src_bytes > 0 and x.deadline_kind != DEADLINE_HEAD:
            exchange_deadline(x, DEADLINE_HEAD, HEAD_MS)
        return skipped
    if not exchange_take_head(x, &head, src + skipped, src_bytes - skipped) or exchange_has_ended(x):
        return 0
    return n + skipped


# --- the visitor's end ------------------------------------------------------------------------------------------------

cdef ssize_t exchange_request_body(Exchange *x, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Pass on what has come of the body, or drop it where no upstream takes it: bytes taken, < 0 when it is refused."""
    cdef size_t taken
    cdef int broken = 0
    if x.upstream == NULL or x.request_stopped:
        return body_skip(&x.request, src, src_bytes)
    taken = body_pass(&x.request, x.downstream, x.upstream, &x.to_upstream, src, src_bytes, &broken)
    if broken < 0:
        return broken
    if x.request.skipped > 0:
        exchange_forget_request(x)      # not all of it was passed on, and what is not must not be sent the second time
    elif x.replay != NULL:
        exchange_keep_request(x, src, taken)
    return <ssize_t>taken


cdef size_t downstream_on_data(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef Exchange *x = <Exchange *>end.owner
    cdef size_t taken = 0
    cdef ssize_t n
    while taken < src_bytes and not exchange_has_ended(x):
        if exchange_is_switched(x):
            return taken + bytes_pass(end, x.upstream, &x.to_upstream, src + taken, src_bytes - taken)
        if x.request_phase == REQUEST_HEAD:
            n = exchange_request_head(x, src + taken, src_bytes - taken)
            if n == 0:
                break
            taken += n
        elif x.request_phase == REQUEST_BODY:
            n = exchange_request_body(x, src + taken, src_bytes - taken)
            if n < 0:
                exchange_page(x, PAGE_BODY_TOO_LARGE if n == RC_LIMIT else PAGE_BAD_REQUEST)
                break
            taken += n
            if http1_body_done(&x.request):
                exchange_step(x, STEP_REQUEST_END)
                exchange_await(x)
            else:
                exchange_deadline(x, DEADLINE_BODY, BODY_IDLE_MS)
                if n == 0:
                    break
        else:
            break                       # the next request waits for this one's answer
    # The end outlives the exchange, to be closed in order: nothing may stay in its rx.
    return src_bytes if exchange_has_ended(x) else taken


cdef void downstream_eof(End *end) noexcept nogil:
    cdef Exchange *x = <Exchange *>end.owner
    if exchange_is_switched(x):
        if end.fin:
            exchange_finish(x)
        else:
            end_fin(x.upstream)
    elif x.response_phase == RESPONSE_NONE:
        exchange_close(x, False)
    elif x.request_phase != REQUEST_DONE:
        exchange_abort(x)
    else:
        x.keep_downstream = 0
        exchange_half_closed(x)


cdef void downstream_room(End *end) noexcept nogil:
    """The visitor can take more of the response."""
    cdef Exchange *x = <Exchange *>end.owner
    if x.to_downstream.bytes > 0:
        exchange_write_chain(x, end, &x.to_downstream, False)
        if x.to_downstream.bytes > 0:
            end_wait_room(end)
            return
    if x.file != NULL:
        exchange_send_file(x)
        if exchange_has_ended(x):
            return
    if x.upstream != NULL:
        end_resume(x.upstream)
        if exchange_has_ended(x):
            return
        if x.upstream != NULL and end_is_readable(x.upstream):
            loop_task(x.loop, &x.task)
    if x.response_phase == RESPONSE_NONE:
        loop_task(x.loop, &x.task)      # a pipelined request may have waited for the last answer to leave


cdef void downstream_gone(End *end, int rc) noexcept nogil:
    cdef Exchange *x = <Exchange *>end.owner
    if end.reset_reason == REASON_TIMEOUT and x.response_phase != RESPONSE_NONE:
        exchange_note_fault(x, FAULT_SILENT)    # the engine that faces the visitor has the deadline, this one the conn
    exchange_abort(x)


cdef EndOps downstream_ops
downstream_ops.on_data = downstream_on_data
downstream_ops.eof = downstream_eof
downstream_ops.room = downstream_room
downstream_ops.gone = downstream_gone
downstream_ops.ready = exchange_ready
