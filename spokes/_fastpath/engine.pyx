"""The engine's Python face: the only module of the data plane that Python code imports; with `bindings/` the only one
that raises.

Owns: the parts in `bindings/`, one for each subject. Bound: see engine.pyi.
Fails: OSError for the kernel's refusals, EngineError for ours; a command to a link that is gone does nothing.
"""
from libc.string cimport memcpy

from spokes._fastpath.base.types cimport uint32_t, uint64_t, uint8_t
from spokes._fastpath.bindings.certificate cimport Certificate as CertificateType
from spokes._fastpath.bindings.counters cimport drain_access_records, note_kernel_memory, stats_sums, worker_stats
from spokes._fastpath.bindings.events cimport drain_events
from spokes._fastpath.bindings.links cimport Links
from spokes._fastpath.bindings.listeners cimport Listeners
from spokes._fastpath.bindings.nodes cimport Nodes
from spokes._fastpath.bindings.pages cimport put_default_pages, put_page
from spokes._fastpath.bindings.routes cimport Routes
from spokes._fastpath.bindings.slots cimport Slots
from spokes._fastpath.bindings.threads cimport Threads
from spokes._fastpath.bindings.upstream cimport Upstream as UpstreamType
from spokes._fastpath.core.shared cimport (
    COMMAND_ABORT, COMMAND_CLOSE, COMMAND_DRAIN, COMMAND_PING, VIA_BYTES_MAX, Shared,
)
from spokes._fastpath.flow.udp_state cimport UDP_IDLE_MS

from spokes._fastpath.bindings.certificate import Certificate
from spokes._fastpath.bindings.codes import FAULT_CODES, PAGE_CODES, EventKind, LinkDown, ListenerKind, RouteKind
from spokes._fastpath.bindings.directory import Directory
from spokes._fastpath.bindings.events import Event
from spokes._fastpath.bindings.site import Limits, Policy, Site
from spokes._fastpath.bindings.slots import END_AFTER_S_MAX
from spokes._fastpath.bindings.upstream import Upstream
from spokes.errors import EngineError

__all__ = [
    "FAULT_CODES", "LINK_ALPN", "PAGE_CODES", "Certificate", "Directory", "Engine", "Event", "EventKind", "Limits",
    "LinkDown", "ListenerKind", "Policy", "RouteKind", "Site", "Upstream",
]

LINK_ALPN = b"spokes/1"


