"""Test hooks of faults and of the phases of exchanges, and what there is of each flow."""
from libc.string cimport memset

from spokes._fastpath.base.types cimport atomic_get, atomic_set, uint64_t, uint8_t, uint16_t
from spokes._fastpath.flow.exchange_state cimport (
    REQUEST_PHASE_COUNT, RESPONSE_PHASE_COUNT, STEP_COUNT, Exchange, ExchangeStep, exchange_step, steps_refused,
)
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


def refused_steps():
    """How many steps of exchanges the state table has refused in this process."""
    return atomic_get(&steps_refused)


def try_step(int step, int request_phase, int response_phase):
    """The phases of an exchange after a step, or None where the state table refuses it. Tries are not counted."""
    cdef Exchange x
    cdef uint64_t before = atomic_get(&steps_refused)
    if not (0 <= step < <int>STEP_COUNT and 0 <= request_phase < <int>REQUEST_PHASE_COUNT
            and 0 <= response_phase < <int>RESPONSE_PHASE_COUNT):
        raise IndexError
    memset(&x, 0, sizeof(x))
    x.request_phase = <uint8_t>request_phase
    x.response_phase = <uint8_t>response_phase
    exchange_step(&x, <ExchangeStep>step)
    if atomic_get(&steps_refused) != before:
        atomic_set(&steps_refused, before)
        assert (x.request_phase, x.response_phase) == (request_phase, response_phase)
        return None
    return x.request_phase, x.response_phase


# What there is of each flow; tests say how large they may be.
STRUCT_BYTES = {
    "Conn": sizeof(Conn), "Exchange": sizeof(Exchange), "Stream": sizeof(Stream), "UpstreamConn": sizeof(UpstreamConn),
}
