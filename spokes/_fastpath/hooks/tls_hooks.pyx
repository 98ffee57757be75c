"""Test hooks: TLS between buffers with Python answers."""
from libc.stdlib cimport calloc, free, malloc

from spokes._fastpath.base.types cimport RC_AGAIN, RC_EOF, RC_PIN, RC_TLS, uint8_t, uint64_t
from spokes._fastpath.tls.certificate cimport Certificate, certificate_new, certificate_release
from spokes._fastpath.tls.openssl cimport SSL, SSL_CTX
from spokes._fastpath.tls.tls cimport (
    TLS_RECORD_BYTES_MAX, TLS_RECORD_OVERHEAD_BYTES, tls_check_pin, tls_end_of_input, tls_free, tls_handshake,
    tls_has_link_alpn, tls_has_pending, tls_is_resumed, tls_new_client, tls_new_server, tls_read, tls_shutdown,
    tls_write,
)
from spokes._fastpath.tls.tls_context cimport (
    TICKET_KEY_BYTES, TlsIo, conn_of, tls_client_context, tls_context_free, tls_server_context, tls_set_ticket_keys,
)
from spokes._fastpath.tls.tls_words cimport tls_error_text

CODES = {"AGAIN": RC_AGAIN, "EOF": RC_EOF, "PIN": RC_PIN, "TLS": RC_TLS}
RECORD_BYTES_MAX = TLS_RECORD_BYTES_MAX
RECORD_OVERHEAD_BYTES = TLS_RECORD_OVERHEAD_BYTES


class TlsFailure(Exception):
    """`code` is one of CODES; the text is what tls_error_text says."""

    def __init__(self, code):
        super().__init__(tls_error_text().decode("ascii") if code == RC_TLS else "")
        self.code = code


