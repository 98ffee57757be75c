# UDP services: a port's peers at a server, a stream's flow at a client. A peer is a source address and the address of
# ours that it sent to.
from spokes._fastpath.base.address cimport Address
from spokes._fastpath.base.net cimport sockaddr_storage, socklen_t
from spokes._fastpath.base.types cimport uint32_t, uint64_t, uint8_t
from spokes._fastpath.io.conn cimport Conn
from spokes._fastpath.link.link_state cimport Stream
from spokes._fastpath.route.site cimport Upstream

# UDP services: datagrams of a public port as streams per peer, and back.
cdef enum:
    UDP_IDLE_MS = 60000                 # of silence in both directions, then a peer is forgotten; a rule may set it
    UDP_PEER_COUNT_MAX = 4096           # a port
    UDP_KEPT_BYTES_MAX = 2048           # of a flow: its last datagram, until its upstream has answered
    PEER_BUCKETS = 256
    SHARES = 256
    UDP_BATCH = 64                      # datagrams of one socket in one pass

cdef struct Local:                      # the address of ours that a datagram came to; no padding: it is compared whole
    uint8_t ip[16]
    uint32_t family                     # 0 = unknown, or one that nothing can leave from
    uint32_t interface                  # of a link-local one

cdef struct Peer:                       # server: one source address; client: one stream
    Peer *next
    Stream *stream
    Conn *conn
    uint64_t heard_ms                   # last datagram in either direction
    Peer *older                         # server, as all to sockaddr_raw: in its list, by heard_ms
    Peer *newer
    uint8_t share                       # index
    uint8_t assured                     # it went on after an answer: its address is its own
    Address address
    Local local
    socklen_t sockaddr_bytes
    sockaddr_storage sockaddr_raw
    Upstream *upstream                  # client, as all that follows
    uint8_t *kept                       # the last datagram sent, while an address is yet to answer; NULL = none
    uint32_t kept_bytes
    uint8_t first                       # index of the address that was tried first; the others follow in turn
    uint8_t tried                       # how many have refused
    uint8_t answered                    # at both ends
    uint8_t hops                        # its own address is noted with this number …
    uint64_t *noted                     # … here; NULL = nowhere

cdef struct PeerList:
    Peer *oldest
    Peer *newest

cdef struct Share:                      # the peers of one address (IPv6: one /64), and of others with the same index
    PeerList peers[2]                   # not assured, assured
    uint32_t peer_count

cdef struct Listener:                   # server, Conn.extra
    uint64_t id
    uint32_t peer_count
    uint32_t overflows                  # datagrams that the kernel had no room for, as last heard
    uint8_t is_v6                       # its socket: of IPv6, perhaps with IPv4 inside
    Peer *peers[PEER_BUCKETS]
    Share shares[SHARES]
