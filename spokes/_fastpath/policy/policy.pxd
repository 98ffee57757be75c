# What a site asks of a request before it is passed on: one small file for each kind of policy.
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.http.http1 cimport HttpBody, HttpHead
from spokes._fastpath.io.conn_state cimport Loop
from spokes._fastpath.link.frame cimport Visitor
from spokes._fastpath.route.site cimport Site

cdef enum Verdict:                      # of a policy; < 0: RC of a head that is refused, and its conn with it
    POLICY_GO_ON = 0
    POLICY_ANSWER = 1                   # with Request.page, in place of the site

cdef struct Request:                    # as policies see it
    const HttpHead *head
    const uint8_t *src                  # the head's bytes
    Loop *loop
    HttpBody *body                      # what is to come of it; a policy may bound it
    size_t line_bytes_max               # what its reader let through
    bint faces_visitor                  # nobody has asked before
    uint8_t page                        # the answer …
    size_t field_bytes                  # … and lines of its head, in loop.head

ctypedef int (*policy_fn)(Request *request, const Visitor *visitor, const Site *site) noexcept nogil
