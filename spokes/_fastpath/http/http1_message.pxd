# Heads of HTTP/1.1 messages: what is known of one that was parsed.
from spokes._fastpath.base.types cimport int32_t, uint16_t, uint32_t, uint64_t, uint8_t
from spokes._fastpath.http.http1_body cimport HttpBody

# Heads of HTTP/1.1 messages: scanned for their end as bytes arrive, then parsed once, whole.
cdef enum:
    HTTP_FIELD_COUNT_MAX = 100          # this and HTTP_HEAD_BYTES_MAX: as a visitor or an upstream sends it
    HTTP_LINE_BYTES_MAX = 8192          # with its CRLF, where nobody says otherwise
    HTTP_HEAD_BYTES_MAX = 32768
    HTTP_ADDED_FIELD_COUNT_MAX = 8      # what the other end of a link has added to a head that it let through:
    HTTP_ADDED_BYTES_MAX = 1024         # Host, X-Forwarded-*, X-Real-IP, Via, Connection; Date
    HTTP_METHOD_BYTES_MAX = 64          # thrice the longest registered one
    HTTP_FORWARDS_MAX = 999999999       # a larger Max-Forwards is taken as this
    HTTP_NOMINATED_COUNT_MAX = 32       # names in Connection beyond the well-known ones: each is sought in all fields

cdef enum HttpFieldId:                  # fields the proxy itself reads; FIELD_OTHER is passed on
    FIELD_OTHER, FIELD_HOST, FIELD_CONTENT_LENGTH, FIELD_TRANSFER_ENCODING, FIELD_CONNECTION, FIELD_KEEP_ALIVE
    FIELD_PROXY_CONNECTION, FIELD_PROXY_AUTHENTICATE, FIELD_PROXY_AUTHORIZATION, FIELD_TE, FIELD_TRAILER, FIELD_UPGRADE
    FIELD_EXPECT, FIELD_FORWARDED       # FORWARDED: Forwarded, X-Forwarded-*, X-Real-IP and their underscore twins
    FIELD_NOMINATED                     # named by Connection: hop-by-hop, dropped
    FIELD_VIA
    FIELD_MAX_FORWARDS                  # of OPTIONS and TRACE; of other methods it is FIELD_OTHER

cdef enum HttpMethod:
    METHOD_OTHER, METHOD_GET, METHOD_HEAD, METHOD_POST, METHOD_PUT, METHOD_DELETE, METHOD_OPTIONS, METHOD_TRACE
    METHOD_CONNECT, METHOD_PATCH

cdef struct HttpField:
    uint16_t name                       # offsets from the start of the head (a head is at most 33 KiB)
    uint16_t name_bytes
    uint16_t value                      # without surrounding blanks
    uint16_t value_bytes
    uint8_t id                          # HttpFieldId

cdef struct HttpHead:                   # one parsed head; lives in a worker's scratch memory
    uint32_t head_bytes                 # start line, fields and the blank line
    uint16_t target                     # request target exactly as sent: origin or absolute form, or "*"
    uint16_t target_bytes
    uint16_t path                       # the origin form within it; an absolute form may lack its "/": then this is
    uint16_t path_bytes                 # empty or starts with "?", and the head written gets the "/"
    uint16_t method_bytes               # the method starts the head
    uint16_t reason                     # responses
    uint16_t reason_bytes
    uint16_t status                     # responses
    uint8_t method                      # HttpMethod
    uint8_t minor                       # HTTP/1.minor: 0 or 1; a later one is taken as 1
    uint8_t keep_alive                  # the conn may be used again after this message as far as this head says
    uint8_t upgrade                     # request: Connection: upgrade and an Upgrade field; response: 101 with both
    uint8_t expect_continue             # Expect: 100-continue; other expectations are left to the upstream
    uint8_t has_date
    uint8_t has_via
    uint8_t has_gaps                    # response: blanks before a colon, to be taken off
    int32_t max_forwards                # of OPTIONS and TRACE; -1 = unbounded
    int32_t keep_alive_s                # responses: Keep-Alive: timeout=N; -1 = does not say
    uint16_t field_count
    uint8_t host_bytes                  # canonical: lower case, no port, no trailing dot
    char host[256]                      # host_bytes 0 = none: responses, HTTP/1.0
    HttpBody body                       # how the body is framed; a length of 0 is reported as BODY_NONE
    HttpField fields[HTTP_FIELD_COUNT_MAX + HTTP_ADDED_FIELD_COUNT_MAX]

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
