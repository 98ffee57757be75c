# How bytes go through an exchange: when its ends are read, and what is written to them.
from spokes._fastpath.base.buf cimport Chain
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.flow.exchange_state cimport Exchange
from spokes._fastpath.http.http1 cimport HttpBody
from spokes._fastpath.io.conn_state cimport End

# Write bytes that were made here; what the end has no room for waits in the chain.
cdef void exchange_emit(Exchange *x, End *to, Chain *waiting, const uint8_t *src, size_t src_bytes) noexcept nogil
# Write what waits in a chain as far as the end has room; of the exchange's last bytes as far as the peer gives credit.
cdef void exchange_write_chain(Exchange *x, End *to, Chain *chain, bint is_last) noexcept nogil

# Pass on a body, or bytes of another protocol, from one end to the other as far as that has room: bytes taken. Where
# the framing is broken `broken` is set to the code, and what came before the break has been passed on.
cdef size_t body_pass(HttpBody *body, End *source, End *to, const Chain *waiting, const uint8_t *src, size_t src_bytes,
                      int *broken) noexcept nogil
cdef size_t bytes_pass(End *source, End *to, const Chain *waiting, const uint8_t *src,
                       size_t src_bytes) noexcept nogil
# Walk over a body without passing it on: bytes of it, or < 0 where its framing is broken.
cdef ssize_t body_skip(HttpBody *body, const uint8_t *src, size_t src_bytes) noexcept nogil

# Keep what is sent of a request, to send it again. False: there is no room for it, and nothing is kept any more.
cdef bint exchange_keep_request(Exchange *x, const uint8_t *src, size_t src_bytes) noexcept nogil
cdef void exchange_forget_request(Exchange *x) noexcept nogil

cdef void exchange_half_closed(Exchange *x) noexcept nogil
cdef void exchange_ready(End *end) noexcept nogil       # EndOps.ready of both ends
cdef void exchange_task(void *owner) noexcept nogil     # Task.run of the exchange
