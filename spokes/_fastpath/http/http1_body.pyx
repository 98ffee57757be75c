"""Where an HTTP body ends: lengths, chunks, the end of the conn.

Owns: nothing; the caller keeps an HttpBody while the message is under way and may stop at any byte.
Bound: HTTP_STEP_FIELD_BYTES_MAX, CHUNK_DIGITS_MAX; a chunk is below 2^63 bytes.
Fails: RC_PROTO; RC_LIMIT at a chunk's size, before the first of its bytes.
Source: RFC 9112 §6 and §7. Stricter: no blanks around a chunk size (§7.1.1 allows some before the first extension).
"""
from spokes._fastpath.base.types cimport RC_LIMIT, RC_PROTO, uint8_t, uint64_t
from spokes._fastpath.http.ascii cimport CR, IS_TEXT, IS_TOKEN, LF, byte_class, is_blank


cdef enum:
    CHUNK_DIGITS_MAX = 16

cdef enum BodyState:                    # within chunked framing
    CHUNK_SIZE = BODY_STATE_START, CHUNK_SIZE_LF, CHUNK_DATA, CHUNK_DATA_CR, CHUNK_DATA_LF
    EXTENSION_START, EXTENSION_NAME, EXTENSION_NAME_END, EXTENSION_VALUE_START, EXTENSION_VALUE, EXTENSION_QUOTED
    EXTENSION_QUOTED_PAIR, EXTENSION_QUOTE_END, EXTENSION_END
    TRAILER_START, TRAILER_NAME, TRAILER_NAME_END, TRAILER_VALUE, TRAILER_LF, CHUNKED_LF, CHUNKED_DONE


cdef inline int hex_digit(uint8_t c) noexcept nogil:
    if c'0' <= c <= c'9':
        return c - c'0'
    c |= 0x20
    return c - c'a' + 10 if c'a' <= c <= c'f' else -1


cdef bint http1_body_done(const HttpBody *body) noexcept nogil:
    if body.kind == BODY_LENGTH:
        return body.left == 0
    if body.kind == BODY_CHUNKED:
        return body.state == CHUNKED_DONE
    return body.kind == BODY_NONE


cdef ssize_t http1_body_step(HttpBody *body, const uint8_t *src, size_t src_bytes, uint8_t *pass_on) noexcept nogil:
    pass_on[0] = 1
    if body.kind == BODY_CHUNKED:
        return chunked_step(body, src, src_bytes, pass_on)
    if body.kind == BODY_LENGTH:
        if src_bytes > body.left:
            src_bytes = <size_t>body.left
        body.left -= src_bytes
        return <ssize_t>src_bytes
    return <ssize_t>src_bytes if body.kind == BODY_UNTIL_CLOSE else 0


cdef int extension_byte(HttpBody *body, uint8_t c) noexcept nogil:
    """*( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] ), §7.1.1; the first ";" has been read."""
    cdef uint8_t state = body.state
    if state == EXTENSION_QUOTED_PAIR:
        return skip_byte(body, EXTENSION_QUOTED) if byte_class[c] & IS_TEXT else RC_PROTO
    elif state == EXTENSION_QUOTED:
        if c == c'"':
            return skip_byte(body, EXTENSION_QUOTE_END)
        if c == c'\\':
            return skip_byte(body, EXTENSION_QUOTED_PAIR)
        return skip_byte(body, EXTENSION_QUOTED) if byte_class[c] & IS_TEXT else RC_PROTO
    elif state == EXTENSION_START or state == EXTENSION_VALUE_START:
        if is_blank(c):
            return skip_byte(body, state)
        if c == c'"' and state == EXTENSION_VALUE_START:
            return skip_byte(body, EXTENSION_QUOTED)
        if not byte_class[c] & IS_TOKEN:
            return RC_PROTO
        return skip_byte(body, EXTENSION_NAME if state == EXTENSION_START else EXTENSION_VALUE)
    if c == c';':
        return skip_byte(body, EXTENSION_START)
    if c == c'=' and (state == EXTENSION_NAME or state == EXTENSION_NAME_END):
        return skip_byte(body, EXTENSION_VALUE_START)
    if is_blank(c):
        return skip_byte(body, EXTENSION_NAME_END if state == EXTENSION_NAME or state == EXTENSION_NAME_END
                         else EXTENSION_END)
    if c == CR and (state == EXTENSION_NAME or state == EXTENSION_VALUE or state == EXTENSION_QUOTE_END):
        body.state = CHUNK_SIZE_LF
        return 1
    if byte_class[c] & IS_TOKEN and (state == EXTENSION_NAME or state == EXTENSION_VALUE):
        return skip_byte(body, state)
    return RC_PROTO


