"""Conns that close in order: what waits is sent, what comes is dropped, and the peer's end is awaited for a while."""
from libc.string cimport memcpy

from spokes._fastpath.base.buf cimport chain_clear
from spokes._fastpath.base.timer cimport timer_clear, timer_set
from spokes._fastpath.base.types cimport RC_EOF, uint32_t, uint64_t
from spokes._fastpath.io.conn cimport conn_close, conn_flush, conn_write
from spokes._fastpath.io.conn_socket cimport conn_recv_raw
from spokes._fastpath.io.conn_state cimport EOF_SEEN, LINGER_VISITOR_BYTES_MAX, ROLE_LINK, ROLE_VISITOR, RX_BYTES

cdef enum:
    LINGER_MS = 2000                    # from our FIN, and for a visitor from its last byte, to the peer's end …
    LINGER_IDLE_MS = 60000              # a peer that takes nothing of what waits before our FIN
    LINGER_VISITOR_MS = 30000           # … or, of a visitor whose request has not ended, from our FIN: it may read last
    LINGER_BYTES_MAX = 8388608          # read and dropped, of any peer: what may have been on its way
    LINGER_READS_MAX = 32               # 8 MiB: what a kernel may hold with its end, for which there is no second edge


cdef void linger_deadline(Conn *conn) noexcept nogil:
    """A visitor's answer may be lost as long as it sends: the kernel would meet what comes with RST. One whose request
    has not ended has the whole time, however it pauses; of another nothing is awaited but its end."""
    cdef uint64_t now_ms = conn.loop.now_ms
    cdef uint64_t due_ms = now_ms + LINGER_IDLE_MS
    if conn.fin_sent:
        if conn.span.linger_end_ms == 0:
            conn.span.linger_end_ms = now_ms + (LINGER_VISITOR_MS if conn.role == ROLE_VISITOR else LINGER_MS)
        due_ms = conn.span.linger_end_ms if conn.is_mid_request else now_ms + LINGER_MS
    if conn.span.linger_end_ms > 0 and due_ms > conn.span.linger_end_ms:
        due_ms = conn.span.linger_end_ms
    timer_set(&conn.loop.wheel, &conn.timer, due_ms)


cdef inline size_t conn_unsent(const Conn *conn) noexcept nogil:
    return conn.out.bytes + (<size_t>conn.tls.tx.bytes if conn.tls != NULL else 0)


cdef void linger_flush(Conn *conn) noexcept nogil:
    cdef size_t before = conn_unsent(conn)
    cdef bint fin_sent = conn.fin_sent
    conn_flush(conn)
    if conn.closed:
        return
    if conn.error < 0:
        conn_close(conn, True)
        return
    if conn.fin_sent != fin_sent or before != conn_unsent(conn) or conn.timer.prev == NULL:
        linger_deadline(conn)


cdef void linger_ready(Conn *conn) noexcept nogil:
    """What comes is dropped, within a bound for every conn that closes, whoever ended it."""
    cdef uint64_t bytes_max = LINGER_VISITOR_BYTES_MAX if conn.role == ROLE_VISITOR else LINGER_BYTES_MAX
    cdef ssize_t n
    cdef int _i
    if not conn.fin_sent and conn.writable:
        linger_flush(conn)
        if conn.closed:
            return
    for _i in range(LINGER_READS_MAX):
        if not conn.readable or conn.end.eof:
            return
        if conn.linger_bytes >= bytes_max:
            if conn.fin_sent:
                conn_close(conn, True)
            return                      # the kernel holds back the rest while what waits goes out
        n = conn_recv_raw(conn, conn.loop.rx, RX_BYTES)
        if n > 0:
            conn.linger_bytes += <uint32_t>n
            if conn.fin_sent and conn.role == ROLE_VISITOR:
                linger_deadline(conn)
        if n == RC_EOF:
            conn.end.eof = EOF_SEEN
            conn.close_when_flushed = 1
            if conn.fin_sent:
                conn_close(conn, False)
            return
        if n < 0:
            conn_close(conn, True)
            return


cdef void linger_expired(void *owner) noexcept nogil:
    conn_close(<Conn *>owner, not (<Conn *>owner).fin_sent)


cdef void conn_linger(Conn *conn) noexcept nogil:
    """RFC 9112 section 9.6: closing with unread input would reset the conn and destroy the answer on its way.

    What waits may take its time as long as some of it goes out; then the peer's end is awaited, if it is still due."""
    if conn.closed:
        return
    if conn.role != ROLE_LINK and conn.on_ready != linger_ready:
        conn.span.linger_end_ms = 0     # of a link it may be set already
    conn.end.ops = NULL
    conn.end.wants_room = 0
    conn.on_ready = linger_ready
    conn.on_flush = linger_flush
    timer_clear(&conn.loop.wheel, &conn.timer)
    conn.timer.fire = linger_expired
    conn.timer.owner = conn
    chain_clear(&conn.loop.pool, &conn.end.rx)
    conn.end.fin = 1
    conn.close_when_flushed = conn.end.eof
    linger_flush(conn)


cdef void write_alert(Conn *conn, uint8_t description) noexcept nogil:
    cdef uint8_t alert[7]
    memcpy(alert, b"\x15\x03\x01\x00\x02\x02\x00", 7)
    alert[6] = description
    conn_write(conn, alert, 7)


cdef void conn_alert(Conn *conn, uint8_t description) noexcept nogil:
    timer_clear(&conn.loop.wheel, &conn.timer)
    write_alert(conn, description)
    conn_linger(conn)


cdef void conn_alert_last(Conn *conn, uint8_t description) noexcept nogil:
    write_alert(conn, description)
    if conn.writable and conn.out.bytes > 0:
        conn_flush(conn)
    conn_close(conn, False)             # with nothing left unread in the kernel that is no reset
