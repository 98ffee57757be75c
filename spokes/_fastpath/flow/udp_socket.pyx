"""A port's socket: datagrams with the address of ours that they came to; answers leave from it (RFC 1122, 4.1.3.5)."""
from libc.string cimport memcpy, memset

from spokes._fastpath.base.buf cimport iovec
from spokes._fastpath.base.net cimport AF_INET6, MSG_NOSIGNAL, SOL_SOCKET, in6_addr, in_addr, setsockopt, sockaddr
from spokes._fastpath.base.types cimport uint32_t
from spokes._fastpath.flow.udp_state cimport Listener
from spokes._fastpath.io.conn_state cimport RX_BYTES

cdef extern from "sys/socket.h" nogil:
    cdef struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    cdef struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    cmsghdr *CMSG_FIRSTHDR(msghdr *message)
    cmsghdr *CMSG_NXTHDR(msghdr *message, cmsghdr *one)
    uint8_t *CMSG_DATA(cmsghdr *one)
    size_t CMSG_LEN(size_t bytes)
    size_t CMSG_SPACE(size_t bytes)
    ssize_t recvmsg(int fd, msghdr *message, int flags)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)
    int getsockname(int fd, sockaddr *address, socklen_t *n)
    int SO_RXQ_OVFL

cdef extern from "netinet/in.h" nogil:
    cdef struct in_pktinfo:
        int ipi_ifindex
        in_addr ipi_spec_dst
        in_addr ipi_addr
    cdef struct in6_pktinfo:
        in6_addr ipi6_addr
        unsigned int ipi6_ifindex
    int IPPROTO_IP
    int IPPROTO_IPV6
    int IP_PKTINFO
    int IPV6_PKTINFO
    int IPV6_RECVPKTINFO

cdef enum:
    CONTROL_BYTES = 256                 # of one recvmsg or sendmsg: an address, a counter


cdef void tune_listening(int fd) noexcept nogil:
    """No option is required. Without the first two an answer leaves from the address that the kernel chooses."""
    cdef int on = 1
    setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on))
    setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on))
    setsockopt(fd, SOL_SOCKET, SO_RXQ_OVFL, &on, sizeof(on))


cdef bint is_mapped(const uint8_t *ip) noexcept nogil:
    """::ffff:a.b.c.d, as a socket of IPv6 shows IPv4."""
    cdef int i
    for i in range(10):
        if ip[i] != 0:
            return False
    return ip[10] == 0xFF and ip[11] == 0xFF


cdef bint is_link_local(const uint8_t *ip) noexcept nogil:
    return ip[0] == 0xFE and (ip[1] & 0xC0) == 0x80


cdef void local_read(Local *out, const uint8_t *ip, uint32_t interface) noexcept nogil:
    """From IPV6_PKTINFO. A group has no answers of its own."""
    if ip[0] == 0xFF:
        return
    if is_mapped(ip):
        out.family = 4
        memcpy(out.ip, ip + 12, 4)
        return
    out.family = 6
    memcpy(out.ip, ip, 16)
    out.interface = interface if is_link_local(ip) else 0


