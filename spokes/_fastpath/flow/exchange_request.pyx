"""The visitor's side of an exchange: request heads, the route of each, bodies.

Bound: one request head (32 KiB) kept while it is incomplete. Fails: what the visitor sends wrong is 400 and close.
Source: RFC 9112.
"""
from libc.string cimport memchr, memcmp, memset

from spokes._fastpath.base.address cimport address_text
from spokes._fastpath.base.reason cimport REASON_GONE, REASON_TIMEOUT
from spokes._fastpath.base.types cimport (
    RC_LIMIT, RC_TARGET, RC_TOO_LARGE, RC_UNSUPPORTED, RC_VERSION, atomic_add, uint32_t, uint8_t,
)
from spokes._fastpath.flow.exchange_end cimport (
    exchange_drop_up, exchange_end, exchange_finish, exchange_free, exchange_page, exchange_page_with,
)
from spokes._fastpath.flow.exchange_files cimport exchange_discard, exchange_send_file, exchange_to_directory
from spokes._fastpath.flow.exchange_last cimport exchange_last
from spokes._fastpath.flow.exchange_read cimport exchange_half_closed, exchange_ready
from spokes._fastpath.flow.exchange_response cimport up_count, up_ops
from spokes._fastpath.flow.exchange_state cimport (
    BODY_IDLE_MS, DEADLINE_BODY, DEADLINE_HEAD, HEAD_MS, REPLAY_BYTES_MAX, REPLAY_TOTAL_BYTES_MAX, REQUEST_BODY,
    REQUEST_DONE, REQUEST_HEAD, RESPONSE_HEAD, RESPONSE_IDLE_MS, RESPONSE_NONE, Exchange, exchange_await,
    exchange_deadline,
)
from spokes._fastpath.flow.exchange_write cimport (
    end_write_chain, exchange_body, exchange_emit, exchange_forget_replay, exchange_hold, exchange_raw,
)
from spokes._fastpath.flow.upstream cimport UpstreamConn, upstream_connect, upstream_take_idle
from spokes._fastpath.http.ascii cimport CR, IS_TARGET, IS_TOKEN, LF, SP, byte_class, is_blank, is_word
from spokes._fastpath.http.http1 cimport (
    BODY_CHUNKED, BODY_NONE, HTTP_HEAD_BYTES_MAX, HTTP_LINE_BYTES_MAX, METHOD_DELETE, METHOD_GET, METHOD_HEAD,
    METHOD_OPTIONS, METHOD_OTHER, METHOD_PUT, METHOD_TRACE, HttpHead, HttpRewrite, http1_body_done, http1_came_through,
    http1_canonical_host, http1_head_end, http1_parse_request, http1_skip_crlf, http1_write_request,
)
from spokes._fastpath.http.page cimport (
    PAGE_ADMIN_DOWN, PAGE_BAD_REQUEST, PAGE_BODY_TOO_LARGE, PAGE_HEAD_TOO_LARGE, PAGE_HTTP_VERSION, PAGE_LIMIT,
    PAGE_LOOP, PAGE_METHOD, PAGE_MISDIRECTED, PAGE_NO_RULE, PAGE_OFFLINE, PAGE_TARGET_TOO_LONG, PAGE_UNKNOWN_HOST,
    PAGE_UNSUPPORTED, PAGE_WELCOME,
)
from spokes._fastpath.io.conn cimport Conn
from spokes._fastpath.io.conn_state cimport HEAD_BYTES, End, EndOps
from spokes._fastpath.io.end cimport end_abort, end_fin, end_hand_over, end_is_readable, end_resume, end_wait_room
from spokes._fastpath.io.loop cimport loop_task
from spokes._fastpath.link.frame cimport SERVICE_HTTP, Open
from spokes._fastpath.link.link_choice cimport link_is_busy, link_pick
from spokes._fastpath.link.link_state cimport Link, Stream
from spokes._fastpath.link.site_links cimport site_is_here, site_pick, site_workers
from spokes._fastpath.link.stream_count cimport stream_serve
from spokes._fastpath.link.stream_open cimport stream_open
from spokes._fastpath.policy.policies cimport policies_ask
from spokes._fastpath.policy.policy cimport POLICY_ANSWER, Request
from spokes._fastpath.route.outcome cimport FAULT_SILENT
from spokes._fastpath.route.route cimport ROUTE_HTTP, ROUTE_TLS, route_find, route_find_certificate
from spokes._fastpath.route.site cimport SITE_DIRECTORY, SITE_PAGE, SITE_TUNNELS, SITE_UPSTREAM, Site, site_has

cdef extern from "string.h" nogil:
    void *memmem(const void *where, size_t where_bytes, const void *what, size_t what_bytes)

cdef enum:
    REPLAY_GROWTH_BYTES = 1024          # what a head grows by as it is rewritten: our fields, another host
    WANT_HANDOVER = -2
    WANT_PAGE = -3


