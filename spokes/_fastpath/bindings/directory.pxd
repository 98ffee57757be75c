# Directory as Python has it.
from spokes._fastpath.route.site cimport Directory as DirectoryStruct

cdef class Directory:
    cdef DirectoryStruct *c
    cdef readonly tuple identity
