"""The peers of a port: a table by address and lists by silence; which one is evicted when all slots are taken.

Bound: UDP_PEER_COUNT_MAX peers a port, lent to whoever comes and taken back from the address that holds most
(peer_to_evict).
"""
from libc.stdlib cimport free
from libc.string cimport memcmp

from spokes._fastpath.base.address cimport fnv1a
from spokes._fastpath.base.types cimport atomic_get
from spokes._fastpath.flow.udp_state cimport PEER_BUCKETS, SHARES, UDP_PEER_COUNT_MAX, PeerList
from spokes._fastpath.link.tunnel_slots cimport tunnel_may_take

cdef enum:
    UNASSURED_MS = 1000                 # so long a peer keeps its place, assured or not: 4096 OPENs a second at most


cdef uint32_t peer_bucket(const Address *address) noexcept nogil:
    cdef uint32_t h = fnv1a(2166136261u ^ address.port, address.ip, 16)
    return (h ^ (h >> 16)) % PEER_BUCKETS


cdef void peer_enlist(Peer *peer) noexcept nogil:
    cdef PeerList *peers = &(<Listener *>peer.conn.extra).shares[peer.share].peers[peer.assured]
    peer.newer = NULL
    peer.older = peers.newest
    if peers.newest != NULL:
        peers.newest.newer = peer
    else:
        peers.oldest = peer
    peers.newest = peer


cdef void peer_delist(Peer *peer) noexcept nogil:
    cdef PeerList *peers = &(<Listener *>peer.conn.extra).shares[peer.share].peers[peer.assured]
    if peer.newer != NULL:
        peer.newer.older = peer.older
    else:
        peers.newest = peer.older
    if peer.older != NULL:
        peer.older.newer = peer.newer
    else:
        peers.oldest = peer.newer


cdef void peer_heard(Peer *peer, bint is_answer) noexcept nogil:
    """A datagram came from the peer, or goes there."""
    peer_delist(peer)
    peer.heard_ms = peer.conn.loop.now_ms
    if is_answer:
        peer.answered = 1
    elif peer.answered:
        peer.assured = 1
    peer_enlist(peer)


cdef void peer_forget(Peer *peer) noexcept nogil:
    cdef Listener *listener = <Listener *>peer.conn.extra
    cdef Peer **place = &listener.peers[peer_bucket(&peer.address)]
    while place[0] != peer:
        place = &place[0].next
    place[0] = peer.next
    peer_delist(peer)
    listener.shares[peer.share].peer_count -= 1
    listener.peer_count -= 1
    free(peer)


cdef bint is_crowded(const Listener *listener, const Tunnel *tunnel, const Loop *loop) noexcept nogil:
    """Are there no more slots for datagrams? Of the last quarter of a tunnel's slots they get as many as stay free for
    TCP, whose visitors have shown that they are there."""
    return listener.peer_count >= UDP_PEER_COUNT_MAX \
        or not tunnel_may_take(tunnel, loop, atomic_get(&tunnel.flow_count))


cdef Peer *peer_to_evict(Conn *conn, const Share *own) noexcept nogil:
    """The peer whose slot a new one gets: one of the address that holds most. Where no address holds more than the new
    peer's own, one of its own share that is not assured: sources are easily forged, and a peer that is served stays.
    NULL: none."""
    cdef Listener *listener = <Listener *>conn.extra
    cdef const Share *most = own
    cdef Peer *peer
    cdef int i
    for i in range(SHARES):
        if listener.shares[i].peer_count > most.peer_count:
            most = &listener.shares[i]
    if most.peer_count > own.peer_count + 1:
        peer = most.peers[0].oldest if most.peers[0].oldest != NULL else most.peers[1].oldest
    else:
        peer = own.peers[0].oldest
        if peer == NULL or conn.loop.now_ms - peer.heard_ms < UNASSURED_MS:
            return NULL
    return peer


cdef Peer *peer_find(Listener *listener, const Address *address, const Local *local) noexcept nogil:
    cdef Peer *peer = listener.peers[peer_bucket(address)]
    while peer != NULL:
        if memcmp(&peer.address, address, sizeof(Address)) == 0:
            if peer.local.family == 0:      # came before the socket was told to say where to: now it is known
                peer.local = local[0]
            if memcmp(&peer.local, local, sizeof(Local)) == 0:
                return peer
        peer = peer.next
    return NULL
