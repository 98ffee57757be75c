# Conns on their way to another worker.
from spokes._fastpath.core.shared cimport Worker
from spokes._fastpath.io.conn cimport Conn

cdef void hand_over_all(Worker *worker) noexcept nogil              # when nothing of this pass points at them any more
cdef void take_conn(Worker *worker, Conn *copy) noexcept nogil      # it arrived
cdef Conn *unpack(Worker *worker, Conn *copy) noexcept nogil        # the same, without serving it
