# Policy: how long the lines of a request's head may be, and how large its body.
from spokes._fastpath.link.frame cimport Visitor
from spokes._fastpath.policy.policy cimport Request
from spokes._fastpath.route.site cimport Site

cdef int policy_lines(Request *request, const Visitor *visitor, const Site *site) noexcept nogil
cdef int policy_body(Request *request, const Visitor *visitor, const Site *site) noexcept nogil
