"""Conns that change their worker: a visitor, with what was read of it, goes to where its tunnel's links are.

Owns: the copy that travels, from conn_detach to conn_attach. Bound: the other worker's ring; a conn waits for a place.
Fails: out of memory at the other end closes that conn.
"""
from libc.errno cimport errno
from libc.string cimport memset

from spokes._fastpath.base.net cimport close
from spokes._fastpath.base.ring cimport Msg, ring_is_tight, ring_push
from spokes._fastpath.core.shared cimport COMMAND_TAKE_CONN, COMMAND_TAKE_UDP
from spokes._fastpath.core.visitor cimport LISTENER_HTTP, visitor_begin
from spokes._fastpath.flow.exchange cimport exchange_attach, exchange_detach
from spokes._fastpath.flow.exchange_state cimport Exchange
from spokes._fastpath.io.conn cimport conn_close
from spokes._fastpath.io.conn_life cimport conn_attach, conn_detach, conn_watch
from spokes._fastpath.io.conn_state cimport ROLE_UDP, ROLE_VISITOR, Loop


cdef void hand_over_all(Worker *worker) noexcept nogil:
    """Conns that chose another worker leave now, when nothing of this one points at them any more."""
    cdef Loop *loop = &worker.loop
    cdef Conn *conn = loop.handing
    cdef Conn *following
    cdef Conn *kept = NULL
    cdef Worker *to
    cdef Exchange *exchange
    cdef Conn *copy
    cdef Msg msg
    loop.handing = NULL
    while conn != NULL:
        following = conn.next_deferred
        if conn.closed:
            conn.next_deferred = loop.deferred
            loop.deferred = conn
            conn = following
            continue
        to = &worker.shared.workers[conn.worker_next - 1]
        exchange = <Exchange *>conn.end.owner if conn.role == ROLE_VISITOR and conn.tag == LISTENER_HTTP else NULL
        copy = NULL
        if not conn.dirty and not ring_is_tight(&to.commands) and (exchange == NULL or not exchange.task.queued):
            copy = conn_detach(conn)
        if copy == NULL:
            conn.next_deferred = kept
            kept = conn
        else:
            if exchange != NULL:
                copy.end.owner = exchange_detach(exchange)
            memset(&msg, 0, sizeof(msg))
            msg.kind = COMMAND_TAKE_UDP if copy.role == ROLE_UDP else COMMAND_TAKE_CONN
            msg.p = copy
            loop.stats.handovers_total += 1     # before it is answered there
            ring_push(&to.commands, &msg)   # not full: just looked, and one cell in eight is kept free
        conn = following
    loop.handing = kept


cdef Conn *unpack(Worker *worker, Conn *copy) noexcept nogil:
    """A conn from another worker, with its exchange. NULL: out of memory, the copy is all that is left of it."""
    cdef Conn *conn = conn_attach(copy, &worker.loop)
    if conn == NULL:
        worker.loop.stats.errors_total += 1
        close(copy.fd)
        return NULL
    if conn.role == ROLE_VISITOR and conn.tag == LISTENER_HTTP \
            and (conn.end.owner == NULL or exchange_attach(<Exchange *>conn.end.owner, &conn.end, &worker.loop) < 0):
        conn_close(conn, True)
        return NULL
    return conn


cdef void take_conn(Worker *worker, Conn *copy) noexcept nogil:
    cdef Conn *conn = unpack(worker, copy)
    if conn == NULL:
        return
    if conn_watch(conn) < 0:
        if conn.end.ops != NULL:
            conn.end.ops.gone(&conn.end, -errno)
        conn_close(conn, True)
    elif conn.tag != LISTENER_HTTP:
        visitor_begin(conn)
