# epoll, edge-triggered: a conn is added once and remembers what it is ready for; no other system call changes that.
from spokes._fastpath.base.types cimport uint32_t, uint64_t

cdef extern from "sys/epoll.h" nogil:
    cdef union epoll_data:
        void *ptr
    cdef struct epoll_event:
        uint32_t events
        epoll_data data
    uint32_t EPOLLIN
    uint32_t EPOLLOUT
    uint32_t EPOLLRDHUP
    uint32_t EPOLLHUP
    uint32_t EPOLLERR
    uint32_t EPOLLET

cdef enum:
    POLL_EVENT_COUNT_MAX = 512

cdef int poller_open() noexcept nogil                                   # epoll fd or -errno
cdef int poller_add(int epoll_fd, int fd, uint32_t events, void *ptr) noexcept nogil
cdef int poller_remove(int epoll_fd, int fd) noexcept nogil
cdef int poller_wait(int epoll_fd, epoll_event *events, int timeout_ms) noexcept nogil  # count (0: EINTR), -errno
