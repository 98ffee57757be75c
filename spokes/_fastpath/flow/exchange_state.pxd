# What an exchange is: its two ends, the phase of each of its messages, how long they may take.
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
    HALF_CLOSED_MUTE_MS = 10000         # … and speaks HTTP/1.0, where it cannot be asked whether it is still there
    HALF_CLOSED_ASK_MS = 1000           # until it is asked: most answers are there before
    INTERIM_COUNT_MAX = 16              # 1xx answers to one request
    REPLAY_BYTES_MAX = 65536            # a longer request is not kept to be sent again
    REPLAY_TOTAL_BYTES_MAX = 8388608    # of a worker's exchanges together

# The state table: in which phases of the request and of the response a step is allowed, and the phases after it.
# docs/engine.md, "Phases of an exchange", has the same table, and a test compares the two.
cdef extern from *:
    """
    enum RequestPhase { REQUEST_HEAD, REQUEST_BODY, REQUEST_DONE, REQUEST_PHASE_COUNT };
    enum ResponsePhase {
        RESPONSE_NONE, RESPONSE_HEAD, RESPONSE_BODY, RESPONSE_SWITCHED, RESPONSE_ENDED, RESPONSE_PHASE_COUNT
    };
    enum ExchangeStep {
        STEP_REQUEST_WHOLE, STEP_REQUEST_HEAD, STEP_REQUEST_END, STEP_PASSED_ON, STEP_RESENT, STEP_INTERIM,
        STEP_RESPONSE_HEAD, STEP_FILE, STEP_SWITCHED, STEP_NEXT, STEP_ENDED, STEP_COUNT
    };
    enum { PHASE_SAME = 0xff };

    #define IN(phase) (1 << (phase))
    #define READ (IN(REQUEST_BODY) | IN(REQUEST_DONE))
    #define LIVE (IN(RESPONSE_NONE) | IN(RESPONSE_HEAD) | IN(RESPONSE_BODY))

    __attribute__((unused))
    static const struct StepRow { uint8_t request_before, request_after, response_before, response_after; }
    step_rows[STEP_COUNT] = {
        [STEP_REQUEST_WHOLE] = {IN(REQUEST_HEAD), REQUEST_DONE, IN(RESPONSE_NONE), PHASE_SAME},
        [STEP_REQUEST_HEAD] =  {IN(REQUEST_HEAD), REQUEST_BODY, IN(RESPONSE_NONE), PHASE_SAME},
        [STEP_REQUEST_END] =   {IN(REQUEST_BODY), REQUEST_DONE, IN(RESPONSE_HEAD) | IN(RESPONSE_BODY), PHASE_SAME},
        [STEP_PASSED_ON] =     {READ, PHASE_SAME, IN(RESPONSE_NONE), RESPONSE_HEAD},
        [STEP_RESENT] =        {READ, PHASE_SAME, IN(RESPONSE_HEAD), PHASE_SAME},
        [STEP_INTERIM] =       {READ, PHASE_SAME, IN(RESPONSE_HEAD), PHASE_SAME},
        [STEP_RESPONSE_HEAD] = {READ, PHASE_SAME, IN(RESPONSE_HEAD), RESPONSE_BODY},
        [STEP_FILE] =          {READ, PHASE_SAME, IN(RESPONSE_NONE), RESPONSE_BODY},
        [STEP_SWITCHED] =      {READ, PHASE_SAME, IN(RESPONSE_HEAD), RESPONSE_SWITCHED},
        [STEP_NEXT] =          {IN(REQUEST_DONE), REQUEST_HEAD, LIVE, RESPONSE_NONE},
        [STEP_ENDED] =         {IN(REQUEST_HEAD) | READ, PHASE_SAME, LIVE | IN(RESPONSE_SWITCHED), RESPONSE_ENDED},
    };
    #undef IN
    #undef READ
    #undef LIVE
    """
    cdef enum RequestPhase:
        REQUEST_HEAD                    # the head is awaited, or read
        REQUEST_BODY                    # the body is passed on
        REQUEST_DONE                    # all of it has been read
        REQUEST_PHASE_COUNT
    cdef enum ResponsePhase:
        RESPONSE_NONE                   # no upstream has been asked yet
        RESPONSE_HEAD                   # the upstream has been asked; its head is awaited, or read
        RESPONSE_BODY                   # the body is passed on
        RESPONSE_SWITCHED               # after 101: bytes both ways, of another protocol
        RESPONSE_ENDED                  # the exchange has ended and is freed after this pass
        RESPONSE_PHASE_COUNT
    cdef enum ExchangeStep:
        STEP_REQUEST_WHOLE              # the head of a request without a body has been read
        STEP_REQUEST_HEAD               # the head of a request with a body has been read
        STEP_REQUEST_END                # the last byte of the request's body has been read
        STEP_PASSED_ON                  # the head of the request has been passed on to a tunnel or an upstream
        STEP_RESENT                     # the request has been sent once more, on another conn
        STEP_INTERIM                    # an interim response (1xx) has been read
        STEP_RESPONSE_HEAD              # the head of the response has been read
        STEP_FILE                       # the head of a file's response has been made here
        STEP_SWITCHED                   # 101 has been read: the conn changes its protocol
        STEP_NEXT                       # the response is complete, and the conn goes on
        STEP_ENDED                      # the exchange has ended
        STEP_COUNT
    enum:
        PHASE_SAME
    cdef struct StepRow:
        uint8_t request_before          # bits: 1 << phase
        uint8_t request_after
        uint8_t response_before
        uint8_t response_after
    const StepRow *step_rows

