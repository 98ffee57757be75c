"""Test hooks of blocks and chains, rings, timers and the throttle."""
from libc.string cimport memcpy, memset

from spokes._fastpath.base.address cimport Address
from spokes._fastpath.base.buf cimport (
    BLOCK_BYTES, POOL_SPARE_COUNT_MAX, SLAB_IS_HEAP, Budget, Chain, Pool, Slab, chain_append, chain_clear, chain_copy,
    chain_drop, chain_iov, chain_reserve, iovec, pool_clear, pool_init, pool_is_full, pool_is_low, pool_kernel_excess,
    pool_kernel_share_passed, pool_promise, pool_promise_end, pool_share, slab_clear, slab_get, slab_init, slab_put,
)
from spokes._fastpath.base.ring cimport (
    Msg, Ring, ring_clear_wake, ring_free, ring_init, ring_is_empty, ring_is_tight, ring_pop, ring_push, ring_sleep,
)
from spokes._fastpath.base.throttle cimport Throttle, throttle_admit
from spokes._fastpath.base.timer cimport Timer, Wheel, timer_clear, timer_set, wheel_init, wheel_run, wheel_wait_ms
from spokes._fastpath.base.types cimport uint32_t, uint64_t, uint8_t


BLOCK_SIZE = BLOCK_BYTES
SPARE_COUNT_MAX = 0 if SLAB_IS_HEAP else POOL_SPARE_COUNT_MAX


cdef class ChainHook:
    """One chain over a pool and a budget of its own."""
    cdef Budget budget
    cdef Pool pool
    cdef Chain chain

    def __cinit__(self, uint64_t limit_blocks):
        self.budget.limit_bytes = limit_blocks * BLOCK_BYTES
        pool_init(&self.pool, &self.budget)

    def __dealloc__(self):
        chain_clear(&self.pool, &self.chain)
        pool_clear(&self.pool)

    def append(self, bytes data not None, bint force=False):
        return chain_append(&self.pool, &self.chain, <const uint8_t *><const char *>data, len(data), force)

    def reserve(self, bytes data not None):
        cdef uint8_t *place = chain_reserve(&self.pool, &self.chain, <uint32_t>len(data))
        memcpy(place, <const char *>data, len(data))

    def drop(self, size_t count):
        chain_drop(&self.pool, &self.chain, count)

    def clear(self):
        chain_clear(&self.pool, &self.chain)

    def promise(self, uint64_t count):
        return pool_promise(&self.pool, count)

    def promise_end(self, uint64_t count):
        pool_promise_end(&self.pool, count)

    def copy(self, size_t count):
        cdef bytes answer = bytes(count)
        return answer[:chain_copy(&self.chain, <uint8_t *><char *>answer, count)]

    def parts(self, int count_max):
        """What one sendmsg would be given."""
        cdef iovec iov[16]
        cdef int count = chain_iov(&self.chain, iov, min(count_max, 16))
        return [(<char *>iov[i].iov_base)[:iov[i].iov_len] for i in range(count)]

    @property
    def byte_count(self):
        return self.chain.bytes

    @property
    def used_blocks(self):
        return self.budget.used_bytes // BLOCK_BYTES

    @property
    def chain_blocks(self):
        return self.chain.blocks

    def share(self, uint32_t halves):
        return pool_share(&self.pool, halves)

    def note_kernel(self, uint64_t used, uint64_t limit, uint64_t stream_count):
        self.budget.kernel_used_bytes = used
        self.budget.kernel_limit_bytes = limit
        self.budget.kernel_stream_count = stream_count

    def kernel_share_passed(self, uint64_t stream_count):
        return pool_kernel_share_passed(&self.pool, stream_count)

    def kernel_excess(self, uint64_t stream_count):
        return pool_kernel_excess(&self.pool, stream_count)

    @property
    def spare_blocks(self):
        return self.pool.spare_count

    @property
    def is_low(self):
        return pool_is_low(&self.pool)

    @property
    def is_full(self):
        return pool_is_full(&self.pool)


def slab_addresses(size_t object_bytes, int count):
    """Takes so many objects, scribbles over them, gives them back, takes as many again: (addresses, addresses again,
    whether all came zeroed)."""
    cdef Slab slab
    cdef void *items[256]
    cdef int i
    cdef size_t at
    cdef bint is_zero = True
    slab_init(&slab, object_bytes)
    rounds = []
    for _ in range(2):
        for i in range(count):
            items[i] = slab_get(&slab)
            for at in range(object_bytes):
                is_zero = is_zero and (<uint8_t *>items[i])[at] == 0
        for i in range(count):
            memset(items[i], 0xAB, object_bytes)
        rounds.append([<size_t>items[i] for i in range(count)])
        for i in range(count):
            slab_put(&slab, items[i])
    assert slab.live_count == 0
    slab_clear(&slab)
    return rounds[0], rounds[1], is_zero


cdef class RingHook:
    """One ring whose messages are numbers."""
    cdef Ring ring

    def __cinit__(self, uint32_t capacity):
        self.ring.wake_fd = -1
        if ring_init(&self.ring, capacity) < 0:
            raise MemoryError

    def __dealloc__(self):
        ring_free(&self.ring)

    def push(self, uint64_t number):
        cdef Msg msg
        cdef bint pushed
        memset(&msg, 0, sizeof(msg))
        msg.a = number
        with nogil:                     # producers of several threads really meet
            pushed = ring_push(&self.ring, &msg)
        return pushed

    def pop(self):
        cdef Msg msg
        return msg.a if ring_pop(&self.ring, &msg) else None

    def sleep(self):
        ring_sleep(&self.ring)

    def clear_wake(self):
        ring_clear_wake(&self.ring)

    @property
    def wake_fd(self):
        return self.ring.wake_fd

    @property
    def is_empty(self):
        return ring_is_empty(&self.ring)

    @property
    def is_tight(self):
        return ring_is_tight(&self.ring)


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


cdef Throttle throttle                 # too large for a stack


def run_throttle(int rate_per_s, int burst, list arrivals not None, *, prefixes=(), uint64_t seed=1):
    """Which of the arrivals (millisecond, family, address) are admitted, one after the other."""
    cdef Address peer
    cdef list admitted = []
    cdef bytes packed
    memset(&throttle, 0, sizeof(throttle))
    memset(&peer, 0, sizeof(peer))
    throttle.seed = seed
    throttle.interval_us = 1_000_000 // rate_per_s
    throttle.burst_us = (burst - 1) * throttle.interval_us
    for family, packed, bits in prefixes:
        throttle.prefixes[throttle.prefix_count].family = family
        throttle.prefixes[throttle.prefix_count].bits = bits
        memcpy(throttle.prefixes[throttle.prefix_count].ip, <const char *>packed, len(packed))
        throttle.prefix_count += 1
    for now_ms, family, packed in arrivals:
        peer.family = family
        memset(peer.ip, 0, 16)
        memcpy(peer.ip, <const char *>packed, len(packed))
        admitted.append(throttle_admit(&throttle, &peer, now_ms))
    return admitted
