# How an exchange ends, and how the next one begins.
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.flow.exchange_state cimport Exchange

cdef void exchange_drop_file(Exchange *x) noexcept nogil
cdef void exchange_drop_up(Exchange *x, bint reusable) noexcept nogil
cdef void exchange_free(Exchange *x) noexcept nogil
cdef void exchange_end(Exchange *x, bint abort) noexcept nogil
cdef void exchange_finish(Exchange *x) noexcept nogil
cdef void exchange_page(Exchange *x, uint8_t page_id) noexcept nogil
cdef void exchange_page_with(Exchange *x, uint8_t page_id, const char *field, size_t field_bytes) noexcept nogil
cdef void exchange_next(Exchange *x) noexcept nogil
cdef void exchange_answered(Exchange *x) noexcept nogil
