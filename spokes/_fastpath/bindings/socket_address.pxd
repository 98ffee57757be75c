# Literal addresses of Python's as the kernel wants them.
from spokes._fastpath.base.net cimport sockaddr_storage, socklen_t

# Bytes that were written.
cdef socklen_t write_address(sockaddr_storage *out, str host, int port) except 0
