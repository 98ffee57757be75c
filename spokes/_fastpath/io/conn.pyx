"""Conns: non-blocking reads and writes over a socket, plain or TLS.

Owns: the fd, the TLS state, bytes received and not taken (end.rx), bytes to be sent (out).
Bound: out at CONN_OUT_BYTES_MAX (links: link/link.pyx); rx at one scratch buffer. Idle conns hold no block.
Fails: a failed system call is remembered in conn.error and told once, by ops.gone, from the flush that ends the pass.
"""
from libc.stdlib cimport free

from spokes._fastpath.base.buf cimport BLOCK_BYTES, Budget, chain_append, chain_clear, holder_bytes, pool_is_half_used
from spokes._fastpath.base.net cimport MSG_NOSIGNAL, SHUT_WR, SOL_SOCKET, SO_LINGER, close, send, setsockopt, shutdown
from spokes._fastpath.base.timer cimport timer_clear
from spokes._fastpath.base.types cimport atomic_add, atomic_get, atomic_sub, uint32_t
from spokes._fastpath.io.conn_socket cimport conn_recv_raw, conn_send_chain, conn_wrote
from spokes._fastpath.io.conn_state cimport CONN_DIRECT_BYTES, CONN_OUT_BYTES_MAX, ROLE_VISITOR, End, Loop
from spokes._fastpath.io.conn_tls cimport conn_encrypt, conn_io_begin, conn_recv_tls, conn_send_cipher
from spokes._fastpath.io.loop cimport conn_mark_dirty, conn_unlist
from spokes._fastpath.tls.tls cimport tls_free, tls_shutdown

cdef extern from "sys/socket.h" nogil:
    cdef struct linger_t "linger":
        int l_onoff
        int l_linger

cdef enum:
    HOLDER_LARGE_PARTS = 64             # an address that holds more than this part of the limit is given less room


cdef ssize_t conn_recv(Conn *conn, uint8_t *dst, size_t dst_bytes) noexcept nogil:
    cdef ssize_t n
    if conn.error < 0:
        conn.readable = 0
        return conn.error
    if conn.tls != NULL:
        n = conn_recv_tls(conn, dst, dst_bytes)
    else:
        n = conn_recv_raw(conn, dst, dst_bytes)
    if n > 0 and conn.role == ROLE_VISITOR:
        conn.loop.stats.bytes_in += n
    return n


cdef void conn_count(Conn *conn) noexcept nogil:
    """Differences add up to what an address holds; they wrap, their sum does not."""
    cdef uint32_t blocks
    if conn.holder == NULL:
        return
    blocks = conn.out.blocks + conn.end.rx.blocks
    if conn.tls != NULL:
        blocks += conn.tls.rx.blocks + conn.tls.tx.blocks
    if blocks != conn.held_blocks:
        atomic_add(conn.holder, (<uint64_t>blocks - conn.held_blocks) * BLOCK_BYTES)
        conn.held_blocks = blocks


cdef void conn_hold(Conn *conn, uint64_t *holder) noexcept nogil:
    if conn.holder != NULL:
        atomic_sub(conn.holder, <uint64_t>conn.held_blocks * BLOCK_BYTES)
    conn.held_blocks = 0
    conn.holder = holder
    conn_count(conn)


cdef size_t conn_room(Conn *conn) noexcept nogil:
    """Where memory is short, or its address holds much already, a conn lets one block wait."""
    cdef const Budget *budget = conn.loop.pool.budget
    cdef size_t room = CONN_OUT_BYTES_MAX
    if conn.holder != NULL:
        if holder_bytes(atomic_get(conn.holder)) > budget.limit_bytes // HOLDER_LARGE_PARTS:
            room = BLOCK_BYTES
    elif pool_is_half_used(&conn.loop.pool):
        room = BLOCK_BYTES
    if conn.out.bytes >= room:
        return 0
    return room - conn.out.bytes


