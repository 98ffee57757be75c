"""The policies of a site, in the order in which a request is asked for them.

Each is one function of (request, visitor, site) in a file of its own; another kind is one more file, and one more
line here.
"""
from spokes._fastpath.policy.policy cimport POLICY_GO_ON, policy_fn
from spokes._fastpath.policy.policy_limits cimport policy_body, policy_lines
from spokes._fastpath.policy.policy_secure cimport policy_secure

cdef enum:
    POLICY_COUNT = 3

cdef policy_fn policies[POLICY_COUNT]
policies[0] = policy_lines
policies[1] = policy_secure
policies[2] = policy_body


cdef int policies_ask(Request *request, const Visitor *visitor, const Site *site) noexcept nogil:
    cdef int i, verdict
    for i in range(POLICY_COUNT):
        verdict = policies[i](request, visitor, site)
        if verdict != POLICY_GO_ON:
            return verdict
    return POLICY_GO_ON
