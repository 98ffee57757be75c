# Tunnels as workers see them, and what is counted of their traffic: slots that live as long as the engine.
from spokes._fastpath.base.types cimport uint8_t, uint32_t, uint64_t

cdef enum:
    WORKER_COUNT_MAX = 56               # what a node mask has bits for
    NODE_COUNT_MAX = 255
    VIA_NODE_SHIFT = 56

cdef enum:
    END_NEVER = 0                       # of end_ms: routes lead there
    END_IDLE = 1                        # no route does: what is idle goes, flows end by themselves; > 1: flows end then

cdef struct Counts:                     # what a stream's bytes are counted under
    uint64_t bytes_in                   # atomic: from visitors
    uint64_t bytes_out                  # atomic: to visitors

cdef struct Tunnel:                     # one slot; lives as long as the engine
    Counts counts                       # of streams that serve none of its services, and of those it had before
    uint64_t worker_mask                # atomic: workers that have a bound link
    uint64_t stream_count               # atomic: open now …
    uint64_t flow_count                 # atomic: … of those, of datagrams; counted where there is a maximum of streams
    uint64_t held_bytes                 # atomic: of the blocks in which something of its streams waits
    uint64_t last_heard_ms              # atomic: wall clock, stamped by workers
    uint64_t rtt_us                     # atomic: of the link that measured last
    uint64_t via                        # atomic: without a link here: a node << 56 | its workers that have some; or 0
    void *links[WORKER_COUNT_MAX]       # first bound link of each worker; each entry touched by its worker only
    uint32_t slot
    uint32_t route_count                # the builder's: in the newest table, published or not
    Service *services                   # the builder's: counted beside the tunnel, and a part of its sum
    uint8_t is_open
    uint8_t is_node                     # no client's: links to one worker of another node of the cluster

cdef struct Node:                       # another node of the cluster
    Tunnel *workers[WORKER_COUNT_MAX]   # atomic: by the number of its worker; NULL = none yet

cdef struct Service:                    # what a route leads to, as it is counted; one slot, lives as long as the engine
    Counts counts
    uint64_t streams_total              # atomic: that began to serve it
    uint64_t streams_open               # atomic: that serve it now
    uint64_t requests_total             # atomic: of HTTP
    uint64_t end_ms                     # atomic: END_NEVER, or when streams that serve it are ended
    uint64_t id                         # of this use of the slot; the builder changes it when nobody serves it
    Tunnel *tunnel                      # the builder's, as all that follows; NULL = that tunnel is gone
    Service *next                       # of the tunnel's
    uint64_t taken_in                   # bytes and streams that the control plane has taken over
    uint64_t taken_out
    uint64_t taken_streams
    uint8_t is_open
