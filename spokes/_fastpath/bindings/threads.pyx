"""The threads of one engine and what they share: from its making to its end.

Owns: Shared, the workers, their rings, the contexts of TLS that arrives.
Fails: OSError for the kernel's refusals, EngineError for numbers out of range. Commands after the end do nothing.
"""
cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from spokes._fastpath.base.access_log cimport access_log_free, access_log_init
from spokes._fastpath.base.ring cimport ring_free, ring_init, ring_pop, ring_push
from spokes._fastpath.base.throttle cimport THROTTLE_PREFIX_COUNT_MAX, Prefix
from spokes._fastpath.base.types cimport uint64_t
from spokes._fastpath.bindings.pages cimport free_pages
from spokes._fastpath.core.shared cimport COMMAND_STOP, EVENT_RING_CAPACITY, Worker
from spokes._fastpath.core.worker cimport worker_clear, worker_configure, worker_init, worker_main
from spokes._fastpath.flow.own_address cimport NOTED_COUNT
from spokes._fastpath.route.tunnel cimport NODE_COUNT_MAX, WORKER_COUNT_MAX, Node
from spokes._fastpath.tls.tls_context cimport tls_context_free, tls_server_context

import ipaddress
import os

from spokes.errors import EngineError

cdef extern from "pthread.h" nogil:
    int pthread_create(pthread_t *thread, const void *attributes, void *(*main)(void *) noexcept nogil, void *argument)
    int pthread_join(pthread_t thread, void **result)

cdef extern from "signal.h" nogil:
    ctypedef struct sigset_t:
        pass
    int sigfillset(sigset_t *set)
    int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
    int SIG_SETMASK

cdef extern from "unistd.h" nogil:
    int usleep(unsigned int us)

HANDSHAKE_BURST_S = 10                  # worth of handshakes that an address may begin at once


@cython.no_gc                           # it is in no circle; those who hold it must find it whole when they end
cdef class Threads:
    def __cinit__(self, *, int workers, uint64_t memory_limit_bytes, bint accepting, uint32_t access_record_count_max):
        cdef int i, rc
        if not 1 <= workers <= WORKER_COUNT_MAX:
            raise EngineError(f"workers={workers} is not between 1 and {WORKER_COUNT_MAX}")
        if memory_limit_bytes < 8 << 20:
            raise EngineError(f"memory_limit_bytes={memory_limit_bytes} is less than 8 MiB")
        self.shared = <Shared *>calloc(1, sizeof(Shared))
        if self.shared == NULL:
            raise MemoryError
        self.shared.events.wake_fd = -1
        self.shared.budget.limit_bytes = memory_limit_bytes
        self.shared.link_serial = 1
        self.shared.accepting = accepting
        if not accepting:
            self.shared.dialled = <uint64_t *>calloc(NOTED_COUNT, sizeof(uint64_t))
            if self.shared.dialled == NULL:
                raise MemoryError
        if accepting:
            self.shared.link_context = tls_server_context(True)
            self.shared.visitor_context = tls_server_context(False)
            self.shared.nodes = <Node *>calloc(NODE_COUNT_MAX + 1, sizeof(Node))
            if self.shared.link_context == NULL or self.shared.visitor_context == NULL or self.shared.nodes == NULL:
                raise MemoryError
        self.shared.workers = <Worker *>calloc(workers, sizeof(Worker))
        self.ids = <pthread_t *>calloc(workers, sizeof(pthread_t))
        if self.shared.workers == NULL or self.ids == NULL:
            raise MemoryError
        rc = ring_init(&self.shared.events, EVENT_RING_CAPACITY)
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc))
        for i in range(workers):
            rc = worker_init(&self.shared.workers[i], self.shared, i)
            self.shared.worker_count = i + 1
            if rc < 0:
                raise OSError(-rc, os.strerror(-rc))
            if access_record_count_max and access_log_init(
                    &self.shared.workers[i].loop.access_log, access_record_count_max // workers) < 0:
                raise MemoryError

    def __dealloc__(self):
        cdef uint32_t i
        if self.shared == NULL:
            return
        self.stop()
        free_pages(self.shared)
        for i in range(self.shared.worker_count):
            access_log_free(&self.shared.workers[i].loop.access_log)
        tls_context_free(self.shared.link_context)
        tls_context_free(self.shared.visitor_context)
        free(self.ids)
        free(self.shared.workers)
        free(self.shared.dialled)
        free(self.shared.nodes)
        free(self.shared)

    cdef int set_throttle(self, uint32_t rate_per_s, list networks) except -1:
        cdef Prefix *prefix
        cdef bytes packed
        if len(networks) > THROTTLE_PREFIX_COUNT_MAX:
            raise EngineError(f"more than {THROTTLE_PREFIX_COUNT_MAX} unmetered networks")
        if rate_per_s > 1_000_000:
            raise EngineError(f"handshakes_per_address_per_s={rate_per_s} is more than a million")
        for text in networks:
            network = ipaddress.ip_network(text)
            packed = network.network_address.packed
            prefix = &self.shared.handshakes.prefixes[self.shared.handshakes.prefix_count]
            prefix.family = network.version
            prefix.bits = network.prefixlen
            memcpy(prefix.ip, <const char *>packed, len(packed))
            self.shared.handshakes.prefix_count += 1
        self.shared.handshakes.seed = int.from_bytes(os.urandom(8))
        if rate_per_s:
            self.shared.handshakes.interval_us = 1_000_000 // rate_per_s
            self.shared.handshakes.burst_us = HANDSHAKE_BURST_S * 1_000_000
        return 0

    cdef int start(self) except -1:
        cdef sigset_t all_signals, before
        cdef uint32_t i
        cdef int rc = 0
        for i in range(self.shared.worker_count):
            worker_configure(&self.shared.workers[i])
        # Signals are for the main thread.
        sigfillset(&all_signals)
        pthread_sigmask(SIG_SETMASK, &all_signals, &before)
        for i in range(self.shared.worker_count):
            rc = pthread_create(&self.ids[i], NULL, worker_main, &self.shared.workers[i])
            if rc != 0:
                break
        pthread_sigmask(SIG_SETMASK, &before, NULL)
        if rc != 0:
            raise OSError(rc, os.strerror(rc))
        self.started = True
        return 0

    cdef int stop(self) except -1:
        cdef uint32_t i
        cdef Msg msg
        if self.stopped:
            return 0
        self.stopped = True
        memset(&msg, 0, sizeof(msg))
        msg.kind = COMMAND_STOP
        if self.started:
            for i in range(self.shared.worker_count):
                self.push(i, &msg)
            with nogil:
                for i in range(self.shared.worker_count):
                    pthread_join(self.ids[i], NULL)
        for i in range(self.shared.worker_count):
            worker_clear(&self.shared.workers[i])
        while self.shared.events.cells != NULL and ring_pop(&self.shared.events, &msg):
            free(msg.p)
        ring_free(&self.shared.events)
        return 0

    cdef int push(self, uint32_t worker, const Msg *msg) except -1:
        """A full ring makes the caller wait: the worker is a few milliseconds behind at most."""
        with nogil:
            while not ring_push(&self.shared.workers[worker].commands, msg):
                usleep(500)
        return 0

    cdef int push_all(self, uint32_t kind) except -1:
        cdef Msg msg
        cdef uint32_t i
        if self.stopped:
            return 0
        memset(&msg, 0, sizeof(msg))
        msg.kind = kind
        for i in range(self.shared.worker_count):
            self.push(i, &msg)
        return 0
