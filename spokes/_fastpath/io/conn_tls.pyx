"""A conn under TLS: libssl is fed from its socket, and what libssl makes is sent."""
from libc.stdlib cimport calloc
from libc.string cimport memset

from spokes._fastpath.base.buf cimport Buf, chain_append, chain_copy, chain_drop
from spokes._fastpath.base.net cimport send
from spokes._fastpath.base.types cimport RC_MEMORY, RC_TLS
from spokes._fastpath.io.conn_socket cimport conn_fail, conn_recv_raw, conn_send_chain, conn_wrote, send_flags
from spokes._fastpath.io.conn_state cimport CIPHER_BYTES, RX_BYTES, Loop, TlsState
from spokes._fastpath.tls.tls cimport (
    TLS_RECORD_BYTES_MAX, tls_free, tls_handshake, tls_has_pending, tls_read, tls_write,
)


cdef int conn_start_tls(Conn *conn, SSL *ssl) noexcept nogil:
    conn.tls = <TlsState *>calloc(1, sizeof(TlsState))
    if conn.tls == NULL:
        tls_free(ssl)
        return RC_MEMORY
    conn.tls.ssl = ssl
    conn.tls.handshaking = 1
    conn.tls.rx = conn.end.rx
    memset(&conn.end.rx, 0, sizeof(conn.end.rx))
    return 0


cdef void conn_send_cipher(Conn *conn, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef ssize_t n
    if src_bytes == 0:
        return
    if conn.tls.tx.bytes == 0 and conn.writable and not conn.connecting:
        n = conn_wrote(conn, send(conn.fd, src, src_bytes, send_flags(conn)), src_bytes)
        if n < 0:
            return
        src += n
        src_bytes -= n
    if src_bytes > 0:
        chain_append(&conn.loop.pool, &conn.tls.tx, src, src_bytes, True)


cdef void conn_io_begin(Conn *conn) noexcept nogil:
    cdef Loop *loop = conn.loop
    loop.io.tx = loop.tx
    loop.io.tx_size = CIPHER_BYTES
    loop.io.tx_bytes = 0
    loop.io.rx = loop.cipher
    loop.io.rx_bytes = loop.io.rx_taken = 0


cdef int conn_fill_cipher(Conn *conn) noexcept nogil:
    """Ciphertext into loop.cipher: what was left over, then one read. 0, RC_EOF or -errno (bytes count first)."""
    cdef Loop *loop = conn.loop
    cdef TlsState *tls = conn.tls
    cdef ssize_t n = 0
    if tls.rx.bytes > 0:
        loop.io.rx_bytes = chain_copy(&tls.rx, loop.cipher, CIPHER_BYTES)
        chain_drop(&loop.pool, &tls.rx, loop.io.rx_bytes)
    if conn.readable and loop.io.rx_bytes < CIPHER_BYTES - TLS_RECORD_BYTES_MAX:
        n = conn_recv_raw(conn, loop.cipher + loop.io.rx_bytes,
                          RX_BYTES if loop.io.rx_bytes == 0 else CIPHER_BYTES - loop.io.rx_bytes)
        if n > 0:
            loop.io.rx_bytes += n
            n = 0
    return <int>n


cdef void conn_keep_cipher(Conn *conn) noexcept nogil:
    cdef Loop *loop = conn.loop
    if loop.io.rx_taken < loop.io.rx_bytes:
        chain_append(&loop.pool, &conn.tls.rx, loop.cipher + loop.io.rx_taken, loop.io.rx_bytes - loop.io.rx_taken,
                     True)
    conn_send_cipher(conn, loop.tx, loop.io.tx_bytes)


cdef int conn_handshake(Conn *conn) noexcept nogil:
    cdef int rc, fill
    while True:
        conn_io_begin(conn)
        fill = conn_fill_cipher(conn)
        rc = tls_handshake(conn.tls.ssl, &conn.loop.io)
        conn_keep_cipher(conn)
        if rc > 0:
            conn.tls.handshaking = 0
            if conn.tls.rx.bytes > 0:
                conn.readable = 1
            return 1
        if rc < 0:
            return rc
        if fill < 0:
            return fill
        if conn.error < 0:
            return conn.error
        if not conn.readable:
            return 0


cdef ssize_t conn_recv_tls(Conn *conn, uint8_t *dst, size_t dst_bytes) noexcept nogil:
    cdef size_t total = 0
    cdef ssize_t n = 0
    cdef int fill
    cdef Loop *loop = conn.loop
    while True:
        conn_io_begin(conn)
        fill = conn_fill_cipher(conn)
        while total < dst_bytes:
            n = tls_read(conn.tls.ssl, &loop.io, dst + total, dst_bytes - total)
            if n <= 0:
                break
            total += n
        conn_keep_cipher(conn)
        if total > 0:
            # Bytes may wait inside libssl or in tls.rx, and a fault found now is told by the next call.
            if conn.tls.rx.bytes > 0 or fill < 0 or n < 0 or tls_has_pending(conn.tls.ssl):
                conn.readable = 1
            return total
        if n < 0:
            return n
        if fill < 0:
            return fill
        if not conn.readable:
            return 0


cdef void conn_encrypt(Conn *conn) noexcept nogil:
    """Turn out into records and send them, until everything is sent or the socket takes no more."""
    cdef Loop *loop = conn.loop
    cdef TlsState *tls = conn.tls
    cdef Buf *buf
    cdef ssize_t n
    cdef size_t left
    while conn.writable and conn.error == 0:
        if tls.tx.bytes > 0:
            conn_send_chain(conn, &tls.tx, NULL, 0)
            continue
        if conn.out.bytes == 0:
            return
        conn_io_begin(conn)
        while conn.out.bytes > 0:
            buf = conn.out.first
            left = buf.tail - buf.head
            n = tls_write(tls.ssl, &loop.io, buf.data + buf.head, left)
            if n <= 0:
                if n < 0:
                    conn_fail(conn, RC_TLS)
                    return
                break
            chain_drop(&loop.pool, &conn.out, n)
        conn_send_cipher(conn, loop.tx, loop.io.tx_bytes)
