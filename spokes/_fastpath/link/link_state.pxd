# What a link and a stream are: their state, limits and callbacks.
from spokes._fastpath.base.types cimport uint16_t, uint32_t, uint64_t, uint8_t
from spokes._fastpath.io.conn cimport Conn
from spokes._fastpath.io.conn_state cimport End, Loop, Task
from spokes._fastpath.link.backlog cimport Backlog
from spokes._fastpath.link.frame cimport Open, Visitor
from spokes._fastpath.route.tunnel cimport Service, Tunnel

cdef enum:
    LINK_OUT_BYTES_MAX = 262144         # frames gathered for one write
    LINK_OUT_BYTES_MIN = 65536          # where a flush was not taken whole: less queued here means fresher slots
    LINK_OUT_BYTES_START = 32768        # where it is slow, as little as in the kernel (UNSENT_BYTES_MIN)
    LINK_OUT_RESERVE_BYTES = 65536      # beyond it, for streams that do not wait for a slot
    LINK_GATHER_BYTES_MAX = 16384       # a record's worth: it waits for no other pass
    LINK_OUT_BYTES_LIMIT = 8388608      # with answers and control messages: a peer that lets more pile up is cut off
    LINE_QUEUE_US = 20000               # what a slow line may hold of ours beyond its shortest round trip
    LINE_IN_FLIGHT_BYTES_MIN = 3072     # two segments
    LINE_MISSES_MAX = 4                 # samples, a quarter of a second each: bbr itself sends less for one of them
    LINE_FREE_MS = 10000                # a line that was bounded wrongly is left to the kernel for so long
    STREAM_SLOT_BYTES = 65528           # one scheduling slot: a frame that fills four blocks
    TUNNEL_VISITOR_COUNTERS = 32768     # pairs of a tunnel and an address told apart
    STREAM_WINDOW_BYTES_MAX = 8388608
    STREAM_WINDOW_BYTES_MIN = 16384     # one block, where a tunnel or a visitor holds its share already
    STREAM_WINDOW_PARTS = 128           # a first window is at most this part of what is left of a share
    PING_ACCEPTOR_MS = 15000            # docs/protocol.md, "Liveness"
    PING_CONNECTOR_MS = 10000
    LINK_DEAD_MS = 25000
    STREAM_STALL_MS_MAX = 10000         # an owner slower for what waits loses its stream where memory is short …
    STREAM_STALL_MS_MIN = 2000          # … after it was watched for so long
    BUSY_BYTES_PER_S = 1000000          # a link that carries more is busy: new streams go elsewhere when they can
    LINK_BYE_MS = 2000                  # for a bye to a peer that broke the rules, all in all
    PEER_PINGS_PER_S_MAX = 100
    PEER_OPENS_PER_S_MAX = 50000
    PEER_CONTROLS_PER_S_MAX = 1000
    PEER_CONTROL_BYTES_PER_S_MAX = 4194304  # four of the largest messages

ctypedef int (*link_open_fn)(Link *link, Stream *stream, const Open *open) noexcept nogil
ctypedef void (*link_control_fn)(Link *link, uint8_t flags, const uint8_t *src, uint32_t src_bytes) noexcept nogil
ctypedef void (*link_down_fn)(Link *link, int rc) noexcept nogil
ctypedef void (*link_fn)(Link *link) noexcept nogil
ctypedef void (*stream_datagram_fn)(Stream *stream, const uint8_t *src, uint32_t src_bytes) noexcept nogil
ctypedef bint (*link_may_read_fn)(Link *link) noexcept nogil

cdef struct LinkOps:
    link_open_fn open                   # the peer opened a stream: 0, or a reason to refuse it
    link_control_fn control
    link_down_fn down                   # the last call for this link
    link_fn wanted                      # an additional link would help
    link_fn drain                       # the peer wants no new streams
    link_fn pong                        # the answer to a PING that was asked for
    link_may_read_fn may_read           # False: the control plane is behind; try again soon

cdef enum:                              # a link's queues of streams, first come, first served
    QUEUE_SLOTS = 0                     # … that want to send: each gets a slot in turn
    QUEUE_WAITING = 1                   # … with bytes that their owner has not taken
    QUEUE_CREDIT = 2                    # … that want to send and have no credit
    QUEUE_COUNT = 3

cdef struct StreamQueue:
    Stream *first
    Stream *last
    uint32_t count

cdef struct QueueNode:                # of a stream, in one of them
    Stream *next
    Stream *prev

