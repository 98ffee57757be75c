# Why libssl refused, in words; one buffer a thread.
from spokes._fastpath.tls.openssl cimport SSL

# Words for the last failure of this thread (ASCII, 0-terminated, until the next failure), and clears libssl's queue.
cdef const char *tls_error_text() noexcept nogil
cdef void tls_note_words(const char *words) noexcept nogil
# The words of libssl's last error, `otherwise` where it has none. ssl: of a conn's handshake; NULL = of something else.
cdef void tls_note_error(SSL *ssl, const char *otherwise) noexcept nogil
