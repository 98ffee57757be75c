# Sites as Python has them, and the engine's own that are made of them.
from spokes._fastpath.bindings.slots cimport Slots
from spokes._fastpath.route.site cimport Site as SiteStruct

# With one reference, the caller's. EngineError: what it leads to is not there, or is not one thing.
cdef SiteStruct *new_site(Slots slots, site) except NULL
