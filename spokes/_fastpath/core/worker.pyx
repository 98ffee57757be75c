"""The worker thread: one epoll loop, and the commands it takes from Python and from other workers.

Owns: its loop and everything in it. Fails: worker_init with -errno; a running worker ends only by COMMAND_STOP.
"""
from libc.errno cimport ENOMEM
from libc.stdlib cimport free
from libc.string cimport memset

from spokes._fastpath.base.buf cimport pool_init, pool_kernel_excess, pool_trim
from spokes._fastpath.base.net cimport SOL_SOCKET, SO_ERROR, close, getsockopt, socklen_t
from spokes._fastpath.base.poller cimport (
    EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, POLL_EVENT_COUNT_MAX, epoll_event, poller_add,
    poller_wait,
)
from spokes._fastpath.base.ring cimport Msg, ring_clear_wake, ring_free, ring_init, ring_is_empty, ring_pop, ring_sleep
from spokes._fastpath.base.timer cimport wheel_run, wheel_wait_ms
from spokes._fastpath.base.types cimport RC_LOCAL, atomic_set, uint16_t, uint64_t, uint8_t
from spokes._fastpath.core.events cimport emit_pending, emit_upstream_fault, events_clear
from spokes._fastpath.core.handover cimport hand_over_all, take_conn, unpack
from spokes._fastpath.core.links cimport dial, dial_failed, links_close_all, links_free_ended, slot_find
from spokes._fastpath.core.listener cimport listener_add, listener_remove, listeners_resume
from spokes._fastpath.core.shared cimport (
    COMMAND_ABORT, COMMAND_BIND, COMMAND_CLOSE, COMMAND_CONNECT, COMMAND_CONTROL, COMMAND_DRAIN, COMMAND_LISTEN,
    COMMAND_PING, COMMAND_RELIEVE, COMMAND_RING_CAPACITY, COMMAND_STOP, COMMAND_SWEEP, COMMAND_TABLE, COMMAND_TAKE_CONN,
    COMMAND_TAKE_UDP, COMMAND_UNLISTEN, LinkSlot,
)
from spokes._fastpath.core.sweep cimport sweep, sweep_soon
from spokes._fastpath.flow.udp_listener cimport udp_take_over
from spokes._fastpath.flow.upstream cimport upstream_clear
from spokes._fastpath.io.conn cimport Conn, conn_close
from spokes._fastpath.io.conn_life cimport conn_new
from spokes._fastpath.io.conn_state cimport ROLE_LINK, ROLE_LISTENER, ROLE_WAKE, Loop
from spokes._fastpath.io.loop cimport (
    conn_mark_dirty, loop_clear, loop_clock, loop_free_deferred, loop_init, loop_settle,
)
from spokes._fastpath.link.link_end cimport link_bind, link_close_soon, link_fail
from spokes._fastpath.link.link_send cimport link_control, link_drain, link_probe
from spokes._fastpath.link.link_state cimport QUEUE_SLOTS, Link
from spokes._fastpath.link.stream_relief cimport link_relieve_kernel
from spokes._fastpath.route.route cimport RouteTable, route_table_release
from spokes._fastpath.route.tunnel cimport Tunnel

cdef enum:
    COMMAND_BATCH = 1024
    STARVED_WAIT_MS = 2
    GATHER_EVENT_COUNT_MIN = 2          # so many conns ready in one pass: more will be in the next
    GATHER_PASSES_MAX = 8               # that links wait for
    TRIM_BYTES = 16777216               # freed by bursts before the heap is asked to give it back …
    TRIM_INTERVAL_MS = 5000             # … and not more often: it walks the whole heap


cdef void relieve_kernel(Worker *worker) noexcept nogil:
    """A part of this worker's streams, then the control plane measures what has come of it."""
    cdef Loop *loop = &worker.loop
    cdef Conn *conn = loop.conns
    cdef uint64_t left = pool_kernel_excess(&loop.pool, loop.stats.streams_open)
    while conn != NULL and left > 0:    # a link's conn stays in this list whatever becomes of its streams'
        if conn.role == ROLE_LINK and conn.end.owner != NULL and not conn.closed:
            left -= link_relieve_kernel(<Link *>conn.end.owner, left)
        conn = conn.next


# --- commands ---------------------------------------------------------------------------------------------------------

