# A conn that has just been accepted, until it is known what it wants.
from spokes._fastpath.base.address cimport Address
from spokes._fastpath.core.shared cimport Shared
from spokes._fastpath.io.conn cimport Conn

cpdef enum ListenerKind:                # Conn.tag of a conn that came through one
    LISTENER_HTTP = 1, LISTENER_TLS = 2, LISTENER_TCP = 3, LISTENER_UDP = 4

# False: too many visitors, of all or of this address. A visitor that was admitted is released when its conn closes.
cdef bint visitor_admit(Shared *shared, const Address *peer) noexcept nogil
cdef void visitor_release(Shared *shared, const Address *peer) noexcept nogil
cdef void visitor_closed(Conn *conn) noexcept nogil                 # Conn.on_close of every visitor
cdef void hello_ready(Conn *conn) noexcept nogil                    # Conn.on_ready until visitor_begin knows better
cdef void visitor_begin(Conn *conn) noexcept nogil                  # by the kind of the listener it came through
