"""308 to the same place with https, for sites whose plain HTTP nobody answers. Source: RFC 9110, 15.4.9."""
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from spokes._fastpath.base.types cimport uint16_t
from spokes._fastpath.http.http1 cimport HttpHead
from spokes._fastpath.http.page cimport PAGE_HTTPS
from spokes._fastpath.policy.policy cimport POLICY_ANSWER, POLICY_GO_ON


cdef size_t location(Request *request, uint16_t port) noexcept nogil:
    """The Location line, written to loop.head: its bytes."""
    cdef const HttpHead *head = request.head
    cdef char *to = <char *>request.loop.head
    cdef size_t n = snprintf(to, 512, b"Location: https://%.*s", <int>head.host_bytes, head.host)
    if port != 443:
        n += snprintf(to + n, 16, b":%u", <unsigned int>port)
    if head.path_bytes == 0 or request.src[head.path] != c'/':
        to[n] = c'/'
        n += 1
    if head.path_bytes > 0 and request.src[head.path] != c'*':
        memcpy(to + n, request.src + head.path, head.path_bytes)
        n += head.path_bytes
    memcpy(to + n, b"\r\n", 2)
    return n + 2


cdef int policy_secure(Request *request, const Visitor *visitor, const Site *site) noexcept nogil:
    if site == NULL or site.policy.https_port == 0 or visitor.secure:
        return POLICY_GO_ON
    request.page = PAGE_HTTPS
    request.field_bytes = location(request, site.policy.https_port)
    return POLICY_ANSWER
