# Upstream as Python has it.
from spokes._fastpath.route.site cimport Upstream as UpstreamStruct

cdef class Upstream:
    cdef UpstreamStruct *c
