# Fields of a head: each is read for what it says of the message's end and of the conn.
from spokes._fastpath.base.types cimport uint8_t
from spokes._fastpath.http.ascii cimport is_blank
from spokes._fastpath.http.http1_message cimport Fields, HttpHead

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

cdef struct Words:                      # a walk over the elements of all fields of one id
    const HttpHead *head
    const uint8_t *src                  # of the head
    const uint8_t *word                 # the one at hand
    size_t word_bytes
    size_t field
    size_t at                           # where the word begins in its field's value
    uint8_t id

cdef void words_begin(Words *words, const HttpHead *head, const uint8_t *src, uint8_t id) noexcept nogil
cdef bint words_next(Words *words) noexcept nogil                  # False: there is none

cdef int read_fields(HttpHead *out, Fields *fields, const uint8_t *src, size_t line, size_t end) noexcept nogil
cdef void set_body(HttpHead *out, const Fields *fields, uint8_t otherwise) noexcept nogil
