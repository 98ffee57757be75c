"""What an exchange is, and the state table that every change of its phases goes through (exchange_state.pxd)."""
from spokes._fastpath.base.types cimport atomic_add


cdef uint64_t steps_refused = 0


cdef void exchange_refuse_step() noexcept nogil:
    atomic_add(&steps_refused, 1)