cdef struct Link:
    Conn *conn
    Loop *loop
    const LinkOps *ops
    Task task                           # read on
    Tunnel *tunnel                      # bound to it
    Link *next                          # tunnel.links[worker]
    Link *prev
    Stream **buckets                    # streams by id
    uint32_t bucket_count
    uint32_t stream_count
    uint32_t last_id                    # of the streams we opened; 0: none yet
    uint32_t peer_last_id
    uint8_t last_id_wrapped             # ids have begun again
    uint8_t peer_last_id_wrapped
    uint32_t data_stream                # DATA frame under way
    uint32_t data_left
    uint32_t skip_left
    uint32_t out_limit_bytes
    uint32_t index                      # place in the worker's table of links
    StreamQueue queues[QUEUE_COUNT]
    Stream *credits                     # streams that owe a CREDIT
    Backlog backlog                     # datagrams that wait
    uint64_t id                         # handle given to Python
    uint64_t last_rx_ms
    uint64_t relief_ms                  # when it was last looked for streams to end for want of memory
    uint64_t ping_sent_us               # 0 = none under way
    uint64_t busy_since_ms
    uint64_t busy_bytes
    uint64_t wanted_ms
    uint32_t rtt_us                     # last measured
    uint32_t rtt_min_us                 # smallest seen: what a window must cover, queues left out
    uint32_t busy_rate                  # bytes a second over the last quarter of one
    uint64_t sent_bytes                 # of busy_bytes, those that we sent
    uint64_t rate_since_ms              # begin of the second the next two are counted in
    uint32_t unsent_bytes               # TCP_NOTSENT_LOWAT as last set
    uint32_t in_flight_bytes            # what may be sent and unacknowledged on a slow line; 0 = as the kernel likes
    uint64_t in_flight_rate             # bytes a second that it carried when that was set
    uint64_t in_flight_ms               # not bounded again before
    uint32_t in_flight_misses           # samples in a row with less than half of it
    uint64_t acked_bytes                # as the kernel said at acked_ms
    uint64_t acked_ms
    uint32_t peer_pings
    uint32_t peer_opens
    uint32_t peer_controls
    uint32_t peer_control_bytes
    uint32_t stream_count_max
    int broken                          # < 0: the conn has failed, what the kernel still holds is being read
    uint8_t is_acceptor
    uint8_t draining
    uint8_t peer_drained                # the peer has said DRAIN
    uint8_t unread                      # was not read when it could have been: memory or the control plane is behind
    uint8_t stalled                     # whole frames wait in conn.end.rx for want of memory
    uint8_t blocked                     # since busy_since_ms the socket did not take a whole flush
    uint8_t long_path                   # when it was blocked last, its path had a queue or a distance …
    uint8_t is_slow                     # … and carried less than SLOW_BYTES_PER_S
    uint8_t crowded                     # a stream's visitor holds more than its share
    uint8_t peer_windows                # the peer understands WINDOW
    uint8_t closing                     # by us: its conn lingers until what is queued has left
    uint8_t pong_wanted                 # the control plane asked whether the peer is there
    uint8_t in_message                  # a part of a control message went out, and more parts are to follow
    uint8_t down

cdef struct Stream:                     # 288 bytes
    End end                             # must be first
    Link *link
    Stream *hash_next
    QueueNode nodes[QUEUE_COUNT]     # … and, of a stream that has ended, its DeferredFree: it stands in no queue
    Stream *credit_next
    uint64_t *holder                    # what its visitor's address holds; NULL = not counted
    Tunnel *tunnel                      # whose shares it is held to: its link's, or one whose links are at another node
    Service *serves                     # whose counts its bytes are under; NULL = the tunnel's, if its link has one
    stream_datagram_fn on_datagram
    uint64_t tx_offset                  # bytes sent
    uint64_t tx_limit
    uint64_t rx_offset                  # bytes received
    uint64_t rx_taken                   # … and passed on
    uint64_t rx_limit
    uint64_t credit_us                  # when the last CREDIT was written
    uint64_t access_begin_ms             # wall clock: since when it serves that service …
    uint64_t access_bytes_in             # … and what it has carried since
    uint64_t access_bytes_out
    # Of the loop's clock, its low 32 bits: only differences count, and none of 49 days is looked at.
    uint32_t waiting_since_ms           # since when something has waited
    uint32_t credit_since_ms            # since when it waits for credit
    uint32_t taken_ms                   # when the owner last took something of what waits in rx
    uint32_t waiting_taken              # bytes taken since waiting_since_ms; both halve as they grow old
    uint32_t held_blocks                # in end.rx, as counted for its tunnel and its holder
    Visitor visitor                     # that it is for
    uint32_t id
    uint32_t window_bytes
    uint16_t read_bytes                 # what the next direct read asks for, STREAM_SLOT_BYTES at most
    uint8_t service
    uint8_t queued                      # a bit for each queue that it stands in
    uint8_t narrowed                    # by the peer's WINDOW
    uint8_t in_credits
    uint8_t reset

cdef inline bint is_queued(const Stream *stream, int which) noexcept nogil:
    return stream.queued >> which & 1

cdef inline bint is_our_id(const Link *link, uint32_t id) noexcept nogil:
    return (id & 1) == (not link.is_acceptor)
