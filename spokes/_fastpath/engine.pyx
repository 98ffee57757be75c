"""The engine's Python face: the only module of the data plane that Python code imports, and the only one that raises.

Owns: the worker threads, the rings, the route table being built, TLS contexts. Bound: see engine.pyi.
Fails: OSError for the kernel's refusals, EngineError for ours; a command to a link that is gone does nothing.
"""
from libc.errno cimport EINPROGRESS, errno
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from spokes._fastpath.base.address cimport address_read, address_text
from spokes._fastpath.base.buf cimport Budget
from spokes._fastpath.base.net cimport (
    AF_INET, AF_INET6, AF_UNIX, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, close, connect, htons, sockaddr, sockaddr_in,
    sockaddr_in6, sockaddr_storage, sockaddr_un, socket, socklen_t,
)
from spokes._fastpath.base.ring cimport (
    Msg, Ring, ring_clear_wake, ring_free, ring_init, ring_is_empty, ring_pop, ring_push, ring_sleep, ring_wake,
)
from spokes._fastpath.base.stats cimport Stats
from spokes._fastpath.base.throttle cimport THROTTLE_PREFIX_COUNT_MAX, Prefix
from spokes._fastpath.base.types cimport (
    atomic_add, atomic_get, atomic_set, atomic_sub, int32_t, int64_t, uint16_t, uint32_t, uint64_t, uint8_t,
)
from spokes._fastpath.base.access_log cimport AccessRecord, access_log_free, access_log_init, access_log_take
from spokes._fastpath.core.events cimport EVENT_LINK_DOWN
from spokes._fastpath.core.shared cimport (
    COMMAND_ABORT, COMMAND_BIND, COMMAND_CLOSE, COMMAND_CONNECT, COMMAND_CONTROL, COMMAND_DRAIN, COMMAND_LISTEN,
    COMMAND_PING, COMMAND_RELIEVE, COMMAND_STOP, COMMAND_SWEEP, COMMAND_TABLE, COMMAND_UNLISTEN, EVENT_RING_CAPACITY,
    VIA_BYTES_MAX, LinkSlot, Shared, Worker,
)
from spokes._fastpath.core.visitor cimport LISTENER_HTTP, LISTENER_UDP
from spokes._fastpath.core.worker cimport worker_clear, worker_init, worker_main
from spokes._fastpath.flow.fault cimport fault_page as page_of_fault
from spokes._fastpath.flow.files cimport can_open_beneath
from spokes._fastpath.flow.own_address cimport NOTED_COUNT
from spokes._fastpath.flow.udp_state cimport UDP_IDLE_MS
from spokes._fastpath.http.http1 cimport HTTP_HEAD_BYTES_MAX
from spokes._fastpath.http.page cimport PAGE_COUNT, Page
from spokes._fastpath.io.tune cimport tune_link
from spokes._fastpath.route.outcome cimport FAULT_COUNT, FAULT_CUT, FAULT_NONE
from spokes._fastpath.route.route cimport (
    ROUTE_CERTIFICATE, ROUTE_HTTP, ROUTE_LINK, ROUTE_TCP, ROUTE_TLS, ROUTE_UDP, RouteTable, route_find,
    route_table_discard, route_table_drop, route_table_drop_tunnel, route_table_fork, route_table_put,
    route_table_release, route_table_succeed,
)
from spokes._fastpath.route.site cimport (
    SITE_TUNNEL_COUNT_MAX, UPSTREAM_ADDRESS_COUNT_MAX, Directory as DirectoryStruct, Limits as LimitsStruct,
    Policy as PolicyStruct, Site as SiteStruct, Upstream as UpstreamStruct, directory_new, directory_release,
    site_release, site_to_directory, site_to_page, site_to_tunnels, site_to_upstream, site_with_certificate,
    upstream_new, upstream_release,
)
from spokes._fastpath.route.tunnel cimport END_IDLE, Service, Tunnel
from spokes._fastpath.tls.certificate cimport (
    Certificate as CertificateStruct, certificate_new, certificate_release, certificate_try,
)
from spokes._fastpath.tls.openssl cimport SSL_CTX
from spokes._fastpath.tls.tls_context cimport (
    TICKET_KEY_BYTES, TICKET_KEY_COUNT_MAX, tls_client_context, tls_context_free, tls_server_context,
    tls_set_ticket_keys,
)
from spokes._fastpath.tls.tls_words cimport tls_error_text

import hashlib
import ipaddress
import os
import time
from collections import deque
from enum import IntEnum
from typing import NamedTuple

from spokes._fastpath.core.events import EventKind as CEventKind, LinkDown as CLinkDown
from spokes._fastpath.core.visitor import ListenerKind as CListenerKind
from spokes._fastpath.http.page import PageId
from spokes._fastpath.route.route import RouteKind as CRouteKind
from spokes.errors import EngineError
from spokes.pages import JSON_SUFFIX, PAGES, REASON_PHRASES

cdef extern from "pthread.h" nogil:
    ctypedef unsigned long pthread_t
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

LINK_ALPN = b"spokes/1"

HANDSHAKE_BURST_S = 10                  # worth of handshakes that an address may begin at once
END_AFTER_S_MAX = 86400.0
TUNNEL_QUARANTINE_S = 10.0              # a closed slot is not used while a worker may have commands about it

# Codes of pages by their PageId; [0] is "": no page.
PAGE_CODES = ("",) + tuple(name.replace("PAGE", "SPK", 1).replace("_", "-") for name in PageId.__members__
                           if name not in ("PAGE_NONE", "PAGE_COUNT"))