cdef void conn_write(Conn *conn, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef ssize_t n = 0
    if conn.closed or conn.error < 0 or src_bytes == 0:
        return
    if conn.role == ROLE_VISITOR:
        conn.loop.stats.bytes_out += src_bytes
    if src_bytes >= CONN_DIRECT_BYTES and conn.writable and not conn.connecting and conn.tls == NULL:
        if conn.out.bytes == 0:
            n = conn_wrote(conn, send(conn.fd, src, src_bytes, MSG_NOSIGNAL), src_bytes)
        else:
            n = conn_send_chain(conn, &conn.out, src, src_bytes)
        if n < 0:
            return
        src += n
        src_bytes -= n
        if src_bytes == 0 and not conn.end.wants_room:
            return
    chain_append(&conn.loop.pool, &conn.out, src, src_bytes, True)
    conn_count(conn)
    if conn.writable or conn.end.wants_room:
        conn_mark_dirty(conn)


cdef bint conn_takes_now(Conn *conn) noexcept nogil:
    return conn.writable and not conn.connecting and conn.tls == NULL and conn.error == 0 and not conn.closed


cdef size_t conn_send_now(Conn *conn, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef ssize_t n = conn_send_chain(conn, &conn.out, src, src_bytes)
    if n <= 0:
        return 0
    if conn.role == ROLE_VISITOR:
        conn.loop.stats.bytes_out += n
    return n


cdef size_t conn_send_from(Conn *conn, Chain *chain) noexcept nogil:
    cdef size_t before
    if conn.out.bytes > 0:
        conn_send_chain(conn, &conn.out, NULL, 0)
        if conn.out.bytes > 0 or not conn.writable:
            return 0
    before = chain.bytes
    conn_send_chain(conn, chain, NULL, 0)
    if conn.role == ROLE_VISITOR:
        conn.loop.stats.bytes_out += before - chain.bytes
    return before - chain.bytes


cdef void conn_flush(Conn *conn) noexcept nogil:
    cdef End *end = &conn.end
    if conn.closed:
        return
    if not conn.connecting and conn.error == 0:
        if conn.tls != NULL:
            if not conn.tls.handshaking:
                conn_encrypt(conn)
            elif conn.tls.tx.bytes > 0 and conn.writable:
                conn_send_chain(conn, &conn.tls.tx, NULL, 0)
        else:
            while conn.out.bytes > 0 and conn.writable:
                if conn_send_chain(conn, &conn.out, NULL, 0) < 0:
                    break
        conn_count(conn)
    if conn.error < 0:
        if end.ops != NULL:
            end.ops.gone(end, conn.error)
        elif conn.close_when_flushed:
            conn_close(conn, True)
        return
    if conn.out.bytes == 0 and (conn.tls == NULL or conn.tls.tx.bytes == 0) and not conn.connecting:
        if end.fin and not conn.fin_sent:
            conn.fin_sent = 1
            if conn.tls != NULL and not conn.tls.handshaking:
                conn_io_begin(conn)
                tls_shutdown(conn.tls.ssl, &conn.loop.io)
                conn_send_cipher(conn, conn.loop.tx, conn.loop.io.tx_bytes)
            shutdown(conn.fd, SHUT_WR)
        if conn.close_when_flushed:
            conn_close(conn, False)
            return
    if end.wants_room and end.ops != NULL and conn.out.bytes * 2 <= CONN_OUT_BYTES_MAX:
        end.wants_room = 0
        end.ops.room(end)


cdef void conn_fin(Conn *conn) noexcept nogil:
    if conn.end.fin or conn.closed:
        return
    conn.end.fin = 1
    conn_mark_dirty(conn)


cdef void conn_close(Conn *conn, bint abort) noexcept nogil:
    cdef linger_t linger
    cdef Loop *loop = conn.loop
    if conn.closed:
        return
    conn.closed = 1
    conn.end.closed = 1
    conn.end.ops = NULL
    timer_clear(&loop.wheel, &conn.timer)
    chain_clear(&loop.pool, &conn.out)
    chain_clear(&loop.pool, &conn.end.rx)
    if conn.tls != NULL:
        if not abort and not conn.fin_sent and not conn.tls.handshaking and conn.writable and conn.error == 0:
            conn_io_begin(conn)
            tls_shutdown(conn.tls.ssl, &loop.io)
            send(conn.fd, loop.tx, loop.io.tx_bytes, MSG_NOSIGNAL)
        chain_clear(&loop.pool, &conn.tls.rx)
        chain_clear(&loop.pool, &conn.tls.tx)
        tls_free(conn.tls.ssl)
        free(conn.tls)
        conn.tls = NULL
    if abort:
        linger.l_onoff = 1
        linger.l_linger = 0
        setsockopt(conn.fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger))
    conn_hold(conn, NULL)
    close(conn.fd)
    conn.fd = -1
    conn_unlist(conn)
    if conn.role == ROLE_VISITOR:
        loop.stats.visitors_open -= 1
    if conn.on_close != NULL:
        conn.on_close(conn)
    if conn.worker_next:                # in loop.handing: deferred when that list is walked
        return
    conn.next_deferred = loop.deferred
    loop.deferred = conn


cdef void conn_rx_keep(Conn *conn, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Keep bytes that were read but not taken; they are bounded by the scratch buffer they came from."""
    chain_append(&conn.loop.pool, &conn.end.rx, src, src_bytes, True)
    conn_count(conn)


cdef bint conn_hand_over(Conn *conn, uint64_t worker_mask, uint64_t *workers_tried) noexcept nogil:
    cdef uint32_t i
    if conn.worker_next or conn.closed:
        return True
    workers_tried[0] |= <uint64_t>1 << conn.loop.index
    for i in range(64):
        if worker_mask & ~workers_tried[0] & (<uint64_t>1 << i):
            conn.worker_next = <uint8_t>(i + 1)
            conn.next_deferred = conn.loop.handing
            conn.loop.handing = conn
            return True
    workers_tried[0] = 0
    return False


cdef void conn_serve(Conn *conn) noexcept nogil:
    if conn.end.ops == NULL:
        conn_mark_dirty(conn)
        return
    if conn.writable and (conn.out.bytes > 0 or conn.end.wants_room or conn.error < 0
                          or (conn.tls != NULL and conn.tls.tx.bytes > 0)):
        conn_mark_dirty(conn)
    if conn.readable:
        conn.end.ops.ready(&conn.end)
