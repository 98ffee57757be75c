# HTTP/1.1 messages, sans-io. Strict: what RFC 9112 calls invalid is refused, never repaired. No I/O, no allocation.
# This page names what the rest of the engine uses; the three files behind it have the promises.
from spokes._fastpath.http.host cimport HOST_BYTES_MAX as HTTP_HOST_BYTES_MAX, canonical_host as http1_canonical_host
from spokes._fastpath.http.http1_body cimport (
    BODY_CHUNKED, BODY_LENGTH, BODY_NONE, BODY_ROOM_ANY, BODY_UNTIL_CLOSE, HTTP_STEP_FIELD_BYTES_MAX, HttpBody,
    HttpBodyKind, http1_body_done, http1_body_step,
)
from spokes._fastpath.http.http1_head cimport (
    HttpHead, http1_came_through, http1_check_lines, http1_head_end, http1_parse_request, http1_parse_response,
    http1_skip_crlf,
)
from spokes._fastpath.http.http1_message cimport (
    FIELD_CONNECTION, FIELD_CONTENT_LENGTH, FIELD_EXPECT, FIELD_FORWARDED, FIELD_HOST, FIELD_KEEP_ALIVE,
    FIELD_NOMINATED, FIELD_OTHER, FIELD_PROXY_AUTHENTICATE, FIELD_PROXY_AUTHORIZATION, FIELD_PROXY_CONNECTION, FIELD_TE,
    FIELD_TRAILER, FIELD_TRANSFER_ENCODING, FIELD_UPGRADE, FIELD_VIA, HTTP_FIELD_COUNT_MAX, HTTP_HEAD_BYTES_MAX,
    HTTP_LINE_BYTES_MAX, METHOD_CONNECT, METHOD_DELETE, METHOD_GET, METHOD_HEAD, METHOD_OPTIONS, METHOD_OTHER,
    METHOD_PATCH, METHOD_POST, METHOD_PUT, METHOD_TRACE, HttpField, HttpFieldId, HttpMethod,
)
from spokes._fastpath.http.http1_write cimport HttpRewrite, http1_write_request, http1_write_response
