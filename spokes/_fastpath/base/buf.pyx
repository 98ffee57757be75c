"""Blocks, chains and slabs: the only places the data path gets memory from while it runs.

Owns: spare blocks (per worker) and slab chunks. Bound: Budget.limit_bytes for all blocks of the process together.
Fails: NULL or a short count at the limit; the caller stops reading its source and nothing is lost.
"""
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from spokes._fastpath.base.types cimport atomic_add, atomic_get, atomic_sub

cdef extern from "malloc.h" nogil:
    int malloc_trim(size_t pad)

cdef enum:
    LOW_WATER_BLOCKS = 64               # 1 MiB: one read of every scratch buffer still fits
    SHARE_RESERVE_PARTS = 8             # that part of the limit is for those who hold less than a floor …
    SHARE_FLOOR_PARTS = 512             # … which is this part of it
    KERNEL_FLOOR_PARTS = 64             # of the kernel's memory: as if that part of it were always free
    SLAB_CHUNK_OBJECTS = 64


cdef void pool_init(Pool *pool, Budget *budget) noexcept nogil:
    pool.spare = NULL
    pool.spare_count = 0
    pool.budget = budget


cdef void pool_clear(Pool *pool) noexcept nogil:
    cdef Buf *buf
    while pool.spare != NULL:
        buf = pool.spare
        pool.spare = buf.next
        free(buf)
    pool.spare_count = 0


cdef Buf *buf_get(Pool *pool, bint force) noexcept nogil:
    cdef Buf *buf
    if atomic_add(&pool.budget.used_bytes, BLOCK_BYTES) + BLOCK_BYTES > pool.budget.limit_bytes and not force:
        atomic_sub(&pool.budget.used_bytes, BLOCK_BYTES)
        return NULL
    buf = pool.spare
    if buf != NULL:
        pool.spare = buf.next
        pool.spare_count -= 1
    else:
        buf = <Buf *>malloc(sizeof(Buf))
        if buf == NULL:
            atomic_sub(&pool.budget.used_bytes, BLOCK_BYTES)
            return NULL
    buf.next = NULL
    buf.head = buf.tail = 0
    return buf


cdef void buf_put(Pool *pool, Buf *buf) noexcept nogil:
    atomic_sub(&pool.budget.used_bytes, BLOCK_BYTES)
    if pool.spare_count >= POOL_SPARE_COUNT_MAX or SLAB_IS_HEAP:
        free(buf)
        pool.freed_bytes += BLOCK_BYTES
        return
    buf.next = pool.spare
    pool.spare = buf
    pool.spare_count += 1


cdef void pool_trim(Pool *pool) noexcept nogil:
    pool.freed_bytes = 0
    malloc_trim(0)


cdef bint pool_is_low(Pool *pool) noexcept nogil:
    return atomic_get(&pool.budget.used_bytes) + LOW_WATER_BLOCKS * BLOCK_BYTES > pool.budget.limit_bytes


cdef bint pool_is_full(Pool *pool) noexcept nogil:
    return atomic_get(&pool.budget.used_bytes) >= pool.budget.limit_bytes


cdef bint pool_is_half_used(const Pool *pool) noexcept nogil:
    return atomic_get(&pool.budget.used_bytes) * 2 > pool.budget.limit_bytes


cdef uint64_t pool_share(const Pool *pool, uint32_t halves) noexcept nogil:
    """Dynamic thresholds (Choudhury and Hahne, 1998): who is alone may hold most of the pool, and always leaves a part;
    the more holders there are, the less each may hold. Nobody is counted."""
    cdef uint64_t limit = pool.budget.limit_bytes
    cdef uint64_t used = atomic_get(&pool.budget.used_bytes) + limit // SHARE_RESERVE_PARTS
    cdef uint64_t share = (limit - used) * halves // 2 if used < limit else 0
    return share if share > limit // SHARE_FLOOR_PARTS else limit // SHARE_FLOOR_PARTS


cdef bint pool_kernel_is_full(const Pool *pool) noexcept nogil:
    cdef uint64_t limit = atomic_get(&pool.budget.kernel_limit_bytes)
    return limit > 0 and atomic_get(&pool.budget.kernel_used_bytes) >= limit


cdef bint pool_kernel_share_passed(const Pool *pool, uint64_t stream_count) noexcept nogil:
    """As pool_share: who is alone may use three quarters of it, the more others use the less. What a stream's sockets
    hold, ours and those at their other ends on this machine, nobody counts: each is taken for an average one."""
    cdef uint64_t limit = atomic_get(&pool.budget.kernel_limit_bytes)
    cdef uint64_t used = atomic_get(&pool.budget.kernel_used_bytes)
    cdef uint64_t all_streams = atomic_get(&pool.budget.kernel_stream_count)
    cdef uint64_t left
    if limit == 0 or used <= limit // 2 or all_streams == 0:
        return False
    left = limit // KERNEL_FLOOR_PARTS
    if used < limit and limit - used > left:
        left = limit - used
    if stream_count > all_streams:
        stream_count = all_streams
    return used // all_streams * stream_count > left * SHARE_KERNEL


cdef uint64_t pool_kernel_excess(const Pool *pool, uint64_t stream_count) noexcept nogil:
    cdef uint64_t goal = atomic_get(&pool.budget.kernel_limit_bytes) // 4 * 3
    cdef uint64_t used = atomic_get(&pool.budget.kernel_used_bytes)
    if goal == 0 or used <= goal:
        return 0
    return (used - goal) // (used // 256 + 1) * stream_count // 256 + 1