def fault_code(fault):
    """What the control plane calls a fault: as the page that visitors get for it, where there is one."""
    if fault == FAULT_NONE:
        return ""
    return "SPK-UPSTREAM-CUT" if fault == FAULT_CUT else PAGE_CODES[page_of_fault(fault)]


FAULT_CODES = tuple(fault_code(fault) for fault in range(<int>FAULT_COUNT))


def without_prefix(str name, words):
    """The enumeration of C whose members are PREFIX_NAME, as Python has it: NAME."""
    return IntEnum(name, {word.partition("_")[2]: int(value) for word, value in words.__members__.items()},
                   module=__name__)


ListenerKind = without_prefix("ListenerKind", CListenerKind)
RouteKind = without_prefix("RouteKind", CRouteKind)
EventKind = without_prefix("EventKind", CEventKind)
LinkDown = without_prefix("LinkDown", CLinkDown)


class Limits(NamedTuple):
    silence_s: float = 0.0
    body_bytes_max: int = 0
    line_bytes_max: int = 0
    udp_idle_s: float = 0.0


class Event(NamedTuple):
    kind: int
    link: int
    code: int
    data: bytes


cdef uint64_t upstream_serial = 0


cdef socklen_t write_address(sockaddr_storage *out, str host, int port) except 0:
    """A literal IP and port as the kernel wants it."""
    cdef sockaddr_in *v4 = <sockaddr_in *>out
    cdef sockaddr_in6 *v6 = <sockaddr_in6 *>out
    cdef bytes packed
    memset(out, 0, sizeof(sockaddr_storage))
    if not 0 < port < 65536:
        raise EngineError(f"port {port} is not between 1 and 65535")
    try:
        packed = ipaddress.ip_address(host).packed
    except ValueError:
        raise EngineError(f"{host!r} is not a literal IP address") from None
    if len(packed) == 4:
        v4.sin_family = AF_INET
        v4.sin_port = htons(<uint16_t>port)
        memcpy(&v4.sin_addr, <const char *>packed, 4)
        return sizeof(sockaddr_in)
    v6.sin6_family = AF_INET6
    v6.sin6_port = htons(<uint16_t>port)
    memcpy(&v6.sin6_addr, <const char *>packed, 16)
    return sizeof(sockaddr_in6)


class Policy(NamedTuple):
    limits: Limits = Limits()
    https_port: int = 0


class Site(NamedTuple):
    tunnels: tuple = ()
    upstream: object = None
    directory: object = None
    page: str = ""
    service: int = 0
    policy: Policy = Policy()


cdef int write_policy(PolicyStruct *out, policy) except -1:
    memset(out, 0, sizeof(PolicyStruct))
    if not 0 <= policy.https_port <= 65535:
        raise EngineError(f"https_port={policy.https_port} is no port")
    out.https_port = <uint16_t>policy.https_port
    return write_limits(&out.limits, policy.limits)


cdef int write_limits(LimitsStruct *out, limits) except -1:
    for seconds in (limits.silence_s, limits.udp_idle_s):
        if not (seconds == 0 or 0.1 <= seconds <= END_AFTER_S_MAX):
            raise EngineError(f"a limit of {seconds} s is not between 0.1 and {END_AFTER_S_MAX}")
    if not 0 <= limits.line_bytes_max <= <int>HTTP_HEAD_BYTES_MAX:
        raise EngineError(f"a line of {limits.line_bytes_max} bytes is more than a head may have")
    out.silence_ms = <uint32_t>(limits.silence_s * 1000)
    out.body_bytes_max = limits.body_bytes_max
    out.line_bytes_max = limits.line_bytes_max
    out.udp_idle_ms = <uint32_t>(limits.udp_idle_s * 1000)
    return 0


cdef class Upstream:
    cdef UpstreamStruct *c

    def __cinit__(self, *, list addresses=None, str unix_path="", str host="", str name="", str fault_page=""):
        global upstream_serial
        cdef bytes path = os.fsencode(unix_path)
        cdef bytes host_bytes = host.encode("ascii")
        cdef bytes name_bytes = name.encode("ascii", "replace")[:255]
        cdef sockaddr_un *local
        self.c = upstream_new()
        if self.c == NULL:
            raise MemoryError
        upstream_serial += 1
        self.c.id = upstream_serial
        if len(host_bytes) > 255:
            raise EngineError("the upstream's host name is longer than 255 bytes")
        self.c.host_bytes = <uint8_t>len(host_bytes)
        memcpy(self.c.host, <const char *>host_bytes, len(host_bytes))
        self.c.name_bytes = <uint8_t>len(name_bytes)
        memcpy(self.c.name, <const char *>name_bytes, len(name_bytes))
        if fault_page not in PAGE_CODES:
            raise EngineError(f"{fault_page} is no page")
        self.c.fault_page = <uint8_t>PAGE_CODES.index(fault_page)
        if unix_path:
            if len(path) > 107 or b"\0" in path:
                raise EngineError(f"the socket's path is longer than 107 bytes: {unix_path}")
            local = <sockaddr_un *>&self.c.addresses[0]
            local.sun_family = AF_UNIX
            memcpy(local.sun_path, <const char *>path, len(path))
            self.c.address_bytes[0] = sizeof(sockaddr_un)
            self.c.address_count = 1
            return
        for host_text, port in (addresses or [])[:UPSTREAM_ADDRESS_COUNT_MAX]:
            self.c.address_bytes[self.c.address_count] = write_address(
                &self.c.addresses[self.c.address_count], host_text, port)
            self.c.address_count += 1

    @property
    def id(self):
        return self.c.id

    def outcomes(self):
        cdef uint64_t last = atomic_get(&self.c.outcomes.last)
        cdef int i
        cdef list counts = []
        for i in range(<int>FAULT_COUNT):
            counts.append(atomic_get(&self.c.outcomes.faults[i]))
        return <int>(last & 0xff), (last >> 8) / 1000.0, counts

    def has_answered(self):
        return atomic_get(&self.c.outcomes.answered) != 0

    def __dealloc__(self):
        upstream_release(self.c)


