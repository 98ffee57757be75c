"""Hashed timer wheel (Varghese and Lauck, 1987, scheme 6 with one level).

Owns: nothing; a timer lives in its owner, which clears it before it ends. Bound: WHEEL_SLOTS lists, whatever is set.
"""
from libc.string cimport memset


cdef void wheel_init(Wheel *wheel, uint64_t now_ms) noexcept nogil:
    cdef int i
    for i in range(WHEEL_SLOTS):
        wheel.slots[i].next = wheel.slots[i].prev = &wheel.slots[i]
    wheel.tick = now_ms >> TICK_SHIFT
    wheel.count = 0


cdef void timer_clear(Wheel *wheel, Timer *timer) noexcept nogil:
    if timer.prev == NULL:
        return
    timer.prev.next = timer.next
    timer.next.prev = timer.prev
    timer.next = timer.prev = NULL
    wheel.count -= 1


cdef void timer_set(Wheel *wheel, Timer *timer, uint64_t due_ms) noexcept nogil:
    cdef uint64_t tick = (due_ms >> TICK_SHIFT) + 1     # never early
    cdef Timer *head
    timer_clear(wheel, timer)
    if tick < wheel.tick:
        tick = wheel.tick
    elif tick >= wheel.tick + WHEEL_SLOTS:
        tick = wheel.tick + WHEEL_SLOTS - 1
    head = &wheel.slots[tick & (WHEEL_SLOTS - 1)]
    timer.due_ms = due_ms
    timer.prev = head.prev
    timer.next = head
    head.prev.next = timer
    head.prev = timer
    wheel.count += 1


cdef int wheel_run(Wheel *wheel, uint64_t now_ms) noexcept nogil:
    cdef uint64_t last = now_ms >> TICK_SHIFT
    cdef Timer *head
    cdef Timer *timer
    cdef Timer due
    cdef int fired = 0
    if wheel.count == 0:
        wheel.tick = last + 1
        return 0
    if last >= wheel.tick + WHEEL_SLOTS:
        wheel.tick = last - WHEEL_SLOTS + 1
    while wheel.tick <= last:
        head = &wheel.slots[wheel.tick & (WHEEL_SLOTS - 1)]
        wheel.tick += 1
        if head.next == head:
            continue
        # The slot's list is taken out first: what fires may set timers into the same slot.
        due.next = head.next
        due.prev = head.prev
        due.next.prev = due.prev.next = &due
        head.next = head.prev = head
        while due.next != &due:
            timer = due.next
            timer_clear(wheel, timer)
            if timer.due_ms > now_ms:
                timer_set(wheel, timer, timer.due_ms)
                continue
            fired += 1
            timer.fire(timer.owner)
    return fired


cdef int wheel_wait_ms(Wheel *wheel, uint64_t now_ms) noexcept nogil:
    cdef uint64_t tick
    cdef uint64_t due_ms
    if wheel.count == 0:
        return -1
    for tick in range(wheel.tick, wheel.tick + WHEEL_SLOTS):
        if wheel.slots[tick & (WHEEL_SLOTS - 1)].next != &wheel.slots[tick & (WHEEL_SLOTS - 1)]:
            due_ms = tick << TICK_SHIFT
            return <int>(due_ms - now_ms) if due_ms > now_ms else 0
    return -1


# --- test door --------------------------------------------------------------------------------------------------------

cdef struct Probe:
    Timer timer
    Wheel *wheel
    uint64_t again_ms                   # sets itself again, to this, when it fires; 0 = does not
    uint32_t fired_count


cdef void probe_fire(void *owner) noexcept nogil:
    cdef Probe *probe = <Probe *>owner
    probe.fired_count += 1
    if probe.again_ms:
        timer_set(probe.wheel, &probe.timer, probe.again_ms)


def run_wheel(uint64_t start_ms, list due_ms not None, list looks_ms not None, list cleared=None, uint64_t again_ms=0):
    """Sets a timer for each of due_ms, clears those whose place is in `cleared`, then runs the wheel at each of
    looks_ms: [(how often each has fired so far, wheel_wait_ms)]."""
    cdef Wheel wheel
    cdef Probe probes[64]
    cdef int i
    cdef int count = len(due_ms)
    if count > 64:
        raise ValueError("at most 64 timers")
    memset(probes, 0, sizeof(probes))
    wheel_init(&wheel, start_ms)
    for i in range(count):
        probes[i].wheel = &wheel
        probes[i].again_ms = again_ms
        probes[i].timer.fire = probe_fire
        probes[i].timer.owner = &probes[i]
        timer_set(&wheel, &probes[i].timer, due_ms[i])
    for i in cleared or []:
        timer_clear(&wheel, &probes[i].timer)
    answers = []
    for now_ms in looks_ms:
        wheel_run(&wheel, now_ms)
        answers.append(([probes[i].fired_count for i in range(count)], wheel_wait_ms(&wheel, now_ms)))
    return answers
