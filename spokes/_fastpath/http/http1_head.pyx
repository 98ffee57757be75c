"""Heads of HTTP/1.1 messages: find their end, parse them once.

Owns: nothing; every function reads and writes the caller's memory and may be given any bytes.
Bound: HTTP_*_MAX; what exceeds them is refused before it is stored. A head that came over a link may be larger by what
  its other end adds: both ends together refuse what one would.
Fails: RC_PROTO, RC_TOO_LARGE, RC_TARGET, RC_VERSION, RC_UNSUPPORTED.
Source: RFC 9110, RFC 9112. Where they leave a choice, the choice that leaves no second opinion:

- a length is digits without leading zeros, once; "5, 5" and two equal fields are refused
- Transfer-Encoding is the one word chunked, in HTTP/1.1; never beside a length. Another coding is 501 where it is
  spelled well and chunked, if it is there, comes last; all else is 400
- a method is any token of at most HTTP_METHOD_BYTES_MAX bytes and is left to the upstream: only CONNECT is 501
- targets are visible ASCII without "#"; "*" only with OPTIONS; CONNECT is not done
- Connection may not name Host, Content-Length or Transfer-Encoding: dropping them would change where the message
  goes or ends, and no honest sender asks for it, so the message is refused rather than the word ignored
- an Upgrade to HTTP itself or TLS (h2c, HTTP/2.0, TLS/1.0) is not passed on: it would carry requests past our eyes
- an Expect other than 100-continue is passed on and left to the upstream; HTTP/1.0 has no Expect, so it is dropped
- a status line without a reason may lack the blank before it: common, and without influence on framing
"""
from libc.string cimport memcmp, memcpy, memset

from spokes._fastpath.base.types cimport (
    RC_PROTO, RC_TARGET, RC_TOO_LARGE, RC_UNSUPPORTED, RC_VERSION, int32_t, uint16_t,
)
from spokes._fastpath.http.ascii cimport CR, IS_TARGET, IS_TOKEN, LF, SP, byte_class, find_control, is_blank, is_word
from spokes._fastpath.http.host cimport PORT_NONE, canonical_authority
from spokes._fastpath.http.http1_body cimport BODY_CHUNKED, BODY_LENGTH, BODY_NONE, BODY_UNTIL_CLOSE
from spokes._fastpath.http.http1_fields cimport Words, read_fields, set_body, words_begin, words_next
from spokes._fastpath.http.http1_message cimport (
    FIELD_VIA, HTTP_ADDED_BYTES_MAX, HTTP_ADDED_FIELD_COUNT_MAX, HTTP_FIELD_COUNT_MAX, HTTP_HEAD_BYTES_MAX,
    HTTP_METHOD_BYTES_MAX, METHOD_CONNECT, METHOD_DELETE, METHOD_GET, METHOD_HEAD, METHOD_OPTIONS, METHOD_OTHER,
    METHOD_PATCH, METHOD_POST, METHOD_PUT, METHOD_TRACE, Fields, HttpField,
)


cdef uint8_t method_id(const uint8_t *name, size_t name_bytes) noexcept nogil:
    """Methods are case-sensitive (RFC 9110 §9.1): "get" is a method of its own."""
    if name_bytes == 3:
        if memcmp(name, b"GET", 3) == 0:
            return METHOD_GET
        if memcmp(name, b"PUT", 3) == 0:
            return METHOD_PUT
    elif name_bytes == 4:
        if memcmp(name, b"POST", 4) == 0:
            return METHOD_POST
        if memcmp(name, b"HEAD", 4) == 0:
            return METHOD_HEAD
    elif name_bytes == 5:
        if memcmp(name, b"PATCH", 5) == 0:
            return METHOD_PATCH
        if memcmp(name, b"TRACE", 5) == 0:
            return METHOD_TRACE
    elif name_bytes == 6:
        if memcmp(name, b"DELETE", 6) == 0:
            return METHOD_DELETE
    elif name_bytes == 7:
        if memcmp(name, b"OPTIONS", 7) == 0:
            return METHOD_OPTIONS
        if memcmp(name, b"CONNECT", 7) == 0:
            return METHOD_CONNECT
    return METHOD_OTHER


