"""Listeners as Python knows them: by numbers, each at its worker."""
from libc.string cimport memset

from spokes._fastpath.base.ring cimport Msg
from spokes._fastpath.base.types cimport uint32_t
from spokes._fastpath.core.shared cimport COMMAND_LISTEN, COMMAND_UNLISTEN
from spokes._fastpath.core.visitor cimport LISTENER_HTTP, LISTENER_UDP

from spokes.errors import EngineError


cdef class Listeners:
    def __cinit__(self, Threads threads not None):
        self.threads = threads
        self.workers = {}

    cdef uint64_t add(self, int kind, int fd, int worker, int port) except 0:
        cdef Msg msg
        if self.threads.stopped:
            raise EngineError("the engine has stopped")
        if not 0 <= worker < <int>self.threads.shared.worker_count:
            raise EngineError(f"worker={worker} does not exist")
        if not LISTENER_HTTP <= kind <= LISTENER_UDP:
            raise EngineError(f"kind={kind} is no ListenerKind")
        self.serial += 1
        memset(&msg, 0, sizeof(msg))
        msg.kind = COMMAND_LISTEN
        msg.code = kind
        msg.a = self.serial
        msg.b = <uint64_t>fd
        msg.c = <uint32_t>port
        self.threads.push(worker, &msg)
        self.workers[self.serial] = -1 if kind == LISTENER_UDP else worker
        return self.serial

    cdef int remove(self, uint64_t listener) except -1:
        cdef Msg msg
        cdef uint32_t i
        worker = self.workers.pop(listener, None)
        if worker is None or self.threads.stopped:
            return 0
        memset(&msg, 0, sizeof(msg))
        msg.kind = COMMAND_UNLISTEN
        msg.a = listener
        for i in range(self.threads.shared.worker_count):
            if worker < 0 or worker == <int>i:
                self.threads.push(i, &msg)
        return 0
