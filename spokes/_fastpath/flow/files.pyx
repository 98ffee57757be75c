"""A directory as what finally answers: GET, HEAD and OPTIONS of the files below it.

Owns: one descriptor for each answer under way, from its head to its last byte; no buffer in between.
Bound: as many descriptors as answers. Reading blocks the worker while the disk seeks: docs/engine.md, "Files".
Fails: a page; what no visitor may learn (hidden, outside, not readable, no regular file) is all the same 404.
Source: RFC 9110; openat2(2).
"""
from libc.errno cimport EAGAIN, EINTR, EIO, EMFILE, ENFILE, ENOMEM, ESTALE, errno
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, strlen

from spokes._fastpath.base.types cimport RC_EOF, int64_t
from spokes._fastpath.http.conditional cimport ETAG_BYTES_MAX, Representation, Selection, conditional_select
from spokes._fastpath.http.http1 cimport METHOD_GET, METHOD_HEAD, METHOD_OPTIONS, METHOD_OTHER
from spokes._fastpath.http.httpdate cimport HTTP_DATE_BYTES, httpdate_write
from spokes._fastpath.http.mediatype cimport mediatype_of
from spokes._fastpath.http.page cimport (
    PAGE_BAD_REQUEST, PAGE_LIMIT, PAGE_METHOD, PAGE_NONE, PAGE_NO_FILE, PAGE_PRECONDITION, PAGE_RANGE, PAGE_UNSUPPORTED,
    PAGE_WEBROOT,
)
from spokes._fastpath.http.webpath cimport WebPath, webpath_decode, webpath_encode_directory

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <stdint.h>
    #include <sys/stat.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    #ifndef SYS_openat2
    #define SYS_openat2 437             /* the same on every architecture, but unknown to older headers */
    #endif
    #ifndef O_PATH
    #define O_PATH 010000000
    #endif
    /* O_NONBLOCK: a FIFO without a writer must not hold the worker. O_NOCTTY: a terminal must not become ours. */
    #define FILE_FLAGS (O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY)
    #define STEP_FLAGS (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

    /* linux/openat2.h, which older systems do not have. */
    static long open_beneath(int directory, const char *path, uint64_t flags)
    {
        struct { uint64_t flags, mode, resolve; } how = {flags, 0, 0x08 /* BENEATH */ | 0x02 /* NO_MAGICLINKS */};
        return syscall(SYS_openat2, directory, path, &how, sizeof(how));
    }
    """
    long open_beneath(int directory, const char *path, uint64_t flags) noexcept nogil
    int FILE_FLAGS
    int STEP_FLAGS

cdef extern from "fcntl.h" nogil:
    int openat(int directory, const char *path, int flags)
    int posix_fadvise(int fd, int64_t offset, int64_t n, int advice)
    int POSIX_FADV_SEQUENTIAL
    int O_NOFOLLOW
    int O_PATH
    int O_CLOEXEC

cdef extern from "unistd.h" nogil:
    int close(int fd)
    ssize_t pread(int fd, void *dst, size_t n, int64_t offset)

cdef extern from "sys/stat.h" nogil:
    cdef struct timespec:
        int64_t tv_sec
        long tv_nsec
    cdef struct stat_t "stat":
        unsigned int st_mode
        int64_t st_size
        timespec st_mtim
    int fstat(int fd, stat_t *out)
    bint S_ISREG(unsigned int mode)
    bint S_ISDIR(unsigned int mode)

cdef extern from "stdio.h" nogil:
    int snprintf(char *dst, size_t n, const char *format, ...)

cdef enum:
    BENEATH_TRIES = 4                   # openat2 answers EAGAIN when something below was renamed meanwhile
    READ_AHEAD_BYTES_MIN = 262144       # a longer part is worth telling the kernel about
    HEAD_FIELDS_BYTES_MAX = 1024        # more than the fields below can be without Location

cdef const char *ALLOW = b"Allow: GET, HEAD, OPTIONS\r\n"
cdef const char *INDEX_NAME = b"index.html"


# --- opening ----------------------------------------------------------------------------------------------------------

cdef bint can_open_beneath(int fd) noexcept nogil:
    cdef long probe = open_beneath(fd, b".", O_PATH | O_CLOEXEC)
    if probe < 0:
        return False
    close(<int>probe)
    return True


cdef int open_stepwise(int directory, char *path) noexcept nogil:
    """Segment by segment, each a real one: where the kernel cannot promise that a symbolic link stays inside, none is
    followed. The path is whole again afterwards."""
    cdef int fd = directory
    cdef int step
    cdef char *slash
    while True:
        slash = path
        while slash[0] != 0 and slash[0] != c'/':
            slash += 1
        if slash[0] == 0 or slash[1] == 0:
            step = openat(fd, path, FILE_FLAGS | O_NOFOLLOW)
        else:
            slash[0] = 0
            step = openat(fd, path, STEP_FLAGS)
            slash[0] = c'/'
        if step < 0:
            step = -errno
        if fd != directory:
            close(fd)
        if step < 0 or slash[0] == 0 or slash[1] == 0:
            return step
        fd = step
        path = slash + 1


cdef int open_below(const Directory *directory, char *path) noexcept nogil:
    """A descriptor or -errno."""
    cdef long fd = -1
    cdef int _i
    if not directory.beneath:
        return open_stepwise(directory.fd, path)
    for _i in range(BENEATH_TRIES):
        fd = open_beneath(directory.fd, path, <uint64_t>FILE_FLAGS)
        if fd >= 0 or (errno != EAGAIN and errno != EINTR):
            break
    return <int>fd if fd >= 0 else -errno


cdef uint8_t page_of(int rc) noexcept nogil:
    if rc == -EMFILE or rc == -ENFILE or rc == -ENOMEM or rc == -EAGAIN:
        return PAGE_LIMIT
    if rc == -EIO or rc == -ESTALE:     # the disk's own fault, and worth looking into
        return PAGE_WEBROOT
    return PAGE_NO_FILE


# --- answers ----------------------------------------------------------------------------------------------------------

cdef void describe(Representation *of, const stat_t *info, uint64_t now_s) noexcept nogil:
    """The tag is as strong as the clock is fine: nanoseconds of the last change, and the size."""
    cdef uint64_t seconds = info.st_mtim.tv_sec if info.st_mtim.tv_sec > 0 else 0
    of.bytes = info.st_size
    of.modified_s = seconds if seconds < now_s else now_s       # RFC 9110 section 8.8.2.1: never in the future
    of.etag_bytes = <uint8_t>snprintf(of.etag, ETAG_BYTES_MAX, b"\"%llx-%llx\"",
                                      <unsigned long long>(seconds * 1000000000 + info.st_mtim.tv_nsec),
                                      <unsigned long long>of.bytes)


cdef char *put_text(char *to, const char *text) noexcept nogil:
    while text[0] != 0:
        to[0] = text[0]
        to += 1
        text += 1
    return to


cdef char *put_date(char *to, const char *name, uint64_t unix_s) noexcept nogil:
    to = put_text(to, name)
    httpdate_write(to, unix_s)
    return put_text(to + HTTP_DATE_BYTES, b"\r\n")


cdef char *head_begin(char *to, const char *status, uint64_t now_s) noexcept nogil:
    to = put_text(to, b"HTTP/1.1 ")
    to = put_text(to, status)
    return put_date(to, b"\r\nDate: ", now_s)


cdef char *head_end(char *to, const HttpHead *head, bint keep) noexcept nogil:
    if not keep:
        to = put_text(to, b"Connection: close\r\n")
    elif head.minor == 0:
        to = put_text(to, b"Connection: keep-alive\r\n")
    return put_text(to, b"\r\n")


cdef void answer_options(FileAnswer *out, const HttpHead *head, uint64_t now_s, bint keep, char *dst) noexcept nogil:
    cdef char *to = head_begin(dst, b"204 No Content", now_s)
    to = put_text(to, ALLOW)
    out.head_bytes = head_end(to, head, keep) - dst


cdef void answer_redirect(FileAnswer *out, const WebPath *path, const HttpHead *head, const uint8_t *src,
                          uint64_t now_s, bint keep, char *dst, size_t dst_bytes) noexcept nogil:
    """Relative names inside a directory's page need its slash. The place is made anew from the decoded path: what the
    visitor sent might begin with two slashes and so name a host."""
    cdef size_t query_bytes = head.path_bytes - path.query
    cdef size_t place_bytes
    cdef char *to = head_begin(dst, b"308 Permanent Redirect", now_s)
    to = put_text(to, b"Location: ")
    if dst_bytes < HEAD_FIELDS_BYTES_MAX + query_bytes:
        out.page = PAGE_NO_FILE
        return
    place_bytes = webpath_encode_directory(to, dst_bytes - HEAD_FIELDS_BYTES_MAX - query_bytes, path)
    if place_bytes == 0:
        out.page = PAGE_NO_FILE
        return
    to += place_bytes
    memcpy(to, src + head.path + path.query, query_bytes)
    to = put_text(to + query_bytes, b"\r\nContent-Length: 0\r\n")
    out.head_bytes = head_end(to, head, keep) - dst


cdef FileBody *body_new(int fd, const Selection *selection) noexcept nogil:
    cdef FileBody *body = <FileBody *>malloc(sizeof(FileBody))
    if body == NULL:
        return NULL
    body.fd = fd
    body.at = selection.first
    body.left = selection.bytes
    if body.left >= READ_AHEAD_BYTES_MIN:
        posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL)
    return body


cdef bint answer_file(FileAnswer *out, int fd, const stat_t *info, const char *content_type, const HttpHead *head,
                      const uint8_t *src, uint64_t now_s, bint keep, char *dst) noexcept nogil:
    """True: the body has taken the descriptor over."""
    cdef Representation of
    cdef Selection selection
    cdef char *to
    describe(&of, info, now_s)
    conditional_select(&selection, &of, head, src)
    if selection.status == 412:
        out.page = PAGE_PRECONDITION
        return False
    if selection.status == 416:
        out.page = PAGE_RANGE
        out.field_bytes = <uint8_t>snprintf(out.field, FILE_FIELD_BYTES_MAX, b"Content-Range: bytes */%llu\r\n",
                                            <unsigned long long>of.bytes)
        return False
    if selection.status == 304:
        to = head_begin(dst, b"304 Not Modified", now_s)
    else:
        to = head_begin(dst, b"206 Partial Content" if selection.status == 206 else b"200 OK", now_s)
        to = put_text(to, b"Content-Type: ")
        to = put_text(to, content_type)
        to += snprintf(to, 64, b"\r\nContent-Length: %llu\r\n", <unsigned long long>selection.bytes)
        if selection.status == 206:
            to += snprintf(to, 96, b"Content-Range: bytes %llu-%llu/%llu\r\n", <unsigned long long>selection.first,
                           <unsigned long long>(selection.first + selection.bytes - 1), <unsigned long long>of.bytes)
        to = put_text(to, b"Accept-Ranges: bytes\r\nX-Content-Type-Options: nosniff\r\n")
    to = put_date(to, b"Last-Modified: ", of.modified_s)
    to = put_text(to, b"ETag: ")
    memcpy(to, of.etag, of.etag_bytes)
    to = put_text(to + of.etag_bytes, b"\r\n")
    out.head_bytes = head_end(to, head, keep) - dst
    if selection.status == 304 or head.method == METHOD_HEAD or selection.bytes == 0:
        return False
    out.body = body_new(fd, &selection)
    if out.body == NULL:
        out.page = PAGE_LIMIT
    return out.body != NULL


cdef void files_answer(FileAnswer *out, const Directory *directory, const HttpHead *head, const uint8_t *src,
                       uint64_t now_s, bint keep, uint8_t *dst, size_t dst_bytes) noexcept nogil:
    cdef WebPath path
    cdef stat_t info
    cdef char *to = <char *>dst
    cdef bint taken = False
    cdef int fd, rc
    out.page = PAGE_NONE
    out.field_bytes = 0
    out.head_bytes = 0
    out.body = NULL
    if head.method == METHOD_OPTIONS:
        answer_options(out, head, now_s, keep, to)
        return
    if head.method != METHOD_GET and head.method != METHOD_HEAD:
        if head.method == METHOD_OTHER:  # RFC 9110 §9.1: not known here for any file, be it spelled "get"
            out.page = PAGE_UNSUPPORTED
            return
        out.page = PAGE_METHOD
        out.field_bytes = <uint8_t>(put_text(out.field, ALLOW) - out.field)
        return
    rc = webpath_decode(&path, src + head.path, head.path_bytes)
    if rc <= 0:
        out.page = PAGE_BAD_REQUEST if rc < 0 else PAGE_NO_FILE
        return
    if path.is_directory:
        put_text(path.text + path.bytes, INDEX_NAME)[0] = 0     # WEB_PATH_BYTES_MAX leaves room
    fd = open_below(directory, path.text)
    if fd < 0:
        out.page = page_of(fd)
        return
    if fstat(fd, &info) < 0:
        out.page = page_of(-errno)
    elif S_ISREG(info.st_mode):
        taken = answer_file(out, fd, &info, mediatype_of(path.text, strlen(path.text)), head, src, now_s, keep, to)
    elif S_ISDIR(info.st_mode) and not path.is_directory:
        answer_redirect(out, &path, head, src, now_s, keep, to, dst_bytes)
    else:
        out.page = PAGE_NO_FILE
    if not taken:
        close(fd)


# --- bodies -----------------------------------------------------------------------------------------------------------

cdef ssize_t file_read(FileBody *body, uint8_t *dst, size_t dst_bytes) noexcept nogil:
    cdef ssize_t n
    if dst_bytes > body.left:
        dst_bytes = body.left
    while True:
        n = pread(body.fd, dst, dst_bytes, body.at)
        if n >= 0 or errno != EINTR:
            break
    if n < 0:
        return -errno
    if n == 0:
        return RC_EOF
    body.at += n
    body.left -= n
    return n


cdef void file_close(FileBody *body) noexcept nogil:
    close(body.fd)
    free(body)