cdef class Engine:
    def __cinit__(self, *, int workers, uint64_t memory_limit_bytes, bint accepting,
                  uint32_t stream_count_max=100_000, uint64_t visitor_count_max=1_000_000,
                  uint64_t visitor_count_per_address_max=0, uint32_t handshakes_per_address_per_s=0,
                  list unmetered_networks=None, uint32_t access_record_count_max=0, uint64_t tunnel_stream_count_max=0,
                  bytes via=b"", double udp_idle_s=UDP_IDLE_MS / 1000.0):
        cdef Shared *shared
        self.threads = Threads(workers=workers, memory_limit_bytes=memory_limit_bytes, accepting=accepting,
                               access_record_count_max=access_record_count_max)
        shared = self.threads.shared
        shared.stream_count_max = stream_count_max
        shared.visitor_count_max = visitor_count_max
        shared.visitor_count_per_address_max = visitor_count_per_address_max or visitor_count_max
        shared.tunnel_stream_count_max = tunnel_stream_count_max
        self.threads.set_throttle(handshakes_per_address_per_s, unmetered_networks or [])
        if len(via) > VIA_BYTES_MAX:
            raise EngineError(f"via={via!r} is longer than {VIA_BYTES_MAX} bytes")
        memcpy(shared.via, <const char *>via, len(via))
        shared.via_bytes = <uint8_t>len(via)
        if not 0.1 <= udp_idle_s <= END_AFTER_S_MAX:
            raise EngineError(f"udp_idle_s={udp_idle_s} is not between 0.1 and {END_AFTER_S_MAX}")
        shared.udp_idle_ms = <uint64_t>(udp_idle_s * 1000)
        put_default_pages(shared)
        self.event_fd = shared.events.wake_fd
        self.worker_count = workers
        self.listeners = Listeners(self.threads)
        self.slots = Slots(self.threads)
        self.routes = Routes(self.threads, self.slots)
        self.links = Links(self.threads, self.slots)
        self.nodes = Nodes(self.threads, self.slots)

    # --- life ---

    def start(self):
        if self.threads.started or self.threads.stopped:
            raise EngineError("the engine was started before")
        self.routes.publish()
        self.threads.start()

    def stop(self):
        if self.threads.stopped:
            return
        self.threads.stop()
        self.routes.release()

    def add_listener(self, int kind, int fd, *, int worker, int port):
        return self.listeners.add(kind, fd, worker, port)

    def remove_listener(self, uint64_t listener):
        self.listeners.remove(listener)

    def set_page(self, str code, *, int status, str content_type, bytes body not None, int retry_after_s=0):
        if self.threads.started:
            raise EngineError("pages are set before start()")
        put_page(self.threads.shared, code, status, content_type, body, retry_after_s)

    # --- tunnels ---

    def open_tunnel(self):
        return self.slots.open_tunnel()

    def close_tunnel(self, uint32_t tunnel):
        self.routes.drop_tunnel(tunnel)
        self.slots.close_tunnel(tunnel)

    def tunnel_counters(self, uint32_t tunnel):
        return self.slots.tunnel_counters(tunnel)

    # --- other nodes ---

    def open_node(self):
        return self.nodes.open_node()

    def node_worker(self, int node, int worker):
        return self.nodes.node_worker(node, worker)

    def close_node(self, int node):
        for slot in self.nodes.close_node(node):
            self.close_tunnel(slot)

    def set_via(self, uint32_t tunnel, int node=0, uint64_t workers=0):
        self.nodes.set_via(tunnel, node, workers)

    # --- services ---

    def open_service(self, uint32_t tunnel):
        return self.slots.open_service(tunnel)

    def close_service(self, uint64_t service):
        self.slots.close_service(service)

    def end_service(self, uint64_t service, *, double after_s=0.0):
        self.slots.end_service(service, after_s)

    def service_counters(self, uint64_t service):
        return self.slots.service_counters(service)

    def take_traffic(self):
        return self.slots.take_traffic()

    def retire_upstream(self, UpstreamType upstream not None):
        self.slots.retire_upstream(upstream)

    def end_upstream(self, UpstreamType upstream not None, *, double after_s=0.0):
        self.slots.end_upstream(upstream, after_s)

    # --- routes and certificates ---

    def set_route(self, int kind, key, site):
        self.routes.set_route(kind, key, site)

    def drop_route(self, int kind, key):
        self.routes.drop_route(kind, key)

    def set_certificate(self, str name not None, CertificateType certificate not None):
        self.routes.set_certificate(name, certificate)

    def drop_certificate(self, str name not None):
        self.routes.drop_certificate(name)

    def set_link_certificate(self, CertificateType certificate not None):
        self.routes.set_link_certificate(certificate)

    def publish(self):
        return self.routes.publish()

    def version_in_force(self):
        return self.routes.version_in_force()

    def set_ticket_keys(self, list keys not None):
        self.links.set_ticket_keys(keys)

    # --- links ---

    def connect_link(self, str address, int port, *, str server_name, bytes pin_sha256=b"", str ca_file="",
                     int worker=-1, int peer_worker=-1):
        return self.links.dial(address, port, server_name, pin_sha256, ca_file, worker, peer_worker)

    def send_control(self, uint64_t link, bytes payload not None, int flags=0):
        self.links.send_control(link, payload, flags)

    def bind_link(self, uint64_t link, uint32_t tunnel):
        self.links.bind(link, tunnel)

    def drain_link(self, uint64_t link):
        self.links.command(COMMAND_DRAIN, link)

    def ping_link(self, uint64_t link):
        self.links.command(COMMAND_PING, link)

    def close_link(self, uint64_t link):
        self.links.command(COMMAND_CLOSE, link)

    def abort_link(self, uint64_t link):
        self.links.command(COMMAND_ABORT, link)

    def link_rtt_ms(self, uint64_t link):
        return self.links.rtt_ms(link)

    # --- counters and events ---

    def note_kernel_memory(self, uint64_t used_bytes, uint64_t limit_bytes):
        note_kernel_memory(self.threads, used_bytes, limit_bytes)

    def drain_events(self, int event_count_max=256):
        return drain_events(self.threads, self.links, event_count_max)

    def drain_access_records(self):
        return drain_access_records(self.threads)

    def stats(self):
        return stats_sums(self.threads)

    def worker_stats(self):
        return worker_stats(self.threads)
