"""Fields of a head: each is read for what it says of the message's end and of the conn.

Bound: HTTP_*_MAX. Fails: RC_PROTO, RC_TOO_LARGE, RC_UNSUPPORTED. What is read strictly, and why: http1_head.pyx.
"""
from spokes._fastpath.base.types cimport RC_PROTO, RC_TOO_LARGE, int32_t, uint16_t, uint32_t, uint64_t
from spokes._fastpath.http.ascii cimport CR, IS_TOKEN, LF, byte_class, find_control, has_twin_prefix, is_word, lower
from spokes._fastpath.http.http1_body cimport BODY_CHUNKED, BODY_LENGTH, BODY_NONE, BODY_ROOM_ANY, BODY_STATE_START
from spokes._fastpath.http.http1_message cimport (
    FIELD_CONNECTION, FIELD_CONTENT_LENGTH, FIELD_EXPECT, FIELD_FORWARDED, FIELD_HOST, FIELD_KEEP_ALIVE,
    FIELD_MAX_FORWARDS, FIELD_NOMINATED, FIELD_OTHER, FIELD_PROXY_AUTHENTICATE, FIELD_PROXY_AUTHORIZATION,
    FIELD_PROXY_CONNECTION, FIELD_TE, FIELD_TRAILER, FIELD_TRANSFER_ENCODING, FIELD_UPGRADE, FIELD_VIA,
    HTTP_FORWARDS_MAX, HTTP_NOMINATED_COUNT_MAX, METHOD_OPTIONS, METHOD_TRACE, HttpField,
)

cdef enum:
    LENGTH_DIGITS_MAX = 19              # 2^63 - 1 has 19


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


cdef void words_begin(Words *words, const HttpHead *head, const uint8_t *src, uint8_t id) noexcept nogil:
    words.field = words.at = words.word_bytes = 0
    words.head = head
    words.src = src
    words.id = id


cdef bint words_next(Words *words) noexcept nogil:
    cdef const HttpField *field
    while words.field < words.head.field_count:
        field = &words.head.fields[words.field]
        if field.id == words.id:
            words.at += words.word_bytes
            words.word_bytes = next_word(words.src + field.value, field.value_bytes, &words.at)
            if words.word_bytes:
                words.word = words.src + field.value + words.at
                return True
        words.field += 1
        words.at = words.word_bytes = 0
    return False


cdef void nominate_all(HttpHead *out, const uint8_t *src) noexcept nogil:
    """Mark the fields that Connection names; after all fields are known, since it may name earlier and later ones."""
    cdef Words words
    words_begin(&words, out, src, FIELD_CONNECTION)
    while words_next(&words):
        if field_id(words.word, words.word_bytes) in (FIELD_OTHER, FIELD_FORWARDED, FIELD_EXPECT):
            nominate(out, src, words.word, words.word_bytes)


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
