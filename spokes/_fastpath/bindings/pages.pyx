"""Pages as the engine sends them, made of what Python gives.

Bound: PAGE_BODY_BYTES_MAX a page. Fails: EngineError for a code that no page has.
"""
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from spokes._fastpath.base.types cimport uint32_t
from spokes._fastpath.http.page cimport PAGE_COUNT, PAGE_NONE, Page

from spokes._fastpath.bindings.codes import PAGE_CODES, page_id
from spokes.errors import EngineError
from spokes.pages import JSON_SUFFIX, PAGES, REASON_PHRASES

PAGE_BODY_BYTES_MAX = 49152             # a page waits in a conn's output as a whole


cdef int put_page(Shared *shared, str code, int status, str content_type, bytes body, int retry_after_s) except -1:
    """`code` with JSON_SUFFIX behind it: the form for callers of an API."""
    cdef str name = code.removesuffix(JSON_SUFFIX)
    cdef int at = page_id(name)
    cdef Page *page = &shared.pages[at] if name == code else &shared.json_pages[at]
    cdef bytes head = (
        f"HTTP/1.1 {status} {REASON_PHRASES.get(status, 'Error')}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\n"
        f"X-Content-Type-Options: nosniff\r\nX-Spokes-Code: {name}\r\n"
        + (f"Retry-After: {retry_after_s}\r\n" if retry_after_s else "")
    ).encode("ascii")
    if at == PAGE_NONE:
        raise EngineError(f"{code} is no page")
    if len(body) > PAGE_BODY_BYTES_MAX:
        raise EngineError(f"the page for {code} is larger than {PAGE_BODY_BYTES_MAX >> 10} KiB")
    free(page.head)
    free(page.body)
    page.head = <char *>malloc(len(head))
    page.body = <char *>malloc(len(body) + 1)
    if page.head == NULL or page.body == NULL:
        raise MemoryError
    memcpy(page.head, <const char *>head, len(head))
    memcpy(page.body, <const char *>body, len(body))
    page.head_bytes = <uint32_t>len(head)
    page.body_bytes = <uint32_t>len(body)
    return 0


cdef int put_default_pages(Shared *shared) except -1:
    """What is said for a code nobody gave a page for: enough for a visitor to quote."""
    for code in PAGE_CODES[1:]:
        status = PAGES[code].status
        put_page(shared, code, status, "text/plain; charset=utf-8",
                 f"{REASON_PHRASES[status]} [{code}]\n".encode(), 0)
    return 0


cdef void free_pages(Shared *shared) noexcept nogil:
    cdef int i
    for i in range(<int>PAGE_COUNT):
        free(shared.pages[i].head)
        free(shared.pages[i].body)
        free(shared.json_pages[i].head)
        free(shared.json_pages[i].body)
