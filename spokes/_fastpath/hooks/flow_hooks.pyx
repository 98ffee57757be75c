"""Test hooks of faults, and what there is of each flow."""
from spokes._fastpath.base.types cimport uint8_t, uint16_t
from spokes._fastpath.flow.exchange_state cimport Exchange
from spokes._fastpath.flow.fault cimport fault_of_conn, fault_of_dial, fault_page, fault_reason, page_of_reason
from spokes._fastpath.flow.upstream cimport UpstreamConn
from spokes._fastpath.io.conn cimport Conn
from spokes._fastpath.link.link_state cimport Stream
from spokes._fastpath.route.outcome cimport FAULT_COUNT


def fault_table():
    """(page, reason) by fault."""
    return [(fault_page(<uint8_t>fault), fault_reason(<uint8_t>fault)) for fault in range(<int>FAULT_COUNT)]


def describe_error(int rc):
    """The fault of a dial that fails so, and of a conn that stood."""
    return fault_of_dial(rc), fault_of_conn(rc)


def describe_reason(int reason):
    """The page that a visitor is shown."""
    return page_of_reason(<uint16_t>reason)


# What there is of each flow; tests say how large they may be.
STRUCT_BYTES = {
    "Conn": sizeof(Conn), "Exchange": sizeof(Exchange), "Stream": sizeof(Stream), "UpstreamConn": sizeof(UpstreamConn),
}