# --- where it goes ----------------------------------------------------------------------------------------------------

cdef int exchange_route(Exchange *x, const HttpHead *head, Site **out, uint8_t *page) noexcept nogil:
    cdef Site *site
    cdef Site *certificate
    if x.coverage != 0 and head.host_bytes > 0:
        certificate = route_find_certificate(x.loop.routes, head.host, head.host_bytes)
        if certificate == NULL or certificate.certificate.coverage != x.coverage \
                or route_find(x.loop.routes, ROUTE_TLS, head.host, head.host_bytes) != NULL:
            page[0] = PAGE_MISDIRECTED  # another certificate's name, or one whose TLS ends at its tunnel
            return WANT_PAGE
    site = route_find(x.loop.routes, ROUTE_HTTP, head.host, head.host_bytes)
    if site == NULL:
        site = route_find(x.loop.routes, ROUTE_HTTP, b"", 0)
    if site == NULL:
        # The server knew whose name it is, and its client is here: it has no rule for it.
        page[0] = PAGE_UNKNOWN_HOST if x.faces_visitor else PAGE_NO_RULE
        return WANT_PAGE
    if head.host_bytes == 0 and site.kind != SITE_PAGE:
        page[0] = PAGE_UNKNOWN_HOST     # HTTP/1.0 without Host: nothing to forward it under
        return WANT_PAGE
    if site.kind == SITE_PAGE:
        page[0] = site.page
        return WANT_PAGE
    out[0] = site
    return 0


cdef int exchange_to_tunnel(Exchange *x, Site *site, uint8_t *page) noexcept nogil:
    """A stream to a tunnel of the site: the one at hand, a new one, or the worker that has its links."""
    cdef Link *link
    cdef Stream *stream
    cdef Open open
    if x.up != NULL and site_has(site, x.tunnel) and not x.up.eof and not x.up.fin:
        link = (<Stream *>x.up).link
        if not link.draining and not (link_is_busy(link) and link_pick(x.tunnel, x.loop) != link):
            stream_serve(<Stream *>x.up, site.service)
            return 0
    exchange_drop_up(x, False)
    link = site_pick(site, x.loop)
    if link == NULL:
        if end_hand_over(x.down, site_workers(site), &x.workers_tried):
            x.moving = 1
            return WANT_HANDOVER
        # One that would take streams, were it not full?
        page[0] = PAGE_LIMIT if site_is_here(site, x.loop) else PAGE_OFFLINE
        return WANT_PAGE
    x.workers_tried = 0
    memset(&open, 0, sizeof(open))
    open.service = SERVICE_HTTP
    open.visitor = x.visitor
    stream = stream_open(link, &open, site.service)
    if stream == NULL:
        page[0] = PAGE_LIMIT
        return WANT_PAGE
    stream.end.ops = &up_ops
    stream.end.owner = x
    x.up = &stream.end
    x.tunnel = link.tunnel
    return 0


cdef bint can_repeat(Exchange *x, const HttpHead *head) noexcept nogil:
    """The request may be sent twice, and can be kept for that: then a conn that its upstream closes meanwhile costs
    nothing but time."""
    if not x.idempotent or head.body.kind == BODY_CHUNKED or x.loop.replay_bytes > REPLAY_TOTAL_BYTES_MAX // 2:
        return False
    return head.head_bytes + REPLAY_GROWTH_BYTES + head.body.left <= REPLAY_BYTES_MAX


cdef int exchange_to_upstream(Exchange *x, Site *site, const HttpHead *head, uint8_t *page) noexcept nogil:
    cdef Conn *conn
    exchange_drop_up(x, False)
    x.idempotent = (head.method == METHOD_GET or head.method == METHOD_HEAD or head.method == METHOD_OPTIONS
                    or head.method == METHOD_TRACE or head.method == METHOD_PUT or head.method == METHOD_DELETE)
    conn = upstream_take_idle(x.loop, site.upstream, &up_ops, x, not can_repeat(x, head))
    if conn == NULL:
        conn = upstream_connect(x.loop, site.upstream, &up_ops, x)
    if conn == NULL:
        page[0] = PAGE_LIMIT
        return WANT_PAGE
    x.up = &conn.end
    x.upstream = <UpstreamConn *>conn.extra
    return 0


# --- the head ---------------------------------------------------------------------------------------------------------

cdef bint is_api(const uint8_t *path, size_t path_bytes) noexcept nogil:
    """Callers of an API read JSON and take a page for their own fault. A front proxy may put a prefix before it."""
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
    """The same of a head that cannot be read."""
    cdef size_t target = 0, end
    while target < src_bytes and byte_class[src[target]] & IS_TOKEN:
        target += 1
    if target == 0 or target == src_bytes or src[target] != SP:
        return False
    end = target + 1
    while end < src_bytes and byte_class[src[end]] & IS_TARGET:
        end += 1
    return is_api(src + target, end - target) and is_own_host(x, src, src_bytes)


