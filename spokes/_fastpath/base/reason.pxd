# Why a flow ended, in the numbers of docs/protocol.md (RESET, and `bye`).

cdef enum Reason:
    REASON_GONE = 1, REASON_NO_SERVICE = 2, REASON_REFUSED = 3, REASON_UNREACHABLE = 4, REASON_TIMEOUT = 5
    REASON_LIMIT = 6, REASON_PROTOCOL = 7, REASON_INTERNAL = 8, REASON_DRAIN = 9
    REASON_LOOP = 10
