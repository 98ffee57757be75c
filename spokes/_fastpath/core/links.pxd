# A worker's links, from dialling or arriving to their end.
from spokes._fastpath.base.types cimport uint64_t
from spokes._fastpath.core.shared cimport LinkSlot, Worker
from spokes._fastpath.io.conn cimport Conn
from spokes._fastpath.link.link_state cimport Link

cdef LinkSlot *slot_find(Worker *worker, uint64_t id) noexcept nogil
# A conn whose TLS is done becomes a link. slot: of one that was dialled; NULL: it arrived. 0, or < 0: out of memory.
cdef int link_up(Worker *worker, Conn *conn, LinkSlot *slot) noexcept nogil
cdef void dial(Worker *worker, LinkSlot *slot, int fd, int connect_error) noexcept nogil   # fd: its connect has begun
cdef void dial_failed(Conn *conn, int rc) noexcept nogil
cdef void links_free_ended(Worker *worker) noexcept nogil           # when the pass is over
cdef void links_close_all(Worker *worker) noexcept nogil
