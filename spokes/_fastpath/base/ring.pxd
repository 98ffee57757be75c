# Bounded queue of small messages between threads: many producers, one consumer, an eventfd to wake it when it sleeps.
from spokes._fastpath.base.types cimport int32_t, uint32_t, uint64_t

cdef struct Msg:
    uint32_t kind
    int32_t code
    uint64_t a
    uint64_t b
    void *p                             # ownership passes with the message
    uint32_t p_bytes
    uint32_t c

cdef struct Cell:
    uint64_t turn                       # atomic
    Msg msg

cdef struct Ring:
    Cell *cells
    uint64_t mask
    char pad0[48]
    uint64_t head                       # atomic: next place to write
    char pad1[56]
    uint64_t tail                       # consumer only
    uint64_t awake                      # atomic: 1 = the consumer checks by itself, no wake-up needed
    int wake_fd

cdef int ring_init(Ring *ring, uint32_t capacity) noexcept nogil    # capacity: a power of two; 0 or -errno
cdef void ring_free(Ring *ring) noexcept nogil
cdef bint ring_push(Ring *ring, const Msg *msg) noexcept nogil      # False = full: the producer waits
cdef bint ring_pop(Ring *ring, Msg *msg) noexcept nogil
cdef bint ring_is_empty(Ring *ring) noexcept nogil
cdef bint ring_is_tight(Ring *ring) noexcept nogil                  # nearly full
cdef void ring_wake(Ring *ring) noexcept nogil
cdef void ring_sleep(Ring *ring) noexcept nogil                 # from now on a push wakes; check once more afterwards
cdef void ring_clear_wake(Ring *ring) noexcept nogil