cdef class Directory:
    cdef DirectoryStruct *c
    cdef readonly tuple identity

    def __cinit__(self, str path, *, bint beneath=True):
        cdef int fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.c = directory_new(fd)
        if self.c == NULL:
            os.close(fd)
            raise MemoryError
        self.c.beneath = beneath and can_open_beneath(fd)
        info = os.fstat(fd)
        self.identity = (info.st_dev, info.st_ino)

    def __dealloc__(self):
        directory_release(self.c)


cdef class Context:
    """One SSL_CTX, freed with the last reference to it."""

    cdef SSL_CTX *c

    def __dealloc__(self):
        if self.c != NULL:
            tls_context_free(self.c)


cdef SSL_CTX *trial_context = NULL      # certificates are tried with it; made with the first, never freed


cdef SSL_CTX *trial() except NULL:
    global trial_context
    if trial_context == NULL:
        trial_context = tls_server_context(False)
        if trial_context == NULL:
            raise MemoryError
    return trial_context


cdef class Certificate:
    cdef CertificateStruct *c
    cdef SiteStruct *site               # that it is shown under each of its names
    cdef readonly tuple names

    def __cinit__(self, names, bytes chain_pem not None, bytes key_pem not None, *, bytes staple=b"",
                  bint is_tried=True):
        cdef const uint8_t *chain = chain_pem
        cdef const uint8_t *key = key_pem
        cdef const uint8_t *response = staple
        cdef size_t chain_bytes = len(chain_pem), key_bytes = len(key_pem), staple_bytes = len(staple)
        cdef bytes digest
        cdef const uint8_t *scope
        cdef SSL_CTX *context = trial() if is_tried else NULL
        self.names = tuple(sorted({name.lower() for name in names}))
        digest = hashlib.sha256("\0".join(self.names).encode("ascii")).digest()
        scope = digest
        with nogil:
            self.c = certificate_new(context, chain, chain_bytes, key, key_bytes, scope, response, staple_bytes)
        if self.c == NULL:
            raise EngineError(f"the certificate cannot be used: {tls_words()}")
        self.site = site_with_certificate(self.c)
        if self.site == NULL:
            raise MemoryError

    def try_out(self):
        cdef SSL_CTX *context = trial()
        cdef bint done
        with nogil:
            done = certificate_try(self.c, context)
        if not done:
            raise EngineError(f"the certificate cannot be used: {tls_words()}")

    def __dealloc__(self):
        site_release(self.site)
        certificate_release(self.c)


cdef str tls_words():
    return (<bytes>tls_error_text()).decode("ascii", "replace")


