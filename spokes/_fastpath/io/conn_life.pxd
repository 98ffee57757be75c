# Conns that begin, and conns that travel to another worker as a copy of their own.
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.io.conn_state cimport Conn, Loop, conn_fn

cdef Conn *conn_new(Loop *loop, int fd, uint8_t role, conn_fn on_ready) noexcept nogil
cdef int conn_watch(Conn *conn) noexcept nogil                      # register with the loop's epoll
# A conn travels as a copy of its own, so that every slab keeps its objects. NULL: out of memory, nothing has changed.
cdef Conn *conn_detach(Conn *conn) noexcept nogil                   # the copy; the conn is deferred
cdef Conn *conn_attach(Conn *copy, Loop *loop) noexcept nogil       # the conn; the copy is given back
