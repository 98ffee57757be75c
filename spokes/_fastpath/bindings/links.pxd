# Links as Python knows them: by numbers.
from spokes._fastpath.base.types cimport int32_t, uint32_t, uint64_t
from spokes._fastpath.bindings.slots cimport Slots
from spokes._fastpath.bindings.threads cimport Threads
from spokes._fastpath.tls.openssl cimport SSL_CTX

cdef class Context:
    cdef SSL_CTX *c

cdef class Links:
    cdef Threads threads
    cdef Slots slots
    cdef uint32_t next_worker
    cdef dict contexts                  # ca_file -> Context
    cdef dict tunnels                   # link -> slot
    cdef Context context(self, str ca_file)
    cdef uint64_t dial(self, str address, int port, str server_name, bytes pin_sha256, str ca_file,
                       int worker, int peer_worker) except 0
    cdef int send_control(self, uint64_t link, bytes payload, int flags) except -1
    cdef int bind(self, uint64_t link, uint32_t tunnel) except -1
    cdef double rtt_ms(self, uint64_t link) except -1
    cdef int command(self, uint32_t kind, uint64_t link, int32_t code=*, void *p=*, uint32_t p_bytes=*) except -1
    cdef int set_ticket_keys(self, list keys) except -1