cdef void refuse(Exchange *x, int rc, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """A head that cannot be read: what it says in its first bytes may still be known."""
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


cdef size_t line_bytes_max(const Exchange *x) noexcept nogil:
    """While it is not known where the request goes: the most that a rule allows. Where this end does not face the
    visitor, the one that does has looked at them."""
    if not x.faces_visitor:
        return HTTP_HEAD_BYTES_MAX
    if x.loop.routes != NULL and x.loop.routes.line_bytes_max > HTTP_LINE_BYTES_MAX:
        return x.loop.routes.line_bytes_max
    return HTTP_LINE_BYTES_MAX


cdef ssize_t exchange_request_head(Exchange *x, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Bytes of the head taken, 0 when it is incomplete or has to wait. The exchange may be dead afterwards."""
    cdef HttpHead head
    cdef HttpRewrite rewrite
    cdef Request request
    cdef Site *site = NULL
    cdef size_t resume = x.head_resume
    cdef char visitor[64]
    cdef uint8_t page = PAGE_BAD_REQUEST
    cdef size_t skipped = 0
    cdef ssize_t n
    cdef int rc, verdict
    if x.response_phase != RESPONSE_NONE or x.to_down.bytes > 0:
        return 0
    if x.head_resume == 0 and not x.empty_line:
        skipped = http1_skip_crlf(src, src_bytes)
    n = http1_head_end(src + skipped, src_bytes - skipped, line_bytes_max(x), not x.faces_visitor, &resume)
    x.head_resume = <uint32_t>resume
    if n == 0:
        x.empty_line |= skipped > 0
        if src_bytes > 0 and x.deadline_kind != DEADLINE_HEAD:
            exchange_deadline(x, DEADLINE_HEAD, HEAD_MS)
        return skipped
    x.method = x.wants_json = 0
    x.keep_down = 0
    rc = http1_parse_request(&head, src + skipped, n, not x.faces_visitor) if n > 0 else <int>n
    if rc < 0:
        refuse(x, rc, src + skipped, src_bytes - skipped)
        return 0
    x.method = head.method
    x.minor = head.minor
    x.keep_down = head.keep_alive
    x.request = head.body
    if head.max_forwards == 0 and x.faces_visitor:
        x.loop.stats.requests_total += 1
        x.request_phase = REQUEST_DONE if head.body.kind == BODY_NONE else REQUEST_BODY
        exchange_last(x, &head, src + skipped)
        return 0 if x.dead else n + skipped
    if head.has_via and x.faces_visitor and x.loop.via != NULL \
            and http1_came_through(&head, src + skipped, x.loop.via, x.loop.via_bytes):
        x.loop.stats.loops_total += 1
        page = PAGE_LOOP
        rc = WANT_PAGE
    else:
        rc = exchange_route(x, &head, &site, &page)
    memset(&request, 0, sizeof(request))
    request.head = &head
    request.src = src + skipped
    request.loop = x.loop
    request.body = &x.request
    request.line_bytes_max = line_bytes_max(x)
    request.faces_visitor = x.faces_visitor
    verdict = policies_ask(&request, &x.visitor, site)
    if verdict < 0:
        refuse(x, verdict, src + skipped, src_bytes - skipped)
        return 0
    x.silence_ms = RESPONSE_IDLE_MS
    if verdict == POLICY_ANSWER:
        page = request.page
        rc = WANT_PAGE
    if rc == 0:
        if site.policy.limits.silence_ms:
            x.silence_ms = site.policy.limits.silence_ms
        if site.kind == SITE_TUNNELS:
            rc = exchange_to_tunnel(x, site, &page)
            if rc == 0 and site.service != NULL:
                atomic_add(&site.service.requests_total, 1)
        elif site.kind == SITE_UPSTREAM:
            x.fault_page = site.upstream.fault_page
            x.wants_json = x.fault_page == PAGE_ADMIN_DOWN and is_api(src + skipped + head.path, head.path_bytes)
            rc = exchange_to_upstream(x, site, &head, &page)
        elif site.kind != SITE_DIRECTORY:
            rc = WANT_PAGE
            page = PAGE_UNKNOWN_HOST
    if rc == WANT_HANDOVER:
        x.head_resume = 0               # the other worker reads the same bytes again
        x.method = 0
        return 0
    x.loop.stats.requests_total += 1
    x.request_phase = REQUEST_DONE if head.body.kind == BODY_NONE else REQUEST_BODY
    if rc == WANT_PAGE:
        if request.field_bytes > 0:
            exchange_page_with(x, page, <const char *>x.loop.head, request.field_bytes)
        elif page != PAGE_WELCOME or head.method == METHOD_GET or head.method == METHOD_HEAD:
            exchange_page(x, page)
        elif head.method == METHOD_OTHER:
            exchange_page(x, PAGE_UNSUPPORTED)
        else:
            exchange_page_with(x, PAGE_METHOD, b"Allow: GET, HEAD\r\n", 18)
        return 0 if x.dead else n + skipped
    if site.kind == SITE_DIRECTORY:
        exchange_to_directory(x, site.directory, &head, src + skipped)
        return 0 if x.dead else n + skipped
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
    n = http1_write_request(x.loop.head, HEAD_BYTES, &head, src + skipped, &rewrite)
    if n < 0:
        exchange_page(x, PAGE_HEAD_TOO_LARGE)
        return 0
    x.wants_upgrade = head.upgrade
    x.keep_up = 1
    x.response_phase = RESPONSE_HEAD
    x.head_resume = 0
    if x.upstream != NULL and x.upstream.reused:
        exchange_hold(x, x.loop.head, n)
    exchange_emit(x, x.up, &x.to_up, x.loop.head, n)
    if x.request_phase == REQUEST_DONE:
        exchange_await(x)
    else:
        exchange_deadline(x, DEADLINE_BODY, BODY_IDLE_MS)
    return head.head_bytes + skipped


# --- the visitor's end ------------------------------------------------------------------------------------------------

cdef size_t down_on_data(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef Exchange *x = <Exchange *>end.owner
    cdef size_t taken = 0
    cdef ssize_t n
    cdef int broken = 0
    while taken < src_bytes and not x.dead:
        if x.raw:
            return taken + exchange_raw(x, end, x.up, &x.to_up, src + taken, src_bytes - taken)
        if x.request_phase == REQUEST_HEAD:
            n = exchange_request_head(x, src + taken, src_bytes - taken)
            if n <= 0:
                break
            taken += n
        elif x.request_phase == REQUEST_BODY:
            if x.up != NULL and not x.deaf:
                n = exchange_body(x, &x.request, end, x.up, &x.to_up, src + taken, src_bytes - taken, &broken)
                if x.request.skipped > 0:
                    exchange_forget_replay(x)       # not all of it was passed on, and that must not be the second time
                elif x.replay != NULL:
                    exchange_hold(x, src + taken, n)
            else:
                n = exchange_discard(x, src + taken, src_bytes - taken, &broken)
            taken += n
            if broken < 0:
                exchange_page(x, PAGE_BODY_TOO_LARGE if broken == RC_LIMIT else PAGE_BAD_REQUEST)
                break
            if http1_body_done(&x.request):
                x.request_phase = REQUEST_DONE
                exchange_await(x)
            else:
                exchange_deadline(x, DEADLINE_BODY, BODY_IDLE_MS)
                if n == 0:
                    break
        else:
            break                       # the next request waits for this one's answer
    return src_bytes if x.dead else taken       # the end lives on to say farewell: nothing may stay in its rx


cdef void down_eof(End *end) noexcept nogil:
    cdef Exchange *x = <Exchange *>end.owner
    if x.raw:
        if end.fin:
            exchange_finish(x)
        else:
            end_fin(x.up)
    elif x.response_phase == RESPONSE_NONE:
        exchange_end(x, False)
    elif x.request_phase != REQUEST_DONE:
        exchange_end(x, True)
    else:
        x.keep_down = 0
        exchange_half_closed(x)


cdef void down_room(End *end) noexcept nogil:
    """The visitor can take more of the response."""
    cdef Exchange *x = <Exchange *>end.owner
    if x.to_down.bytes > 0:
        end_write_chain(x, end, &x.to_down)
        if x.to_down.bytes > 0:
            end_wait_room(end)
            return
    if x.file != NULL:
        exchange_send_file(x)
        if x.dead:
            return
    if x.up != NULL:
        end_resume(x.up)
        if x.dead:
            return
        if x.up != NULL and end_is_readable(x.up):
            loop_task(x.loop, &x.task)
    if x.response_phase == RESPONSE_NONE:
        loop_task(x.loop, &x.task)      # a pipelined request may have waited for the last answer to leave


cdef void down_gone(End *end, int rc) noexcept nogil:
    cdef Exchange *x = <Exchange *>end.owner
    if end.reset_reason == REASON_TIMEOUT and x.response_phase != RESPONSE_NONE:
        up_count(x, FAULT_SILENT)       # the visitor's end has deadlines, this one has the upstream
    exchange_drop_up(x, False)
    end_abort(end, REASON_GONE)
    exchange_free(x)


cdef EndOps down_ops
down_ops.on_data = down_on_data
down_ops.eof = down_eof
down_ops.room = down_room
down_ops.gone = down_gone
down_ops.ready = exchange_ready
