# A link's life on its worker: what is ready in one pass leaves in one write, in fair scheduling slots, within credit.
from spokes._fastpath.io.conn cimport Conn
from spokes._fastpath.link.link_state cimport Link, LinkOps


cdef Link *link_new(Conn *conn, bint is_acceptor, const LinkOps *ops) noexcept nogil    # takes the conn over, TLS done
