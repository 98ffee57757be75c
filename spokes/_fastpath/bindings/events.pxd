# Events as Python has them.
from spokes._fastpath.bindings.links cimport Links
from spokes._fastpath.bindings.threads cimport Threads

cdef list drain_events(Threads threads, Links links, int event_count_max)
