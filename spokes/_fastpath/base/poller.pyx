"""Thin wrappers over epoll that answer -errno instead of setting it."""
from libc.errno cimport EINTR, errno

cdef extern from "sys/epoll.h" nogil:
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int count_max, int timeout_ms)
    int EPOLL_CLOEXEC
    int EPOLL_CTL_ADD
    int EPOLL_CTL_DEL


cdef int poller_open() noexcept nogil:
    cdef int fd = epoll_create1(EPOLL_CLOEXEC)
    return fd if fd >= 0 else -errno


cdef int poller_add(int epoll_fd, int fd, uint32_t events, void *ptr) noexcept nogil:
    cdef epoll_event event
    event.events = events
    event.data.ptr = ptr
    return 0 if epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 else -errno


cdef int poller_remove(int epoll_fd, int fd) noexcept nogil:
    cdef epoll_event event
    return 0 if epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, &event) == 0 else -errno


cdef int poller_wait(int epoll_fd, epoll_event *events, int timeout_ms) noexcept nogil:
    cdef int count = epoll_wait(epoll_fd, events, POLL_EVENT_COUNT_MAX, timeout_ms)
    if count >= 0:
        return count
    return 0 if errno == EINTR else -errno
