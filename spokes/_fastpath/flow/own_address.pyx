"""Own addresses of raw flows: a visitor that comes from one of them is that flow, come back to its client.

Owns: nothing; the table is the engine's. Bound: NOTED_COUNT notes, all workers together; where no place is free a flow
is not noted.
"""
from libc.string cimport memcpy

from spokes._fastpath.base.address cimport Address, address_read
from spokes._fastpath.base.net cimport getsockname, sockaddr, socklen_t
from spokes._fastpath.base.types cimport atomic_and, atomic_cas, atomic_get, atomic_swap, uint16_t

cdef enum:
    NOTED_TRIES = 4
    NOTED_LOOP = 4                      # of a note, beside its hops
    NOTED_KEY = 8                       # from this bit on; it is always set


cdef uint64_t flow_key(const Address *own, uint16_t to_port, bint is_udp) noexcept nogil:
    """Never 0, its last bits free for NOTED_HOPS_MAX and NOTED_LOOP. splitmix64's mix over one end and the port of the
    other.

    Without that port a visitor of the client's own host, who has the client's address, would meet the number of a flow
    that goes elsewhere: the kernel gives one number to several flows.
    """
    cdef uint64_t low, high
    memcpy(&low, own.ip, 8)
    memcpy(&high, own.ip + 8, 8)
    low ^= (high << 7 | high >> 57) \
        ^ (<uint64_t>own.port << 32 | <uint64_t>to_port << 16 | <uint64_t>is_udp << 8 | own.family)
    low = (low ^ (low >> 30)) * 0xBF58476D1CE4E5B9u
    low = (low ^ (low >> 27)) * 0x94D049BB133111EBu
    return ((low ^ (low >> 31)) | NOTED_KEY) & ~<uint64_t>(NOTED_KEY - 1)


cdef inline uint64_t *note_at(Loop *loop, uint64_t key, int i) noexcept nogil:
    return &loop.dialled[(key // NOTED_KEY + i) % NOTED_COUNT]


cdef uint64_t *address_note(Loop *loop, int fd, const sockaddr_storage *to, uint8_t hops, bint is_udp) noexcept nogil:
    """Before the other side can have accepted and told. Where no place is free the flow is not noted: a loop makes
    many, and is found at another."""
    cdef sockaddr_storage own
    cdef socklen_t own_bytes = sizeof(own)
    cdef Address address, there
    cdef uint64_t key, nobody
    cdef int i
    if hops == 0 or loop.dialled == NULL or getsockname(fd, <sockaddr *>&own, &own_bytes) < 0:
        return NULL
    address_read(&address, &own)
    if address.family == 0:
        return NULL
    address_read(&there, to)
    key = flow_key(&address, there.port, is_udp)
    for i in range(NOTED_TRIES):
        nobody = 0
        if atomic_cas(note_at(loop, key, i), &nobody, key | hops):
            return note_at(loop, key, i)
    return NULL


cdef bint address_forget(uint64_t *noted) noexcept nogil:
    return noted != NULL and atomic_swap(noted, 0) & NOTED_LOOP != 0


cdef bint address_is_loop(uint64_t *noted) noexcept nogil:
    return noted != NULL and atomic_get(noted) & NOTED_LOOP != 0 \
        and atomic_and(noted, ~<uint64_t>NOTED_LOOP) & NOTED_LOOP != 0


cdef uint64_t *note_of(Loop *loop, const Visitor *visitor, bint is_udp) noexcept nogil:
    cdef uint64_t key
    cdef int i
    if loop.dialled == NULL or visitor.address.family == 0:
        return NULL
    key = flow_key(&visitor.address, visitor.port, is_udp)
    for i in range(NOTED_TRIES):
        if atomic_get(note_at(loop, key, i)) & ~<uint64_t>(NOTED_KEY - 1) == key:
            return note_at(loop, key, i)
    return NULL


cdef uint8_t address_hops(Loop *loop, const Visitor *visitor, bint is_udp) noexcept nogil:
    cdef uint64_t *noted = note_of(loop, visitor, is_udp)
    return <uint8_t>(atomic_get(noted) & NOTED_HOPS_MAX) if noted != NULL else 0


cdef void address_tell_loop(Loop *loop, const Visitor *visitor, bint is_udp) noexcept nogil:
    """Unless the place is another flow's by then."""
    cdef uint64_t *noted = note_of(loop, visitor, is_udp)
    cdef uint64_t key = flow_key(&visitor.address, visitor.port, is_udp)
    cdef uint64_t value
    if noted == NULL:
        return
    value = atomic_get(noted)
    while value & ~<uint64_t>(NOTED_KEY - 1) == key and not atomic_cas(noted, &value, value | NOTED_LOOP):
        pass
