"""Heads as they are forwarded: what was received, without what is meant for us, with what we add.

Owns: nothing. Fields passed on lie side by side in the head received, so they are copied in runs.
Fails: RC_LIMIT.
Source: RFC 9110 §7.6 (hop-by-hop fields; Via in requests alone: a gateway may leave it out of responses, where it would
  tell visitors how we are built), RFC 9112 §3.2, §6.
"""
from spokes._fastpath.base.types cimport RC_LIMIT, int32_t, uint8_t
from spokes._fastpath.http.http1_body cimport BODY_CHUNKED, BODY_UNTIL_CLOSE
from spokes._fastpath.http.http1_head cimport HttpHead
from spokes._fastpath.http.http1_message cimport (
    FIELD_CONTENT_LENGTH, FIELD_EXPECT, FIELD_FORWARDED, FIELD_HOST, FIELD_MAX_FORWARDS, FIELD_OTHER,
    FIELD_TRANSFER_ENCODING, FIELD_UPGRADE, FIELD_VIA, METHOD_OPTIONS, HttpField,
)
from spokes._fastpath.http.httpdate cimport HTTP_DATE_BYTES


cdef extern from * nogil:
    """
    #include <stdint.h>
    #include <string.h>

    /* gcc makes "rep movs" of a copy whose length it knows to be below 256, because it comes from a uint8_t; on the
       x86 processors measured that costs 25 ns to start. Where the length is no constant, its range is hidden. */
    static inline void copy_bytes(void *dst, const void *src, size_t byte_count)
    {
        if (!__builtin_constant_p(byte_count))
            __asm__("" : "+r"(byte_count));
        memcpy(dst, src, byte_count);
    }
    """
    void copy_bytes(void *dst, const void *src, size_t byte_count)


cdef enum:
    # What a rewritten head may have beyond the bytes received and the texts of HttpRewrite: our own field names.
    WRITTEN_BYTES_MAX = 256


cdef inline uint8_t *put(uint8_t *dst, const void *src, size_t src_bytes) noexcept nogil:
    copy_bytes(dst, src, src_bytes)
    return dst + src_bytes


cdef inline uint8_t *put_field(uint8_t *dst, const char *name, size_t name_bytes, const void *value,
                               size_t value_bytes) noexcept nogil:
    """`name` comes with its colon and blank."""
    dst = put(dst, name, name_bytes)
    dst = put(dst, value, value_bytes)
    return put(dst, b"\r\n", 2)


cdef uint8_t *put_number(uint8_t *dst, int32_t value) noexcept nogil:
    cdef uint8_t digits[10]
    cdef int at = 10
    while True:
        at -= 1
        digits[at] = <uint8_t>(c'0' + value % 10)
        value //= 10
        if value == 0:
            break
    return put(dst, digits + at, 10 - at)


cdef ssize_t http1_write_request(uint8_t *dst, size_t dst_bytes, const HttpHead *head, const uint8_t *src,
                                 const HttpRewrite *rewrite) noexcept nogil:
    cdef uint8_t *to = dst
    cdef const HttpField *field
    cdef size_t i, run = 0, texts_bytes = head.host_bytes
    cdef bint has_host = False
    if rewrite.host != NULL:
        texts_bytes += rewrite.host_bytes
    if rewrite.via != NULL:
        texts_bytes += rewrite.via_bytes
    if rewrite.visitor != NULL:
        texts_bytes += 2 * <size_t>rewrite.visitor_bytes + head.host_bytes
    if dst_bytes < head.head_bytes + texts_bytes + WRITTEN_BYTES_MAX:
        return RC_LIMIT

    # `run` is where the bytes start that are passed on as received and not yet copied.
    if head.minor == 0 or head.path != head.target or src[head.target + head.target_bytes + 8] != c'1':
        to = put(to, src, head.method_bytes + 1)
        if head.path_bytes == 0 and head.method == METHOD_OPTIONS:
            to = put(to, b"*", 1)                       # RFC 9112 §3.2.4
        elif head.path_bytes == 0 or src[head.path] == c'?':
            to = put(to, b"/", 1)
        to = put(to, src + head.path, head.path_bytes)
        to = put(to, b" HTTP/1.1\r\n", 11)
        run = head.target + head.target_bytes + 11
    for i in range(head.field_count):
        field = &head.fields[i]
        if field.id == FIELD_OTHER or field.id == FIELD_VIA:
            continue
        elif field.id == FIELD_HOST:
            has_host = True
            if rewrite.host == NULL:
                continue
        elif field.id == FIELD_FORWARDED:
            if rewrite.visitor == NULL:
                continue
        elif field.id == FIELD_MAX_FORWARDS:
            if rewrite.visitor == NULL or head.max_forwards <= 0:
                continue
        elif field.id == FIELD_UPGRADE:
            if head.upgrade:
                continue
        elif field.id == FIELD_EXPECT:
            if head.minor == 1:
                continue
        to = put(to, src + run, field.name - run)
        run = head.fields[i + 1].name if i + 1 < head.field_count else head.head_bytes - 2
        if field.id == FIELD_HOST:
            to = put_field(to, b"Host: ", 6, rewrite.host, rewrite.host_bytes)
        elif field.id == FIELD_CONTENT_LENGTH:
            # Framing is said in our own spelling: odd blanks are not passed on.
            to = put_field(to, b"Content-Length: ", 16, src + field.value, field.value_bytes)
        elif field.id == FIELD_TRANSFER_ENCODING:
            to = put_field(to, b"Transfer-Encoding: ", 19, b"chunked", 7)
        elif field.id == FIELD_MAX_FORWARDS:
            to = put(to, b"Max-Forwards: ", 14)
            to = put_number(to, head.max_forwards - 1)
            to = put(to, b"\r\n", 2)
    to = put(to, src + run, head.head_bytes - 2 - run)
    if not has_host:
        if rewrite.host != NULL:
            to = put_field(to, b"Host: ", 6, rewrite.host, rewrite.host_bytes)
        else:
            to = put_field(to, b"Host: ", 6, head.host, head.host_bytes)
    if head.upgrade:
        to = put_field(to, b"Connection: ", 12, b"upgrade", 7)
    if rewrite.visitor != NULL:
        to = put(to, b"X-Forwarded-For: ", 17)
        to = put(to, rewrite.visitor, rewrite.visitor_bytes)
        to = put(to, b"\r\nX-Real-IP: ", 13)
        to = put(to, rewrite.visitor, rewrite.visitor_bytes)
        if rewrite.secure:
            to = put(to, b"\r\nX-Forwarded-Proto: https\r\n", 28)
        else:
            to = put(to, b"\r\nX-Forwarded-Proto: http\r\n", 27)
        if head.host_bytes:
            to = put_field(to, b"X-Forwarded-Host: ", 18, head.host, head.host_bytes)
    if rewrite.via != NULL:
        to = put(to, b"Via: 1.0 " if head.minor == 0 else b"Via: 1.1 ", 9)
        to = put(to, rewrite.via, rewrite.via_bytes)
        to = put(to, b"\r\n", 2)
    to = put(to, b"\r\n", 2)
    return to - dst


