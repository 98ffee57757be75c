# Memory of the data path: fixed-size blocks under one limit for the process, chains of them, slabs of small objects.
from spokes._fastpath.base.types cimport uint8_t, uint32_t, uint64_t

cdef extern from "sys/uio.h" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from *:
    """
    #if defined(__SANITIZE_ADDRESS__)
    #define SLAB_IS_HEAP 1
    #else
    #define SLAB_IS_HEAP 0
    #endif
    """
    const bint SLAB_IS_HEAP             # sanitizer builds: every object its own malloc, so that use after free is seen

cdef enum:
    BLOCK_BYTES = 16384                 # data bytes of a block: one full TLS record
    POOL_SPARE_COUNT_MAX = 128          # free blocks a worker keeps (2 MiB) before it gives them back
    HOLDER_COUNT = 16384                # visitor addresses told apart; those that share a place share its share
    SHARE_TUNNEL = 4                    # halves of what is free that one tunnel may hold …
    SHARE_VISITOR = 2                   # … and one visitor address
    SHARE_VISITOR_MAX = 3               # beyond it nothing more is taken for that address
    SHARE_KERNEL = 3                    # times what is free of the kernel's memory, that one holder's streams may use

cdef struct Buf:                        # one block; head <= tail <= BLOCK_BYTES; one owner at a time
    Buf *next
    Buf *last                           # of the first block of a chain: the chain's last one; of others nothing
    uint32_t head                       # oldest byte not yet sent
    uint32_t tail                       # one past the newest byte
    uint8_t data[BLOCK_BYTES]

# What a visitor's address holds is one number: bytes, and above them how many streams it has.
cdef enum:
    HOLDER_SHIFT = 44

cdef inline uint64_t holder_bytes(uint64_t held) noexcept nogil:
    return held & ((<uint64_t>1 << HOLDER_SHIFT) - 1)

cdef inline uint64_t holder_streams(uint64_t held) noexcept nogil:
    return held >> HOLDER_SHIFT

cdef struct Budget:                     # shared by all workers of a process
    uint64_t limit_bytes
    uint64_t used_bytes                 # atomic: blocks owned by somebody, spares not counted
    uint64_t promised_bytes             # atomic: what stream windows have grown beyond their first size
    uint64_t held_by_visitor[HOLDER_COUNT]  # atomic: bytes of the blocks in which something of an address waits
    # Of the machine, as the control plane has seen it last, atomic: what the kernel uses for all TCP sockets, what it
    # may use before it limits everybody (0: not known), and our streams then.
    uint64_t kernel_used_bytes
    uint64_t kernel_limit_bytes
    uint64_t kernel_stream_count

cdef struct Pool:                       # one worker's
    Buf *spare
    uint32_t spare_count
    uint64_t freed_bytes                # given back to the heap since the last pool_trim
    Budget *budget

cdef struct Chain:                      # 16 bytes: an idle visitor has five of them
    Buf *first
    uint32_t bytes                      # whoever fills one stops it at some MiB (see their bounds), far below 4 GiB
    uint32_t blocks

cdef struct Slab:                       # objects of one size; memory stays with the slab until slab_clear
    void *free
    void *chunks
    size_t object_bytes
    uint64_t live_count

cdef void pool_init(Pool *pool, Budget *budget) noexcept nogil
cdef void pool_clear(Pool *pool) noexcept nogil
# A block, or NULL at the limit. `force` takes one beyond it: only for bytes already read, at most a scratch's.
cdef Buf *buf_get(Pool *pool, bint force) noexcept nogil
cdef void buf_put(Pool *pool, Buf *buf) noexcept nogil
cdef void pool_trim(Pool *pool) noexcept nogil         # after a burst: what the heap keeps goes back to the system
cdef bint pool_is_low(Pool *pool) noexcept nogil       # too little left for one more read of a link
cdef bint pool_is_full(Pool *pool) noexcept nogil
cdef bint pool_is_half_used(const Pool *pool) noexcept nogil    # from here on nobody keeps more than it must
# What one holder may hold now: so many halves of what nobody holds, and never less than a small floor.
cdef uint64_t pool_share(const Pool *pool, uint32_t halves) noexcept nogil
# Of the kernel's memory for TCP: whether somebody with so many streams uses more than their share of it.
cdef bint pool_kernel_share_passed(const Pool *pool, uint64_t stream_count) noexcept nogil
cdef bint pool_kernel_is_full(const Pool *pool) noexcept nogil
# How many of our streams are to end so that it is used for three quarters; 0: it is not.
cdef uint64_t pool_kernel_excess(const Pool *pool, uint64_t stream_count) noexcept nogil
# May a stream's window grow by so much? At most a quarter of the limit is promised, nothing once half of it is used.
cdef bint pool_promise(Pool *pool, uint64_t bytes) noexcept nogil
cdef void pool_promise_end(Pool *pool, uint64_t bytes) noexcept nogil

cdef inline Buf *chain_last(const Chain *chain) noexcept nogil:
    return chain.first.last if chain.first != NULL else NULL

cdef inline void chain_push(Chain *chain, Buf *buf) noexcept nogil:    # the caller adds what it fills to chain.bytes
    if chain.first == NULL:
        chain.first = buf
    else:
        chain.first.last.next = buf
    chain.first.last = buf
    chain.blocks += 1

# Append src: bytes taken, which is all of them unless memory is out.
cdef size_t chain_append(Pool *pool, Chain *chain, const uint8_t *src, size_t src_bytes, bint force) noexcept nogil
cdef uint8_t *chain_reserve(Pool *pool, Chain *chain, uint32_t room_bytes) noexcept nogil
cdef void chain_drop(Pool *pool, Chain *chain, size_t bytes) noexcept nogil
cdef void chain_clear(Pool *pool, Chain *chain) noexcept nogil
cdef size_t chain_copy(const Chain *chain, uint8_t *dst, size_t dst_bytes) noexcept nogil
cdef int chain_iov(const Chain *chain, iovec *iov, int iov_count_max) noexcept nogil

cdef void slab_init(Slab *slab, size_t object_bytes) noexcept nogil
cdef void *slab_get(Slab *slab) noexcept nogil         # zeroed, or NULL
cdef void slab_put(Slab *slab, void *object) noexcept nogil
cdef void slab_clear(Slab *slab) noexcept nogil
