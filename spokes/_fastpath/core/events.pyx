"""What Python is told: events of this worker into the ring that all workers share.

Bound: EVENT_RING_CAPACITY events there. While one waits here, or EVENT_BYTES_MAX of payloads are not drained, no link
is read (links.pyx), so that what waits here is what one pass brings.
Fails: an event is lost only where the heap is.
"""
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from spokes._fastpath.base.ring cimport Msg, ring_is_tight, ring_push
from spokes._fastpath.base.types cimport (
    RC_DEAD, RC_EOF, RC_LIMIT, RC_LOCAL, RC_PIN, RC_TIMEOUT, RC_TLS, atomic_add, atomic_get,
)
from spokes._fastpath.core.shared cimport EVENT_BYTES_MAX, Pending
from spokes._fastpath.tls.tls_words cimport tls_error_text

cdef extern from "string.h" nogil:
    char *strerror_r(int error, char *dst, size_t n)
    size_t strlen(const char *text)


cdef void emit(Worker *worker, uint32_t kind, uint64_t link, int32_t code, const uint8_t *data,
               uint32_t data_bytes) noexcept nogil:
    """An event is never lost: what the ring has no place for waits at the worker, in order."""
    cdef Msg msg
    cdef Pending *pending
    memset(&msg, 0, sizeof(msg))
    msg.kind = kind
    msg.a = link
    msg.code = code
    if data_bytes > 0:
        msg.p = malloc(data_bytes)
        if msg.p != NULL:
            memcpy(msg.p, data, data_bytes)
            msg.p_bytes = data_bytes
            atomic_add(&worker.shared.event_bytes, data_bytes)
    if worker.pending_first == NULL and ring_push(&worker.shared.events, &msg):
        return
    pending = <Pending *>malloc(sizeof(Pending))
    if pending == NULL:
        free(msg.p)
        return
    pending.msg = msg
    pending.next = NULL
    if worker.pending_last == NULL:
        worker.pending_first = pending
    else:
        worker.pending_last.next = pending
    worker.pending_last = pending


cdef void emit_pending(Worker *worker) noexcept nogil:
    cdef Pending *pending
    while worker.pending_first != NULL:
        pending = worker.pending_first
        if not ring_push(&worker.shared.events, &pending.msg):
            return
        worker.pending_first = pending.next
        if worker.pending_first == NULL:
            worker.pending_last = NULL
        free(pending)


cdef void emit_down(Worker *worker, uint64_t id, int rc) noexcept nogil:
    cdef char text[256]
    cdef const char *words = text
    cdef int32_t code = DOWN_PROTOCOL
    text[0] = 0
    if rc == RC_EOF:
        code = DOWN_CLOSED
    elif rc == RC_LOCAL:
        code = DOWN_LOCAL
    elif rc == RC_TLS:
        code = DOWN_TLS
        words = tls_error_text()
    elif rc == RC_PIN:
        code = DOWN_PIN
        words = b"the server's key is not the pinned one"
    elif rc == RC_DEAD:
        code = DOWN_DEAD
        words = b"nothing heard for 25 s"
    elif rc == RC_TIMEOUT:
        code = DOWN_HANDSHAKE
        words = b"no TLS handshake in time"
    elif rc > -4096:
        code = DOWN_SYSTEM
        words = strerror_r(-rc, text, sizeof(text))
    elif rc == RC_LIMIT:
        words = b"a limit was passed"
    else:
        words = b"the peer broke the link protocol"
    emit(worker, EVENT_LINK_DOWN, id, code, <const uint8_t *>words, <uint32_t>strlen(words))


cdef void emit_upstream_fault(Loop *loop, uint64_t upstream, int rc) noexcept nogil:
    cdef Worker *worker = <Worker *>loop.worker
    if events_have_room(worker):
        emit(worker, EVENT_UPSTREAM_FAULT, upstream, rc, NULL, 0)


cdef bint events_have_room(Worker *worker) noexcept nogil:
    return worker.pending_first == NULL and not ring_is_tight(&worker.shared.events) \
        and atomic_get(&worker.shared.event_bytes) < EVENT_BYTES_MAX


cdef void events_clear(Worker *worker) noexcept nogil:
    cdef Pending *pending
    while worker.pending_first != NULL:
        pending = worker.pending_first
        worker.pending_first = pending.next
        free(pending.msg.p)
        free(pending)
