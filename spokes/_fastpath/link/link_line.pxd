# How much a link keeps in the kernel: little on a slow line, so that no stream waits behind another's bytes.
from spokes._fastpath.link.link_state cimport Link

cdef void link_account(Link *link, size_t bytes) noexcept nogil
