# A worker's loop: its clock, tasks, conns with output, and objects that are freed when a pass is over.
from spokes._fastpath.base.buf cimport Slab
from spokes._fastpath.base.types cimport uint32_t
from spokes._fastpath.io.conn_state cimport Conn, Loop, DeferredFree, Task

cdef int loop_init(Loop *loop, uint32_t index) noexcept nogil       # pool is set by the caller; 0 or < 0
cdef void loop_clear(Loop *loop) noexcept nogil
cdef void loop_clock(Loop *loop) noexcept nogil
cdef void loop_task(Loop *loop, Task *task) noexcept nogil
cdef bint loop_settle(Loop *loop) noexcept nogil                    # run tasks and flush, bounded; True = more is left
cdef void loop_hold(Conn *conn) noexcept nogil                      # from on_flush: flush it again in the next pass
cdef void loop_defer_free(Loop *loop, DeferredFree *deferred, Slab *slab, void *item) noexcept nogil
cdef void loop_free_deferred(Loop *loop) noexcept nogil
cdef void conn_list(Conn *conn) noexcept nogil
cdef void conn_unlist(Conn *conn) noexcept nogil
cdef void conn_mark_dirty(Conn *conn) noexcept nogil
