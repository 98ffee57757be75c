"""Conns: non-blocking reads and writes over a socket, plain or TLS, and the loop state they share.

Owns: the fd, the TLS state, bytes received and not taken (end.rx), bytes to be sent (out).
Bound: out at CONN_OUT_BYTES_MAX (links: see mux); rx at one scratch buffer. Idle conns hold no block.
Fails: a failed system call is remembered in conn.error and told once, by ops.gone, from the flush that ends the pass.
"""
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from spokes._fastpath.base.buf cimport (
    BLOCK_BYTES, Budget, Buf, chain_append, chain_clear, chain_copy, chain_drop, chain_iov, iovec, pool_clear,
    pool_is_half_used, slab_clear, slab_get, slab_init, slab_put,
)
from spokes._fastpath.base.net cimport (
    AF_INET, AF_INET6, IPPROTO_TCP, MSG_NOSIGNAL, SHUT_WR, SO_KEEPALIVE, SO_LINGER, SO_RCVBUF, SO_SNDBUF, SOL_SOCKET,
    TCP_MAXSEG, TCP_NODELAY, close, getsockopt, ntohs, recv, send, setsockopt, shutdown, sockaddr_in, sockaddr_in6,
)
from spokes._fastpath.base.poller cimport EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, poller_add, poller_open, poller_remove
from spokes._fastpath.base.reason cimport REASON_NO_SERVICE
from spokes._fastpath.base.timer cimport timer_clear, timer_set, wheel_init
from spokes._fastpath.base.types cimport RC_EOF, RC_MEMORY, RC_TLS, atomic_add, atomic_get, atomic_sub
from spokes._fastpath.tls.tls cimport (
    TLS_RECORD_BYTES_MAX, tls_free, tls_handshake, tls_has_pending, tls_read, tls_shutdown, tls_write,
)

cdef extern from "time.h" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *out)
    int CLOCK_MONOTONIC
    int CLOCK_REALTIME_COARSE

cdef extern from "sys/socket.h" nogil:
    cdef struct msghdr:
        void *msg_name
        unsigned int msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
    cdef struct linger_t "linger":
        int l_onoff
        int l_linger
    ssize_t sendmsg(int fd, const msghdr *msg, int flags)
    int MSG_EOR

cdef extern from "netinet/tcp.h" nogil:
    int TCP_KEEPIDLE
    int TCP_KEEPINTVL
    int TCP_KEEPCNT
    int TCP_NOTSENT_LOWAT
    int TCP_CONGESTION
    int TCP_INFO
    cdef struct tcp_info:
        uint32_t tcpi_rtt

cdef extern from "arpa/inet.h" nogil:
    const char *inet_ntop(int family, const void *src, char *dst, unsigned int n)

cdef extern from "string.h" nogil:
    size_t strlen(const char *text)

cdef enum:
    IOV_COUNT = 20                      # blocks sent by one call
    LINGER_MS = 2000                    # from our FIN, and for a visitor from its last byte, to the peer's end …
    LINGER_IDLE_MS = 60000              # a peer that takes nothing of what waits before our FIN
    LINGER_VISITOR_MS = 30000           # … or, of a visitor whose request has not ended, from our FIN: it may read last
    LINGER_BYTES_MAX = 8388608          # read and dropped, of any peer: what may have been on its way
    LINGER_READS_MAX = 32               # 8 MiB: what a kernel may hold with its end, for which there is no second edge
    FINISH_IDLE_MS = 30000              # for the last bytes of a flow that has ended
    SETTLE_ROUNDS = 16
    VISITOR_UNSENT_BYTES = 131072       # of a visitor that reads …
    VISITOR_UNSENT_BYTES_START = 32768  # … and of one that has not shown yet that it does
    LOCAL_FREE_COUNT = 8                # conns of a worker to services, see tune_local_upstream: as the kernel likes …
    LOCAL_FEW_COUNT = 32                # … or of segments that are half as large …
    LOCAL_CROWD_COUNT = 256             # … and a crowd
    LOCAL_SEGMENT_BYTES_FEW = 31700     # with the kernel's own parts just less than 32 KiB …
    LOCAL_SEGMENT_BYTES_MANY = 7500     # … than 8 KiB …
    LOCAL_SEGMENT_BYTES_CROWD = 1400    # … and 2 KiB, the sizes that it takes
    LOCAL_RECEIVE_BYTES = 16384         # in a crowd; the kernel takes it twice …
    LOCAL_RECEIVE_BYTES_PROVEN = 4194304    # … and of this as much as rmem_max allows
    SEND_BYTES_FREE = 4194304           # before the kernel may choose again
    TCP_INFO_BYTES = 232                # linux/tcp.h's struct tcp_info, of which libc's is an older one:
    TCP_INFO_RTT = 68                   # … where its fields lie, a part of the kernel's ABI
    TCP_INFO_BYTES_ACKED = 120
    TCP_INFO_MIN_RTT = 148
    SO_BUF_LOCK = 72                    # asm-generic/socket.h since 5.15; the C library's headers may be older
    HOLDER_LARGE_PARTS = 64             # an address that holds more than this part of the limit is given less room
    SHORT_PATH_US = 2000                # round trip of a path without wide-area loss
    TCP_RTO_MAX_MS = 44                 # linux/tcp.h of 6.15; the C library's headers may be older
    RETRY_WAIT_MS_MAX = 1900


cdef uint64_t HOLDER_BYTES = (<uint64_t>1 << 44) - 1         # of a holder's number; above them mux counts its streams


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
            if conn.on_flush != NULL:
                conn.on_flush(conn)
            else:
                conn_flush(conn)
    return loop.tasks_first != NULL or loop.dirty != NULL or loop.held != NULL


