"""Bounded multi-producer queue by turn numbers (D. Vyukov, "Bounded MPMC queue", with one consumer).

Bound: capacity cells. Fails: ring_push answers False when full; nobody overwrites, the producer keeps its message.
"""
from libc.errno cimport ENOMEM, errno
from libc.stdlib cimport calloc, free

from spokes._fastpath.base.types cimport atomic_cas, atomic_get, atomic_get_seq, atomic_set, atomic_set_seq, atomic_swap

cdef extern from "sys/eventfd.h" nogil:
    int eventfd(unsigned int initval, int flags)
    int EFD_NONBLOCK
    int EFD_CLOEXEC

cdef extern from "unistd.h" nogil:
    ssize_t read(int fd, void *dst, size_t n)
    ssize_t write(int fd, const void *src, size_t n)
    int close(int fd)


cdef int ring_init(Ring *ring, uint32_t capacity) noexcept nogil:
    cdef uint32_t i
    ring.cells = <Cell *>calloc(capacity, sizeof(Cell))
    if ring.cells == NULL:
        return -ENOMEM
    for i in range(capacity):
        ring.cells[i].turn = i
    ring.mask = capacity - 1
    ring.head = ring.tail = 0
    ring.awake = 0
    ring.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    return 0 if ring.wake_fd >= 0 else -errno


cdef void ring_free(Ring *ring) noexcept nogil:
    free(ring.cells)
    ring.cells = NULL
    if ring.wake_fd >= 0:
        close(ring.wake_fd)
        ring.wake_fd = -1


cdef bint ring_push(Ring *ring, const Msg *msg) noexcept nogil:
    cdef uint64_t place = atomic_get(&ring.head)
    cdef uint64_t turn
    cdef Cell *cell
    while True:
        cell = &ring.cells[place & ring.mask]
        turn = atomic_get(&cell.turn)
        if turn == place:
            if atomic_cas(&ring.head, &place, place + 1):
                break
        elif turn < place:
            return False
        else:
            place = atomic_get(&ring.head)
    cell.msg = msg[0]
    atomic_set_seq(&cell.turn, place + 1)
    if atomic_get_seq(&ring.awake) == 0:
        ring_wake(ring)
    return True


cdef bint ring_pop(Ring *ring, Msg *msg) noexcept nogil:
    cdef Cell *cell = &ring.cells[ring.tail & ring.mask]
    if atomic_get_seq(&cell.turn) != ring.tail + 1:
        return False
    msg[0] = cell.msg
    atomic_set(&cell.turn, ring.tail + ring.mask + 1)
    ring.tail += 1
    return True


cdef bint ring_is_empty(Ring *ring) noexcept nogil:
    return atomic_get_seq(&ring.cells[ring.tail & ring.mask].turn) != ring.tail + 1


cdef bint ring_is_tight(Ring *ring) noexcept nogil:
    """Less than an eighth free, as seen by a producer (tail is read without order: a hint)."""
    return (atomic_get(&ring.head) - ring.tail) * 8 > (ring.mask + 1) * 7


cdef void ring_wake(Ring *ring) noexcept nogil:
    cdef uint64_t one = 1
    if atomic_swap(&ring.awake, 1) == 0:
        write(ring.wake_fd, &one, 8)


cdef void ring_sleep(Ring *ring) noexcept nogil:
    atomic_set_seq(&ring.awake, 0)


cdef void ring_clear_wake(Ring *ring) noexcept nogil:
    cdef uint64_t count
    read(ring.wake_fd, &count, 8)
