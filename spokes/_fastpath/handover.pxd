# Conns on their way to another worker.
from spokes._fastpath.conn cimport Conn
from spokes._fastpath.shared cimport Worker

cdef void hand_over_all(Worker *worker) noexcept nogil              # when nothing of this pass points at them any more
cdef void take_conn(Worker *worker, Conn *copy) noexcept nogil      # it arrived
cdef Conn *unpack(Worker *worker, Conn *copy) noexcept nogil        # the same, without serving it
