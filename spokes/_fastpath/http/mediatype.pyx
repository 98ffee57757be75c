"""Content types by a file name's extension: a table of our own, so that an answer does not depend on the machine.

Text is said to be UTF-8. What is not listed is application/octet-stream: a browser then saves it and runs nothing.
Source: IANA's registry of media types; RFC 9239 for JavaScript.
"""
from libc.string cimport memcmp, strlen

cdef extern from *:
    """
    /* Sorted by extension: searched by halves. Extensions have at most EXTENSION_BYTES_MAX bytes. */
    typedef struct { const char *extension, *type; } MediaType;
    static const MediaType media_types[] = {
        {"7z", "application/x-7z-compressed"},
        {"aac", "audio/aac"},
        {"apk", "application/vnd.android.package-archive"},
        {"atom", "application/atom+xml"},
        {"avif", "image/avif"},
        {"bmp", "image/bmp"},
        {"bz2", "application/x-bzip2"},
        {"css", "text/css; charset=utf-8"},
        {"csv", "text/csv; charset=utf-8"},
        {"docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"},
        {"eot", "application/vnd.ms-fontobject"},
        {"epub", "application/epub+zip"},
        {"flac", "audio/flac"},
        {"gif", "image/gif"},
        {"gz", "application/gzip"},
        {"htm", "text/html; charset=utf-8"},
        {"html", "text/html; charset=utf-8"},
        {"ico", "image/vnd.microsoft.icon"},
        {"ics", "text/calendar; charset=utf-8"},
        {"iso", "application/octet-stream"},
        {"jar", "application/java-archive"},
        {"jpeg", "image/jpeg"},
        {"jpg", "image/jpeg"},
        {"js", "text/javascript; charset=utf-8"},
        {"json", "application/json"},
        {"jsonld", "application/ld+json"},
        {"jxl", "image/jxl"},
        {"log", "text/plain; charset=utf-8"},
        {"m3u8", "application/vnd.apple.mpegurl"},
        {"m4a", "audio/mp4"},
        {"m4v", "video/mp4"},
        {"map", "application/json"},
        {"md", "text/markdown; charset=utf-8"},
        {"mid", "audio/midi"},
        {"mjs", "text/javascript; charset=utf-8"},
        {"mkv", "video/matroska"},
        {"mov", "video/quicktime"},
        {"mp3", "audio/mpeg"},
        {"mp4", "video/mp4"},
        {"mpeg", "video/mpeg"},
        {"odp", "application/vnd.oasis.opendocument.presentation"},
        {"ods", "application/vnd.oasis.opendocument.spreadsheet"},
        {"odt", "application/vnd.oasis.opendocument.text"},
        {"oga", "audio/ogg"},
        {"ogg", "audio/ogg"},
        {"ogv", "video/ogg"},
        {"opus", "audio/ogg"},
        {"otf", "font/otf"},
        {"pdf", "application/pdf"},
        {"png", "image/png"},
        {"pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"},
        {"rss", "application/rss+xml"},
        {"rtf", "application/rtf"},
        {"svg", "image/svg+xml"},
        {"tar", "application/x-tar"},
        {"tif", "image/tiff"},
        {"tiff", "image/tiff"},
        {"toml", "application/toml"},
        {"ts", "video/mp2t"},
        {"ttf", "font/ttf"},
        {"txt", "text/plain; charset=utf-8"},
        {"vtt", "text/vtt; charset=utf-8"},
        {"wasm", "application/wasm"},
        {"wav", "audio/wav"},
        {"weba", "audio/webm"},
        {"webm", "video/webm"},
        {"webmanifest", "application/manifest+json"},
        {"webp", "image/webp"},
        {"woff", "font/woff"},
        {"woff2", "font/woff2"},
        {"xhtml", "application/xhtml+xml"},
        {"xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"},
        {"xml", "text/xml; charset=utf-8"},
        {"xz", "application/x-xz"},
        {"yaml", "application/yaml"},
        {"yml", "application/yaml"},
        {"zip", "application/zip"},
        {"zst", "application/zstd"},
    };
    enum { MEDIA_TYPE_COUNT = sizeof(media_types) / sizeof(media_types[0]) };
    """
    ctypedef struct MediaType:
        const char *extension
        const char *type
    const MediaType *media_types
    int MEDIA_TYPE_COUNT

cdef enum:
    EXTENSION_BYTES_MAX = 11


cdef const char *mediatype_of(const char *name, size_t name_bytes) noexcept nogil:
    cdef char extension[EXTENSION_BYTES_MAX + 1]
    cdef size_t n = 0
    cdef size_t i, known_bytes
    cdef int low = 0
    cdef int high = MEDIA_TYPE_COUNT
    cdef int middle, order
    while n < name_bytes and name[name_bytes - n - 1] != c'.' and name[name_bytes - n - 1] != c'/':
        n += 1
    if n == 0 or n > EXTENSION_BYTES_MAX or n == name_bytes or name[name_bytes - n - 1] != c'.':
        return b"application/octet-stream"
    for i in range(n):
        extension[i] = name[name_bytes - n + i]
        if c'A' <= extension[i] <= c'Z':
            extension[i] = extension[i] | 0x20
    while low < high:
        middle = (low + high) // 2
        known_bytes = strlen(media_types[middle].extension)
        order = memcmp(extension, media_types[middle].extension, n if n < known_bytes else known_bytes)
        if order == 0 and n == known_bytes:
            return media_types[middle].type
        if order < 0 or (order == 0 and n < known_bytes):
            high = middle
        else:
            low = middle + 1
    return b"application/octet-stream"


cdef bint mediatype_at(int i, const char **extension, const char **type) noexcept nogil:
    if not 0 <= i < MEDIA_TYPE_COUNT:
        return False
    extension[0] = media_types[i].extension
    type[0] = media_types[i].type
    return True
