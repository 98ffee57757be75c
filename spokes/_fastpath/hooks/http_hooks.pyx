"""Test hooks of hosts, dates, conditions, paths and content types."""
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from spokes._fastpath.base.types cimport uint64_t, uint8_t
from spokes._fastpath.http.conditional cimport ETAG_BYTES_MAX, Representation, Selection, conditional_select
from spokes._fastpath.http.host cimport HOST_SIZE_BYTES, canonical_host
from spokes._fastpath.http.http1_head cimport HttpHead, http1_parse_request
from spokes._fastpath.http.httpdate cimport HTTP_DATE_BYTES, httpdate_read, httpdate_write
from spokes._fastpath.http.mediatype cimport mediatype_at, mediatype_of
from spokes._fastpath.http.webpath cimport WebPath, webpath_decode, webpath_encode_directory


def read_host(bytes data not None):
    """The canonical host of an authority, or a code."""
    cdef char host[HOST_SIZE_BYTES]
    cdef uint8_t *src = <uint8_t *>malloc(max(len(data), 1))    # of exactly this size, for sanitizers
    cdef ssize_t rc
    if src == NULL:
        raise MemoryError
    memcpy(src, <const char *>data, len(data))
    rc = canonical_host(host, src, len(data))
    free(src)
    return rc if rc < 0 else host[:rc]


def write_date(uint64_t unix_s):
    cdef char text[HTTP_DATE_BYTES]
    httpdate_write(text, unix_s)
    return text[:HTTP_DATE_BYTES]


def read_date(bytes text not None):
    return httpdate_read(text, len(text))


def select(bytes head_data not None, bytes etag not None, uint64_t modified_s, uint64_t total):
    """(status, first, bytes) for a whole request head; None where the head is no request."""
    cdef HttpHead head
    cdef Representation of
    cdef Selection selection
    of.bytes = total
    of.modified_s = modified_s
    of.etag_bytes = <uint8_t>min(len(etag), ETAG_BYTES_MAX)
    memcpy(of.etag, <const char *>etag, of.etag_bytes)
    cdef uint8_t *exactly = <uint8_t *>malloc(max(len(head_data), 1))   # so that a sanitizer sees one byte too many
    if exactly == NULL:
        raise MemoryError
    memcpy(exactly, <const char *>head_data, len(head_data))
    cdef int rc = http1_parse_request(&head, exactly, len(head_data), False)
    if rc >= 0:
        conditional_select(&selection, &of, &head, exactly)
    free(exactly)
    return (selection.status, selection.first, selection.bytes) if rc >= 0 else None


def decode_path(bytes data not None):
    """(relative path, is it a directory, query) or the code."""
    cdef WebPath path
    cdef uint8_t *exactly = <uint8_t *>malloc(max(len(data), 1))    # so that a sanitizer sees one byte too many
    cdef int rc
    if exactly == NULL:
        raise MemoryError
    memcpy(exactly, <const char *>data, len(data))
    rc = webpath_decode(&path, exactly, len(data))
    free(exactly)
    if rc <= 0:
        return rc
    return path.text[:path.bytes], bool(path.is_directory), data[path.query:]


def encode_directory(bytes data not None):
    """The location of a decoded path's directory."""
    cdef WebPath path
    cdef char location[16384]
    if webpath_decode(&path, <const uint8_t *><const char *>data, len(data)) <= 0:
        return None
    return location[:webpath_encode_directory(location, sizeof(location), &path)]


def media_type(bytes name not None):
    return (<bytes>mediatype_of(name, len(name))).decode("ascii")


def table():
    """Every (extension, type), in the table's order."""
    cdef const char *extension
    cdef const char *type
    cdef list found = []
    while mediatype_at(<int>len(found), &extension, &type):
        found.append((extension.decode("ascii"), type.decode("ascii")))
    return found
