"""Raw flows: two ends, each the other's owner; `downstream` leads to the visitor, `upstream` to the service.

A source is read in the other end's scheduling slot, straight into its blocks where there is a way for that; what
arrives by itself is pushed as far as there is room. An end without room pauses the other: a slow reader stops its own
flow and no other.
"""
from spokes._fastpath.base.reason cimport REASON_GONE, REASON_INTERNAL, REASON_LIMIT
from spokes._fastpath.base.types cimport RC_EOF, uint16_t, uint32_t, uint8_t
from spokes._fastpath.flow.fault cimport fault_of_conn, fault_reason
from spokes._fastpath.flow.own_address cimport address_is_loop, address_tell_loop
from spokes._fastpath.flow.upstream cimport UpstreamConn, upstream_connect_raw, upstream_count_fault
from spokes._fastpath.io.conn cimport Conn
from spokes._fastpath.io.conn_state cimport EndOps
from spokes._fastpath.io.end cimport (
    end_abort, end_fin, end_finish, end_is_readable, end_move, end_push, end_push_chain, end_refuse, end_resume,
    end_room, end_taken, end_wait_room,
)
from spokes._fastpath.link.frame cimport SERVICE_TLS, SERVICE_UDP
from spokes._fastpath.link.link_datagrams cimport stream_datagram
from spokes._fastpath.link.link_state cimport STREAM_SLOT_BYTES, Stream
from spokes._fastpath.link.site_links cimport ALL_WORKERS, Path, site_pick
from spokes._fastpath.link.stream_open cimport stream_open
from spokes._fastpath.route.outcome cimport (
    FAULT_CLOSED, FAULT_LOOP, FAULT_NONE, outcome_answered, outcome_is_loop,
)
from spokes._fastpath.route.site cimport Site


# --- the upstream that was dialled here -------------------------------------------------------------------------------

cdef UpstreamConn *dialled(const End *end) noexcept nogil:
    """The upstream's conn that this end is; NULL: it is a stream, and the client that dials counts."""
    return <UpstreamConn *>(<Conn *>end).extra if end.ops == &dialled_ops else NULL


cdef void relay_heard(End *end) noexcept nogil:
    cdef UpstreamConn *upstream_conn
    if end.heard:
        return
    end.heard = 1
    upstream_conn = dialled(end)
    if upstream_conn != NULL:
        outcome_answered(&upstream_conn.upstream.outcomes, upstream_conn.conn.loop.wall_ms)


cdef void relay_lost(End *end, uint8_t fault) noexcept nogil:
    """Count a fault of the upstream if it has ended the flow before it sent a byte: so does a forwarder with nothing
    behind it. Later on an end says nothing of the service."""
    cdef UpstreamConn *upstream_conn = dialled(end)
    if upstream_conn == NULL:
        return
    if address_is_loop(upstream_conn.noted):
        # The flow came back and was ended there: so were those before it in the ring.
        address_tell_loop(upstream_conn.conn.loop, &(<Stream *>end.owner).visitor, False)
        fault = FAULT_LOOP
    elif end.heard:
        return
    if outcome_is_loop(&upstream_conn.upstream.outcomes, upstream_conn.conn.loop.wall_ms):
        return
    upstream_count_fault(upstream_conn, fault)


# --- both ends --------------------------------------------------------------------------------------------------------

