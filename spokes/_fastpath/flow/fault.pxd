# What went wrong with an upstream, in each of its forms: the kernel's error, what is counted, what a visitor is shown,
# what the peer of a stream is told. One table: fault.pyx.
from spokes._fastpath.base.types cimport uint8_t, uint16_t

# Of a dial; of a conn that stood. FAULT_NONE: nothing went wrong, what the conn was for has been removed.
cdef uint8_t fault_of_dial(int rc) noexcept nogil
cdef uint8_t fault_of_conn(int rc) noexcept nogil
cdef uint8_t fault_page(uint8_t fault) noexcept nogil       # PageId
cdef uint16_t fault_reason(uint8_t fault) noexcept nogil    # of RESET
# What the visitor is shown where the peer has reset the stream before an answer.
cdef uint8_t page_of_reason(uint16_t reason) noexcept nogil