cdef size_t http1_skip_crlf(const uint8_t *src, size_t src_bytes) noexcept nogil:
    return 2 if src_bytes >= 2 and src[0] == CR and src[1] == LF else 0


cdef int long_line(const uint8_t *src, size_t line_bytes) noexcept nogil:
    """What is wrong with a message whose first line is longer than line_bytes."""
    cdef size_t at = 0
    while at < line_bytes and byte_class[src[at]] & IS_TOKEN:
        at += 1
    if at == 4 and src[4] == c'/' and memcmp(src, b"HTTP", 4) == 0:
        return RC_TOO_LARGE                             # a status line
    if at > HTTP_METHOD_BYTES_MAX and (at == line_bytes or src[at] == SP):
        return RC_UNSUPPORTED
    return RC_TARGET if at < line_bytes and src[at] == SP else RC_PROTO


cdef inline size_t head_bytes_max(bint over_link) noexcept nogil:
    return HTTP_HEAD_BYTES_MAX + HTTP_ADDED_BYTES_MAX if over_link else HTTP_HEAD_BYTES_MAX


cdef inline uint16_t field_count_max(bint over_link) noexcept nogil:
    return HTTP_FIELD_COUNT_MAX + HTTP_ADDED_FIELD_COUNT_MAX if over_link else HTTP_FIELD_COUNT_MAX


cdef ssize_t http1_head_end(const uint8_t *src, size_t src_bytes, size_t line_bytes_max, bint over_link,
                            size_t *resume) noexcept nogil:
    # *resume holds where to go on (low 16 bits) and where that line starts: both are at most head_bytes_max().
    cdef size_t at = resume[0] & 0xffff
    cdef size_t line = resume[0] >> 16
    cdef size_t limit
    if src_bytes <= at:                                 # less than was seen before: a first block of several
        return 0
    if at == 0 and not byte_class[src[0]] & IS_TOKEN:
        return 0 if src_bytes == 1 and src[0] == CR else RC_PROTO
    while True:
        limit = min(line + line_bytes_max, head_bytes_max(over_link))
        at = find_control(src, at, min(src_bytes, limit))
        if at == src_bytes:
            break
        if at == limit:
            return RC_TOO_LARGE if line else long_line(src, limit)
        if src[at] != CR:
            return RC_PROTO
        if at + 1 == src_bytes:
            break
        if at + 1 == limit:
            return RC_TOO_LARGE if line else long_line(src, limit)
        if src[at + 1] != LF:
            return RC_PROTO
        at += 2
        if at == line + 2:
            return <ssize_t>at
        line = at
    resume[0] = line << 16 | at
    return 0


cdef int read_version(uint8_t *minor, const uint8_t *src, size_t src_bytes) noexcept nogil:
    """HTTP-version, exactly eight bytes (RFC 9112 §2.3)."""
    if src_bytes < 8 or memcmp(src, b"HTTP/", 5) != 0 or src[6] != c'.':
        return RC_PROTO
    if not (c'0' <= src[5] <= c'9' and c'0' <= src[7] <= c'9'):
        return RC_PROTO
    if src[5] != c'1':
        return RC_VERSION
    minor[0] = src[7] != c'0'                           # a higher minor version is as good as ours (§2.5 of RFC 9110)
    return 0