cdef size_t relay_on_data(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef End *to = <End *>end.owner
    cdef size_t taken
    relay_heard(end)
    taken = end_push(to, src, src_bytes)
    if taken < src_bytes:
        end.paused = 1
        end_wait_room(to)
    return taken


cdef void relay_eof(End *end) noexcept nogil:
    cdef End *to = <End *>end.owner
    end_fin(to)
    if end.fin:                         # both directions have ended: what is queued still goes out
        end_finish(to)
        end_finish(end)


cdef void relay_room(End *end) noexcept nogil:
    """Move first what waits in the other end, then what can be read there."""
    cdef End *source = <End *>end.owner
    cdef ssize_t n
    while source.rx.bytes > 0:
        n = end_push_chain(end, &source.rx)
        if n < 0:
            end_wait_room(end)          # the source stays paused
            return
        if n == 0:
            break
        end_taken(source, n)
    end_resume(source)
    if source.rx.bytes > 0 or end.closed or end.ops == NULL or end.fin or not end_is_readable(source):
        return
    if end_room(end) == 0:
        end_wait_room(end)
        return
    n = end_move(end, source, STREAM_SLOT_BYTES)
    if n > 0:
        relay_heard(source)
    if n >= 0:
        if end_is_readable(source):
            end_wait_room(end)
    elif n == RC_EOF:
        if not source.fin:
            relay_lost(source, FAULT_CLOSED)
        else:
            relay_heard(source)         # it has had all of the request and sends nothing
        relay_eof(source)
    else:
        source.ops.gone(source, <int>n)


cdef void relay_ready(End *end) noexcept nogil:
    end_wait_room(<End *>end.owner)


cdef void relay_gone(End *end, int rc) noexcept nogil:
    cdef uint16_t reason = end.reset_reason
    if reason == 0:
        reason = fault_reason(fault_of_conn(rc))
    end_abort(<End *>end.owner, reason)
    end_abort(end, reason)


cdef void tls_gone(End *end, int rc) noexcept nogil:
    """TLS that is passed through has lost its other end: while nothing has come back, the visitor gets an alert."""
    cdef End *downstream = <End *>end.owner
    if end.heard or downstream.eof:
        relay_gone(end, rc)
    else:
        end_refuse(downstream, end.reset_reason)
        end_abort(end, end.reset_reason)


cdef void dialled_gone(End *end, int rc) noexcept nogil:
    cdef UpstreamConn *upstream_conn = dialled(end)
    cdef uint8_t fault = fault_of_conn(rc)
    if fault != FAULT_NONE:
        if upstream_conn.fault != FAULT_NONE:
            fault = upstream_conn.fault            # of dialling
        relay_lost(end, fault)
    end_abort(<End *>end.owner, fault_reason(fault))
    end_abort(end, 0)


cdef EndOps flow_ops
flow_ops.on_data = relay_on_data
flow_ops.eof = relay_eof
flow_ops.room = relay_room
flow_ops.gone = relay_gone
flow_ops.ready = relay_ready

cdef EndOps tls_ops                     # of an end that leads to where TLS ends
tls_ops.on_data = relay_on_data
tls_ops.eof = relay_eof
tls_ops.room = relay_room
tls_ops.gone = tls_gone
tls_ops.ready = relay_ready

cdef EndOps dialled_ops                 # of a conn that was dialled here
dialled_ops.on_data = relay_on_data
dialled_ops.eof = relay_eof
dialled_ops.room = relay_room
dialled_ops.gone = dialled_gone
dialled_ops.ready = relay_ready


cdef void relay_join(End *downstream, End *upstream, bint is_tls) noexcept nogil:
    downstream.ops = &flow_ops
    downstream.owner = upstream
    upstream.ops = &tls_ops if is_tls else &flow_ops
    upstream.owner = downstream
    if downstream.rx.bytes > 0 or end_is_readable(downstream):
        end_wait_room(upstream)
    end_resume(upstream)


cdef void relay_datagram(Stream *stream, const uint8_t *src, uint32_t src_bytes) noexcept nogil:
    if not stream_datagram(<Stream *>stream.end.owner, src, src_bytes):
        stream.link.loop.stats.datagrams_dropped += 1


cdef int relay_to_tunnel(End *downstream, Loop *loop, const Site *site, const Open *open) noexcept nogil:
    cdef Path path = site_pick(site, loop, open.visitor.hops, ALL_WORKERS)
    cdef Stream *stream
    if path.link == NULL:
        return REASON_GONE
    stream = stream_open(path.link, path.tunnel, open, site.service if open.visitor.hops == 0 else NULL)
    if stream == NULL:
        return REASON_LIMIT
    if open.service == SERVICE_UDP:     # of a flow that came as a stream: from a socket it is udp_listener's
        stream.on_datagram = relay_datagram
    relay_join(downstream, &stream.end, open.service == SERVICE_TLS)
    return 0


cdef int relay_to_upstream(Stream *downstream, Loop *loop, Upstream *upstream, uint8_t hops) noexcept nogil:
    cdef Conn *conn = upstream_connect_raw(loop, upstream, &dialled_ops, &downstream.end, hops + 1)
    if conn == NULL:
        return REASON_INTERNAL
    downstream.end.ops = &flow_ops
    downstream.end.owner = &conn.end
    return 0
