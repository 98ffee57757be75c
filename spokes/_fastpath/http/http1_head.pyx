"""Heads of HTTP/1.1 messages: find their end, parse them once.

Owns: nothing; every function works on the caller's memory and may be given any bytes.
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
    RC_PROTO, RC_TARGET, RC_TOO_LARGE, RC_UNSUPPORTED, RC_VERSION, int32_t, uint8_t, uint16_t, uint32_t, uint64_t,
)
from spokes._fastpath.http.ascii cimport (
    CR, IS_TARGET, IS_TOKEN, LF, SP, byte_class, find_control, has_twin_prefix, is_blank, is_word, lower,
)
from spokes._fastpath.http.host cimport PORT_NONE, canonical_authority
from spokes._fastpath.http.http1_body cimport (
    BODY_CHUNKED, BODY_LENGTH, BODY_NONE, BODY_ROOM_ANY, BODY_STATE_START, BODY_UNTIL_CLOSE,
)


cdef enum:
    LENGTH_DIGITS_MAX = 19              # 2^63 - 1 has 19

cdef struct Fields:                     # what the fields of one head said, beyond their places
    uint64_t length
    uint16_t host                       # index of the Host field
    uint16_t host_count
    uint16_t length_count
    uint16_t coding_count
    uint16_t nominated_count
    uint16_t field_count_max
    uint8_t is_response
    uint8_t other_coding                # one that is none of ours
    uint8_t forwards_count
    uint8_t says_close
    uint8_t says_keep_alive
    uint8_t says_upgrade
    uint8_t has_upgrade                 # to a protocol that may be passed on
    uint8_t has_hidden_upgrade          # to one that may not


cdef uint8_t field_id(const uint8_t *name, size_t name_bytes) noexcept nogil:
    """What a field (or a word of Connection) is to us. Most names leave by their length and first letter."""
    cdef uint8_t first = name[0] | 0x20
    if first == c'x':
        if has_twin_prefix(name, name_bytes, b"x-forwarded", 11):
            return FIELD_FORWARDED
        if name_bytes == 9 and has_twin_prefix(name, name_bytes, b"x-real-ip", 9):
            return FIELD_FORWARDED
        return FIELD_OTHER
    if name_bytes == 3:
        return FIELD_VIA if first == c'v' and is_word(name, 3, b"via", 3) else FIELD_OTHER
    if name_bytes == 2:
        return FIELD_TE if first == c't' and is_word(name, 2, b"te", 2) else FIELD_OTHER
    elif name_bytes == 4:
        return FIELD_HOST if first == c'h' and is_word(name, 4, b"host", 4) else FIELD_OTHER
    elif name_bytes == 5:
        # "Proxy" is no field of HTTP, but CGI programs read it as the variable HTTP_PROXY (CVE-2016-5385): dropped.
        return FIELD_PROXY_CONNECTION if first == c'p' and is_word(name, 5, b"proxy", 5) else FIELD_OTHER
    elif name_bytes == 6:
        return FIELD_EXPECT if first == c'e' and is_word(name, 6, b"expect", 6) else FIELD_OTHER
    elif name_bytes == 7:
        if first == c'u':
            return FIELD_UPGRADE if is_word(name, 7, b"upgrade", 7) else FIELD_OTHER
        return FIELD_TRAILER if first == c't' and is_word(name, 7, b"trailer", 7) else FIELD_OTHER
    elif name_bytes == 9:
        return FIELD_FORWARDED if first == c'f' and is_word(name, 9, b"forwarded", 9) else FIELD_OTHER
    elif name_bytes == 10:
        if first == c'c':
            return FIELD_CONNECTION if is_word(name, 10, b"connection", 10) else FIELD_OTHER
        return FIELD_KEEP_ALIVE if first == c'k' and is_word(name, 10, b"keep-alive", 10) else FIELD_OTHER
    elif name_bytes == 12:
        return FIELD_MAX_FORWARDS if first == c'm' and is_word(name, 12, b"max-forwards", 12) else FIELD_OTHER
    elif name_bytes == 14:
        return FIELD_CONTENT_LENGTH if first == c'c' and is_word(name, 14, b"content-length", 14) else FIELD_OTHER
    elif name_bytes == 16:
        return FIELD_PROXY_CONNECTION if first == c'p' and is_word(name, 16, b"proxy-connection", 16) else FIELD_OTHER
    elif name_bytes == 17:
        return FIELD_TRANSFER_ENCODING if first == c't' and is_word(name, 17, b"transfer-encoding", 17) else FIELD_OTHER
    elif name_bytes == 18:
        return FIELD_PROXY_AUTHENTICATE if first == c'p' and is_word(name, 18, b"proxy-authenticate", 18) \
            else FIELD_OTHER
    elif name_bytes == 19:
        return FIELD_PROXY_AUTHORIZATION if first == c'p' and is_word(name, 19, b"proxy-authorization", 19) \
            else FIELD_OTHER
    return FIELD_OTHER


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


# --- the end of a head ------------------------------------------------------------------------------------------------

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


# --- fields -----------------------------------------------------------------------------------------------------------

cdef int read_length(Fields *fields, const uint8_t *value, size_t value_bytes) noexcept nogil:
    cdef size_t i
    if value_bytes == 0 or value_bytes > LENGTH_DIGITS_MAX or (value_bytes > 1 and value[0] == c'0'):
        return RC_PROTO
    fields.length = 0
    for i in range(value_bytes):                        # 19 digits cannot overflow 64 bits
        if not c'0' <= value[i] <= c'9':
            return RC_PROTO
        fields.length = fields.length * 10 + (value[i] - c'0')
    return 0 if fields.length <= <uint64_t>0x7fffffffffffffff else RC_PROTO


cdef int read_forwards(HttpHead *out, Fields *fields, const uint8_t *value, size_t value_bytes) noexcept nogil:
    """Max-Forwards (RFC 9110 §7.6.2): digits, once."""
    cdef size_t i
    fields.forwards_count += 1
    if fields.forwards_count > 1 or value_bytes == 0:
        return RC_PROTO
    out.max_forwards = 0
    for i in range(value_bytes):
        if not c'0' <= value[i] <= c'9':
            return RC_PROTO
        if out.max_forwards > HTTP_FORWARDS_MAX // 10:
            out.max_forwards = HTTP_FORWARDS_MAX
        else:
            out.max_forwards = out.max_forwards * 10 + (value[i] - c'0')
    return 0


cdef inline size_t next_word(const uint8_t *value, size_t value_bytes, size_t *at) noexcept nogil:
    """Next element of a comma-separated list: its length, *at its start; 0 at the end. The caller adds the length."""
    cdef size_t start = at[0], end
    while start < value_bytes and (value[start] == c',' or is_blank(value[start])):
        start += 1
    end = start
    while end < value_bytes and value[end] != c',':
        end += 1
    while end > start and is_blank(value[end - 1]):
        end -= 1
    at[0] = start
    return end - start


cdef int read_coding(Fields *fields, const uint8_t *value, size_t value_bytes) noexcept nogil:
    """RC_PROTO where it is not said that chunked is the last coding, or nobody could read what is said."""
    cdef size_t at = 0, i, word_bytes
    cdef bint is_last = False           # chunked has been named: nothing may follow
    if is_word(value, value_bytes, b"chunked", 7):
        return 0
    while True:
        while at < value_bytes and is_blank(value[at]):
            at += 1
        i = at
        while i < value_bytes and byte_class[value[i]] & IS_TOKEN:
            i += 1
        word_bytes = i - at
        if word_bytes == 0 or is_last:
            return RC_PROTO
        if is_word(value + at, word_bytes, b"chunked", 7):
            is_last = True
        else:
            fields.other_coding = 1
        while i < value_bytes and is_blank(value[i]):
            i += 1
        if i == value_bytes:
            return 0
        if value[i] != c',':
            return RC_PROTO
        at = i + 1


cdef int32_t read_keep_alive(const uint8_t *value, size_t value_bytes) noexcept nogil:
    """Seconds that an idle conn is kept: `timeout=5, max=100`; -1 where no timeout is said in plain digits."""
    cdef size_t at = 0, i, word_bytes = next_word(value, value_bytes, &at)
    cdef int32_t seconds
    while word_bytes:
        if word_bytes > 8 and is_word(value + at, 8, b"timeout=", 8):
            seconds = 0
            for i in range(8, word_bytes):
                if not c'0' <= value[at + i] <= c'9' or seconds > 99999:
                    return -1
                seconds = seconds * 10 + (value[at + i] - c'0')
            return seconds
        at += word_bytes
        word_bytes = next_word(value, value_bytes, &at)
    return -1


cdef int read_connection(Fields *fields, const uint8_t *value, size_t value_bytes) noexcept nogil:
    cdef size_t at = 0, i, word_bytes = next_word(value, value_bytes, &at)
    cdef const uint8_t *word
    cdef uint8_t id
    while word_bytes:
        word = value + at
        if is_word(word, word_bytes, b"close", 5):
            fields.says_close = 1
        elif is_word(word, word_bytes, b"keep-alive", 10):
            fields.says_keep_alive = 1
        elif is_word(word, word_bytes, b"upgrade", 7):
            fields.says_upgrade = 1
        else:
            for i in range(word_bytes):
                if not byte_class[word[i]] & IS_TOKEN:
                    return RC_PROTO
            id = field_id(word, word_bytes)
            if id == FIELD_HOST or id == FIELD_CONTENT_LENGTH or id == FIELD_TRANSFER_ENCODING:
                return RC_PROTO
            if id == FIELD_OTHER or id == FIELD_FORWARDED or id == FIELD_EXPECT:
                fields.nominated_count += 1
                if fields.nominated_count > HTTP_NOMINATED_COUNT_MAX:
                    return RC_TOO_LARGE
        at += word_bytes
        word_bytes = next_word(value, value_bytes, &at)
    return 0


cdef void read_upgrade(Fields *fields, const uint8_t *value, size_t value_bytes) noexcept nogil:
    cdef size_t at = 0, word_bytes = next_word(value, value_bytes, &at)
    cdef const uint8_t *word
    while word_bytes:
        word = value + at
        if (word_bytes >= 2 and is_word(word, 2, b"h2", 2)) or (word_bytes >= 4 and is_word(word, 4, b"http", 4)) \
                or (word_bytes >= 3 and is_word(word, 3, b"tls", 3)):
            fields.has_hidden_upgrade = 1
        else:
            fields.has_upgrade = 1
        at += word_bytes
        word_bytes = next_word(value, value_bytes, &at)


cdef void nominate(HttpHead *out, const uint8_t *src, const uint8_t *word, size_t word_bytes) noexcept nogil:
    cdef size_t i, k
    cdef HttpField *field
    for i in range(out.field_count):
        field = &out.fields[i]
        if field.name_bytes != word_bytes or (src[field.name] ^ word[0]) & 0xdf:
            continue
        if field.id != FIELD_OTHER and field.id != FIELD_FORWARDED and field.id != FIELD_EXPECT:
            continue
        k = 0
        while k < word_bytes and lower(src[field.name + k]) == lower(word[k]):
            k += 1
        if k == word_bytes:
            field.id = FIELD_NOMINATED
            if is_word(word, word_bytes, b"date", 4):
                out.has_date = 0


cdef void nominate_all(HttpHead *out, const uint8_t *src) noexcept nogil:
    """Mark the fields that Connection names; after all fields are known, since it may name earlier and later ones."""
    cdef size_t i, at, word_bytes
    cdef const uint8_t *value
    for i in range(out.field_count):
        if out.fields[i].id != FIELD_CONNECTION:
            continue
        value = src + out.fields[i].value
        at = 0
        word_bytes = next_word(value, out.fields[i].value_bytes, &at)
        while word_bytes:
            if field_id(value + at, word_bytes) in (FIELD_OTHER, FIELD_FORWARDED, FIELD_EXPECT):
                nominate(out, src, value + at, word_bytes)
            at += word_bytes
            word_bytes = next_word(value, out.fields[i].value_bytes, &at)


cdef int read_fields(HttpHead *out, Fields *fields, const uint8_t *src, size_t line, size_t end) noexcept nogil:
    """All field lines from `line` to the blank line that ends the head at `end`, one pass."""
    cdef size_t name_end, value, value_end, line_end
    cdef HttpField *field
    cdef int rc = 0
    out.field_count = 0
    out.has_date = 0
    out.has_gaps = out.has_via = 0
    out.max_forwards = -1
    out.keep_alive_s = -1
    out.expect_continue = 0
    while True:
        if line + 2 > end:
            return RC_PROTO
        if src[line] == CR:
            if src[line + 1] != LF or line + 2 != end:
                return RC_PROTO
            break
        if out.field_count == fields.field_count_max:
            return RC_TOO_LARGE
        name_end = line
        while name_end < end and byte_class[src[name_end]] & IS_TOKEN:
            name_end += 1
        value = name_end
        if fields.is_response:                          # RFC 9112 §5.1: to be removed, where a request is refused
            while value < end and is_blank(src[value]):
                value += 1
                out.has_gaps = 1
        if name_end == line or value == end or src[value] != c':':
            return RC_PROTO
        value += 1
        while value < end and is_blank(src[value]):
            value += 1
        line_end = find_control(src, value, end)
        if line_end + 2 > end or src[line_end] != CR or src[line_end + 1] != LF:
            return RC_PROTO
        value_end = line_end
        while value_end > value and is_blank(src[value_end - 1]):
            value_end -= 1
        field = &out.fields[out.field_count]
        field.name = <uint16_t>line
        field.name_bytes = <uint16_t>(name_end - line)
        field.value = <uint16_t>value
        field.value_bytes = <uint16_t>(value_end - value)
        field.id = field_id(src + line, name_end - line)
        if field.id == FIELD_OTHER:
            if field.name_bytes == 4 and is_word(src + line, 4, b"date", 4):
                out.has_date = 1
        elif field.id == FIELD_HOST:
            fields.host = out.field_count
            fields.host_count += 1
        elif field.id == FIELD_CONTENT_LENGTH:
            fields.length_count += 1
            rc = read_length(fields, src + value, field.value_bytes)
        elif field.id == FIELD_TRANSFER_ENCODING:
            fields.coding_count += 1
            rc = read_coding(fields, src + value, field.value_bytes)
        elif field.id == FIELD_CONNECTION:
            rc = read_connection(fields, src + value, field.value_bytes)
        elif field.id == FIELD_UPGRADE:
            read_upgrade(fields, src + value, field.value_bytes)
        elif field.id == FIELD_EXPECT:
            if is_word(src + value, field.value_bytes, b"100-continue", 12):
                out.expect_continue = 1
        elif field.id == FIELD_VIA:
            out.has_via = 1
        elif field.id == FIELD_MAX_FORWARDS:
            if out.method == METHOD_OPTIONS or out.method == METHOD_TRACE:
                rc = read_forwards(out, fields, src + value, field.value_bytes)
            else:
                field.id = FIELD_OTHER
        elif field.id == FIELD_KEEP_ALIVE:
            out.keep_alive_s = read_keep_alive(src + value, field.value_bytes)
        if rc < 0:
            return rc
        out.field_count += 1
        line = line_end + 2
    if fields.length_count + fields.coding_count > 1 or (fields.coding_count and out.minor == 0):
        return RC_PROTO
    if fields.nominated_count:
        nominate_all(out, src)
    out.head_bytes = <uint32_t>end
    if out.minor == 0:
        out.expect_continue = 0
        out.keep_alive = fields.says_keep_alive and not fields.says_close
    else:
        out.keep_alive = not fields.says_close
    out.upgrade = out.minor == 1 and fields.says_upgrade and fields.has_upgrade and not fields.has_hidden_upgrade
    return 0


cdef void set_body(HttpHead *out, const Fields *fields, uint8_t otherwise) noexcept nogil:
    out.body.left = 0
    out.body.skipped = 0
    out.body.state = BODY_STATE_START
    out.body.digits = 0
    out.body.strip = 0
    out.body.is_response = fields.is_response
    out.body.room = BODY_ROOM_ANY
    if fields.coding_count:
        out.body.kind = BODY_CHUNKED
    elif fields.length_count:
        out.body.left = fields.length
        out.body.kind = BODY_LENGTH if fields.length else BODY_NONE
    else:
        out.body.kind = otherwise


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


# --- requests ---------------------------------------------------------------------------------------------------------

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
    cdef size_t i, at, word_bytes
    cdef const uint8_t *value
    if not head.has_via:
        return False
    for i in range(head.field_count):
        if head.fields[i].id != FIELD_VIA:
            continue
        value = src + head.fields[i].value
        at = 0
        word_bytes = next_word(value, head.fields[i].value_bytes, &at)
        while word_bytes:
            if word_bytes > name_bytes and names_proxy(value + at, word_bytes, name, name_bytes):
                return True
            at += word_bytes
            word_bytes = next_word(value, head.fields[i].value_bytes, &at)
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


# --- responses --------------------------------------------------------------------------------------------------------

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
