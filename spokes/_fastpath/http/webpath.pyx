"""The path of a request as the path of a file below some directory.

The rules are strict because what opens the file trusts them with names that must stay private; where the file may lie
is the kernel's to hold (files.pyx). Bound: WEB_PATH_BYTES_MAX.
Source: RFC 3986 section 2.1, RFC 3629, RFC 8615.
"""
from libc.string cimport memcmp

from spokes._fastpath.base.types cimport RC_PROTO, uint32_t

cdef enum:
    WELL_KNOWN_BYTES = 11


cdef int hex_digit(uint8_t c) noexcept nogil:
    if c'0' <= c <= c'9':
        return c - c'0'
    c |= 0x20
    return c - c'a' + 10 if c'a' <= c <= c'f' else -1


cdef bint is_hidden(const char *segment, size_t segment_bytes, bint is_first) noexcept nogil:
    """Also what `.` and `..` are caught by."""
    if segment[0] != c'.':
        return False
    return not (is_first and segment_bytes == WELL_KNOWN_BYTES and memcmp(segment, b".well-known", 11) == 0)


cdef bint is_utf8(const uint8_t *src, size_t src_bytes) noexcept nogil:
    """Shortest forms only, no surrogates: one name has one spelling."""
    cdef size_t i = 0
    cdef size_t more
    cdef uint32_t point, least
    while i < src_bytes:
        if src[i] < 0x80:
            i += 1
            continue
        if src[i] & 0xE0 == 0xC0:
            more, point, least = 1, src[i] & 0x1F, 0x80
        elif src[i] & 0xF0 == 0xE0:
            more, point, least = 2, src[i] & 0x0F, 0x800
        elif src[i] & 0xF8 == 0xF0:
            more, point, least = 3, src[i] & 0x07, 0x10000
        else:
            return False
        i += 1
        if src_bytes - i < more:
            return False
        while more > 0:
            if src[i] & 0xC0 != 0x80:
                return False
            point = point << 6 | (src[i] & 0x3F)
            i += 1
            more -= 1
        if point < least or point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
            return False
    return True


cdef int webpath_decode(WebPath *out, const uint8_t *src, size_t src_bytes) noexcept nogil:
    cdef size_t i = 0
    cdef size_t n = 0
    cdef size_t segment = 0             # where the present one begins
    cdef int high, low
    cdef uint8_t c
    while i < src_bytes and src[i] != c'?':
        c = src[i]
        i += 1
        if c == c'/':
            if n > segment:
                if is_hidden(out.text + segment, n - segment, segment == 0):
                    return 0
                out.text[n] = c'/'
                n += 1
                segment = n
            continue
        if c == c'%':
            high = hex_digit(src[i]) if i < src_bytes else -1
            low = hex_digit(src[i + 1]) if i + 1 < src_bytes else -1
            if high < 0 or low < 0:
                return RC_PROTO
            c = <uint8_t>(high << 4 | low)
            i += 2
            if c == c'/':
                return 0
        if c < 32 or c == 127 or c == c'\\' or n >= WEB_PATH_BYTES_MAX:
            return 0
        out.text[n] = <char>c
        n += 1
    if n > segment and is_hidden(out.text + segment, n - segment, segment == 0):
        return 0
    if not is_utf8(<const uint8_t *>out.text, n):
        return 0
    out.text[n] = 0
    out.bytes = <uint16_t>n
    out.query = <uint16_t>i
    out.is_directory = n == segment
    return 1


cdef bint is_plain(uint8_t c) noexcept nogil:
    """Unreserved, or of a meaning that cannot be mistaken within a path."""
    return c'a' <= c <= c'z' or c'A' <= c <= c'Z' or c'0' <= c <= c'9' or c == c'/' or c == c'-' or c == c'.' \
        or c == c'_' or c == c'~'


cdef size_t webpath_encode_directory(char *dst, size_t dst_bytes, const WebPath *path) noexcept nogil:
    cdef const char *digits = b"0123456789ABCDEF"
    cdef size_t i
    cdef size_t n = 1
    cdef uint8_t c
    if dst_bytes < 3 * <size_t>path.bytes + 2:
        return 0
    dst[0] = c'/'                       # the only one: two would make the next segment a host
    for i in range(path.bytes):
        c = <uint8_t>path.text[i]
        if is_plain(c):
            dst[n] = <char>c
            n += 1
        else:
            dst[n] = c'%'
            dst[n + 1] = digits[c >> 4]
            dst[n + 2] = digits[c & 15]
            n += 3
    if n == 1 or dst[n - 1] != c'/':
        dst[n] = c'/'
        n += 1
    return n if path.bytes > 0 else 1
