# What an exchange is: its two ends, where each of its messages stands, how long they may take.
from spokes._fastpath.base.buf cimport Chain
from spokes._fastpath.base.timer cimport Timer, timer_set
from spokes._fastpath.base.types cimport uint32_t, uint64_t, uint8_t
from spokes._fastpath.flow.files cimport FileBody
from spokes._fastpath.flow.upstream cimport UpstreamConn
from spokes._fastpath.http.http1 cimport HttpBody
from spokes._fastpath.io.conn_state cimport End, Loop, DeferredFree, Task
from spokes._fastpath.io.loop cimport loop_defer_free
from spokes._fastpath.link.frame cimport Visitor
from spokes._fastpath.route.tunnel cimport Tunnel

cdef enum:
    HEAD_MS = 10000                     # a request head, from its first byte
    KEEP_ALIVE_MS = 75000               # between requests
    BODY_IDLE_MS = 60000                # a request body that stops
    RESPONSE_IDLE_MS = 300000           # a response that does not begin or go on, or that the visitor does not take
    HALF_CLOSED_MS = 30000              # the same, after the visitor has shut its side …
    HALF_CLOSED_MUTE_MS = 10000         # … and is not one that may be asked whether it is still there
    HALF_CLOSED_ASK_MS = 1000           # until it is asked: most answers are there before
    INTERIM_COUNT_MAX = 16              # 1xx answers to one request
    REPLAY_BYTES_MAX = 65536            # a longer request is not kept to be sent again
    REPLAY_TOTAL_BYTES_MAX = 8388608    # of a worker's exchanges together

cdef enum RequestPhase:
    REQUEST_HEAD, REQUEST_BODY, REQUEST_DONE

cdef enum ResponsePhase:
    RESPONSE_NONE, RESPONSE_HEAD, RESPONSE_BODY

cdef enum Deadline:
    DEADLINE_NONE, DEADLINE_HEAD, DEADLINE_KEEP_ALIVE, DEADLINE_BODY, DEADLINE_RESPONSE, DEADLINE_ASK

cdef struct Replay:                     # what may be sent once more
    uint32_t bytes
    uint32_t size                       # of data, as it was allocated
    uint8_t data[1]                     # … and on

cdef struct Exchange:                   # 288 bytes
    End *down                           # towards the visitor
    End *up                             # towards the upstream; NULL between requests
    Loop *loop
    Tunnel *tunnel                      # that up goes through; NULL = none
    UpstreamConn *upstream              # that up is; NULL = another end of the way has it, which knows and counts
    uint64_t workers_tried              # that had no usable link when it looked; cleared where it finds one
    Visitor visitor                     # who asks
    uint64_t coverage                   # of the certificate the visitor's TLS was terminated with, 0 = plain
    Chain to_up                         # heads that wait for room
    Chain to_down
    Task task                           # … and, of one that has ended and is in no list of tasks, its DeferredFree
    Timer timer
    HttpBody request
    HttpBody response
    FileBody *file                      # what is sent when no upstream end answers; NULL = nothing
    Replay *replay                      # a request on a reused conn, as far as it was sent, until it is answered
    uint64_t deadline_ms
    uint32_t deadline_after_ms          # … and how long it was when it was set
    uint32_t silence_ms                 # of the upstream, as the rule allows that the request came by
    uint32_t head_resume                # where to go on in the head that is being read; never of both messages
    uint8_t request_phase
    uint8_t response_phase
    uint8_t method
    uint8_t minor
    uint8_t faces_visitor               # down is the visitor's own: nobody has looked at what comes from it
    uint8_t moving                      # down is on its way to another worker, which will look
    uint8_t keep_down                   # the visitor's conn outlives this exchange
    uint8_t keep_up
    uint8_t idempotent                  # RFC 9110, 9.2.2: sent twice is as good as once
    uint8_t deaf                        # up takes no more of the request, and may still have an answer
    uint8_t wants_upgrade
    uint8_t raw                         # after 101: bytes, both ways
    uint8_t half_closed                 # the visitor has shut its side while this response is awaited
    uint8_t interims
    uint8_t empty_line                  # one has come before this request: no second one may
    uint8_t answered                    # something of the response has gone to the visitor
    uint8_t deadline_kind
    uint8_t fault_page                  # PageId for whatever the upstream fails with, PAGE_NONE = that fault's page
    uint8_t wants_json                  # pages for callers of the API, as long as this request is under way
    uint8_t dead

cdef inline void exchange_defer_free(Exchange *x) noexcept nogil:
    loop_defer_free(x.loop, <DeferredFree *>&x.task, &x.loop.exchanges_slab, x)

cdef inline void exchange_deadline(Exchange *x, uint8_t kind, uint64_t after_ms) noexcept nogil:
    """Kept where the visitor's own end is. Moves are lazy."""
    if not x.faces_visitor:
        return
    x.deadline_kind = kind
    if kind == DEADLINE_NONE:
        return
    if kind == DEADLINE_RESPONSE:
        if x.half_closed and after_ms > HALF_CLOSED_MS:
            after_ms = HALF_CLOSED_MS
        if x.request_phase == REQUEST_DONE and after_ms > x.silence_ms:
            after_ms = x.silence_ms
    x.deadline_after_ms = <uint32_t>after_ms
    x.deadline_ms = x.loop.now_ms + after_ms
    if x.timer.prev == NULL or x.deadline_ms < x.timer.due_ms:
        timer_set(&x.loop.wheel, &x.timer, x.deadline_ms)

cdef inline void exchange_await(Exchange *x) noexcept nogil:
    """Something of the response is due. An upstream that has not heard all of the request may have nothing to say."""
    if x.request_phase == REQUEST_DONE or x.silence_ms > RESPONSE_IDLE_MS:
        exchange_deadline(x, DEADLINE_RESPONSE, x.silence_ms)
    else:
        exchange_deadline(x, DEADLINE_RESPONSE, RESPONSE_IDLE_MS)
