# OPTIONS and TRACE that may go no further.
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.flow.exchange_state cimport Exchange
from spokes._fastpath.http.http1 cimport HttpHead

cdef void exchange_last(Exchange *x, const HttpHead *head, const uint8_t *src) noexcept nogil