cdef enum Deadline:
    DEADLINE_NONE, DEADLINE_HEAD, DEADLINE_KEEP_ALIVE, DEADLINE_BODY, DEADLINE_RESPONSE, DEADLINE_ASK

cdef struct Replay:                     # what may be sent once more
    uint32_t bytes
    uint32_t size                       # of data, as it was allocated
    uint8_t data[1]                     # … and on

cdef struct Exchange:                   # 288 bytes
    End *downstream                     # towards the visitor
    End *upstream                       # towards the upstream; NULL between requests
    Loop *loop
    Tunnel *tunnel                      # that `upstream` goes through; NULL = none
    UpstreamConn *upstream_conn         # that `upstream` is; NULL = it is a stream, and the client counts faults
    uint64_t workers_tried              # that had no usable link when they were asked; cleared where one is found
    Visitor visitor                     # who asks
    uint64_t coverage                   # of the certificate the visitor's TLS was terminated with, 0 = plain
    Chain to_upstream                   # heads that wait for room
    Chain to_downstream
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
    uint8_t request_phase               # RequestPhase, set by exchange_step alone
    uint8_t response_phase              # ResponsePhase, the same
    uint8_t method
    uint8_t minor
    uint8_t faces_visitor               # `downstream` is the visitor's own: nothing that comes from it is checked yet
    uint8_t moving                      # `downstream` is on its way to another worker, which reads the request
    uint8_t keep_downstream             # the visitor's conn outlives this exchange
    uint8_t keep_upstream
    uint8_t idempotent                  # RFC 9110, 9.2.2: sent twice is as good as once
    uint8_t request_stopped             # `upstream` takes no more of the request, and may still have an answer
    uint8_t wants_upgrade
    uint8_t half_closed                 # the visitor has shut its side while this response is awaited
    uint8_t interims
    uint8_t empty_line                  # one has come before this request: no second one may
    uint8_t answered                    # something of the response has gone to the visitor
    uint8_t deadline_kind
    uint8_t fault_page                  # PageId for whatever the upstream fails with, PAGE_NONE = that fault's page
    uint8_t wants_json                  # pages for callers of the API, as long as this request is under way

cdef uint64_t steps_refused             # atomic: steps of this process that the table does not allow; 0, or a bug
cdef void exchange_refuse_step() noexcept nogil

cdef inline void exchange_step(Exchange *x, ExchangeStep step) noexcept nogil:
    """Change the phases as the table says. A step that it does not allow is counted and changes nothing. `step` is a
    constant wherever this is called, so that of its row some comparisons and a store are left."""
    if not (1 << x.request_phase) & step_rows[<int>step].request_before \
            or not (1 << x.response_phase) & step_rows[<int>step].response_before:
        exchange_refuse_step()
        return
    if step_rows[<int>step].request_after != PHASE_SAME:
        x.request_phase = step_rows[<int>step].request_after
    if step_rows[<int>step].response_after != PHASE_SAME:
        x.response_phase = step_rows[<int>step].response_after

cdef inline bint exchange_has_ended(const Exchange *x) noexcept nogil:
    return x.response_phase == RESPONSE_ENDED

cdef inline bint exchange_is_switched(const Exchange *x) noexcept nogil:
    return x.response_phase == RESPONSE_SWITCHED

cdef inline void exchange_defer_free(Exchange *x) noexcept nogil:
    loop_defer_free(x.loop, <DeferredFree *>&x.task, &x.loop.exchanges_slab, x)

cdef inline void exchange_deadline(Exchange *x, uint8_t kind, uint64_t after_ms) noexcept nogil:
    """Set the deadline, where the visitor's own end is. The timer is moved only if it would fire too late."""
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
    """Set the deadline for the response. An upstream that has not had all of the request may have nothing to say."""
    if x.request_phase == REQUEST_DONE or x.silence_ms > RESPONSE_IDLE_MS:
        exchange_deadline(x, DEADLINE_RESPONSE, x.silence_ms)
    else:
        exchange_deadline(x, DEADLINE_RESPONSE, RESPONSE_IDLE_MS)