cdef void command(Worker *worker, Msg *msg) noexcept nogil:
    cdef Loop *loop = &worker.loop
    cdef LinkSlot *slot
    if msg.kind == COMMAND_TAKE_CONN:
        take_conn(worker, <Conn *>msg.p)
    elif msg.kind == COMMAND_TAKE_UDP:
        udp_take_over(loop, <Conn *>msg.p)
    elif msg.kind == COMMAND_STOP:
        worker.stopping = 1
    elif msg.kind == COMMAND_TABLE:
        route_table_release(loop.routes)
        loop.routes = <RouteTable *>msg.p
        atomic_set(&worker.table_version, loop.routes.version)
    elif msg.kind == COMMAND_SWEEP:
        sweep_soon(worker)
    elif msg.kind == COMMAND_RELIEVE:
        relieve_kernel(worker)
    elif msg.kind == COMMAND_LISTEN:
        listener_add(worker, <int>msg.b, <uint8_t>msg.code, <uint16_t>msg.c, msg.a)
    elif msg.kind == COMMAND_UNLISTEN:
        listener_remove(worker, msg.a)
    elif msg.kind == COMMAND_CONNECT:
        dial(worker, <LinkSlot *>msg.p, <int>msg.b, msg.code)
    else:
        slot = slot_find(worker, msg.a)
        if slot == NULL:
            free(msg.p if msg.kind == COMMAND_CONTROL else NULL)
            return
        if slot.link == NULL:
            if msg.kind == COMMAND_CLOSE or msg.kind == COMMAND_ABORT:
                dial_failed(slot.conn, RC_LOCAL)
            elif msg.kind == COMMAND_CONTROL:
                free(msg.p)
            return
        if msg.kind == COMMAND_CONTROL:
            link_control(slot.link, <uint8_t>msg.code, <const uint8_t *>msg.p, msg.p_bytes)
            free(msg.p)
        elif msg.kind == COMMAND_BIND:
            link_bind(slot.link, <Tunnel *>msg.p)
        elif msg.kind == COMMAND_DRAIN:
            link_drain(slot.link)
        elif msg.kind == COMMAND_PING:
            link_probe(slot.link)
        elif msg.kind == COMMAND_CLOSE:
            link_close_soon(slot.link)
        elif msg.kind == COMMAND_ABORT:
            link_fail(slot.link, RC_LOCAL)


cdef void wake_ready(Conn *conn) noexcept nogil:
    conn.readable = 0
    ring_clear_wake(&(<Worker *>conn.loop).commands)


# --- the loop ---------------------------------------------------------------------------------------------------------

cdef void worker_configure(Worker *worker) noexcept nogil:
    cdef Shared *shared = worker.shared
    worker.loop.tunnel_stream_count_max = shared.tunnel_stream_count_max
    worker.loop.udp_idle_ms = shared.udp_idle_ms
    worker.loop.via = shared.via if shared.via_bytes else NULL
    worker.loop.via_bytes = shared.via_bytes


cdef int worker_init(Worker *worker, Shared *shared, uint32_t index) noexcept nogil:
    cdef int rc
    memset(worker, 0, sizeof(Worker))
    worker.shared = shared
    worker.commands.wake_fd = -1
    pool_init(&worker.loop.pool, &shared.budget)
    worker.loop.pages = shared.pages
    worker.loop.nodes = shared.nodes
    worker.loop.dialled = shared.dialled
    worker.loop.tunnel_visitors = shared.tunnel_visitors
    worker.loop.throttle = &shared.handshakes
    worker.loop.json_pages = shared.json_pages
    worker.loop.worker = worker
    rc = loop_init(&worker.loop, index)
    if rc < 0:
        return rc
    worker.accept_timer.fire = listeners_resume
    worker.accept_timer.owner = worker
    worker.sweep_timer.fire = sweep
    worker.sweep_timer.owner = worker
    worker.loop.upstream_fault = emit_upstream_fault
    rc = ring_init(&worker.commands, COMMAND_RING_CAPACITY)
    if rc < 0:
        return rc
    worker.wake = conn_new(&worker.loop, worker.commands.wake_fd, ROLE_WAKE, wake_ready)
    if worker.wake == NULL:
        return -ENOMEM
    return poller_add(worker.loop.epoll_fd, worker.wake.fd, EPOLLIN | EPOLLET, worker.wake)


cdef void revive_starved(Worker *worker) noexcept nogil:
    """Sources were not read for want of memory: give their links another slot."""
    cdef Conn *conn = worker.loop.conns
    worker.loop.starved = 0
    while conn != NULL:
        if conn.role == ROLE_LINK and conn.end.owner != NULL \
                and (<Link *>conn.end.owner).queues[QUEUE_SLOTS].first != NULL:
            conn_mark_dirty(conn)
        conn = conn.next


cdef void dispatch(Conn *conn, uint32_t events) noexcept nogil:
    cdef int error = 0
    cdef socklen_t n = sizeof(error)
    if conn.closed:
        return
    if events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
        conn.readable = 1
        if events & (EPOLLRDHUP | EPOLLHUP):
            conn.rdhup = 1
    if events & (EPOLLOUT | EPOLLHUP | EPOLLERR):
        conn.writable = 1
    if (events & EPOLLERR) and not conn.connecting and conn.role != ROLE_LISTENER and conn.role != ROLE_WAKE:
        if getsockopt(conn.fd, SOL_SOCKET, SO_ERROR, &error, &n) == 0 and error != 0 and conn.error == 0:
            conn.error = -error
            conn_mark_dirty(conn)
    conn.on_ready(conn)


