"""A worker's loop: its clock, tasks, conns with output, and objects that are freed when a pass is over."""
from libc.stdlib cimport free, malloc

from spokes._fastpath.base.buf cimport pool_clear, slab_clear, slab_init, slab_put
from spokes._fastpath.base.net cimport close
from spokes._fastpath.base.poller cimport poller_open
from spokes._fastpath.base.timer cimport wheel_init
from spokes._fastpath.base.types cimport RC_MEMORY, uint64_t, uint8_t
from spokes._fastpath.io.conn_state cimport CIPHER_BYTES, HEAD_BYTES, JOIN_BYTES, RX_BYTES

cdef extern from "time.h" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *out)
    int CLOCK_MONOTONIC
    int CLOCK_REALTIME_COARSE

cdef enum:
    SETTLE_ROUNDS = 16


cdef int loop_init(Loop *loop, uint32_t index) noexcept nogil:
    loop.index = index
    loop.rx = <uint8_t *>malloc(RX_BYTES)
    loop.cipher = <uint8_t *>malloc(CIPHER_BYTES)
    loop.tx = <uint8_t *>malloc(CIPHER_BYTES)
    loop.head = <uint8_t *>malloc(HEAD_BYTES)
    loop.join = <uint8_t *>malloc(JOIN_BYTES)
    if loop.rx == NULL or loop.cipher == NULL or loop.tx == NULL or loop.head == NULL or loop.join == NULL:
        return RC_MEMORY
    loop_clock(loop)
    wheel_init(&loop.wheel, loop.now_ms)
    slab_init(&loop.conns_slab, sizeof(Conn))
    loop.epoll_fd = poller_open()
    return loop.epoll_fd if loop.epoll_fd < 0 else 0


cdef void loop_clear(Loop *loop) noexcept nogil:
    free(loop.rx)
    free(loop.cipher)
    free(loop.tx)
    free(loop.head)
    free(loop.join)
    slab_clear(&loop.conns_slab)
    slab_clear(&loop.streams_slab)
    slab_clear(&loop.exchanges_slab)
    slab_clear(&loop.flows_slab)
    pool_clear(&loop.pool)
    if loop.epoll_fd > 0:
        close(loop.epoll_fd)


cdef void loop_clock(Loop *loop) noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    loop.now_us = <uint64_t>now.tv_sec * 1000000 + now.tv_nsec // 1000
    loop.now_ms = loop.now_us // 1000
    clock_gettime(CLOCK_REALTIME_COARSE, &now)
    loop.wall_ms = <uint64_t>now.tv_sec * 1000 + now.tv_nsec // 1000000


cdef void loop_task(Loop *loop, Task *task) noexcept nogil:
    if task.queued:
        return
    task.queued = 1
    task.next = NULL
    if loop.tasks_last == NULL:
        loop.tasks_first = task
    else:
        loop.tasks_last.next = task
    loop.tasks_last = task


cdef bint loop_settle(Loop *loop) noexcept nogil:
    cdef Task *task
    cdef Task *tasks
    cdef Conn *conn
    cdef Conn *dirty
    cdef int rounds = 0
    while loop.held != NULL:
        conn = loop.held
        loop.held = conn.next_dirty
        conn.next_dirty = loop.dirty
        loop.dirty = conn
    while (loop.tasks_first != NULL or loop.dirty != NULL) and rounds < SETTLE_ROUNDS:
        rounds += 1
        # Both lists are taken whole: what is added meanwhile waits for the next round, so none can starve the other.
        tasks = loop.tasks_first
        loop.tasks_first = loop.tasks_last = NULL
        while tasks != NULL:
            task = tasks
            tasks = task.next
            task.queued = 0
            task.run(task.owner)
        dirty = loop.dirty
        loop.dirty = NULL
        while dirty != NULL:
            conn = dirty
            dirty = conn.next_dirty
            conn.dirty = 0
            if conn.closed:
                continue
            conn.on_flush(conn)
    return loop.tasks_first != NULL or loop.dirty != NULL or loop.held != NULL


cdef void loop_hold(Conn *conn) noexcept nogil:
    if conn.dirty or conn.closed:
        return
    conn.dirty = 1
    conn.next_dirty = conn.loop.held
    conn.loop.held = conn


cdef void loop_defer_free(Loop *loop, DeferredFree *deferred, Slab *slab, void *item) noexcept nogil:
    deferred.slab = slab
    deferred.item = item
    deferred.next = loop.deferred_frees
    loop.deferred_frees = deferred


cdef void loop_free_deferred(Loop *loop) noexcept nogil:
    cdef Conn *conn = loop.deferred
    cdef DeferredFree *deferred
    while loop.deferred_frees != NULL:
        deferred = loop.deferred_frees
        loop.deferred_frees = deferred.next
        slab_put(deferred.slab, deferred.item)
    cdef Conn *kept = NULL
    while conn != NULL:
        loop.deferred = conn.next_deferred
        if conn.dirty:                  # still in the list of the next round
            conn.next_deferred = kept
            kept = conn
        else:
            slab_put(&loop.conns_slab, conn)
        conn = loop.deferred
    loop.deferred = kept


cdef void conn_list(Conn *conn) noexcept nogil:
    cdef Loop *loop = conn.loop
    conn.prev = NULL
    conn.next = loop.conns
    if loop.conns != NULL:
        loop.conns.prev = conn
    loop.conns = conn
    conn.listed = 1
    loop.stats.conns_open += 1


cdef void conn_unlist(Conn *conn) noexcept nogil:
    if not conn.listed:
        return
    if conn.prev != NULL:
        conn.prev.next = conn.next
    else:
        conn.loop.conns = conn.next
    if conn.next != NULL:
        conn.next.prev = conn.prev
    conn.next = conn.prev = NULL
    conn.listed = 0
    conn.loop.stats.conns_open -= 1


cdef void conn_mark_dirty(Conn *conn) noexcept nogil:
    if conn.dirty or conn.closed:
        return
    conn.dirty = 1
    conn.next_dirty = conn.loop.dirty
    conn.loop.dirty = conn
