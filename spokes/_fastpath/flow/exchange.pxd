# HTTP exchanges: every request is routed by itself, every response framed; a conn may visit several tunnels.
# The exchange may have ended after any call from here (exchange_has_ended).
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.flow.exchange_state cimport Exchange
from spokes._fastpath.io.conn_state cimport End, Loop

# A new exchange on the visitor's end, or one from another worker, as its copy says. NULL: out of memory.
cdef Exchange *exchange_new(End *downstream, Loop *loop, const Exchange *copy) noexcept nogil
# Await the first request; bytes may wait in the end's rx.
cdef void exchange_begin(Exchange *x) noexcept nogil
# A hand-over, between requests with nothing upstream: the exchange travels as a copy, as its conn does.
cdef Exchange *exchange_detach(Exchange *x) noexcept nogil              # the copy; NULL when out of memory
cdef int exchange_attach(Exchange *copy, End *downstream, Loop *loop) noexcept nogil  # 0, or < 0 when out of memory

cdef void exchange_next(Exchange *x) noexcept nogil
cdef void exchange_answered(Exchange *x) noexcept nogil
# Answer with a page of the engine's own, perhaps with further lines in its head.
cdef void exchange_page(Exchange *x, uint8_t page_id) noexcept nogil
cdef void exchange_page_with(Exchange *x, uint8_t page_id, const char *lines, size_t lines_bytes) noexcept nogil

cdef void exchange_drop_upstream(Exchange *x, bint reusable) noexcept nogil
cdef void exchange_drop_file(Exchange *x) noexcept nogil
# End in order: what was written is still sent. `is_mid_request`: the visitor has more to send, and reads only then.
cdef void exchange_close(Exchange *x, bint is_mid_request) noexcept nogil
cdef void exchange_abort(Exchange *x) noexcept nogil                    # end at once
cdef void exchange_finish(Exchange *x) noexcept nogil                   # both directions of another protocol have ended

# Count a fault of the upstream, where this end has its conn; once a conn.
cdef void exchange_note_fault(Exchange *x, uint8_t fault) noexcept nogil