cdef int read_target(HttpHead *out, const uint8_t *src, uint16_t *authority, uint16_t *authority_bytes,
                     int32_t *default_port) noexcept nogil:
    """Which of the four forms (RFC 9112 §3.2), where the origin form starts and, in absolute form, the authority."""
    cdef const uint8_t *target = src + out.target
    cdef uint16_t at
    authority_bytes[0] = 0
    out.path = out.target
    out.path_bytes = out.target_bytes
    if target[0] == c'/':
        return 0
    if target[0] == c'*':
        return 0 if out.target_bytes == 1 and out.method == METHOD_OPTIONS else RC_PROTO
    if out.target_bytes > 7 and is_word(target, 5, b"http:", 5):
        default_port[0] = 80
        at = 5
    elif out.target_bytes > 8 and is_word(target, 6, b"https:", 6):
        default_port[0] = 443
        at = 6
    else:
        return RC_PROTO
    if target[at] != c'/' or target[at + 1] != c'/':
        return RC_PROTO
    at += 2
    authority[0] = out.target + at
    while at < out.target_bytes and target[at] != c'/' and target[at] != c'?':
        at += 1
    authority_bytes[0] = out.target + at - authority[0]
    out.path = out.target + at
    out.path_bytes = out.target_bytes - at
    return 0 if authority_bytes[0] else RC_PROTO


cdef int read_host(HttpHead *out, const Fields *fields, const uint8_t *src, uint16_t authority,
                   uint16_t authority_bytes, int32_t default_port) noexcept nogil:
    """The one host of a request: Host, and the authority of an absolute target, which must be the same."""
    cdef char named[256]
    cdef int32_t port = PORT_NONE, named_port
    cdef ssize_t rc
    cdef const HttpField *field
    out.host_bytes = 0
    if fields.host_count > 1 or (fields.host_count == 0 and out.minor == 1):
        return RC_PROTO
    if fields.host_count:
        field = &out.fields[fields.host]
        rc = canonical_authority(out.host, src + field.value, field.value_bytes, &port)
        if rc < 0:
            return RC_PROTO
        out.host_bytes = <uint8_t>rc
    if authority_bytes == 0:
        return 0
    rc = canonical_authority(named, src + authority, authority_bytes, &named_port)
    if rc < 0:
        return RC_PROTO
    if fields.host_count == 0:
        memcpy(out.host, named, <size_t>rc + 1)
        out.host_bytes = <uint8_t>rc
        return 0
    if rc != out.host_bytes or memcmp(out.host, named, <size_t>rc) != 0:
        return RC_PROTO
    if (default_port if port == PORT_NONE else port) != (default_port if named_port == PORT_NONE else named_port):
        return RC_PROTO
    return 0


cdef int http1_parse_request(HttpHead *out, const uint8_t *src, size_t head_bytes, bint over_link) noexcept nogil:
    cdef Fields fields
    cdef size_t at = 0
    cdef uint16_t authority = 0, authority_bytes = 0
    cdef int32_t default_port = PORT_NONE
    cdef int rc
    if head_bytes > head_bytes_max(over_link):
        return RC_TOO_LARGE
    memset(&fields, 0, sizeof(Fields))
    fields.field_count_max = field_count_max(over_link)
    while at < head_bytes and byte_class[src[at]] & IS_TOKEN:
        at += 1
    if at == 0 or at == head_bytes or src[at] != SP:
        return RC_PROTO
    out.method_bytes = <uint16_t>at
    out.method = method_id(src, at)
    at += 1
    out.target = <uint16_t>at
    while at < head_bytes and byte_class[src[at]] & IS_TARGET:
        at += 1
    out.target_bytes = <uint16_t>(at - out.target)
    if out.target_bytes == 0 or head_bytes - at < 11 or src[at] != SP:
        return RC_PROTO
    rc = read_version(&out.minor, src + at + 1, head_bytes - at - 1)
    if rc < 0:
        return rc
    at += 9
    if src[at] != CR or src[at + 1] != LF:
        return RC_PROTO
    at += 2
    if out.method_bytes > HTTP_METHOD_BYTES_MAX or out.method == METHOD_CONNECT:
        return RC_UNSUPPORTED
    rc = read_target(out, src, &authority, &authority_bytes, &default_port)
    if rc < 0:
        return rc
    rc = read_fields(out, &fields, src, at, head_bytes)
    if rc < 0:
        return rc
    out.reason = out.reason_bytes = out.status = 0
    set_body(out, &fields, BODY_NONE)
    rc = read_host(out, &fields, src, authority, authority_bytes, default_port)
    return RC_UNSUPPORTED if rc == 0 and fields.other_coding else rc