cdef void loop_hold(Conn *conn) noexcept nogil:
    if conn.dirty or conn.closed:
        return
    conn.dirty = 1
    conn.next_dirty = conn.loop.held
    conn.loop.held = conn


cdef void loop_park(Loop *loop, Parked *parked, Slab *slab, void *item) noexcept nogil:
    parked.slab = slab
    parked.item = item
    parked.next = loop.parked_items
    loop.parked_items = parked


cdef void loop_free_parked(Loop *loop) noexcept nogil:
    cdef Conn *conn = loop.parked
    cdef Parked *parked
    while loop.parked_items != NULL:
        parked = loop.parked_items
        loop.parked_items = parked.next
        slab_put(parked.slab, parked.item)
    cdef Conn *kept = NULL
    while conn != NULL:
        loop.parked = conn.next_parked
        if conn.dirty:                  # still in the list of the next round
            conn.next_parked = kept
            kept = conn
        else:
            slab_put(&loop.conns_slab, conn)
        conn = loop.parked
    loop.parked = kept


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


cdef Conn *conn_new(Loop *loop, int fd, uint8_t role, conn_fn on_ready) noexcept nogil:
    cdef Conn *conn = <Conn *>slab_get(&loop.conns_slab)
    if conn == NULL:
        return NULL
    conn.end.kind = &conn_kind
    conn.fd = fd
    conn.role = role
    conn.on_ready = on_ready
    conn.loop = loop
    conn.writable = 1
    if role == ROLE_VISITOR:
        conn.unproven_bytes = PROOF_BYTES
    conn_list(conn)
    return conn


cdef int conn_watch(Conn *conn) noexcept nogil:
    return poller_add(conn.loop.epoll_fd, conn.fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, conn)


cdef Conn *conn_detach(Conn *conn) noexcept nogil:
    cdef Loop *loop = conn.loop
    cdef Conn *copy = <Conn *>malloc(sizeof(Conn))
    if copy == NULL:
        return NULL
    poller_remove(loop.epoll_fd, conn.fd)
    timer_clear(&loop.wheel, &conn.timer)
    conn_unlist(conn)
    memcpy(copy, conn, sizeof(Conn))
    copy.loop = NULL
    copy.worker_next = 0
    copy.next_parked = NULL
    conn.closed = 1
    conn.next_parked = loop.parked
    loop.parked = conn
    return copy


cdef Conn *conn_attach(Conn *copy, Loop *loop) noexcept nogil:
    cdef Conn *conn = <Conn *>slab_get(&loop.conns_slab)
    if conn == NULL:
        return NULL
    memcpy(conn, copy, sizeof(Conn))
    free(copy)
    conn.loop = loop
    conn.readable = conn.writable = 1   # the new epoll tells again, but what is ready now need not wait for it
    conn_list(conn)
    return conn


cdef bint conn_hand_over(Conn *conn, uint64_t worker_mask, uint64_t *workers_tried) noexcept nogil:
    cdef uint32_t i
    if conn.worker_next or conn.closed:
        return True
    workers_tried[0] |= <uint64_t>1 << conn.loop.index
    for i in range(64):
        if worker_mask & ~workers_tried[0] & (<uint64_t>1 << i):
            conn.worker_next = <uint8_t>(i + 1)
            conn.next_parked = conn.loop.handing
            conn.loop.handing = conn
            return True
    workers_tried[0] = 0
    return False


cdef int conn_start_tls(Conn *conn, SSL *ssl) noexcept nogil:
    conn.tls = <TlsState *>calloc(1, sizeof(TlsState))
    if conn.tls == NULL:
        tls_free(ssl)
        return RC_MEMORY
    conn.tls.ssl = ssl
    conn.tls.handshaking = 1
    conn.tls.rx = conn.end.rx
    memset(&conn.end.rx, 0, sizeof(conn.end.rx))
    return 0


cdef void conn_fail(Conn *conn, int rc) noexcept nogil:
    if conn.error == 0:
        conn.error = rc
    conn.writable = 0
    conn.readable = 1                   # so that its reader looks and finds the error
    conn_mark_dirty(conn)


cdef void conn_prove(Conn *conn, size_t bytes) noexcept nogil:
    cdef int any_size = 0
    cdef int receive_bytes = LOCAL_RECEIVE_BYTES_PROVEN
    if bytes < conn.unproven_bytes:
        conn.unproven_bytes -= <uint32_t>bytes
        return
    conn.unproven_bytes = 0
    if conn.role == ROLE_VISITOR:
        tune_unsent(conn.fd, VISITOR_UNSENT_BYTES)
    elif conn.role == ROLE_UPSTREAM:
        # By itself it would not grow where the kernel has given out a part of its memory (tcp_mem's first number).
        setsockopt(conn.fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes))
        setsockopt(conn.fd, SOL_SOCKET, SO_BUF_LOCK, &any_size, sizeof(any_size))


cdef inline void conn_sent(Conn *conn, ssize_t bytes) noexcept nogil:
    if conn.unproven_bytes > 0 and bytes > 0 and conn.role == ROLE_VISITOR:
        conn_prove(conn, bytes)