cdef int chunked_byte(HttpBody *body, uint8_t c) noexcept nogil:
    """Take one byte of framing: 1 it is passed on, 0 dropped, RC_PROTO (then the body is as before)."""
    cdef int digit
    if body.state == CHUNK_SIZE:
        digit = hex_digit(c)
        if digit >= 0:
            if body.digits == CHUNK_DIGITS_MAX or body.left >> 59:      # a chunk of 2^63 bytes or more
                return RC_PROTO
            body.left = body.left << 4 | <uint64_t>digit
            body.digits += 1
            return 1
        if body.digits == 0:
            return RC_PROTO
        if c == CR:
            body.state = CHUNK_SIZE_LF
            return 1
        if c != c';':
            return RC_PROTO
        return skip_byte(body, EXTENSION_START)
    elif EXTENSION_START <= body.state <= EXTENSION_END:
        return extension_byte(body, c)
    elif body.state == CHUNK_SIZE_LF:
        if c != LF:
            return RC_PROTO
        if body.left > body.room:
            return RC_LIMIT
        body.room -= body.left
        body.digits = 0
        body.state = CHUNK_DATA if body.left else TRAILER_START
        return 1
    elif body.state == CHUNK_DATA_CR:
        if c != CR:
            return RC_PROTO
        body.state = CHUNK_DATA_LF
        return 1
    elif body.state == CHUNK_DATA_LF:
        if c != LF:
            return RC_PROTO
        body.state = CHUNK_SIZE
        return 1
    elif body.state == TRAILER_START:
        if c == CR:
            body.state = CHUNKED_LF
            return 1
        return skip_byte(body, TRAILER_NAME) if byte_class[c] & IS_TOKEN else RC_PROTO
    elif body.state == TRAILER_NAME:
        if c == c':':
            return skip_byte(body, TRAILER_VALUE)
        if is_blank(c) and body.is_response:            # as in the head: RFC 9112 §5.1
            return skip_byte(body, TRAILER_NAME_END)
        return skip_byte(body, TRAILER_NAME) if byte_class[c] & IS_TOKEN else RC_PROTO
    elif body.state == TRAILER_NAME_END:
        if c == c':':
            return skip_byte(body, TRAILER_VALUE)
        return skip_byte(body, TRAILER_NAME_END) if is_blank(c) else RC_PROTO
    elif body.state == TRAILER_VALUE:
        if c == CR:
            return skip_byte(body, TRAILER_LF)
        return skip_byte(body, TRAILER_VALUE) if byte_class[c] & IS_TEXT else RC_PROTO
    elif body.state == TRAILER_LF:
        return skip_byte(body, TRAILER_START) if c == LF else RC_PROTO
    if body.state != CHUNKED_LF or c != LF:
        return RC_PROTO
    body.state = CHUNKED_DONE
    return 1


cdef inline int skip_byte(HttpBody *body, uint8_t state) noexcept nogil:
    if body.skipped == HTTP_STEP_FIELD_BYTES_MAX:
        return RC_PROTO
    body.skipped += 1
    body.state = state
    return 0


cdef ssize_t chunked_step(HttpBody *body, const uint8_t *src, size_t src_bytes, uint8_t *pass_on) noexcept nogil:
    """As many bytes as have the same answer. A bad byte behind good ones is left to the next step."""
    cdef HttpBody before
    cdef size_t at = 0, span
    cdef int answer, first = -1
    while at < src_bytes and body.state != CHUNKED_DONE:
        if body.state == CHUNK_DATA:
            if first == 0:
                break
            span = min(src_bytes - at, <size_t>body.left)
            body.left -= span
            at += span
            first = 1
            if body.left == 0:
                body.state = CHUNK_DATA_CR
            continue
        before = body[0]
        answer = chunked_byte(body, src[at])
        if answer < 0:
            if at:
                break
            return answer
        if body.strip:
            answer = 0
        if first >= 0 and answer != first:
            body[0] = before
            break
        first = answer
        at += 1
    pass_on[0] = first != 0
    return <ssize_t>at
