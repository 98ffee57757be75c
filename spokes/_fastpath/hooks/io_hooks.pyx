"""Test hooks of sockets and addresses."""
from libc.string cimport memcpy, memset

from spokes._fastpath.base.address cimport Address, address_text
from spokes._fastpath.base.types cimport uint32_t
from spokes._fastpath.io.tune cimport PathState, path_state, tune_in_flight


def bound_in_flight(int fd, uint32_t count):
    tune_in_flight(fd, count)


def read_path(int fd):
    """(rtt_us, rtt_min_us, acked_bytes)"""
    cdef PathState path
    return (path.rtt_us, path.rtt_min_us, path.acked_bytes) if path_state(fd, &path) else None


def address_words(bytes ip not None):
    """The text of an address of 4 or 16 bytes."""
    cdef Address address
    cdef char text[64]
    memset(&address, 0, sizeof(address))
    address.family = 4 if len(ip) == 4 else 6
    memcpy(address.ip, <const char *>ip, min(len(ip), 16))
    return text[:address_text(text, &address)].decode()