cdef ssize_t conn_recv_raw(Conn *conn, uint8_t *dst, size_t dst_bytes) noexcept nogil:
    cdef ssize_t n
    while True:
        n = recv(conn.fd, dst, dst_bytes, 0)
        if n > 0:
            # A short read has emptied the socket; the next byte is a new edge. After RDHUP the EOF is still to be read.
            if <size_t>n < dst_bytes and not conn.rdhup:
                conn.readable = 0
            if conn.unproven_bytes > 0 and conn.role == ROLE_UPSTREAM:
                conn_prove(conn, n)
            return n
        if n == 0:
            conn.readable = 0
            return RC_EOF
        if errno == EAGAIN:
            conn.readable = 0
            return 0
        if errno != EINTR:
            conn.readable = 0
            return -errno


cdef inline int send_flags(const Conn *conn) noexcept nogil:
    """On a slow link every write is a piece of its own to the kernel: what it may append to another one, up to 64 KiB,
    it takes whatever TCP_NOTSENT_LOWAT says."""
    return MSG_NOSIGNAL | MSG_EOR if conn.on_slow_line else MSG_NOSIGNAL


cdef void conn_send_cipher(Conn *conn, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef ssize_t n
    if src_bytes == 0:
        return
    if conn.tls.tx.bytes == 0 and conn.writable and not conn.connecting:
        n = send(conn.fd, src, src_bytes, send_flags(conn))
        if n < 0:
            if errno != EAGAIN and errno != EINTR:
                conn_fail(conn, -errno)
                return
            n = 0
        if <size_t>n < src_bytes:
            conn.writable = 0
        conn_sent(conn, n)
        src += n
        src_bytes -= n
    if src_bytes > 0:
        chain_append(&conn.loop.pool, &conn.tls.tx, src, src_bytes, True)


cdef void conn_io_begin(Conn *conn) noexcept nogil:
    cdef Loop *loop = conn.loop
    loop.io.tx = loop.tx
    loop.io.tx_size = CIPHER_BYTES
    loop.io.tx_bytes = 0
    loop.io.rx = loop.cipher
    loop.io.rx_bytes = loop.io.rx_taken = 0


cdef int conn_fill_cipher(Conn *conn) noexcept nogil:
    """Ciphertext into loop.cipher: what was left over, then one read. 0, RC_EOF or -errno (bytes count first)."""
    cdef Loop *loop = conn.loop
    cdef TlsState *tls = conn.tls
    cdef ssize_t n = 0
    if tls.rx.bytes > 0:
        loop.io.rx_bytes = chain_copy(&tls.rx, loop.cipher, CIPHER_BYTES)
        chain_drop(&loop.pool, &tls.rx, loop.io.rx_bytes)
    if conn.readable and loop.io.rx_bytes < CIPHER_BYTES - TLS_RECORD_BYTES_MAX:
        n = conn_recv_raw(conn, loop.cipher + loop.io.rx_bytes,
                          RX_BYTES if loop.io.rx_bytes == 0 else CIPHER_BYTES - loop.io.rx_bytes)
        if n > 0:
            loop.io.rx_bytes += n
            n = 0
    return <int>n


cdef void conn_keep_cipher(Conn *conn) noexcept nogil:
    cdef Loop *loop = conn.loop
    if loop.io.rx_taken < loop.io.rx_bytes:
        chain_append(&loop.pool, &conn.tls.rx, loop.cipher + loop.io.rx_taken, loop.io.rx_bytes - loop.io.rx_taken,
                     True)
    conn_send_cipher(conn, loop.tx, loop.io.tx_bytes)


cdef int conn_handshake(Conn *conn) noexcept nogil:
    cdef int rc, fill
    while True:
        conn_io_begin(conn)
        fill = conn_fill_cipher(conn)
        rc = tls_handshake(conn.tls.ssl, &conn.loop.io)
        conn_keep_cipher(conn)
        if rc > 0:
            conn.tls.handshaking = 0
            if conn.tls.rx.bytes > 0:
                conn.readable = 1
            return 1
        if rc < 0:
            return rc
        if fill < 0:
            return fill
        if conn.error < 0:
            return conn.error
        if not conn.readable:
            return 0


cdef ssize_t conn_recv_tls(Conn *conn, uint8_t *dst, size_t dst_bytes) noexcept nogil:
    cdef size_t total = 0
    cdef ssize_t n = 0
    cdef int fill
    cdef Loop *loop = conn.loop
    while True:
        conn_io_begin(conn)
        fill = conn_fill_cipher(conn)
        while total < dst_bytes:
            n = tls_read(conn.tls.ssl, &loop.io, dst + total, dst_bytes - total)
            if n <= 0:
                break
            total += n
        conn_keep_cipher(conn)
        if total > 0:
            # Bytes may wait inside libssl or in tls.rx, and a fault found now is told by the next call.
            if conn.tls.rx.bytes > 0 or fill < 0 or n < 0 or tls_has_pending(conn.tls.ssl):
                conn.readable = 1
            return total
        if n < 0:
            return n
        if fill < 0:
            return fill
        if not conn.readable:
            return 0


cdef ssize_t conn_recv(Conn *conn, uint8_t *dst, size_t dst_bytes) noexcept nogil:
    cdef ssize_t n
    if conn.error < 0:
        conn.readable = 0
        return conn.error
    if conn.tls != NULL:
        n = conn_recv_tls(conn, dst, dst_bytes)
    else:
        n = conn_recv_raw(conn, dst, dst_bytes)
    if n > 0 and conn.role == ROLE_VISITOR:
        conn.loop.stats.bytes_in += n
    return n


cdef void conn_count(Conn *conn) noexcept nogil:
    """Differences add up to what an address holds; they wrap, their sum does not."""
    cdef uint32_t blocks
    if conn.holder == NULL:
        return
    blocks = conn.out.blocks + conn.end.rx.blocks
    if conn.tls != NULL:
        blocks += conn.tls.rx.blocks + conn.tls.tx.blocks
    if blocks != conn.held_blocks:
        atomic_add(conn.holder, (<uint64_t>blocks - conn.held_blocks) * BLOCK_BYTES)
        conn.held_blocks = blocks


cdef void conn_hold(Conn *conn, uint64_t *holder) noexcept nogil:
    if conn.holder != NULL:
        atomic_sub(conn.holder, <uint64_t>conn.held_blocks * BLOCK_BYTES)
    conn.held_blocks = 0
    conn.holder = holder
    conn_count(conn)


cdef size_t conn_room(Conn *conn) noexcept nogil:
    """Where memory is short, or its address holds much already, a conn lets one block wait."""
    cdef const Budget *budget = conn.loop.pool.budget
    cdef size_t room = CONN_OUT_BYTES_MAX
    if conn.holder != NULL:
        if atomic_get(conn.holder) & HOLDER_BYTES > budget.limit_bytes // HOLDER_LARGE_PARTS:
            room = BLOCK_BYTES
    elif pool_is_half_used(&conn.loop.pool):
        room = BLOCK_BYTES
    if conn.out.bytes >= room:
        return 0
    return room - conn.out.bytes


cdef void conn_mark_dirty(Conn *conn) noexcept nogil:
    if conn.dirty or conn.closed:
        return
    conn.dirty = 1
    conn.next_dirty = conn.loop.dirty
    conn.loop.dirty = conn


cdef ssize_t conn_send_chain(Conn *conn, Chain *chain, const uint8_t *more, size_t more_bytes) noexcept nogil:
    """One sendmsg of the chain and then `more`; what went out is dropped. Bytes of `more` sent, -1: failed."""
    cdef iovec iov[IOV_COUNT + 1]
    cdef msghdr msg
    cdef ssize_t n
    cdef size_t total = 0
    cdef size_t queued = chain.bytes
    cdef int i
    cdef int count = chain_iov(chain, iov, IOV_COUNT)
    for i in range(count):
        total += iov[i].iov_len
    if more_bytes > 0 and total == queued:
        iov[count].iov_base = <void *>more
        iov[count].iov_len = more_bytes
        total += more_bytes
        count += 1
    if count == 1:                      # the common case, and the cheaper call
        n = send(conn.fd, iov[0].iov_base, total, send_flags(conn))
    else:
        memset(&msg, 0, sizeof(msg))
        msg.msg_iov = iov
        msg.msg_iovlen = count
        n = sendmsg(conn.fd, &msg, send_flags(conn))
    if n < 0:
        if errno == EAGAIN or errno == EINTR:
            conn.writable = 0
            return 0
        conn_fail(conn, -errno)
        return -1
    if <size_t>n < total:
        conn.writable = 0
    conn_sent(conn, n)
    if <size_t>n <= queued:
        chain_drop(&conn.loop.pool, chain, n)
        return 0
    chain_drop(&conn.loop.pool, chain, queued)
    return n - queued


cdef void conn_write(Conn *conn, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef ssize_t n = 0
    if conn.closed or conn.error < 0 or src_bytes == 0:
        return
    if conn.role == ROLE_VISITOR:
        conn.loop.stats.bytes_out += src_bytes
    if src_bytes >= CONN_DIRECT_BYTES and conn.writable and not conn.connecting and conn.tls == NULL:
        if conn.out.bytes == 0:
            n = send(conn.fd, src, src_bytes, MSG_NOSIGNAL)
            if n < 0:
                if errno != EAGAIN and errno != EINTR:
                    conn_fail(conn, -errno)
                    return
                n = 0
            if <size_t>n < src_bytes:
                conn.writable = 0
            conn_sent(conn, n)
        else:
            n = conn_send_chain(conn, &conn.out, src, src_bytes)
            if n < 0:
                return
        src += n
        src_bytes -= n
        if src_bytes == 0 and not conn.end.wants_room:
            return
    chain_append(&conn.loop.pool, &conn.out, src, src_bytes, True)
    conn_count(conn)
    if conn.writable or conn.end.wants_room:
        conn_mark_dirty(conn)


cdef bint conn_takes_now(Conn *conn) noexcept nogil:
    return conn.writable and not conn.connecting and conn.tls == NULL and conn.error == 0 and not conn.closed


cdef size_t conn_send_now(Conn *conn, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef ssize_t n = conn_send_chain(conn, &conn.out, src, src_bytes)
    if n <= 0:
        return 0
    if conn.role == ROLE_VISITOR:
        conn.loop.stats.bytes_out += n
    return n


cdef size_t conn_send_from(Conn *conn, Chain *chain) noexcept nogil:
    cdef size_t before
    if conn.out.bytes > 0:
        conn_send_chain(conn, &conn.out, NULL, 0)
        if conn.out.bytes > 0 or not conn.writable:
            return 0
    before = chain.bytes
    conn_send_chain(conn, chain, NULL, 0)
    if conn.role == ROLE_VISITOR:
        conn.loop.stats.bytes_out += before - chain.bytes
    return before - chain.bytes


cdef void conn_encrypt(Conn *conn) noexcept nogil:
    """Turn out into records and send them, until everything is sent or the socket takes no more."""
    cdef Loop *loop = conn.loop
    cdef TlsState *tls = conn.tls
    cdef Buf *buf
    cdef ssize_t n
    cdef size_t left
    while conn.writable and conn.error == 0:
        if tls.tx.bytes > 0:
            conn_send_chain(conn, &tls.tx, NULL, 0)
            continue
        if conn.out.bytes == 0:
            return
        conn_io_begin(conn)
        while conn.out.bytes > 0:
            buf = conn.out.first
            left = buf.tail - buf.head
            n = tls_write(tls.ssl, &loop.io, buf.data + buf.head, left)
            if n <= 0:
                if n < 0:
                    conn_fail(conn, RC_TLS)
                    return
                break
            chain_drop(&loop.pool, &conn.out, n)
        conn_send_cipher(conn, loop.tx, loop.io.tx_bytes)


cdef void conn_flush(Conn *conn) noexcept nogil:
    cdef End *end = &conn.end
    if conn.closed:
        return
    if not conn.connecting and conn.error == 0:
        if conn.tls != NULL:
            if not conn.tls.handshaking:
                conn_encrypt(conn)
            elif conn.tls.tx.bytes > 0 and conn.writable:
                conn_send_chain(conn, &conn.tls.tx, NULL, 0)
        else:
            while conn.out.bytes > 0 and conn.writable:
                if conn_send_chain(conn, &conn.out, NULL, 0) < 0:
                    break
        conn_count(conn)
    if conn.error < 0:
        if end.ops != NULL:
            end.ops.gone(end, conn.error)
        elif conn.close_when_flushed:
            conn_close(conn, True)
        return
    if conn.out.bytes == 0 and (conn.tls == NULL or conn.tls.tx.bytes == 0) and not conn.connecting:
        if end.fin and not conn.fin_sent:
            conn.fin_sent = 1
            if conn.tls != NULL and not conn.tls.handshaking:
                conn_io_begin(conn)
                tls_shutdown(conn.tls.ssl, &conn.loop.io)
                conn_send_cipher(conn, conn.loop.tx, conn.loop.io.tx_bytes)
            shutdown(conn.fd, SHUT_WR)
        if conn.close_when_flushed:
            conn_close(conn, False)
            return
    if end.wants_room and end.ops != NULL and conn.out.bytes * 2 <= CONN_OUT_BYTES_MAX:
        end.wants_room = 0
        end.ops.room(end)


cdef void conn_fin(Conn *conn) noexcept nogil:
    if conn.end.fin or conn.closed:
        return
    conn.end.fin = 1
    conn_mark_dirty(conn)


cdef void conn_close(Conn *conn, bint abort) noexcept nogil:
    cdef linger_t linger
    cdef Loop *loop = conn.loop
    if conn.closed:
        return
    conn.closed = 1
    conn.end.closed = 1
    conn.end.ops = NULL
    timer_clear(&loop.wheel, &conn.timer)
    chain_clear(&loop.pool, &conn.out)
    chain_clear(&loop.pool, &conn.end.rx)
    if conn.tls != NULL:
        if not abort and not conn.fin_sent and not conn.tls.handshaking and conn.writable and conn.error == 0:
            conn_io_begin(conn)
            tls_shutdown(conn.tls.ssl, &loop.io)
            send(conn.fd, loop.tx, loop.io.tx_bytes, MSG_NOSIGNAL)
        chain_clear(&loop.pool, &conn.tls.rx)
        chain_clear(&loop.pool, &conn.tls.tx)
        tls_free(conn.tls.ssl)
        free(conn.tls)
        conn.tls = NULL
    if abort:
        linger.l_onoff = 1
        linger.l_linger = 0
        setsockopt(conn.fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger))
    conn_hold(conn, NULL)
    close(conn.fd)
    conn.fd = -1
    conn_unlist(conn)
    if conn.role == ROLE_VISITOR:
        loop.stats.visitors_open -= 1
    if conn.on_close != NULL:
        conn.on_close(conn)
    if conn.worker_next:                # in loop.handing: parked when that list is walked
        return
    conn.next_parked = loop.parked
    loop.parked = conn


cdef void linger_deadline(Conn *conn) noexcept nogil:
    """A visitor's answer may be lost as long as it sends: the kernel would meet what comes with RST. One whose request
    has not ended has the whole time, however it pauses; of another nothing is awaited but its end."""
    cdef uint64_t now_ms = conn.loop.now_ms
    cdef uint64_t due_ms = now_ms + LINGER_IDLE_MS
    if conn.fin_sent:
        if conn.span.linger_end_ms == 0:
            conn.span.linger_end_ms = now_ms + (LINGER_VISITOR_MS if conn.role == ROLE_VISITOR else LINGER_MS)
        due_ms = conn.span.linger_end_ms if conn.is_mid_request else now_ms + LINGER_MS
    if conn.span.linger_end_ms > 0 and due_ms > conn.span.linger_end_ms:
        due_ms = conn.span.linger_end_ms
    timer_set(&conn.loop.wheel, &conn.timer, due_ms)


cdef inline size_t conn_unsent(const Conn *conn) noexcept nogil:
    return conn.out.bytes + (<size_t>conn.tls.tx.bytes if conn.tls != NULL else 0)


cdef void linger_flush(Conn *conn) noexcept nogil:
    cdef size_t before = conn_unsent(conn)
    cdef bint fin_sent = conn.fin_sent
    conn_flush(conn)
    if conn.closed:
        return
    if conn.error < 0:
        conn_close(conn, True)
        return
    if conn.fin_sent != fin_sent or before != conn_unsent(conn) or conn.timer.prev == NULL:
        linger_deadline(conn)


cdef void linger_ready(Conn *conn) noexcept nogil:
    """What comes is dropped, within a bound for every conn that closes, whoever ended it."""
    cdef uint64_t bytes_max = LINGER_VISITOR_BYTES_MAX if conn.role == ROLE_VISITOR else LINGER_BYTES_MAX
    cdef ssize_t n
    cdef int _i
    if not conn.fin_sent and conn.writable:
        linger_flush(conn)
        if conn.closed:
            return
    for _i in range(LINGER_READS_MAX):
        if not conn.readable or conn.end.eof:
            return
        if conn.linger_bytes >= bytes_max:
            if conn.fin_sent:
                conn_close(conn, True)
            return                      # the kernel holds back the rest while what waits goes out
        n = conn_recv_raw(conn, conn.loop.rx, RX_BYTES)
        if n > 0:
            conn.linger_bytes += <uint32_t>n
            if conn.fin_sent and conn.role == ROLE_VISITOR:
                linger_deadline(conn)
        if n == RC_EOF:
            conn.end.eof = EOF_SEEN
            conn.close_when_flushed = 1
            if conn.fin_sent:
                conn_close(conn, False)
            return
        if n < 0:
            conn_close(conn, True)
            return


cdef void linger_expired(void *owner) noexcept nogil:
    conn_close(<Conn *>owner, not (<Conn *>owner).fin_sent)


cdef void conn_linger(Conn *conn) noexcept nogil:
    """RFC 9112 section 9.6: closing with unread input would reset the conn and destroy the answer on its way.

    What waits may take its time as long as some of it goes out; then the peer's end is awaited, if it is still due."""
    if conn.closed:
        return
    if conn.role != ROLE_LINK and conn.on_ready != linger_ready:
        conn.span.linger_end_ms = 0     # of a link it may be set already
    conn.end.ops = NULL
    conn.end.wants_room = 0
    conn.on_ready = linger_ready
    conn.on_flush = linger_flush
    timer_clear(&conn.loop.wheel, &conn.timer)
    conn.timer.fire = linger_expired
    conn.timer.owner = conn
    chain_clear(&conn.loop.pool, &conn.end.rx)
    conn.end.fin = 1
    conn.close_when_flushed = conn.end.eof
    linger_flush(conn)


cdef void conn_alert(Conn *conn, uint8_t description) noexcept nogil:
    cdef uint8_t alert[7]
    memcpy(alert, b"\x15\x03\x01\x00\x02\x02\x00", 7)
    alert[6] = description
    timer_clear(&conn.loop.wheel, &conn.timer)
    conn_write(conn, alert, 7)
    conn_linger(conn)


cdef void conn_rx_keep(Conn *conn, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Keep bytes that were read but not taken; they are bounded by the scratch buffer they came from."""
    chain_append(&conn.loop.pool, &conn.end.rx, src, src_bytes, True)
    conn_count(conn)


# --- as the end of a flow ---------------------------------------------------------------------------------------------

cdef void conn_serve(Conn *conn) noexcept nogil:
    if conn.end.ops == NULL:
        conn_mark_dirty(conn)
        return
    if conn.writable and (conn.out.bytes > 0 or conn.end.wants_room or conn.error < 0
                          or (conn.tls != NULL and conn.tls.tx.bytes > 0)):
        conn_mark_dirty(conn)
    if conn.readable:
        conn.end.ops.ready(&conn.end)


cdef size_t conn_end_room(End *end) noexcept nogil:
    return conn_room(<Conn *>end)


cdef size_t conn_end_credit(End *end) noexcept nogil:
    return <size_t>-1                   # TCP's window is the kernel's


cdef void conn_end_write(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    conn_write(<Conn *>end, src, src_bytes)


cdef size_t conn_end_push(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Little gathers until the pass settles; much goes to the kernel at once, and what that does not take waits with
    the owner: one place to queue, and blocks that leave again without a copy."""
    cdef Conn *conn = <Conn *>end
    cdef size_t taken
    if src_bytes < CONN_DIRECT_BYTES or conn.tls != NULL:
        taken = conn_room(conn)
        if taken > src_bytes:
            taken = src_bytes
        if taken > 0:
            conn_write(conn, src, taken)
        return taken
    return conn_send_now(conn, src, src_bytes) if conn_takes_now(conn) else 0


cdef ssize_t conn_end_push_chain(End *end, Chain *chain) noexcept nogil:
    cdef Conn *conn = <Conn *>end
    cdef size_t sent = 0
    if chain.bytes >= CONN_DIRECT_BYTES and conn_takes_now(conn):
        sent = conn_send_from(conn, chain)
    return -1 if sent == 0 and conn.tls == NULL and not conn.writable else <ssize_t>sent


cdef void conn_end_wait_room(End *end) noexcept nogil:
    end.wants_room = 1
    if (<Conn *>end).writable:
        conn_mark_dirty(<Conn *>end)


cdef void conn_end_fin(End *end) noexcept nogil:
    conn_fin(<Conn *>end)


cdef void conn_end_taken(End *end, size_t bytes) noexcept nogil:
    pass                                # the kernel's window follows what is read


cdef uint8_t conn_end_source(End *end) noexcept nogil:
    cdef Conn *conn = <Conn *>end
    if conn.connecting:
        return 0
    return (SOURCE_READABLE if conn.readable else 0) | (SOURCE_ENDS if conn.rdhup else 0)


cdef ssize_t conn_end_recv(End *end, uint8_t *dst, size_t dst_bytes) noexcept nogil:
    return conn_recv(<Conn *>end, dst, dst_bytes)


cdef void conn_end_keep(End *end, const uint8_t *src, size_t src_bytes) noexcept nogil:
    conn_rx_keep(<Conn *>end, src, src_bytes)


cdef Conn *conn_end_plain_socket(End *end) noexcept nogil:
    return <Conn *>end if (<Conn *>end).tls == NULL else NULL


cdef bint conn_end_hand_over(End *end, uint64_t worker_mask, uint64_t *workers_tried) noexcept nogil:
    return conn_hand_over(<Conn *>end, worker_mask, workers_tried)


cdef void conn_end_close(End *end) noexcept nogil:
    conn_close(<Conn *>end, False)


cdef void conn_end_abort(End *end, uint16_t reason) noexcept nogil:
    conn_close(<Conn *>end, True)       # a reset says no more than that


cdef void conn_end_refuse(End *end, uint16_t reason) noexcept nogil:
    conn_alert(<Conn *>end, ALERT_UNRECOGNIZED_NAME if reason == REASON_NO_SERVICE else ALERT_INTERNAL_ERROR)


cdef void conn_end_linger(End *end, bint is_mid_request) noexcept nogil:
    if not end.closed:
        (<Conn *>end).is_mid_request = is_mid_request
    conn_linger(<Conn *>end)


cdef void finish_expired(void *owner) noexcept nogil:
    """Its reader may be slow, but one that takes nothing for a whole interval is gone."""
    cdef Conn *conn = <Conn *>owner
    if conn.out.bytes == <size_t>conn.end.owner:
        conn_close(conn, True)
        return
    conn.end.owner = <void *><size_t>conn.out.bytes
    timer_set(&conn.loop.wheel, &conn.timer, conn.loop.now_ms + FINISH_IDLE_MS)


cdef void conn_end_finish(End *end) noexcept nogil:
    cdef Conn *conn = <Conn *>end
    end.ops = NULL
    end.wants_room = 0
    end.owner = NULL
    conn.close_when_flushed = 1
    conn.timer.fire = finish_expired
    conn.timer.owner = conn
    timer_set(&conn.loop.wheel, &conn.timer, conn.loop.now_ms + FINISH_IDLE_MS)
    conn_mark_dirty(conn)


cdef Loop *conn_end_loop(End *end) noexcept nogil:
    return (<Conn *>end).loop


cdef EndKind conn_kind
conn_kind.room = conn_end_room
conn_kind.room_unread = conn_end_room        # by itself it lets a block wait where memory is short
conn_kind.credit = conn_end_credit
conn_kind.write = conn_end_write
conn_kind.push = conn_end_push
conn_kind.push_chain = conn_end_push_chain
conn_kind.wait_room = conn_end_wait_room
conn_kind.fin = conn_end_fin
conn_kind.taken = conn_end_taken
conn_kind.source = conn_end_source
conn_kind.recv = conn_end_recv
conn_kind.keep = conn_end_keep
conn_kind.plain_socket = conn_end_plain_socket
conn_kind.read_from = NULL
conn_kind.hand_over = conn_end_hand_over
conn_kind.close = conn_end_close
conn_kind.abort = conn_end_abort
conn_kind.refuse = conn_end_refuse
conn_kind.linger = conn_end_linger
conn_kind.finish = conn_end_finish
conn_kind.loop = conn_end_loop


# --- addresses --------------------------------------------------------------------------------------------------------

cdef size_t octet_text(char *dst, uint8_t octet) noexcept nogil:
    cdef size_t n = 0
    if octet >= 100:
        dst[n] = <char>(c'0' + octet // 100)
        n += 1
    if octet >= 10:
        dst[n] = <char>(c'0' + octet // 10 % 10)
        n += 1
    dst[n] = <char>(c'0' + octet % 10)
    return n + 1


cdef size_t address_text(char *dst, const Address *address) noexcept nogil:
    """IPv4 by hand: it is written for every request, and printf took a fiftieth of the server's time for it."""
    cdef char text[64]
    cdef size_t n
    cdef int i
    if address.family == 4:
        n = octet_text(dst, address.ip[0])
        for i in range(1, 4):
            dst[n] = c'.'
            n += 1 + octet_text(dst + n + 1, address.ip[i])
        return n
    elif address.family == 6 and inet_ntop(AF_INET6, address.ip, text, 64) != NULL:
        n = strlen(text)
    else:
        text[0] = c'-'
        n = 1
    memcpy(dst, text, n)
    return n


cdef void address_read(Address *out, const void *sockaddr_any) noexcept nogil:
    """IPv4-mapped IPv6 addresses (::ffff:a.b.c.d, dual-stack listeners) are read as IPv4."""
    cdef const sockaddr_in *v4 = <const sockaddr_in *>sockaddr_any
    cdef const sockaddr_in6 *v6 = <const sockaddr_in6 *>sockaddr_any
    cdef const uint8_t *ip
    memset(out, 0, sizeof(Address))
    if v4.sin_family == AF_INET:
        out.family = 4
        out.port = ntohs(v4.sin_port)
        memcpy(out.ip, &v4.sin_addr, 4)
    elif v4.sin_family == AF_INET6:
        out.port = ntohs(v6.sin6_port)
        ip = <const uint8_t *>&v6.sin6_addr
        if ip[0] == 0 and ip[1] == 0 and ip[9] == 0 and ip[10] == 0xFF and ip[11] == 0xFF:
            out.family = 4
            memcpy(out.ip, ip + 12, 4)
        else:
            out.family = 6
            memcpy(out.ip, ip, 16)


cdef void tune_link(int fd) noexcept nogil:
    """Every option is a wish: a kernel without it refuses, and the link works all the same."""
    cdef int on = 1
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
    tune_unsent(fd, UNSENT_BYTES_START)


cdef void tune_congestion(int fd) noexcept nogil:
    """For a connected link. One lossy long path (40 ms, 0.5 % loss, one connection): 4 Mbit/s with cubic, 244 with bbr.
    Over loopback bbr's pacing timers cost a tenth of all CPU time, and there is nothing to pace for."""
    cdef tcp_info info
    cdef unsigned int info_bytes = sizeof(info)
    memset(&info, 0, sizeof(info))
    if getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &info_bytes) == 0 and info.tcpi_rtt < SHORT_PATH_US:
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, b"cubic", 5)
    else:
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, b"bbr", 3)


cdef void tune_retries(int fd) noexcept nogil:
    """For a link. By default TCP waits twice as long from one retry to the next: after a cut of ten seconds up to ten
    more. A kernel before 6.15 has no such bound and refuses it. Fifteen retries at this pace are just more than
    LINK_DEAD_MS."""
    cdef int wait_ms_max = RETRY_WAIT_MS_MAX
    setsockopt(fd, IPPROTO_TCP, TCP_RTO_MAX_MS, &wait_ms_max, sizeof(wait_ms_max))


cdef bint tune_again(int fd, uint32_t rtt_us) noexcept nogil:
    """A slow line may begin with a short round trip; what fills its queue makes it long."""
    cdef tcp_info info
    cdef unsigned int info_bytes = sizeof(info)
    memset(&info, 0, sizeof(info))
    if getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &info_bytes) < 0 or info.tcpi_rtt < rtt_us:
        return False
    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, b"bbr", 3)
    return True