cdef bint pool_promise(Pool *pool, uint64_t bytes) noexcept nogil:
    if pool_is_half_used(pool):
        return False
    if (atomic_add(&pool.budget.promised_bytes, bytes) + bytes) * 4 > pool.budget.limit_bytes:
        atomic_sub(&pool.budget.promised_bytes, bytes)
        return False
    return True


cdef void pool_promise_end(Pool *pool, uint64_t bytes) noexcept nogil:
    if bytes:
        atomic_sub(&pool.budget.promised_bytes, bytes)


cdef size_t chain_append(Pool *pool, Chain *chain, const uint8_t *src, size_t src_bytes, bint force) noexcept nogil:
    cdef size_t taken = 0
    cdef size_t step
    cdef Buf *buf
    while taken < src_bytes:
        buf = chain_last(chain)
        if buf == NULL or buf.tail == BLOCK_BYTES:
            buf = buf_get(pool, force)
            if buf == NULL:
                break
            chain_push(chain, buf)
        step = BLOCK_BYTES - buf.tail
        if step > src_bytes - taken:
            step = src_bytes - taken
        memcpy(buf.data + buf.tail, src + taken, step)
        buf.tail += <uint32_t>step
        taken += step
    chain.bytes += <uint32_t>taken
    return taken


cdef uint8_t *chain_reserve(Pool *pool, Chain *chain, uint32_t room_bytes) noexcept nogil:
    """Contiguous room of room_bytes (<= BLOCK_BYTES) at the end, counted as filled. Small control data, forced."""
    cdef Buf *buf = chain_last(chain)
    cdef uint8_t *place
    if buf == NULL or BLOCK_BYTES - buf.tail < room_bytes:
        buf = buf_get(pool, True)
        if buf == NULL:
            return NULL
        chain_push(chain, buf)
    place = buf.data + buf.tail
    buf.tail += room_bytes
    chain.bytes += room_bytes
    return place


cdef void chain_drop(Pool *pool, Chain *chain, size_t bytes) noexcept nogil:
    cdef Buf *buf
    cdef size_t step
    while bytes > 0 and chain.first != NULL:
        buf = chain.first
        step = buf.tail - buf.head
        if step > bytes:
            buf.head += <uint32_t>bytes
            chain.bytes -= <uint32_t>bytes
            return
        bytes -= step
        chain.bytes -= <uint32_t>step
        chain.first = buf.next
        if chain.first != NULL:
            chain.first.last = buf.last
        chain.blocks -= 1
        buf_put(pool, buf)


cdef void chain_clear(Pool *pool, Chain *chain) noexcept nogil:
    cdef Buf *buf
    while chain.first != NULL:
        buf = chain.first
        chain.first = buf.next
        buf_put(pool, buf)
    chain.bytes = 0
    chain.blocks = 0


cdef size_t chain_copy(const Chain *chain, uint8_t *dst, size_t dst_bytes) noexcept nogil:
    """Copy as much as fits, oldest first, without taking it."""
    cdef const Buf *buf = chain.first
    cdef size_t copied = 0
    cdef size_t step
    while buf != NULL and copied < dst_bytes:
        step = buf.tail - buf.head
        if step > dst_bytes - copied:
            step = dst_bytes - copied
        memcpy(dst + copied, buf.data + buf.head, step)
        copied += step
        buf = buf.next
    return copied


cdef int chain_iov(const Chain *chain, iovec *iov, int iov_count_max) noexcept nogil:
    cdef Buf *buf = chain.first
    cdef int count = 0
    while buf != NULL and count < iov_count_max:
        if buf.tail > buf.head:
            iov[count].iov_base = buf.data + buf.head
            iov[count].iov_len = buf.tail - buf.head
            count += 1
        buf = buf.next
    return count


cdef void slab_init(Slab *slab, size_t object_bytes) noexcept nogil:
    slab.free = NULL
    slab.chunks = NULL
    slab.object_bytes = (object_bytes + 15) & ~<size_t>15
    slab.live_count = 0


cdef void *slab_get(Slab *slab) noexcept nogil:
    cdef char *chunk
    cdef void *item
    cdef int i
    if SLAB_IS_HEAP:
        item = malloc(slab.object_bytes)
        if item == NULL:
            return NULL
    else:
        if slab.free == NULL:
            chunk = <char *>malloc(16 + slab.object_bytes * SLAB_CHUNK_OBJECTS)
            if chunk == NULL:
                return NULL
            (<void **>chunk)[0] = slab.chunks
            slab.chunks = chunk
            for i in range(SLAB_CHUNK_OBJECTS):
                item = chunk + 16 + i * slab.object_bytes
                (<void **>item)[0] = slab.free
                slab.free = item
        item = slab.free
        slab.free = (<void **>item)[0]
    slab.live_count += 1
    memset(item, 0, slab.object_bytes)
    return item


cdef void slab_put(Slab *slab, void *item) noexcept nogil:
    slab.live_count -= 1                # may wrap below zero: another worker may return an object; sums are right
    if SLAB_IS_HEAP:
        free(item)
        return
    (<void **>item)[0] = slab.free
    slab.free = item


cdef void slab_clear(Slab *slab) noexcept nogil:
    cdef void *chunk
    while slab.chunks != NULL:
        chunk = slab.chunks
        slab.chunks = (<void **>chunk)[0]
        free(chunk)
    slab.free = NULL
