# A conn under TLS: libssl is fed from its socket, and what libssl makes is sent.
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.io.conn_state cimport Conn
from spokes._fastpath.tls.openssl cimport SSL

cdef int conn_start_tls(Conn *conn, SSL *ssl) noexcept nogil        # what is in end.rx is ciphertext from now on
cdef void conn_send_cipher(Conn *conn, const uint8_t *src, size_t src_bytes) noexcept nogil
cdef void conn_io_begin(Conn *conn) noexcept nogil
cdef int conn_handshake(Conn *conn) noexcept nogil                  # 1 done, 0 again, < 0
cdef ssize_t conn_recv_tls(Conn *conn, uint8_t *dst, size_t dst_bytes) noexcept nogil
cdef void conn_encrypt(Conn *conn) noexcept nogil
