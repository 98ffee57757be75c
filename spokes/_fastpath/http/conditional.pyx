"""Conditions and ranges of a request, held against one representation.

Bound: a field is read once, from left to right. Source: RFC 9110 sections 13 and 14.
"""
from libc.string cimport memcmp

from spokes._fastpath.base.types cimport int64_t
from spokes._fastpath.http.ascii cimport is_blank, is_word
from spokes._fastpath.http.http1_message cimport METHOD_GET, HttpField
from spokes._fastpath.http.httpdate cimport httpdate_read

cdef enum RangeKind:
    RANGE_NONE, RANGE_PART, RANGE_UNSATISFIABLE


cdef const HttpField *field_next(const HttpHead *head, const uint8_t *src, const HttpField *after, const char *name,
                                 size_t name_bytes) noexcept nogil:
    """The first field of that name, or the next one; NULL when there is none."""
    cdef size_t i = 0 if after == NULL else after - head.fields + 1
    while i < head.field_count:
        if is_word(src + head.fields[i].name, head.fields[i].name_bytes, name, name_bytes):
            return &head.fields[i]
        i += 1
    return NULL


cdef bint lists_etag(const char *text, size_t text_bytes, const Representation *of, bint weakly) noexcept nogil:
    """Is the representation's in a list of entity tags? A weak one counts only where weak comparison is asked for."""
    cdef size_t i = 0
    cdef size_t begin
    cdef bint is_weak
    if text_bytes == 1 and text[0] == c'*':
        return True
    while i < text_bytes:
        if is_blank(<uint8_t>text[i]) or text[i] == c',':
            i += 1
            continue
        is_weak = text_bytes - i > 2 and text[i] == c'W' and text[i + 1] == c'/'
        if is_weak:
            i += 2
        begin = i
        if text[i] != c'"':
            return False
        i += 1
        while i < text_bytes and text[i] != c'"':
            i += 1
        if i == text_bytes:
            return False
        i += 1
        if i - begin == of.etag_bytes and (weakly or not is_weak) and memcmp(text + begin, of.etag, i - begin) == 0:
            return True
    return False


cdef bint any_lists_etag(const HttpHead *head, const uint8_t *src, const HttpField *field, const char *name,
                         size_t name_bytes, const Representation *of, bint weakly) noexcept nogil:
    while field != NULL:
        if lists_etag(<const char *>src + field.value, field.value_bytes, of, weakly):
            return True
        field = field_next(head, src, field, name, name_bytes)
    return False


cdef int64_t date_of(const uint8_t *src, const HttpField *field) noexcept nogil:
    return httpdate_read(<const char *>src + field.value, field.value_bytes) if field != NULL else -1


cdef bint if_range_holds(const uint8_t *src, const HttpField *field, const Representation *of) noexcept nogil:
    """A part is of use only for exactly what the visitor has already; a date says so only when it is the same."""
    if field.value_bytes > 0 and src[field.value] == c'"':
        return field.value_bytes == of.etag_bytes and memcmp(src + field.value, of.etag, of.etag_bytes) == 0
    return date_of(src, field) == <int64_t>of.modified_s


cdef size_t read_number(const uint8_t *src, size_t src_bytes, uint64_t *out) noexcept nogil:
    """Digits read; a number that no file reaches is as good as any other such."""
    cdef size_t i = 0
    cdef uint64_t value = 0
    while i < src_bytes and c'0' <= src[i] <= c'9':
        if value < <uint64_t>1 << 59:
            value = value * 10 + src[i] - c'0'
        i += 1
    out[0] = value
    return i


cdef RangeKind read_range(Selection *out, const uint8_t *src, size_t src_bytes, uint64_t total) noexcept nogil:
    cdef uint64_t first = 0
    cdef uint64_t last = 0
    cdef size_t i = 6
    cdef size_t first_digits, last_digits
    if src_bytes < 6 or not is_word(src, 5, b"bytes", 5) or src[5] != c'=':
        return RANGE_NONE
    while i < src_bytes and is_blank(src[i]):
        i += 1
    first_digits = read_number(src + i, src_bytes - i, &first)
    i += first_digits
    if i == src_bytes or src[i] != c'-':
        return RANGE_NONE
    i += 1
    last_digits = read_number(src + i, src_bytes - i, &last)
    i += last_digits
    if i != src_bytes or first_digits + last_digits == 0:
        return RANGE_NONE
    if first_digits == 0:               # the last so many
        if last == 0:
            return RANGE_UNSATISFIABLE
        if total == 0:
            return RANGE_NONE
        first = total - last if last < total else 0
        last = total - 1
    elif last_digits > 0 and last < first:
        return RANGE_NONE
    elif first >= total:
        return RANGE_UNSATISFIABLE
    elif last_digits == 0 or last >= total:
        last = total - 1
    out.first = first
    out.bytes = last - first + 1
    return RANGE_PART


cdef void conditional_select(Selection *out, const Representation *of, const HttpHead *head,
                             const uint8_t *src) noexcept nogil:
    cdef const HttpField *field
    cdef const HttpField *if_range
    cdef RangeKind kind
    cdef int64_t date
    out.status = 200
    out.first = 0
    out.bytes = of.bytes
    field = field_next(head, src, NULL, b"if-match", 8)
    if field != NULL:
        if not any_lists_etag(head, src, field, b"if-match", 8, of, False):
            out.status = 412
            return
    else:
        date = date_of(src, field_next(head, src, NULL, b"if-unmodified-since", 19))
        if 0 <= date < <int64_t>of.modified_s:
            out.status = 412
            return
    field = field_next(head, src, NULL, b"if-none-match", 13)
    if field != NULL:
        if any_lists_etag(head, src, field, b"if-none-match", 13, of, True):
            out.status = 304
            return
    else:
        date = date_of(src, field_next(head, src, NULL, b"if-modified-since", 17))
        if date >= <int64_t>of.modified_s:
            out.status = 304
            return
    field = field_next(head, src, NULL, b"range", 5)
    if field == NULL or head.method != METHOD_GET or field_next(head, src, field, b"range", 5) != NULL:
        return
    if_range = field_next(head, src, NULL, b"if-range", 8)
    if if_range != NULL and not if_range_holds(src, if_range, of):
        return
    kind = read_range(out, src + field.value, field.value_bytes, of.bytes)
    if kind == RANGE_PART:
        out.status = 206
    elif kind == RANGE_UNSATISFIABLE:
        out.status = 416
