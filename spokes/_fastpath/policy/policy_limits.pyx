"""Limits on the size of a request. Where a rule says nothing, lines may have HTTP_LINE_BYTES_MAX and bodies any size.

A head is read before it is known where the request goes, so its reader lets through what the most generous rule allows.
"""
from spokes._fastpath.http.http1 cimport BODY_LENGTH, HTTP_LINE_BYTES_MAX, http1_check_lines
from spokes._fastpath.http.page cimport PAGE_BODY_TOO_LARGE
from spokes._fastpath.policy.policy cimport POLICY_ANSWER, POLICY_GO_ON


cdef int policy_lines(Request *request, const Visitor *visitor, const Site *site) noexcept nogil:
    cdef size_t limit = HTTP_LINE_BYTES_MAX
    if not request.faces_visitor:
        return POLICY_GO_ON             # the end that does has asked
    if site != NULL and site.policy.limits.line_bytes_max:
        limit = site.policy.limits.line_bytes_max
    return http1_check_lines(request.head, limit) if limit < request.line_bytes_max else POLICY_GO_ON


cdef int policy_body(Request *request, const Visitor *visitor, const Site *site) noexcept nogil:
    if site == NULL or site.policy.limits.body_bytes_max == 0:
        return POLICY_GO_ON
    request.body.room = site.policy.limits.body_bytes_max
    if request.head.body.kind == BODY_LENGTH and request.head.body.left > request.body.room:
        request.page = PAGE_BODY_TOO_LARGE
        return POLICY_ANSWER
    return POLICY_GO_ON
