# A port's socket: datagrams with the address of ours that they came to, and answers from that one (RFC 1122, 4.1.3.5).
from spokes._fastpath.base.net cimport sockaddr_storage, socklen_t
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.flow.udp_state cimport Local, Peer
from spokes._fastpath.io.conn cimport Conn

cdef void tune_listening(int fd) noexcept nogil
cdef ssize_t listener_recv(Conn *conn, sockaddr_storage *source, socklen_t *source_bytes, Local *local) noexcept nogil
cdef ssize_t listener_send(Peer *peer, const uint8_t *src, size_t src_bytes) noexcept nogil
cdef bint is_v6_socket(int fd) noexcept nogil
