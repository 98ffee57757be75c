"""The faults of upstreams: how errors become faults, and faults pages and reasons.

Owns: one table, written once. Fails: it cannot; what it does not know is an unreachable or a broken upstream.
"""
from libc.errno cimport (
    EACCES, EADDRNOTAVAIL, ECONNREFUSED, ECONNRESET, EHOSTUNREACH, ELOOP, EMFILE, ENETUNREACH, ENFILE, ENOENT, ENOMEM,
    ENOTDIR, ENOTSOCK, EPERM, EPROTOTYPE, ETIMEDOUT,
)

from spokes._fastpath.base.reason cimport (
    REASON_GONE, REASON_INTERNAL, REASON_LIMIT, REASON_LOOP, REASON_NO_SERVICE, REASON_REFUSED, REASON_TIMEOUT,
    REASON_UNREACHABLE,
)
from spokes._fastpath.base.types cimport RC_LOCAL, RC_TIMEOUT, uint16_t, uint8_t
from spokes._fastpath.http.page cimport (
    PAGE_LIMIT, PAGE_LOOP, PAGE_NO_RULE, PAGE_UPSTREAM_BODY, PAGE_UPSTREAM_BROKEN, PAGE_UPSTREAM_CLOSED,
    PAGE_UPSTREAM_HEAD, PAGE_UPSTREAM_NAME, PAGE_UPSTREAM_REFUSED, PAGE_UPSTREAM_RESET, PAGE_UPSTREAM_TIMEOUT,
    PAGE_UPSTREAM_TLS, PAGE_UPSTREAM_UNREACHABLE,
)
from spokes._fastpath.route.outcome cimport (
    FAULT_BODY, FAULT_CLOSED, FAULT_COUNT, FAULT_CUT, FAULT_DIAL_TIMEOUT, FAULT_HEAD, FAULT_LOCAL, FAULT_LOOP,
    FAULT_NAME, FAULT_NONE, FAULT_NOT_HTTP, FAULT_REFUSED, FAULT_RESET, FAULT_SILENT, FAULT_TLS, FAULT_UNREACHABLE,
)

cdef struct FaultRow:
    uint8_t page
    uint16_t reason

cdef FaultRow rows[FAULT_COUNT]


cdef void row(uint8_t fault, uint8_t page, uint16_t reason) noexcept nogil:
    rows[fault].page = page
    rows[fault].reason = reason


row(FAULT_NONE, PAGE_NO_RULE, REASON_NO_SERVICE)
row(FAULT_REFUSED, PAGE_UPSTREAM_REFUSED, REASON_REFUSED)
row(FAULT_UNREACHABLE, PAGE_UPSTREAM_UNREACHABLE, REASON_UNREACHABLE)
row(FAULT_DIAL_TIMEOUT, PAGE_UPSTREAM_TIMEOUT, REASON_TIMEOUT)
row(FAULT_NAME, PAGE_UPSTREAM_NAME, REASON_UNREACHABLE)
row(FAULT_LOCAL, PAGE_LIMIT, REASON_INTERNAL)
row(FAULT_RESET, PAGE_UPSTREAM_RESET, REASON_GONE)
row(FAULT_CLOSED, PAGE_UPSTREAM_CLOSED, REASON_GONE)
row(FAULT_NOT_HTTP, PAGE_UPSTREAM_BROKEN, REASON_GONE)
row(FAULT_TLS, PAGE_UPSTREAM_TLS, REASON_GONE)
row(FAULT_HEAD, PAGE_UPSTREAM_HEAD, REASON_GONE)
row(FAULT_BODY, PAGE_UPSTREAM_BODY, REASON_GONE)
row(FAULT_CUT, PAGE_UPSTREAM_BROKEN, REASON_GONE)
row(FAULT_SILENT, PAGE_UPSTREAM_TIMEOUT, REASON_TIMEOUT)
row(FAULT_LOOP, PAGE_LOOP, REASON_LOOP)


cdef uint8_t fault_of_dial(int rc) noexcept nogil:
    """A path without a Unix socket, or with one that is not for us, is a service that is not there."""
    if rc == RC_LOCAL:
        return FAULT_NONE
    if rc == RC_TIMEOUT or rc == -ETIMEDOUT:
        return FAULT_DIAL_TIMEOUT
    if rc == -EMFILE or rc == -ENFILE or rc == -ENOMEM or rc == -EADDRNOTAVAIL:
        return FAULT_LOCAL
    if rc == -ECONNREFUSED or rc == -ENOENT or rc == -ENOTDIR or rc == -ENOTSOCK or rc == -EPROTOTYPE \
            or rc == -EACCES or rc == -EPERM or rc == -ELOOP:
        return FAULT_REFUSED
    if rc == -ECONNRESET:               # it stood, and was reset before its event was read
        return FAULT_RESET
    return FAULT_UNREACHABLE


cdef uint8_t fault_of_conn(int rc) noexcept nogil:
    if rc == RC_LOCAL:
        return FAULT_NONE
    if rc == RC_TIMEOUT or rc == -ETIMEDOUT:
        return FAULT_SILENT
    return FAULT_UNREACHABLE if rc == -EHOSTUNREACH or rc == -ENETUNREACH else FAULT_RESET


cdef uint8_t fault_page(uint8_t fault) noexcept nogil:
    return rows[fault].page


cdef uint16_t fault_reason(uint8_t fault) noexcept nogil:
    return rows[fault].reason


cdef uint8_t page_of_reason(uint16_t reason) noexcept nogil:
    """The page of the first fault with this reason. REASON_GONE says nothing of why the flow ended."""
    cdef int fault
    if reason == REASON_LIMIT:
        return PAGE_LIMIT
    if reason != REASON_GONE:
        for fault in range(<int>FAULT_COUNT):
            if rows[fault].reason == reason:
                return rows[fault].page
    return PAGE_UPSTREAM_BROKEN