cdef int worker_pass(Worker *worker, epoll_event *events, int timeout_ms) noexcept nogil:
    """How many conns were ready, or -errno."""
    cdef Loop *loop = &worker.loop
    cdef Msg msg
    cdef int _i, i, count
    if timeout_ms != 0:
        ring_sleep(&worker.commands)
        if not ring_is_empty(&worker.commands):
            timeout_ms = 0
    count = poller_wait(loop.epoll_fd, events, timeout_ms)
    atomic_set(&worker.commands.awake, 1)
    loop_clock(loop)
    loop.stats.passes_total += 1
    for _i in range(COMMAND_BATCH):
        if not ring_pop(&worker.commands, &msg):
            break
        command(worker, &msg)
    if loop.starved:
        revive_starved(worker)
    for i in range(count):
        dispatch(<Conn *>events[i].data.ptr, events[i].events)
    wheel_run(&loop.wheel, loop.now_ms)
    if loop.pool.freed_bytes >= TRIM_BYTES and loop.now_ms - worker.trimmed_ms >= TRIM_INTERVAL_MS:
        worker.trimmed_ms = loop.now_ms
        pool_trim(&loop.pool)
    return count


cdef void worker_close_all(Worker *worker) noexcept nogil:
    cdef Loop *loop = &worker.loop
    cdef Conn *conn
    cdef int i = 0
    loop.gathering = 0
    links_close_all(worker)
    while loop.conns != NULL:
        conn = loop.conns
        if conn.role == ROLE_WAKE:
            conn.fd = -1                # the ring closes it
        if conn.end.ops != NULL:
            conn.end.ops.gone(&conn.end, RC_LOCAL)
        if not conn.closed:
            conn_close(conn, False)
    while loop_settle(loop) and i < 64:
        i += 1
    loop_free_deferred(loop)
    links_free_ended(worker)


cdef void *worker_main(void *argument) noexcept nogil:
    cdef Worker *worker = <Worker *>argument
    cdef Loop *loop = &worker.loop
    cdef epoll_event events[POLL_EVENT_COUNT_MAX]
    cdef bint busy = False
    cdef int timeout_ms, count
    cdef int gathered = 0
    while not worker.stopping:
        timeout_ms = 0 if busy else wheel_wait_ms(&loop.wheel, loop.now_ms)
        if ((loop.starved or loop.handing != NULL or worker.pending_first != NULL)
                and (timeout_ms < 0 or timeout_ms > STARVED_WAIT_MS)):
            timeout_ms = STARVED_WAIT_MS
        count = worker_pass(worker, events, timeout_ms)
        loop.gathering = count >= GATHER_EVENT_COUNT_MIN and gathered < GATHER_PASSES_MAX
        gathered = gathered + 1 if loop.gathering else 0
        busy = loop_settle(loop)
        if loop.handing != NULL:
            hand_over_all(worker)
        if worker.pending_first != NULL:
            emit_pending(worker)
        if loop.deferred != NULL or loop.deferred_frees != NULL:
            loop_free_deferred(loop)
        if worker.ended != NULL:
            links_free_ended(worker)
    worker_close_all(worker)
    return NULL


cdef void worker_clear(Worker *worker) noexcept nogil:
    cdef Conn *conn
    cdef Msg msg
    while worker.commands.cells != NULL and ring_pop(&worker.commands, &msg):
        if msg.kind == COMMAND_CONTROL or msg.kind == COMMAND_CONNECT:
            if msg.kind == COMMAND_CONNECT:
                close(<int>msg.b)
            free(msg.p)
        elif msg.kind == COMMAND_TAKE_CONN or msg.kind == COMMAND_TAKE_UDP:
            conn = unpack(worker, <Conn *>msg.p)
            if conn != NULL and conn.end.ops != NULL:
                conn.end.ops.gone(&conn.end, RC_LOCAL)
            if conn != NULL:
                conn_close(conn, True)
        elif msg.kind == COMMAND_LISTEN:
            close(<int>msg.b)
        elif msg.kind == COMMAND_TABLE:
            route_table_release(<RouteTable *>msg.p)
    events_clear(worker)
    route_table_release(worker.loop.routes)
    worker.loop.routes = NULL
    loop_free_deferred(&worker.loop)
    upstream_clear(&worker.loop)
    ring_free(&worker.commands)
    loop_clear(&worker.loop)