cdef ssize_t http1_write_response(uint8_t *dst, size_t dst_bytes, const HttpHead *head, const uint8_t *src,
                                  const HttpRewrite *rewrite) noexcept nogil:
    cdef uint8_t *to = dst
    cdef const HttpField *field
    cdef size_t i, colon, run = 0
    cdef bint keeps_upgrade = head.upgrade or head.status == 426
    cdef bint keep_alive = rewrite.keep_alive
    cdef bint says_upgrade = head.upgrade
    # A body may not be announced where none can follow (RFC 9110 §8.6, RFC 9112 §6.1).
    cdef bint has_no_body = head.status < 200 or head.status == 204
    if dst_bytes < head.head_bytes + WRITTEN_BYTES_MAX:
        return RC_LIMIT
    if head.body.kind == BODY_UNTIL_CLOSE or (head.body.kind == BODY_CHUNKED and rewrite.to_minor == 0):
        keep_alive = False                              # only the close says where the body ends
    if head.minor == 0 or head.reason == 12 or src[7] != c'1':
        to = put(to, b"HTTP/1.1", 8)
        to = put(to, src + 8, 4)
        to = put(to, b" ", 1)
        run = 13 if head.reason == 13 else 12
    for i in range(head.field_count):
        field = &head.fields[i]
        if field.id == FIELD_OTHER or field.id == FIELD_HOST or field.id == FIELD_FORWARDED or \
                field.id == FIELD_EXPECT or field.id == FIELD_VIA or (field.id == FIELD_UPGRADE and keeps_upgrade):
            if field.id == FIELD_UPGRADE:
                says_upgrade = True
            if head.has_gaps:
                colon = field.name + field.name_bytes
                to = put(to, src + run, colon - run)
                while src[colon] != c':':
                    colon += 1
                run = colon
            continue
        to = put(to, src + run, field.name - run)
        run = head.fields[i + 1].name if i + 1 < head.field_count else head.head_bytes - 2
        if has_no_body:
            continue
        if field.id == FIELD_CONTENT_LENGTH:
            to = put_field(to, b"Content-Length: ", 16, src + field.value, field.value_bytes)
        elif field.id == FIELD_TRANSFER_ENCODING and rewrite.to_minor == 1:
            to = put_field(to, b"Transfer-Encoding: ", 19, b"chunked", 7)
    to = put(to, src + run, head.head_bytes - 2 - run)
    if says_upgrade:
        if keep_alive or head.status == 101:
            to = put_field(to, b"Connection: ", 12, b"upgrade", 7)
        else:
            to = put_field(to, b"Connection: ", 12, b"upgrade, close", 14)
    if rewrite.date != NULL and not head.has_date and head.status >= 200:
        to = put_field(to, b"Date: ", 6, rewrite.date, HTTP_DATE_BYTES)
    if not says_upgrade and head.status >= 200:
        if not keep_alive:
            to = put_field(to, b"Connection: ", 12, b"close", 5)
        elif rewrite.to_minor == 0:
            to = put_field(to, b"Connection: ", 12, b"keep-alive", 10)
    to = put(to, b"\r\n", 2)
    return to - dst
