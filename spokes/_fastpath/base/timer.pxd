# Timer wheel: one per worker, coarse (64 ms), O(1) to set and clear. Deadlines move lazily: a timer that fires early is
# set again.
from spokes._fastpath.base.types cimport uint32_t, uint64_t

cdef enum:
    TICK_SHIFT = 6                      # 64 ms
    WHEEL_SLOTS = 512                   # 32.8 s; later deadlines wait in the last slot and are set again

ctypedef void (*timer_fn)(void *owner) noexcept nogil

cdef struct Timer:                      # embedded in its owner
    Timer *next
    Timer *prev                         # NULL = not set
    uint64_t due_ms
    timer_fn fire
    void *owner

cdef struct Wheel:
    Timer slots[WHEEL_SLOTS]            # heads of circular lists
    uint64_t tick                       # next tick to run
    uint32_t count                      # timers set

cdef void wheel_init(Wheel *wheel, uint64_t now_ms) noexcept nogil
cdef void timer_set(Wheel *wheel, Timer *timer, uint64_t due_ms) noexcept nogil    # sets or moves
cdef void timer_clear(Wheel *wheel, Timer *timer) noexcept nogil
cdef int wheel_run(Wheel *wheel, uint64_t now_ms) noexcept nogil                   # how many fired
cdef int wheel_wait_ms(Wheel *wheel, uint64_t now_ms) noexcept nogil               # -1 = nothing set
