# What an exchange writes: its own bytes, and bodies that it passes on.
from spokes._fastpath.base.buf cimport Chain
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.flow.exchange_state cimport Exchange
from spokes._fastpath.http.http1 cimport HttpBody
from spokes._fastpath.io.conn_state cimport End

cdef void end_write_chain(Exchange *x, End *to, Chain *chain) noexcept nogil
cdef void exchange_write_rest(Exchange *x) noexcept nogil
cdef void exchange_emit(Exchange *x, End *to, Chain *waiting, const uint8_t *src, size_t src_bytes) noexcept nogil
cdef size_t exchange_body(Exchange *x, HttpBody *body, End *source, End *to, const Chain *waiting,
                          const uint8_t *src, size_t src_bytes, int *broken) noexcept nogil

# Keep what was sent of a request, to send it again. False: there is no room for it, and nothing is kept any more.
cdef void exchange_forget_replay(Exchange *x) noexcept nogil
cdef bint exchange_hold(Exchange *x, const uint8_t *src, size_t src_bytes) noexcept nogil
cdef size_t exchange_raw(Exchange *x, End *source, End *to, const Chain *waiting, const uint8_t *src,
                         size_t src_bytes) noexcept nogil
