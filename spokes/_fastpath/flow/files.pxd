# Files of a directory as answers to requests: opened below it or not at all, read piece by piece.
from spokes._fastpath.base.types cimport uint8_t, uint64_t
from spokes._fastpath.http.http1_head cimport HttpHead
from spokes._fastpath.route.site cimport Directory

cdef enum:
    FILE_FIELD_BYTES_MAX = 64

cdef struct FileBody:                   # the part of a file that is being sent
    int fd
    uint64_t at
    uint64_t left

cdef struct FileAnswer:
    uint8_t page                        # PageId to answer with instead, or PAGE_NONE
    uint8_t field_bytes                 # … and one more field for it, with its CRLF
    char field[FILE_FIELD_BYTES_MAX]
    size_t head_bytes                   # of the head written
    FileBody *body                      # what follows it; NULL = nothing

# Write the head of the answer to a request into dst, with `Connection` as keep says.
cdef void files_answer(FileAnswer *out, const Directory *directory, const HttpHead *head, const uint8_t *src,
                       uint64_t now_s, bint keep, uint8_t *dst, size_t dst_bytes) noexcept nogil

# Bytes read (> 0); RC_EOF when the file has become shorter than was promised, or -errno.
cdef ssize_t file_read(FileBody *body, uint8_t *dst, size_t dst_bytes) noexcept nogil
cdef void file_close(FileBody *body) noexcept nogil
# Can files be opened below the directory in one call? Tells the kernel's (or its filter's) opinion of openat2.
cdef bint can_open_beneath(int fd) noexcept nogil