cdef int http1_check_lines(const HttpHead *head, size_t line_bytes_max) noexcept nogil:
    cdef size_t i, line, end = head.fields[0].name if head.field_count else head.head_bytes - 2
    if end > line_bytes_max:
        return RC_TARGET if head.status == 0 else RC_TOO_LARGE
    for i in range(head.field_count):
        line = end
        end = head.fields[i + 1].name if i + 1 < head.field_count else head.head_bytes - 2
        if end - line > line_bytes_max:
            return RC_TOO_LARGE
    return 0


cdef bint http1_came_through(const HttpHead *head, const uint8_t *src, const char *name,
                             size_t name_bytes) noexcept nogil:
    """RFC 9110 §7.6.3: each proxy is an element, its name the second word."""
    cdef Words words
    if not head.has_via:
        return False
    words_begin(&words, head, src, FIELD_VIA)
    while words_next(&words):
        if words.word_bytes > name_bytes and names_proxy(words.word, words.word_bytes, name, name_bytes):
            return True
    return False


cdef bint names_proxy(const uint8_t *word, size_t word_bytes, const char *name, size_t name_bytes) noexcept nogil:
    cdef size_t at = 0
    while at < word_bytes and not is_blank(word[at]):
        at += 1
    while at < word_bytes and is_blank(word[at]):
        at += 1
    if word_bytes - at < name_bytes or not is_word(word + at, name_bytes, name, name_bytes):
        return False
    at += name_bytes
    return at == word_bytes or is_blank(word[at])


cdef int http1_parse_response(HttpHead *out, const uint8_t *src, size_t head_bytes, uint8_t request_method,
                              bint over_link) noexcept nogil:
    cdef Fields fields
    cdef size_t at
    cdef int rc
    if head_bytes > head_bytes_max(over_link):
        return RC_TOO_LARGE
    memset(&fields, 0, sizeof(Fields))
    fields.field_count_max = field_count_max(over_link)
    fields.is_response = 1
    out.method = METHOD_OTHER
    rc = read_version(&out.minor, src, head_bytes)
    if rc < 0:
        return rc
    if head_bytes < 14 or src[8] != SP or not c'1' <= src[9] <= c'9':
        return RC_PROTO
    if not (c'0' <= src[10] <= c'9' and c'0' <= src[11] <= c'9'):
        return RC_PROTO
    out.status = (src[9] - c'0') * 100 + (src[10] - c'0') * 10 + (src[11] - c'0')
    at = 12
    if src[at] == SP:
        at += 1
    elif src[at] != CR:
        return RC_PROTO
    out.reason = <uint16_t>at
    at = find_control(src, at, head_bytes)
    out.reason_bytes = <uint16_t>(at - out.reason)
    if at + 2 > head_bytes or src[at] != CR or src[at + 1] != LF:
        return RC_PROTO
    at += 2
    rc = read_fields(out, &fields, src, at, head_bytes)
    if rc < 0:
        return rc
    if fields.other_coding:
        return RC_UNSUPPORTED
    out.method_bytes = out.target = out.target_bytes = out.path = out.path_bytes = 0
    out.host_bytes = out.expect_continue = 0
    set_body(out, &fields, BODY_UNTIL_CLOSE)
    if out.status < 200 or out.status == 204:
        # The conn goes on behind an interim response, so one that speaks of a body could be read in two ways.
        if out.body.kind == BODY_CHUNKED or out.body.kind == BODY_LENGTH:
            if out.status != 204:
                return RC_PROTO
            out.keep_alive = 0
        out.body.kind = BODY_NONE
    elif out.status == 304 or request_method == METHOD_HEAD or (request_method == METHOD_CONNECT and out.status < 300):
        out.body.kind = BODY_NONE
    elif out.body.kind == BODY_UNTIL_CLOSE:
        out.keep_alive = 0
    if out.body.kind == BODY_NONE:
        out.body.left = 0
    if out.status == 101:
        return 0 if out.upgrade else RC_PROTO
    out.upgrade = 0
    return 0