cdef void tune_unsent(int fd, int unsent_bytes) noexcept nogil:
    """What lies unsent in the kernel cannot be overtaken by another stream's turn."""
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_bytes, sizeof(unsent_bytes))


cdef bint path_state(int fd, PathState *out) noexcept nogil:
    cdef uint8_t info[TCP_INFO_BYTES]
    cdef unsigned int info_bytes = TCP_INFO_BYTES
    if getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &info_bytes) < 0 or info_bytes < TCP_INFO_BYTES_ACKED + 8:
        return False
    memcpy(&out.rtt_us, info + TCP_INFO_RTT, 4)
    memcpy(&out.acked_bytes, info + TCP_INFO_BYTES_ACKED, 8)
    out.rtt_min_us = 0
    if info_bytes >= TCP_INFO_MIN_RTT + 4:
        memcpy(&out.rtt_min_us, info + TCP_INFO_MIN_RTT, 4)
    if out.rtt_min_us == 0xFFFFFFFFu:
        out.rtt_min_us = 0
    return True


cdef void tune_in_flight(int fd, uint32_t bytes) noexcept nogil:
    """The kernel doubles what it is told, and counts its own overhead, a quarter to a half of a segment."""
    cdef int send_bytes = <int>(bytes * 2 // 3) if bytes > 0 else SEND_BYTES_FREE
    cdef int any_size = 0
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof(send_bytes))
    if bytes == 0:
        setsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &any_size, sizeof(any_size))


