# Counters of one worker, written by it alone, read in place by the control plane.
from spokes._fastpath.base.types cimport uint64_t

cdef struct Stats:
    uint64_t visitors_total
    uint64_t visitors_open              # workers' differences cancel out: a conn may close elsewhere than it came
    uint64_t visitors_refused
    uint64_t requests_total
    uint64_t pages_total                # answers the engine gave by itself
    uint64_t links_total
    uint64_t links_open
    uint64_t streams_total
    uint64_t streams_open
    uint64_t upstreams_total
    uint64_t upstreams_open
    uint64_t upstreams_idle
    uint64_t bytes_in                   # from visitors
    uint64_t bytes_out                  # to visitors
    uint64_t link_bytes_in              # plaintext on links
    uint64_t link_bytes_out
    uint64_t datagrams_in
    uint64_t datagrams_out
    uint64_t datagrams_dropped
    uint64_t handovers_total
    uint64_t errors_total               # conns and links that ended by a fault
    uint64_t passes_total
    uint64_t accept_paused_total
    uint64_t conns_open
    uint64_t access_records_dropped     # for want of room
    uint64_t streams_refused            # not opened: the tunnel's or the visitor address's share is used up
    uint64_t streams_reclaimed          # reset, to take back memory from who held most
    uint64_t loops_total                # flows and requests that came back to where they had been, and were ended
