# Bytes of HTTP by class, and comparisons with known words; inlined where they are used.
from spokes._fastpath.base.types cimport uint8_t


cdef extern from * nogil:
    """
    #include <stdint.h>
    #include <stddef.h>
    #if defined(__SSE2__)
    #include <emmintrin.h>
    #endif

    #define IS_TOKEN 1      /* RFC 9110 5.6.2 */
    #define IS_TARGET 2     /* visible ASCII without '#' */
    #define IS_TEXT 4       /* field-vchar, obs-text, blanks */
    #define V (IS_TARGET | IS_TEXT)
    #define T (IS_TOKEN | V)

    static const uint8_t byte_class[256] = {
        [9] = IS_TEXT, [' '] = IS_TEXT, ['!'] = T, ['"'] = V, ['#'] = IS_TEXT | IS_TOKEN, ['$' ... '\\''] = T,
        ['(' ... ')'] = V, ['*' ... '+'] = T, [','] = V, ['-' ... '.'] = T, ['/'] = V, ['0' ... '9'] = T,
        [':' ... '@'] = V, ['A' ... 'Z'] = T, ['[' ... ']'] = V, ['^' ... 'z'] = T, ['{'] = V,
        ['|'] = T, ['}'] = V, ['~'] = T, [128 ... 255] = IS_TEXT,
    };
    #undef V
    #undef T

    /* Index of the first byte in [at, end) that no field line holds (a control other than HTAB), or end.
       src[0] must be readable: the last step reads bytes before `at` again instead of past the end. */
    static inline size_t find_control(const uint8_t *src, size_t at, size_t end)
    {
    #if defined(__SSE2__)
        const __m128i top = _mm_set1_epi8(0x1f), tab = _mm_set1_epi8('\\t'), del = _mm_set1_epi8(0x7f);
        while (at < end) {
            size_t from = at, known = 0;
            if (end - at < 16) {
                if (end < 16)
                    break;
                from = end - 16;
                known = at - from;
            }
            __m128i x = _mm_loadu_si128((const __m128i *)(src + from));
            __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(x, top), x);
            __m128i bad = _mm_or_si128(_mm_andnot_si128(_mm_cmpeq_epi8(x, tab), low), _mm_cmpeq_epi8(x, del));
            unsigned mask = (unsigned)_mm_movemask_epi8(bad) >> known;
            if (mask)
                return at + (size_t)__builtin_ctz(mask);
            at = from + 16;
        }
    #endif
        while (at < end && (byte_class[src[at]] & IS_TEXT))
            at++;
        return at;
    }
    """
    const uint8_t *byte_class
    enum:
        IS_TOKEN
        IS_TARGET
        IS_TEXT
    size_t find_control(const uint8_t *src, size_t at, size_t end)

cdef enum:
    CR = 13
    LF = 10
    HTAB = 9
    SP = 32


cdef inline bint is_blank(uint8_t c) noexcept nogil:
    return c == SP or c == HTAB


cdef inline bint is_word(const uint8_t *src, size_t src_bytes, const char *word, size_t word_bytes) noexcept nogil:
    """Case-insensitive equality with a lower-case word of letters, digits, "-" and "/"; src holds no control bytes."""
    cdef size_t i
    if src_bytes != word_bytes:
        return False
    for i in range(word_bytes):
        if (src[i] | 0x20) != <uint8_t>word[i]:
            return False
    return True


cdef inline bint has_twin_prefix(const uint8_t *src, size_t src_bytes, const char *word,
                                 size_t word_bytes) noexcept nogil:
    """As is_word for the first word_bytes, with "_" standing for "-": CGI and WSGI cannot tell the two apart."""
    cdef size_t i
    cdef uint8_t c
    if src_bytes < word_bytes:
        return False
    for i in range(word_bytes):
        c = src[i]
        if (45 if c == 95 else c | 0x20) != <uint8_t>word[i]:
            return False
    return True


cdef inline uint8_t lower(uint8_t c) noexcept nogil:
    return c | 0x20 if c'A' <= c <= c'Z' else c
