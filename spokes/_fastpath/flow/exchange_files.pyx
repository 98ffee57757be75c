"""A directory's files as answers: the head at once, the body in the scheduling slots of the visitor's end.

Bound: one slot's bytes read at a time, no buffer held. Fails: a file that became shorter ends the exchange at once.
"""
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.flow.exchange_end cimport (
    exchange_answered, exchange_drop_file, exchange_drop_up, exchange_end, exchange_page_with,
)
from spokes._fastpath.flow.exchange_state cimport REQUEST_DONE, RESPONSE_BODY, Exchange, exchange_await
from spokes._fastpath.flow.exchange_write cimport exchange_emit
from spokes._fastpath.flow.files cimport FileAnswer, file_read, files_answer
from spokes._fastpath.http.http1 cimport HttpHead, http1_body_done, http1_body_step
from spokes._fastpath.http.page cimport PAGE_NONE
from spokes._fastpath.io.conn_state cimport HEAD_BYTES
from spokes._fastpath.io.end cimport end_room_unread, end_wait_room, end_write
from spokes._fastpath.link.link_state cimport STREAM_SLOT_BYTES


cdef void exchange_to_directory(Exchange *x, const Directory *directory, const HttpHead *head,
                                const uint8_t *src) noexcept nogil:
    """Answer from a file. Its bytes are read later, in this end's slots. The exchange may be dead afterwards."""
    cdef FileAnswer answer
    exchange_drop_up(x, False)
    if x.request_phase != REQUEST_DONE or x.down.eof:
        x.keep_down = 0
    files_answer(&answer, directory, head, src, x.loop.wall_ms // 1000, x.keep_down, x.loop.head, HEAD_BYTES)
    if answer.page != PAGE_NONE:
        exchange_page_with(x, answer.page, answer.field, answer.field_bytes)
        return
    x.file = answer.body
    x.response_phase = RESPONSE_BODY
    x.answered = 1
    exchange_emit(x, x.down, &x.to_down, x.loop.head, answer.head_bytes)
    exchange_await(x)
    if x.file == NULL:
        exchange_answered(x)
    else:
        end_wait_room(x.down)


cdef void exchange_send_file(Exchange *x) noexcept nogil:
    """One slot: read what the visitor's end has room for, and no more."""
    cdef size_t room = end_room_unread(x.down)
    cdef ssize_t n
    if room > 0:
        n = file_read(x.file, x.loop.head, room if room < STREAM_SLOT_BYTES else STREAM_SLOT_BYTES)
        if n <= 0:
            exchange_end(x, True)       # shorter than was promised, or unreadable: never a body that only looks whole
            return
        end_write(x.down, x.loop.head, n)
        exchange_await(x)
        if x.file.left == 0:
            exchange_drop_file(x)
            exchange_answered(x)
            return
    end_wait_room(x.down)


cdef size_t exchange_discard(Exchange *x, const uint8_t *src, size_t src_bytes, int *broken) noexcept nogil:
    """A request body that nobody asked for, while a file is the answer: bytes walked over."""
    cdef size_t taken = 0
    cdef ssize_t n
    cdef uint8_t pass_on = 0
    while taken < src_bytes and not http1_body_done(&x.request):
        n = http1_body_step(&x.request, src + taken, src_bytes - taken, &pass_on)
        if n < 0:
            broken[0] = <int>n
        if n <= 0:
            break
        taken += n
    return taken