cdef void tune_listener(int fd) noexcept nogil:
    """Options that Linux hands on to accepted conns: set once instead of once a visitor."""
    cdef int on = 1
    cdef int idle_s = 60
    cdef int interval_s = 15
    cdef int probes = 4
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on))       # finds a raw visitor that vanished in two minutes
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s))
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s))
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes))
    # Of a visitor that stands still the kernel would take megabytes, and of a crowd all the memory that TCP has.
    tune_unsent(fd, VISITOR_UNSENT_BYTES_START)


cdef bint tune_local_upstream(int fd, uint64_t conn_count) noexcept nogil:
    """The kernel's memory for TCP is everybody's on this machine. It counts a sender's buffer in segments, 64 KiB each
    over loopback: a service began with 2 to 4 MB for each visitor, and of four thousand that stood still the first 256
    took 0.9 GB, all of them all that there was (2.3 GB of 24), so that everybody else's conns stood still as well. By
    the segments that we announce it begins with a quarter of that, a twentieth, and in a crowd less than 100 KB, and
    grows as the visitor reads. Small segments cost a bulk stream a few percent of its rate, so few have large ones."""
    cdef int segment_bytes = LOCAL_SEGMENT_BYTES_CROWD
    cdef int receive_bytes = LOCAL_RECEIVE_BYTES
    if conn_count <= LOCAL_FREE_COUNT:
        return False
    if conn_count <= LOCAL_FEW_COUNT:
        segment_bytes = LOCAL_SEGMENT_BYTES_FEW
    elif conn_count <= LOCAL_CROWD_COUNT:
        segment_bytes = LOCAL_SEGMENT_BYTES_MANY
    setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment_bytes, sizeof(segment_bytes))
    if conn_count <= LOCAL_CROWD_COUNT:
        return False
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes))
    return True


# --- test door --------------------------------------------------------------------------------------------------------

def bound_in_flight(int fd, uint32_t count):
    tune_in_flight(fd, count)


def read_path(int fd):
    """(rtt_us, rtt_min_us, acked_bytes)"""
    cdef PathState path
    return (path.rtt_us, path.rtt_min_us, path.acked_bytes) if path_state(fd, &path) else None


def address_words(bytes ip not None):
    """The text of an address of 4 or 16 bytes."""
    cdef Address address
    cdef char text[64]
    memset(&address, 0, sizeof(address))
    address.family = 4 if len(ip) == 4 else 6
    memcpy(address.ip, <const char *>ip, min(len(ip), 16))
    return text[:address_text(text, &address)].decode()
