# What this end answers by itself: refusals of heads that cannot be read, files of a directory, OPTIONS and TRACE.
# The exchange may have ended after any call from here.
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.flow.exchange_state cimport Exchange
from spokes._fastpath.http.http1 cimport HttpHead
from spokes._fastpath.route.site cimport Directory

# Is it the path of an API? Its callers read JSON, and get pages in that form.
cdef bint is_api(const uint8_t *path, size_t path_bytes) noexcept nogil
# A head that cannot be read, for the reason that rc says.
cdef void exchange_refuse(Exchange *x, int rc, const uint8_t *src, size_t src_bytes) noexcept nogil
# OPTIONS or TRACE with Max-Forwards: 0.
cdef void exchange_last(Exchange *x, const HttpHead *head, const uint8_t *src) noexcept nogil
# A file below the directory.
cdef void exchange_to_directory(Exchange *x, const Directory *directory, const HttpHead *head,
                                const uint8_t *src) noexcept nogil
# One slot of the file that is being sent.
cdef void exchange_send_file(Exchange *x) noexcept nogil
