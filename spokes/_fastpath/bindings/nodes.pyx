"""Other nodes of the cluster: the slots that links to their workers are bound to, and which way tunnels' visitors go.

Bound: NODE_COUNT_MAX nodes, WORKER_COUNT_MAX workers of each.
Fails: EngineError for a node or a worker that cannot be.
"""
from spokes._fastpath.base.types cimport atomic_set
from spokes._fastpath.route.tunnel cimport NODE_COUNT_MAX, VIA_NODE_SHIFT, WORKER_COUNT_MAX, Tunnel

from spokes.errors import EngineError


cdef class Nodes:
    def __cinit__(self, Threads threads not None, Slots slots not None):
        self.threads = threads
        self.slots = slots
        self.workers = {}

    cdef int open_node(self) except -1:
        cdef int node
        if self.threads.shared.nodes == NULL:
            raise EngineError("only servers have nodes beside them")
        for node in range(1, NODE_COUNT_MAX + 1):
            if node not in self.workers:
                self.workers[node] = {}
                return node
        raise EngineError(f"a cluster has at most {NODE_COUNT_MAX} other nodes")

    cdef uint32_t node_worker(self, int node, int worker) except? 0:
        cdef Tunnel *slot
        workers = self.workers.get(node)
        if workers is None or not 0 <= worker < WORKER_COUNT_MAX:
            raise EngineError("there is no such node, or no such worker")
        if worker not in workers:
            workers[worker] = self.slots.open_tunnel()
            slot = self.slots.tunnel_at(workers[worker])
            slot.is_node = 1
            atomic_set(<uint64_t *>&self.threads.shared.nodes[node].workers[worker], <uint64_t>slot)
        return workers[worker]

    cdef list close_node(self, int node):
        """Its slots, which no new stream goes to; the caller closes them."""
        cdef int worker
        workers = self.workers.pop(node, None)
        if workers is None:
            raise EngineError("there is no such node")
        for worker in workers:
            atomic_set(<uint64_t *>&self.threads.shared.nodes[node].workers[worker], 0)
        return list(workers.values())

    cdef int set_via(self, uint32_t tunnel, int node, uint64_t workers) except -1:
        cdef Tunnel *slot = self.slots.tunnel_at(tunnel)
        if node and node not in self.workers:
            raise EngineError("there is no such node")
        if workers >> VIA_NODE_SHIFT or (node == 0) != (workers == 0):
            raise EngineError(f"workers={workers} is not a mask of a node's workers")
        atomic_set(&slot.via, <uint64_t>node << VIA_NODE_SHIFT | workers)
        return 0
