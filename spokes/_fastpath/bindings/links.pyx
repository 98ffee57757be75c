"""Links as Python knows them: by numbers that say which worker has them.

Owns: the contexts of TLS that links are dialled with, one for each set of authorities.
Fails: OSError or EngineError where a link cannot be dialled; a command to a link that is gone does nothing.
"""
cimport cython
from libc.errno cimport EINPROGRESS, errno
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from spokes._fastpath.base.address cimport address_read
from spokes._fastpath.base.net cimport (
    SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, close, connect, sockaddr, sockaddr_storage, socket, socklen_t,
)
from spokes._fastpath.base.ring cimport Msg
from spokes._fastpath.base.types cimport atomic_add, atomic_get, uint8_t
from spokes._fastpath.bindings.certificate cimport tls_words
from spokes._fastpath.bindings.socket_address cimport write_address
from spokes._fastpath.core.shared cimport COMMAND_BIND, COMMAND_CONNECT, COMMAND_CONTROL, LinkSlot
from spokes._fastpath.io.tune cimport tune_link
from spokes._fastpath.route.tunnel cimport WORKER_COUNT_MAX
from spokes._fastpath.tls.tls_context cimport (
    TICKET_KEY_BYTES, TICKET_KEY_COUNT_MAX, tls_client_context, tls_context_free, tls_set_ticket_keys,
)

import os

from spokes.errors import EngineError

CONTROL_BYTES_MAX = 65535


cdef class Context:
    """One SSL_CTX, freed with the last reference to it."""

    def __dealloc__(self):
        if self.c != NULL:
            tls_context_free(self.c)


@cython.no_gc                           # it is in no circle; what it holds must be whole when it ends
cdef class Links:
    def __cinit__(self, Threads threads not None, Slots slots not None):
        self.threads = threads
        self.slots = slots
        self.contexts = {}
        self.tunnels = {}

    def __dealloc__(self):
        self.threads.stop()

    cdef Context context(self, str ca_file):
        cdef bytes path = os.fsencode(ca_file)
        cdef Context context = self.contexts.get(ca_file)
        if context is None:
            context = Context()
            context.c = tls_client_context(path)
            if context.c == NULL:
                raise EngineError(f"the authorities in {ca_file or 'the system'} cannot be used: {tls_words()}")
            self.contexts[ca_file] = context
        return context

    cdef uint64_t dial(self, str address, int port, str server_name, bytes pin_sha256, str ca_file,
                       int worker, int peer_worker) except 0:
        cdef sockaddr_storage where
        cdef socklen_t where_bytes = write_address(&where, address, port)
        cdef LinkSlot *slot
        cdef Context context
        cdef Msg msg
        cdef int fd, rc
        cdef uint64_t link
        cdef bytes name = server_name.encode("ascii")
        if self.threads.stopped:
            raise EngineError("the engine has stopped")
        if len(name) > 253 or (pin_sha256 and len(pin_sha256) != 32):
            raise EngineError("server_name or pin_sha256 has a wrong length")
        if not -1 <= worker < <int>self.threads.shared.worker_count or not -1 <= peer_worker < WORKER_COUNT_MAX:
            raise EngineError("there is no such worker")
        context = self.context(ca_file)
        fd = socket(where.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if fd < 0:
            raise OSError(errno, os.strerror(errno))
        slot = <LinkSlot *>calloc(1, sizeof(LinkSlot))
        if slot == NULL:
            close(fd)
            raise MemoryError
        tune_link(fd)
        rc = connect(fd, <const sockaddr *>&where, where_bytes)
        rc = 0 if rc == 0 or errno == EINPROGRESS else -errno
        if worker < 0:
            worker = <int>self.next_worker
            self.next_worker = (self.next_worker + 1) % self.threads.shared.worker_count
        slot.peer_worker = <uint8_t>(peer_worker + 1)
        link = slot.id = (<uint64_t>(worker + 1) << 56) | atomic_add(&self.threads.shared.link_serial, 1)
        slot.context = context.c
        address_read(&slot.peer, &where)
        memcpy(slot.server_name, <const char *>name, len(name))
        if pin_sha256:
            slot.has_pin = 1
            memcpy(slot.pin, <const char *>pin_sha256, 32)
        memset(&msg, 0, sizeof(msg))
        msg.kind = COMMAND_CONNECT
        msg.p = slot
        msg.b = <uint64_t>fd
        msg.code = rc
        self.threads.push(worker, &msg)
        return link

    cdef int command(self, uint32_t kind, uint64_t link, int32_t code=0, void *p=NULL,
                     uint32_t p_bytes=0) except -1:
        cdef Msg msg
        cdef uint64_t worker = (link >> 56) - 1
        if self.threads.stopped or worker >= self.threads.shared.worker_count:
            if kind == COMMAND_CONTROL:
                free(p)
            return 0
        memset(&msg, 0, sizeof(msg))
        msg.kind = kind
        msg.a = link
        msg.code = code
        msg.p = p
        msg.p_bytes = p_bytes
        return self.threads.push(<uint32_t>worker, &msg)

    cdef int send_control(self, uint64_t link, bytes payload, int flags) except -1:
        cdef void *copy
        if len(payload) > CONTROL_BYTES_MAX:
            raise EngineError(f"a control frame of {len(payload)} bytes is longer than {CONTROL_BYTES_MAX}")
        copy = malloc(len(payload) + 1)
        if copy == NULL:
            raise MemoryError
        memcpy(copy, <const char *>payload, len(payload))
        return self.command(COMMAND_CONTROL, link, flags, copy, <uint32_t>len(payload))

    cdef int bind(self, uint64_t link, uint32_t tunnel) except -1:
        self.tunnels[link] = tunnel
        return self.command(COMMAND_BIND, link, 0, self.slots.tunnel_at(tunnel))

    cdef double rtt_ms(self, uint64_t link) except -1:
        cdef object tunnel = self.tunnels.get(link)
        if tunnel is None or tunnel >= self.slots.tunnel_count:
            return 0.0
        return atomic_get(&self.slots.tunnels[<uint32_t>tunnel].rtt_us) / 1000.0

    cdef int set_ticket_keys(self, list keys) except -1:
        """Of links and visitors alike."""
        cdef bytes packed = b"".join(keys)
        if not 1 <= len(keys) <= TICKET_KEY_COUNT_MAX or any(len(key) != TICKET_KEY_BYTES for key in keys):
            raise EngineError(f"ticket keys are one to {TICKET_KEY_COUNT_MAX}, of {TICKET_KEY_BYTES} bytes each")
        if not self.threads.shared.accepting:
            raise EngineError("a client's engine gives no tickets")
        tls_set_ticket_keys(self.threads.shared.link_context, packed, <int>len(keys))
        tls_set_ticket_keys(self.threads.shared.visitor_context, packed, <int>len(keys))
        return 0