cdef class TlsContext:
    """A context of one of three kinds: `links`, `visitors` (both with a chain and a key) or `client`."""
    cdef SSL_CTX *context
    cdef Certificate *certificate
    cdef readonly bint is_server
    cdef bint is_link

    def __init__(self, str kind not None, *, bytes chain_pem=b"", bytes key_pem=b"", str ca_file=""):
        cdef bytes path = ca_file.encode()
        self.is_server = kind != "client"
        if self.is_server:
            self.is_link = kind == "links"
            self.context = tls_server_context(self.is_link)
            if self.context == NULL:
                raise TlsFailure(RC_TLS)
            self.use(chain_pem, key_pem)
        else:
            self.context = tls_client_context(path)
        if self.context == NULL:
            raise TlsFailure(RC_TLS)

    def use(self, bytes chain_pem not None, bytes key_pem not None, bytes scope=bytes(32), bytes staple=b""):
        """Conns that begin from now on show this certificate."""
        cdef Certificate *certificate = certificate_new(
            self.context, chain_pem, len(chain_pem), key_pem, len(key_pem), scope, staple, len(staple))
        if certificate == NULL:
            raise TlsFailure(RC_TLS)
        certificate_release(self.certificate)
        self.certificate = certificate

    def set_ticket_keys(self, bytes keys not None):
        tls_set_ticket_keys(self.context, keys, len(keys) // TICKET_KEY_BYTES)

    def __dealloc__(self):
        certificate_release(self.certificate)
        tls_context_free(self.context)


cdef class TlsEnd:
    """One conn with a buffer on each side: `feed` and `take` move ciphertext, `read` and `write` plaintext."""
    cdef SSL *ssl
    cdef bytes rx                       # fed and not taken by libssl yet
    cdef bytearray tx
    cdef size_t tx_bytes
    cdef readonly TlsContext context

    def __init__(self, TlsContext context not None, *, str server_name="", bint has_pin=False, size_t tx_size=65536):
        cdef bytes name = server_name.encode()
        if context.is_server:
            self.ssl = tls_new_server(context.context, context.certificate, context.is_link)
        else:
            self.ssl = tls_new_client(context.context, name, has_pin)
        if self.ssl == NULL:
            raise TlsFailure(RC_TLS)
        self.context = context
        self.rx = b""
        self.tx = bytearray(tx_size)

    def __dealloc__(self):
        tls_free(self.ssl)

    cdef void begin(self, TlsIo *io) noexcept:
        io.rx = self.rx
        io.rx_bytes = len(self.rx)
        io.rx_taken = 0
        io.tx = <uint8_t *><char *>self.tx
        io.tx_size = len(self.tx)
        io.tx_bytes = self.tx_bytes

    cdef end(self, TlsIo *io, ssize_t rc):
        self.rx = self.rx[io.rx_taken:]
        self.tx_bytes = io.tx_bytes
        if rc < 0:
            raise TlsFailure(rc)
        return rc

    def feed(self, bytes ciphertext not None):
        self.rx += ciphertext

    def take(self, size_t n=1 << 30):
        """The oldest n bytes of ciphertext to send."""
        cdef bytes taken = bytes(self.tx[:min(n, self.tx_bytes)])
        self.tx_bytes -= len(taken)
        self.tx = self.tx[len(taken):] + bytearray(len(taken))
        return taken

    def trim(self):
        """Gives the empty buffers back, for measuring what libssl itself keeps."""
        self.tx = bytearray(0)

    @property
    def rx_bytes(self):
        return len(self.rx)

    def handshake(self):
        cdef TlsIo io
        cdef int rc
        self.begin(&io)
        with nogil:
            rc = tls_handshake(self.ssl, &io)
        return self.end(&io, rc) == 1

    def read(self, size_t n=TLS_RECORD_BYTES_MAX):
        cdef bytearray dst = bytearray(n)
        cdef uint8_t *dst_ptr = <uint8_t *><char *>dst
        cdef TlsIo io
        cdef ssize_t rc
        self.begin(&io)
        with nogil:
            rc = tls_read(self.ssl, &io, dst_ptr, n)
        return bytes(dst[:self.end(&io, rc)])

    def write(self, bytes plaintext not None):
        cdef const uint8_t *src = plaintext
        cdef size_t src_bytes = len(plaintext)
        cdef TlsIo io
        cdef ssize_t rc
        self.begin(&io)
        with nogil:
            rc = tls_write(self.ssl, &io, src, src_bytes)
        return self.end(&io, rc)

    def shutdown(self):
        cdef TlsIo io
        self.begin(&io)
        return self.end(&io, tls_shutdown(self.ssl, &io)) == 1

    def end_of_input(self):
        return tls_end_of_input(self.ssl)

    def check_pin(self, bytes pin_sha256 not None):
        if len(pin_sha256) != 32:
            raise ValueError("a pin is 32 bytes")
        return tls_check_pin(self.ssl, pin_sha256)

    def set_record_count(self, uint64_t record_count):
        """As if so many records had been written under the present key."""
        conn_of(self.ssl).record_count = record_count

    @property
    def is_resumed(self):
        return bool(tls_is_resumed(self.ssl))

    @property
    def has_link_alpn(self):
        return bool(tls_has_link_alpn(self.ssl))

    @property
    def has_pending(self):
        return bool(tls_has_pending(self.ssl))


def measure_one_way(TlsEnd source not None, TlsEnd target not None, size_t write_bytes, size_t total_bytes):
    """Moves total_bytes through tls_write, one buffer and tls_read; for timing, so without Python in between."""
    cdef size_t wire_size = write_bytes + (write_bytes // TLS_RECORD_BYTES_MAX + 2) * TLS_RECORD_OVERHEAD_BYTES
    cdef uint8_t *plain = <uint8_t *>calloc(1, write_bytes)
    cdef uint8_t *wire = <uint8_t *>malloc(wire_size)
    cdef uint8_t *got = <uint8_t *>malloc(write_bytes)
    cdef size_t sent = 0, received = 0
    cdef ssize_t rc = 1
    cdef TlsIo out, into
    with nogil:
        while sent < total_bytes and rc > 0:
            out.rx_bytes = out.rx_taken = out.tx_bytes = 0
            out.tx = wire
            out.tx_size = wire_size
            rc = tls_write(source.ssl, &out, plain, write_bytes)
            if rc <= 0:
                break
            sent += <size_t>rc
            into.rx = wire
            into.rx_bytes = out.tx_bytes
            into.rx_taken = into.tx_bytes = into.tx_size = 0
            while into.rx_taken < into.rx_bytes and rc > 0:
                rc = tls_read(target.ssl, &into, got, write_bytes)
                received += <size_t>rc if rc > 0 else 0
    free(plain)
    free(wire)
    free(got)
    if rc < 0:
        raise TlsFailure(rc)
    return received
