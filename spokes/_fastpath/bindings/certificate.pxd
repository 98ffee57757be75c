# Certificate as Python has it.
from spokes._fastpath.route.site cimport Site as SiteStruct
from spokes._fastpath.tls.certificate cimport Certificate as CertificateStruct

cdef class Certificate:
    cdef CertificateStruct *c
    cdef SiteStruct *site               # that it is shown under each of its names
    cdef readonly tuple names

cdef str tls_words()                    # why libssl refused, of what this thread asked of it last
