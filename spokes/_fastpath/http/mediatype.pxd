# Content types by file name; sans-io.

# The value for Content-Type, ended by NUL; never NULL.
cdef const char *mediatype_of(const char *name, size_t name_bytes) noexcept nogil
cdef bint mediatype_at(int i, const char **extension, const char **type) noexcept nogil    # False: there are no more
