"""Socket options, each optional: where a kernel refuses one, the socket goes without it."""
from libc.string cimport memcpy, memset

from spokes._fastpath.base.net cimport (
    IPPROTO_TCP, SOL_SOCKET, SO_KEEPALIVE, SO_RCVBUF, SO_SNDBUF, TCP_MAXSEG, TCP_NODELAY, getsockopt, setsockopt,
)
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.io.conn_state cimport SO_BUF_LOCK, UNSENT_BYTES_START

cdef extern from "netinet/tcp.h" nogil:
    int TCP_KEEPIDLE
    int TCP_KEEPINTVL
    int TCP_KEEPCNT
    int TCP_NOTSENT_LOWAT
    int TCP_CONGESTION
    int TCP_INFO
    cdef struct tcp_info:
        uint32_t tcpi_rtt

cdef enum:
    VISITOR_UNSENT_BYTES_START = 32768  # … and of one that has not shown yet that it does
    LOCAL_FREE_COUNT = 8                # conns of a worker to services, see tune_local_upstream: as the kernel likes …
    LOCAL_FEW_COUNT = 32                # … or of segments that are half as large …
    LOCAL_CROWD_COUNT = 256             # … and a crowd
    LOCAL_SEGMENT_BYTES_FEW = 31700     # with the kernel's own parts just less than 32 KiB …
    LOCAL_SEGMENT_BYTES_MANY = 7500     # … than 8 KiB …
    LOCAL_SEGMENT_BYTES_CROWD = 1400    # … and 2 KiB, the sizes that it takes
    LOCAL_RECEIVE_BYTES = 16384         # in a crowd; the kernel takes it twice …
    SEND_BYTES_FREE = 4194304           # before the kernel may choose again
    TCP_INFO_BYTES = 232                # linux/tcp.h's struct tcp_info, of which libc's is an older one:
    TCP_INFO_RTT = 68                   # … where its fields lie, a part of the kernel's ABI
    TCP_INFO_BYTES_ACKED = 120
    TCP_INFO_MIN_RTT = 148
    SHORT_PATH_US = 2000                # round trip of a path without wide-area loss
    TCP_RTO_MAX_MS = 44                 # linux/tcp.h of 6.15; the C library's headers may be older
    RETRY_WAIT_MS_MAX = 1900


cdef void tune_link(int fd) noexcept nogil:
    """Every option is optional: where a kernel refuses one, the link goes without it."""
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
    """What lies unsent in the kernel cannot be overtaken by another stream's slot."""
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
