# What came of asking an upstream: written by workers, read in place by the control plane.
from spokes._fastpath.base.types cimport atomic_add, atomic_get, atomic_set, uint8_t, uint64_t

cpdef enum Fault:                       # the page and the reason of each: flow/fault.pyx
    FAULT_NONE, FAULT_REFUSED, FAULT_UNREACHABLE, FAULT_DIAL_TIMEOUT, FAULT_NAME, FAULT_LOCAL, FAULT_RESET
    FAULT_CLOSED, FAULT_NOT_HTTP, FAULT_TLS, FAULT_HEAD, FAULT_CUT, FAULT_SILENT, FAULT_BODY
    FAULT_LOOP
    FAULT_COUNT

cdef enum:
    LOOP_ENDS_MS = 1000                 # for as long the ends of flows are a loop's, which was cut
    ANSWERED_STEP_MS = 1000             # how exact the time of the last answer is: one store a second, not one each

cdef struct Outcomes:
    uint64_t faults[FAULT_COUNT]        # atomic: how many of each kind; [FAULT_NONE] is unused
    uint64_t answered                   # atomic: 1 once it has answered
    uint64_t last                       # atomic: Unix time in ms << 8 | Fault; FAULT_NONE: it answered. 0: never asked

cdef inline void outcome_fault(Outcomes *outcomes, uint8_t fault, uint64_t wall_ms) noexcept nogil:
    atomic_add(&outcomes.faults[fault], 1)
    atomic_set(&outcomes.last, wall_ms << 8 | fault)

cdef inline void outcome_answered(Outcomes *outcomes, uint64_t wall_ms) noexcept nogil:
    cdef uint64_t last = atomic_get(&outcomes.last)
    if last & 0xff != FAULT_NONE or wall_ms - (last >> 8) >= ANSWERED_STEP_MS:
        atomic_set(&outcomes.answered, 1)
        atomic_set(&outcomes.last, wall_ms << 8 | FAULT_NONE)

cdef inline bint outcome_is_loop(Outcomes *outcomes, uint64_t wall_ms) noexcept nogil:
    """A moment ago a flow to it came back: those around it end now."""
    cdef uint64_t last = atomic_get(&outcomes.last)
    return last & 0xff == FAULT_LOOP and wall_ms - (last >> 8) < LOOP_ENDS_MS
