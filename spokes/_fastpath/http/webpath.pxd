# The path of a request as the path of a file below some directory; sans-io.
from spokes._fastpath.base.types cimport uint8_t, uint16_t

cdef enum:
    WEB_PATH_BYTES_MAX = 4000           # with a name appended still below PATH_MAX

cdef struct WebPath:
    char text[4096]                     # decoded, relative, ended by NUL: "a/b.txt", "a/" or ""
    uint16_t bytes
    uint16_t query                      # where the query begins in what the request said, with its "?"
    uint8_t is_directory                # nothing, or a slash, is its end

# 1 = decoded; 0 = no file may be called so (404); RC_PROTO = broken percent-encoding (400).
# Decoded once. Refused: segments that begin with a dot (but for a first one called .well-known), encoded slashes,
# backslashes, control bytes, what is not UTF-8. Slashes in a row count as one.
cdef int webpath_decode(WebPath *out, const uint8_t *src, size_t src_bytes) noexcept nogil
# The path, percent-encoded, with one slash at each end: bytes written, 0 when dst is too small.
cdef size_t webpath_encode_directory(char *dst, size_t dst_bytes, const WebPath *path) noexcept nogil
