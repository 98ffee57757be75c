# OPTIONS and TRACE that may go no further.
from spokes._fastpath.exchange_state cimport Exchange
from spokes._fastpath.http1 cimport HttpHead
from spokes._fastpath.types cimport uint8_t

cdef void exchange_last(Exchange *x, const HttpHead *head, const uint8_t *src) noexcept nogil
