# All policies of a site, one after the other.
from spokes._fastpath.link.frame cimport Visitor
from spokes._fastpath.policy.policy cimport Request
from spokes._fastpath.route.site cimport Site

# The first verdict that is not POLICY_GO_ON. `site`: NULL = the request leads to none, and what counts for all holds.
cdef int policies_ask(Request *request, const Visitor *visitor, const Site *site) noexcept nogil