cdef class Engine:
    cdef Shared *shared
    cdef pthread_t *threads
    cdef bint started, stopped
    cdef RouteTable *table              # the one published last; NULL = none yet
    cdef RouteTable *draft              # its successor, with what changed since; NULL = nothing did
    cdef dict client_contexts           # ca_file -> Context
    cdef dict link_tunnels              # link -> slot
    cdef object tunnels_free            # deque of (slot, when it was closed), oldest first
    cdef Tunnel **tunnels
    cdef uint32_t tunnel_count
    cdef uint32_t tunnel_capacity
    cdef object services_free           # deque of (slot, when it was closed), oldest first
    cdef Service **services
    cdef uint32_t service_count
    cdef uint32_t service_capacity
    cdef uint64_t service_serial
    cdef uint64_t listener_serial
    cdef uint32_t next_worker
    cdef dict listener_workers
    cdef readonly int event_fd
    cdef readonly int worker_count

    def __cinit__(self, *, int workers, uint64_t memory_limit_bytes, bint accepting,
                  uint32_t stream_count_max=100_000, uint64_t visitor_count_max=1_000_000,
                  uint64_t visitor_count_per_address_max=0, uint32_t handshakes_per_address_per_s=0,
                  list unmetered_networks=None, uint32_t visit_count_max=0, uint64_t tunnel_stream_count_max=0,
                  bytes via=b"", double udp_idle_s=UDP_IDLE_MS / 1000.0):
        cdef int i, rc
        if not 1 <= workers <= 64:
            raise EngineError(f"workers={workers} is not between 1 and 64")
        if memory_limit_bytes < 8 << 20:
            raise EngineError(f"memory_limit_bytes={memory_limit_bytes} is less than 8 MiB")
        self.shared = <Shared *>calloc(1, sizeof(Shared))
        if self.shared == NULL:
            raise MemoryError
        self.shared.events.wake_fd = -1
        self.shared.budget.limit_bytes = memory_limit_bytes
        self.shared.stream_count_max = stream_count_max
        self.shared.visitor_count_max = visitor_count_max
        self.shared.visitor_count_per_address_max = visitor_count_per_address_max or visitor_count_max
        self.set_throttle(handshakes_per_address_per_s, unmetered_networks or [])
        if len(via) > VIA_BYTES_MAX:
            raise EngineError(f"via={via!r} is longer than {VIA_BYTES_MAX} bytes")
        memcpy(self.shared.via, <const char *>via, len(via))
        self.shared.via_bytes = <uint8_t>len(via)
        self.shared.link_serial = 1
        if not 0.1 <= udp_idle_s <= END_AFTER_S_MAX:
            raise EngineError(f"udp_idle_s={udp_idle_s} is not between 0.1 and {END_AFTER_S_MAX}")
        self.shared.udp_idle_ms = <uint64_t>(udp_idle_s * 1000)
        self.shared.accepting = accepting
        self.shared.tunnel_stream_count_max = tunnel_stream_count_max
        if not accepting:
            self.shared.dialled = <uint64_t *>calloc(NOTED_COUNT, sizeof(uint64_t))
            if self.shared.dialled == NULL:
                raise MemoryError
        if accepting:
            self.shared.link_context = tls_server_context(True)
            self.shared.visitor_context = tls_server_context(False)
            if self.shared.link_context == NULL or self.shared.visitor_context == NULL:
                raise MemoryError
        self.shared.workers = <Worker *>calloc(workers, sizeof(Worker))
        self.threads = <pthread_t *>calloc(workers, sizeof(pthread_t))
        if self.shared.workers == NULL or self.threads == NULL:
            raise MemoryError
        rc = ring_init(&self.shared.events, EVENT_RING_CAPACITY)
        if rc < 0:
            raise OSError(-rc, os.strerror(-rc))
        self.event_fd = self.shared.events.wake_fd
        for i in range(workers):
            rc = worker_init(&self.shared.workers[i], self.shared, i)
            self.shared.worker_count = i + 1
            if rc < 0:
                raise OSError(-rc, os.strerror(-rc))
            if visit_count_max \
                    and access_log_init(&self.shared.workers[i].loop.access_log, visit_count_max // workers) < 0:
                raise MemoryError
        self.worker_count = workers
        self.client_contexts = {}
        self.link_tunnels = {}
        self.tunnels_free = deque()
        self.services_free = deque()
        self.listener_workers = {}
        for code in PAGE_CODES[1:]:
            status = PAGES[code].status
            self.put_page(code, status, "text/plain; charset=utf-8", f"{REASON_PHRASES[status]} [{code}]\n".encode())

    def __dealloc__(self):
        cdef uint32_t i
        if self.shared == NULL:
            return
        self.end()
        route_table_discard(self.draft)                 # of changes that came after the end
        for i in range(<uint32_t>PAGE_COUNT):
            free(self.shared.pages[i].head)
            free(self.shared.pages[i].body)
            free(self.shared.json_pages[i].head)
            free(self.shared.json_pages[i].body)
        for i in range(self.tunnel_count):
            free(self.tunnels[i])
        free(self.tunnels)
        for i in range(self.service_count):
            free(self.services[i])
        free(self.services)
        for i in range(self.shared.worker_count):
            access_log_free(&self.shared.workers[i].loop.access_log)
        tls_context_free(self.shared.link_context)
        tls_context_free(self.shared.visitor_context)
        free(self.threads)
        free(self.shared.workers)
        free(self.shared.dialled)
        free(self.shared)

    cdef set_throttle(self, uint32_t rate_per_s, list networks):
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

    # --- life ---

    def start(self):
        cdef sigset_t all_signals, before
        cdef uint32_t i
        cdef int rc = 0
        if self.started or self.stopped:
            raise EngineError("the engine was started before")
        self.publish()
        # Signals are for the main thread.
        sigfillset(&all_signals)
        pthread_sigmask(SIG_SETMASK, &all_signals, &before)
        for i in range(self.shared.worker_count):
            rc = pthread_create(&self.threads[i], NULL, worker_main, &self.shared.workers[i])
            if rc != 0:
                break
        pthread_sigmask(SIG_SETMASK, &before, NULL)
        if rc != 0:
            raise OSError(rc, os.strerror(rc))
        self.started = True

    def stop(self):
        self.end()

    cdef end(self):
        cdef uint32_t i
        cdef Msg msg
        if self.stopped:
            return
        self.stopped = True
        memset(&msg, 0, sizeof(msg))
        msg.kind = COMMAND_STOP
        if self.started:
            for i in range(self.shared.worker_count):
                self.push(i, &msg)
            with nogil:
                for i in range(self.shared.worker_count):
                    pthread_join(self.threads[i], NULL)
        for i in range(self.shared.worker_count):
            worker_clear(&self.shared.workers[i])
        route_table_discard(self.draft)
        route_table_release(self.table)
        self.draft = self.table = NULL
        while self.shared.events.cells != NULL and ring_pop(&self.shared.events, &msg):
            free(msg.p)
        ring_free(&self.shared.events)

    cdef int push(self, uint32_t worker, const Msg *msg) except -1:
        """A full ring makes the caller wait: the worker is a few milliseconds behind at most."""
        with nogil:
            while not ring_push(&self.shared.workers[worker].commands, msg):
                usleep(500)
        return 0

    cdef bint gone(self):
        return self.stopped

    # --- listeners ---

    def add_listener(self, int kind, int fd, *, int worker, int port):
        cdef Msg msg
        if self.gone():
            raise EngineError("the engine has stopped")
        if not 0 <= worker < self.worker_count:
            raise EngineError(f"worker={worker} does not exist")
        if not LISTENER_HTTP <= kind <= LISTENER_UDP:
            raise EngineError(f"kind={kind} is no ListenerKind")
        self.listener_serial += 1
        memset(&msg, 0, sizeof(msg))
        msg.kind = COMMAND_LISTEN
        msg.code = kind
        msg.a = self.listener_serial
        msg.b = <uint64_t>fd
        msg.c = <uint32_t>port
        self.push(worker, &msg)
        self.listener_workers[self.listener_serial] = -1 if kind == LISTENER_UDP else worker
        return self.listener_serial

    def remove_listener(self, uint64_t listener):
        cdef Msg msg
        cdef uint32_t i
        worker = self.listener_workers.pop(listener, None)
        if worker is None or self.gone():
            return
        memset(&msg, 0, sizeof(msg))
        msg.kind = COMMAND_UNLISTEN
        msg.a = listener
        for i in range(self.shared.worker_count):       # a UDP socket may have moved
            if worker < 0 or worker == <int>i:
                self.push(i, &msg)

    # --- tunnels and routes ---

    def open_tunnel(self):
        cdef Tunnel *tunnel
        cdef Tunnel **more
        slot = self.quarantined_slot()
        if slot is not None:
            tunnel = self.tunnels[<uint32_t>slot]
            while tunnel.services != NULL:
                tunnel.services.tunnel = NULL       # of the tunnel that had the slot before
                tunnel.services = tunnel.services.next
            tunnel.counts.bytes_in = tunnel.counts.bytes_out = tunnel.last_heard_ms = 0
            tunnel.is_open = 1
            return slot
        if self.tunnel_count == self.tunnel_capacity:
            self.tunnel_capacity = self.tunnel_capacity * 2 if self.tunnel_capacity else 64
            more = <Tunnel **>malloc(self.tunnel_capacity * sizeof(Tunnel *))
            if more == NULL:
                raise MemoryError
            if self.tunnel_count:           # memcpy from NULL is undefined, even of nothing
                memcpy(more, self.tunnels, self.tunnel_count * sizeof(Tunnel *))
            free(self.tunnels)
            self.tunnels = more
        tunnel = <Tunnel *>calloc(1, sizeof(Tunnel))
        if tunnel == NULL:
            raise MemoryError
        tunnel.slot = self.tunnel_count
        tunnel.is_open = 1
        self.tunnels[self.tunnel_count] = tunnel
        self.tunnel_count += 1
        return tunnel.slot

    cdef Tunnel *tunnel_at(self, uint32_t slot) except NULL:
        if slot >= self.tunnel_count or not self.tunnels[slot].is_open:
            raise EngineError(f"tunnel slot {slot} is not open")
        return self.tunnels[slot]

    def close_tunnel(self, uint32_t tunnel):
        """The caller has dropped its routes, published, and closed its links; the slot is used again later."""
        cdef Tunnel *slot = self.tunnel_at(tunnel)
        if slot.route_count:
            self.need_draft()
            if route_table_drop_tunnel(self.draft, slot) < 0:
                raise MemoryError
        slot.is_open = 0
        self.tunnels_free.append((tunnel, time.monotonic()))

    cdef object quarantined_slot(self):
        """A slot that nothing points at any more, nor does a command on its way to a worker; None where there is none.

        One that is still in use after its quarantine gets another, behind the others: it must not hold them up."""
        cdef Tunnel *tunnel
        now = time.monotonic()
        for _ in range(len(self.tunnels_free)):
            slot, closed = self.tunnels_free[0]
            if now - closed < TUNNEL_QUARANTINE_S:
                return None
            self.tunnels_free.popleft()
            tunnel = self.tunnels[<uint32_t>slot]
            if atomic_get(&tunnel.worker_mask) == 0 and atomic_get(&tunnel.stream_count) == 0:
                return slot
            self.tunnels_free.append((slot, now))
        return None

    def tunnel_counters(self, uint32_t tunnel):
        cdef Tunnel *slot = self.tunnel_at(tunnel)
        cdef uint64_t bytes_in = atomic_get(&slot.counts.bytes_in)
        cdef uint64_t bytes_out = atomic_get(&slot.counts.bytes_out)
        cdef Service *service = slot.services
        while service != NULL:
            bytes_in += atomic_get(&service.counts.bytes_in)
            bytes_out += atomic_get(&service.counts.bytes_out)
            service = service.next
        return bytes_in, bytes_out, atomic_get(&slot.stream_count), atomic_get(&slot.last_heard_ms) / 1000.0

    # --- services ---

    def open_service(self, uint32_t tunnel):
        cdef Tunnel *owner = self.tunnel_at(tunnel)
        cdef Service *service = self.quarantined_service()
        cdef Service **more
        if service == NULL:
            if self.service_count == self.service_capacity:
                self.service_capacity = self.service_capacity * 2 if self.service_capacity else 64
                more = <Service **>malloc(self.service_capacity * sizeof(Service *))
                if more == NULL:
                    raise MemoryError
                if self.service_count:
                    memcpy(more, self.services, self.service_count * sizeof(Service *))
                free(self.services)
                self.services = more
            service = <Service *>calloc(1, sizeof(Service))
            if service == NULL:
                raise MemoryError
            service.id = self.service_count
            self.services[self.service_count] = service
            self.service_count += 1
        self.service_serial += 1
        service.id = (self.service_serial << 32) | <uint32_t>service.id
        service.is_open = 1
        service.tunnel = owner
        service.next = owner.services
        owner.services = service
        return service.id

    cdef Service *quarantined_service(self) except? NULL:
        """A slot that no stream serves, nor does a worker know a route to it; NULL where there is none. What it has
        counted stays in its tunnel's sum."""
        cdef Service *service
        cdef Service **place
        now = time.monotonic()
        for _ in range(len(self.services_free)):
            slot, closed = self.services_free[0]
            if now - closed < TUNNEL_QUARANTINE_S:
                return NULL
            self.services_free.popleft()
            service = self.services[<uint32_t>slot]
            if atomic_get(&service.streams_open):
                self.services_free.append((slot, now))
                continue
            if service.tunnel != NULL:
                atomic_add(&service.tunnel.counts.bytes_in, service.counts.bytes_in)
                atomic_add(&service.tunnel.counts.bytes_out, service.counts.bytes_out)
                place = &service.tunnel.services
                while place[0] != service:
                    place = &place[0].next
                place[0] = service.next
            memset(service, 0, sizeof(Service))
            service.id = <uint32_t>slot
            return service
        return NULL

    cdef Service *service_at(self, uint64_t id) except NULL:
        cdef uint32_t slot = <uint32_t>id
        if slot >= self.service_count or self.services[slot].id != id or not self.services[slot].is_open:
            raise EngineError(f"service {id} is not open")
        return self.services[slot]

    def close_service(self, uint64_t service):
        self.service_at(service).is_open = 0
        self.services_free.append((<uint32_t>service, time.monotonic()))

    def end_service(self, uint64_t service, *, double after_s=0.0):
        self.end_at(&self.service_at(service).end_ms, after_s)

    def retire_upstream(self, Upstream upstream not None):
        atomic_set(&upstream.c.end_ms, END_IDLE)
        self.sweep()

    def end_upstream(self, Upstream upstream not None, *, double after_s=0.0):
        self.end_at(&upstream.c.end_ms, after_s)

    cdef end_at(self, uint64_t *end_ms, double after_s):
        if not 0 <= after_s <= END_AFTER_S_MAX:
            raise EngineError(f"after_s={after_s} is not between 0 and {END_AFTER_S_MAX}")
        atomic_set(end_ms, <uint64_t>((time.monotonic() + after_s) * 1000))
        self.sweep()

    cdef sweep(self):
        """Behind the table that leads nowhere there any more: no flow begins after it."""
        self.push_all(COMMAND_SWEEP)

    cdef push_all(self, uint32_t kind):
        cdef Msg msg
        cdef uint32_t i
        if self.gone():
            return
        memset(&msg, 0, sizeof(msg))
        msg.kind = kind
        for i in range(self.shared.worker_count):
            self.push(i, &msg)

    def note_kernel_memory(self, uint64_t used_bytes, uint64_t limit_bytes):
        cdef Budget *budget = &self.shared.budget
        cdef int64_t stream_count = 0
        cdef uint32_t i
        if self.gone():
            return
        for i in range(self.shared.worker_count):
            stream_count += <int64_t>self.shared.workers[i].loop.stats.streams_open
        atomic_set(&budget.kernel_stream_count, <uint64_t>max(stream_count, 0))
        atomic_set(&budget.kernel_used_bytes, used_bytes)
        atomic_set(&budget.kernel_limit_bytes, limit_bytes)
        if used_bytes > limit_bytes // 4 * 3 and limit_bytes > 0:
            self.push_all(COMMAND_RELIEVE)

    def service_counters(self, uint64_t service):
        cdef Service *slot = self.service_at(service)
        return (atomic_get(&slot.counts.bytes_in), atomic_get(&slot.counts.bytes_out), atomic_get(&slot.streams_total),
                atomic_get(&slot.requests_total), atomic_get(&slot.streams_open))

    def take_traffic(self):
        cdef Service *service
        cdef uint64_t bytes_in, bytes_out, streams
        cdef uint32_t i
        cdef list taken = []
        for i in range(self.service_count):
            service = self.services[i]
            if not service.is_open:
                continue
            bytes_in = atomic_get(&service.counts.bytes_in)
            bytes_out = atomic_get(&service.counts.bytes_out)
            streams = atomic_get(&service.streams_total)
            if bytes_in == service.taken_in and bytes_out == service.taken_out and streams == service.taken_streams:
                continue
            taken.append((service.id, bytes_in - service.taken_in, bytes_out - service.taken_out,
                          streams - service.taken_streams))
            service.taken_in = bytes_in
            service.taken_out = bytes_out
            service.taken_streams = streams
        return taken

    def drain_visits(self):
        cdef char text[46]
        cdef AccessRecord visit
        cdef uint32_t i
        cdef list visits = []
        for i in range(self.shared.worker_count):
            while access_log_take(&self.shared.workers[i].loop.access_log, &visit):
                address = text[:address_text(text, &visit.visitor)].decode("ascii")
                visits.append((visit.service, address, visit.bytes_in, visit.bytes_out, visit.begin_ms / 1000.0,
                               visit.end_ms / 1000.0))
        return visits

    # --- routes ---

    cdef tuple route_key(self, int kind, object key):
        if kind == ROUTE_HTTP or kind == ROUTE_TLS:
            if not isinstance(key, str) or len(key) > 253:
                raise EngineError(f"route key {key!r} is no host name")
            return kind, key.encode("ascii")
        if kind == ROUTE_TCP or kind == ROUTE_UDP:
            if isinstance(key, bool) or not isinstance(key, int) or not 0 < key < 65536:
                raise EngineError(f"route key {key!r} is no port")
            return kind, bytes((key >> 8, key & 255))
        raise EngineError(f"kind={kind} is no RouteKind")

    cdef need_draft(self):
        """A change is made in a draft; publish() puts it in force."""
        if self.draft == NULL:
            self.draft = route_table_fork(self.table)
            if self.draft == NULL:
                raise MemoryError

    cdef put(self, int kind, bytes name, SiteStruct *site):
        self.need_draft()
        if route_table_put(self.draft, kind, name, len(name), site) < 0:
            raise MemoryError

    cdef SiteStruct *new_site(self, site) except NULL:
        """With one reference, the caller's."""
        cdef PolicyStruct policy
        cdef Tunnel *tunnels[SITE_TUNNEL_COUNT_MAX]
        cdef Service *service = NULL
        cdef SiteStruct *made = NULL
        cdef uint8_t count = 0
        if bool(site.tunnels) + (site.upstream is not None) + (site.directory is not None) + bool(site.page) != 1:
            raise EngineError("a site leads to tunnels, an upstream, a directory or a page: to one of them")
        write_policy(&policy, site.policy)
        if site.tunnels:
            if len(site.tunnels) > SITE_TUNNEL_COUNT_MAX:
                raise EngineError(f"a site with more than {SITE_TUNNEL_COUNT_MAX} tunnels")
            for slot in site.tunnels:
                tunnels[count] = self.tunnel_at(slot)
                count += 1
            if site.service:
                service = self.service_at(site.service)
            made = site_to_tunnels(tunnels, count, service, &policy)
        elif site.upstream is not None:
            made = site_to_upstream((<Upstream?>site.upstream).c, &policy)
        elif site.directory is not None:
            made = site_to_directory((<Directory?>site.directory).c, &policy)
        elif site.page in PAGE_CODES:
            made = site_to_page(PAGE_CODES.index(site.page))
        else:
            raise EngineError(f"{site.page} is no page")
        if made == NULL:
            raise MemoryError
        return made

    def set_route(self, int kind, key, site):
        cdef SiteStruct *made
        _, name = self.route_key(kind, key)
        made = self.new_site(site)
        try:
            self.put(kind, name, made)
        finally:
            site_release(made)

    def drop_route(self, int kind, key):
        cdef bytes name
        _, name = self.route_key(kind, key)
        self.drop(kind, name)

    cdef drop(self, int kind, bytes name):
        if route_find(self.table if self.draft == NULL else self.draft, kind, name, len(name)) == NULL:
            return
        self.need_draft()
        if route_table_drop(self.draft, kind, name, len(name)) < 0:
            raise MemoryError

    def publish(self):
        cdef Msg msg
        cdef uint32_t i
        if self.gone():
            return 0
        if self.table == NULL:
            self.need_draft()                           # workers want a table, be it an empty one
        if self.draft == NULL:
            return self.table.version
        atomic_add(&self.draft.references, self.shared.worker_count)
        memset(&msg, 0, sizeof(msg))
        msg.kind = COMMAND_TABLE
        msg.p = self.draft
        route_table_succeed(self.table, self.draft)
        route_table_release(self.table)
        self.table = self.draft
        self.draft = NULL
        for i in range(self.shared.worker_count):
            self.push(i, &msg)
        return self.table.version

    def version_in_force(self):
        cdef uint64_t version, oldest = 0
        cdef uint32_t i
        for i in range(0 if self.gone() else self.shared.worker_count):
            version = atomic_get(&self.shared.workers[i].table_version)
            if i == 0 or version < oldest:
                oldest = version
        return oldest

    cdef put_page(self, str code, int status, str content_type, bytes body, int retry_after_s=0):
        cdef int at = PAGE_CODES.index(code.removesuffix(JSON_SUFFIX))
        cdef Page *page = &self.shared.json_pages[at] if code.endswith(JSON_SUFFIX) else &self.shared.pages[at]
        cdef bytes head = (
            f"HTTP/1.1 {status} {REASON_PHRASES.get(status, 'Error')}\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\n"
            f"X-Content-Type-Options: nosniff\r\nX-Spokes-Code: {code.removesuffix(JSON_SUFFIX)}\r\n"
            + (f"Retry-After: {retry_after_s}\r\n" if retry_after_s else "")
        ).encode("ascii")
        free(page.head)
        free(page.body)
        page.head = <char *>malloc(len(head))
        page.body = <char *>malloc(len(body) + 1)
        if page.head == NULL or page.body == NULL:
            raise MemoryError
        memcpy(page.head, <const char *>head, len(head))
        memcpy(page.body, <const char *>body, len(body))
        page.head_bytes = <uint32_t>len(head)
        page.body_bytes = <uint32_t>len(body)

    def set_page(self, str code, *, int status, str content_type, bytes body not None, int retry_after_s=0):
        if self.started:
            raise EngineError("pages are set before start()")
        if code.removesuffix(JSON_SUFFIX) not in PAGE_CODES[1:]:
            raise EngineError(f"{code} is no page")
        if len(body) > 49152:
            raise EngineError(f"the page for {code} is larger than 48 KiB")
        self.put_page(code, status, content_type, body, retry_after_s)

    # --- certificates ---

    cdef put_certificate(self, int kind, bytes name, Certificate certificate):
        self.put(kind, name, certificate.site)

    def set_certificate(self, str name not None, Certificate certificate not None):
        self.put_certificate(ROUTE_CERTIFICATE, name.lower().encode("ascii"), certificate)

    def drop_certificate(self, str name not None):
        self.drop(ROUTE_CERTIFICATE, name.lower().encode("ascii"))

    def set_link_certificate(self, Certificate certificate not None):
        self.put_certificate(ROUTE_LINK, b"", certificate)

    def set_ticket_keys(self, list keys not None):
        cdef bytes packed = b"".join(keys)
        if not 1 <= len(keys) <= TICKET_KEY_COUNT_MAX or any(len(key) != TICKET_KEY_BYTES for key in keys):
            raise EngineError(f"ticket keys are one to {TICKET_KEY_COUNT_MAX}, of {TICKET_KEY_BYTES} bytes each")
        if not self.shared.accepting:
            raise EngineError("a client's engine gives no tickets")
        tls_set_ticket_keys(self.shared.link_context, packed, <int>len(keys))
        tls_set_ticket_keys(self.shared.visitor_context, packed, <int>len(keys))

    # --- links ---

    def connect_link(self, str address, int port, *, str server_name, bytes pin_sha256=b"", str ca_file="",
                     bint brings_visitors=False):
        cdef sockaddr_storage where
        cdef socklen_t where_bytes = write_address(&where, address, port)
        cdef LinkSlot *slot
        cdef Context context
        cdef Msg msg
        cdef int fd, rc
        cdef uint32_t worker = self.next_worker
        cdef bytes name = server_name.encode("ascii")
        cdef bytes ca = os.fsencode(ca_file)
        if self.gone():
            raise EngineError("the engine has stopped")
        if len(name) > 253 or (pin_sha256 and len(pin_sha256) != 32):
            raise EngineError("server_name or pin_sha256 has a wrong length")
        context = self.client_contexts.get(ca_file)
        if context is None:
            context = Context()
            context.c = tls_client_context(ca)
            if context.c == NULL:
                raise EngineError(f"the authorities in {ca_file or 'the system'} cannot be used: {tls_words()}")
            self.client_contexts[ca_file] = context
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
        self.next_worker = (worker + 1) % self.shared.worker_count
        slot.id = (<uint64_t>(worker + 1) << 56) | atomic_add(&self.shared.link_serial, 1)
        slot.context = context.c
        slot.brings_visitors = brings_visitors
        address_read(&slot.peer, &where)
        memcpy(slot.server_name, <const char *>name, len(name))
        if pin_sha256:
            slot.has_pin = 1
            memcpy(slot.pin, <const char *>pin_sha256, 32)
        link = slot.id
        memset(&msg, 0, sizeof(msg))
        msg.kind = COMMAND_CONNECT
        msg.p = slot
        msg.b = <uint64_t>fd
        msg.code = rc
        self.push(worker, &msg)
        return link

    cdef link_command(self, uint32_t kind, uint64_t link, int32_t code=0, void *p=NULL, uint32_t p_bytes=0):
        cdef Msg msg
        cdef uint64_t worker = (link >> 56) - 1
        if self.gone() or worker >= self.shared.worker_count:
            if kind == COMMAND_CONTROL:
                free(p)
            return
        memset(&msg, 0, sizeof(msg))
        msg.kind = kind
        msg.a = link
        msg.code = code
        msg.p = p
        msg.p_bytes = p_bytes
        self.push(<uint32_t>worker, &msg)

    def send_control(self, uint64_t link, bytes payload not None, int flags=0):
        cdef void *copy
        if len(payload) > 65535:
            raise EngineError(f"a control frame of {len(payload)} bytes is longer than 65535")
        copy = malloc(len(payload) + 1)
        if copy == NULL:
            raise MemoryError
        memcpy(copy, <const char *>payload, len(payload))
        self.link_command(COMMAND_CONTROL, link, flags, copy, <uint32_t>len(payload))

    def bind_link(self, uint64_t link, uint32_t tunnel):
        self.link_tunnels[link] = tunnel
        self.link_command(COMMAND_BIND, link, 0, self.tunnel_at(tunnel))

    def drain_link(self, uint64_t link):
        self.link_command(COMMAND_DRAIN, link)

    def ping_link(self, uint64_t link):
        self.link_command(COMMAND_PING, link)

    def close_link(self, uint64_t link):
        self.link_command(COMMAND_CLOSE, link)

    def abort_link(self, uint64_t link):
        self.link_command(COMMAND_ABORT, link)

    def link_rtt_ms(self, uint64_t link):
        tunnel = self.link_tunnels.get(link)
        if tunnel is None or tunnel >= self.tunnel_count:
            return 0.0
        return atomic_get(&self.tunnels[<uint32_t>tunnel].rtt_us) / 1000.0

    # --- reading ---

    def drain_events(self, int event_count_max=256):
        cdef Msg msg
        cdef Ring *ring = &self.shared.events
        cdef list events = []
        cdef bytes data
        if self.gone():
            return events
        ring_clear_wake(ring)
        while len(events) < event_count_max:
            if not ring_pop(ring, &msg):
                ring_sleep(ring)
                if ring_is_empty(ring):
                    return events
                continue
            data = (<char *>msg.p)[:msg.p_bytes] if msg.p != NULL else b""
            free(msg.p)
            atomic_sub(&self.shared.event_bytes, msg.p_bytes)
            if msg.kind == EVENT_LINK_DOWN:
                self.link_tunnels.pop(msg.a, None)
            events.append(Event(msg.kind, msg.a, msg.code, data))
        wake_again(ring)
        return events

    def stats(self):
        cdef uint32_t i
        cdef Stats sums
        cdef uint64_t timers = 0
        memset(&sums, 0, sizeof(sums))
        if not self.gone():
            for i in range(self.shared.worker_count):
                stats_add(&sums, &self.shared.workers[i].loop.stats)
                timers += self.shared.workers[i].loop.wheel.count
        answer = stats_dict(&sums)
        answer["timers_open"] = timers
        answer["buffer_bytes"] = atomic_get(&self.shared.budget.used_bytes)
        answer["buffer_limit_bytes"] = self.shared.budget.limit_bytes
        answer["window_promised_bytes"] = atomic_get(&self.shared.budget.promised_bytes)
        answer["visitors_open"] = atomic_get(&self.shared.visitor_count)
        return answer

    def worker_stats(self):
        cdef uint32_t i
        answer = []
        for i in range(0 if self.gone() else self.shared.worker_count):
            row = stats_dict(&self.shared.workers[i].loop.stats)
            row["timers_open"] = self.shared.workers[i].loop.wheel.count
            answer.append(row)
        return answer


cdef int STATS_COUNT = sizeof(Stats) // sizeof(uint64_t)


cdef void stats_add(Stats *to, const Stats *stats):
    cdef int i
    for i in range(STATS_COUNT):
        (<uint64_t *>to)[i] += (<const uint64_t *>stats)[i]


cdef dict stats_dict(const Stats *stats):
    """By the names of stats.pxd. A worker alone may be below zero."""
    cdef int i
    cdef dict unsigned = stats[0]
    return {name: (<const int64_t *>stats)[i] for i, name in enumerate(unsigned)}


cdef void wake_again(Ring *ring) noexcept nogil:
    """More events wait than the caller asked for: its event loop must find the descriptor readable."""
    ring_sleep(ring)
    if not ring_is_empty(ring):
        ring_wake(ring)
