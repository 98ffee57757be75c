"""Hashed timer wheel (Varghese and Lauck, 1987, scheme 6 with one level).

Owns: nothing; a timer lives in its owner, which clears it before it ends. Bound: WHEEL_SLOTS lists, whatever is set.
"""


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
