# libc's sockets, declared once for all modules.
from spokes._fastpath.base.types cimport uint8_t, uint16_t, uint32_t

cdef extern from "netinet/in.h" nogil:
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        unsigned short sa_family
    cdef struct sockaddr_storage:
        unsigned short ss_family
    cdef struct in_addr:
        uint32_t s_addr
    cdef struct in6_addr:
        uint8_t s6_addr[16]
    cdef struct sockaddr_in:
        unsigned short sin_family
        uint16_t sin_port
        in_addr sin_addr
    cdef struct sockaddr_in6:
        unsigned short sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
    uint16_t htons(uint16_t value)
    uint16_t ntohs(uint16_t value)
    int AF_INET
    int AF_INET6

cdef extern from "sys/un.h" nogil:
    cdef struct sockaddr_un:
        unsigned short sun_family
        char sun_path[108]
    int AF_UNIX

cdef extern from "sys/socket.h" nogil:
    int socket(int family, int type, int protocol)
    int connect(int fd, const sockaddr *address, socklen_t n)
    int accept4(int fd, sockaddr *address, socklen_t *n, int flags)
    int getsockname(int fd, sockaddr *address, socklen_t *n)
    int getpeername(int fd, sockaddr *address, socklen_t *n)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *n)
    int setsockopt(int fd, int level, int name, const void *value, socklen_t n)
    int shutdown(int fd, int how)
    ssize_t recv(int fd, void *dst, size_t n, int flags)
    ssize_t recvfrom(int fd, void *dst, size_t n, int flags, sockaddr *address, socklen_t *address_bytes)
    ssize_t send(int fd, const void *src, size_t n, int flags)
    ssize_t sendto(int fd, const void *src, size_t n, int flags, const sockaddr *address, socklen_t address_bytes)
    int SOCK_STREAM
    int SOCK_DGRAM
    int SOCK_NONBLOCK
    int SOCK_CLOEXEC
    int SOL_SOCKET
    int SO_ERROR
    int SO_KEEPALIVE
    int SO_LINGER
    int SO_RCVBUF
    int SO_SNDBUF
    int SHUT_WR
    int MSG_EOR
    int MSG_NOSIGNAL
    int MSG_PEEK

cdef extern from "netinet/tcp.h" nogil:
    int IPPROTO_TCP
    int TCP_MAXSEG
    int TCP_NODELAY
    int TCP_INFO

cdef extern from "unistd.h" nogil:
    int close(int fd)