cdef ssize_t listener_recv(Conn *conn, sockaddr_storage *source, socklen_t *source_bytes, Local *local) noexcept nogil:
    """One datagram into loop.rx, and where it came to; < 0: none."""
    cdef Listener *listener = <Listener *>conn.extra
    cdef uint8_t control[CONTROL_BYTES]
    cdef iovec iov
    cdef msghdr message
    cdef cmsghdr *one
    cdef in_pktinfo v4
    cdef in6_pktinfo v6
    cdef uint32_t overflows
    cdef ssize_t n
    memset(local, 0, sizeof(Local))
    memset(&message, 0, sizeof(message))
    iov.iov_base = conn.loop.rx
    iov.iov_len = RX_BYTES
    message.msg_name = source
    message.msg_namelen = sizeof(sockaddr_storage)
    message.msg_iov = &iov
    message.msg_iovlen = 1
    message.msg_control = control
    message.msg_controllen = CONTROL_BYTES
    n = recvmsg(conn.fd, &message, 0)
    if n < 0:
        return n
    source_bytes[0] = message.msg_namelen
    one = CMSG_FIRSTHDR(&message)
    while one != NULL:
        if one.cmsg_level == IPPROTO_IP and one.cmsg_type == IP_PKTINFO:
            memcpy(&v4, CMSG_DATA(one), sizeof(v4))
            if v4.ipi_spec_dst.s_addr != 0:     # of a broadcast too it is an address of ours; 0 = came too early
                memset(local, 0, sizeof(Local))
                local.family = 4
                memcpy(local.ip, &v4.ipi_spec_dst, 4)
        elif one.cmsg_level == IPPROTO_IPV6 and one.cmsg_type == IPV6_PKTINFO and local.family == 0:
            memcpy(&v6, CMSG_DATA(one), sizeof(v6))
            local_read(local, <const uint8_t *>&v6.ipi6_addr, v6.ipi6_ifindex)
        elif one.cmsg_level == SOL_SOCKET and one.cmsg_type == SO_RXQ_OVFL:
            memcpy(&overflows, CMSG_DATA(one), 4)
            conn.loop.stats.datagrams_dropped += <uint32_t>(overflows - listener.overflows)
            listener.overflows = overflows
        one = CMSG_NXTHDR(&message, one)
    return n


cdef ssize_t listener_send(Peer *peer, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """To the peer, from the address it sent to."""
    cdef Listener *listener = <Listener *>peer.conn.extra
    cdef uint8_t control[CONTROL_BYTES]
    cdef iovec iov
    cdef msghdr message
    cdef cmsghdr *one
    cdef in_pktinfo v4
    cdef in6_pktinfo v6
    cdef uint8_t *ip
    memset(&message, 0, sizeof(message))
    iov.iov_base = <void *>src
    iov.iov_len = src_bytes
    message.msg_name = &peer.sockaddr_raw
    message.msg_namelen = peer.sockaddr_bytes
    message.msg_iov = &iov
    message.msg_iovlen = 1
    if peer.local.family == 0:
        return sendmsg(peer.conn.fd, &message, MSG_NOSIGNAL)
    memset(control, 0, CONTROL_BYTES)
    message.msg_control = control
    message.msg_controllen = CONTROL_BYTES
    one = CMSG_FIRSTHDR(&message)
    if listener.is_v6:
        memset(&v6, 0, sizeof(v6))
        ip = <uint8_t *>&v6.ipi6_addr
        if peer.local.family == 4:
            ip[10] = ip[11] = 0xFF
            memcpy(ip + 12, peer.local.ip, 4)
        else:
            memcpy(ip, peer.local.ip, 16)
        v6.ipi6_ifindex = peer.local.interface
        one.cmsg_level = IPPROTO_IPV6
        one.cmsg_type = IPV6_PKTINFO
        one.cmsg_len = CMSG_LEN(sizeof(v6))
        message.msg_controllen = CMSG_SPACE(sizeof(v6))
        memcpy(CMSG_DATA(one), &v6, sizeof(v6))
    else:
        memset(&v4, 0, sizeof(v4))
        memcpy(&v4.ipi_spec_dst, peer.local.ip, 4)
        one.cmsg_level = IPPROTO_IP
        one.cmsg_type = IP_PKTINFO
        one.cmsg_len = CMSG_LEN(sizeof(v4))
        message.msg_controllen = CMSG_SPACE(sizeof(v4))
        memcpy(CMSG_DATA(one), &v4, sizeof(v4))
    return sendmsg(peer.conn.fd, &message, MSG_NOSIGNAL)


cdef bint is_v6_socket(int fd) noexcept nogil:
    cdef sockaddr_storage bound
    cdef socklen_t n = sizeof(bound)
    return getsockname(fd, <sockaddr *>&bound, &n) == 0 and bound.ss_family == AF_INET6
