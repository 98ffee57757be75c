# Policy: visitors without TLS are sent to where there is some.
from spokes._fastpath.link.frame cimport Visitor
from spokes._fastpath.policy.policy cimport Request
from spokes._fastpath.route.site cimport Site

cdef int policy_secure(Request *request, const Visitor *visitor, const Site *site) noexcept nogil
