"""Route tables: a hash of pages over (kind, name). A table never changes once it is published; the next one shares all
pages with it but those that a change touched.

Owns: pages with their entries and names; a reference to the site of each entry.
Bound: what the control plane puts in; a change costs one page and a copy of the array of pages, however many routes
there are.
A table is freed when the builder and every worker have let go of it. All let go in the order of publication, so that a
page which a table replaced is freed with that table's predecessor: nobody can still be looking at it.
"""
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcmp, memcpy

from spokes._fastpath.base.types cimport RC_MEMORY, atomic_sub_acq, int32_t, int64_t
from spokes._fastpath.route.site cimport site_has, site_hold, site_release, site_without

cdef enum:
    PAGE_COUNT_MIN = 16
    PAGE_ENTRY_COUNT = 16               # on average, at most; then the number of pages doubles


cdef uint64_t hash_name(uint8_t kind, const char *name, size_t name_bytes) noexcept nogil:
    """FNV-1a with a final mix; names are bounded (255 bytes) and canonical."""
    cdef uint64_t h = 14695981039346656037u ^ kind
    cdef size_t i
    for i in range(name_bytes):
        h = (h ^ <uint8_t>name[i]) * 1099511628211u
    h ^= h >> 32
    return h


cdef RoutePage *page_new(uint64_t version, uint32_t count, uint32_t name_bytes) noexcept nogil:
    """Room for so many entries and bytes of names, in one block."""
    cdef RoutePage *page = <RoutePage *>malloc(
        sizeof(RoutePage) + count * (sizeof(uint64_t) + sizeof(RouteEntry)) + name_bytes)
    if page == NULL:
        return NULL
    page.version = version
    page.next = NULL
    page.count = 0
    page.name_bytes = 0
    page.hashes = <uint64_t *>(page + 1)
    page.entries = <RouteEntry *>(page.hashes + count)
    page.names = <char *>(page.entries + count)
    return page


cdef void page_add(RoutePage *page, uint64_t h, uint8_t kind, const char *name, size_t name_bytes,
                   Site *site) noexcept nogil:
    """The caller made the page large enough."""
    cdef RouteEntry *entry = &page.entries[page.count]
    page.hashes[page.count] = h
    entry.name = page.name_bytes
    entry.name_bytes = <uint16_t>name_bytes
    entry.kind = kind
    entry.unused = 0
    entry.site = site_hold(site)
    memcpy(page.names + page.name_bytes, name, name_bytes)
    page.name_bytes += <uint32_t>name_bytes
    page.count += 1


cdef void page_copy(RoutePage *page, const RoutePage *source, uint32_t i) noexcept nogil:
    cdef const RouteEntry *entry = &source.entries[i]
    page_add(page, source.hashes[i], entry.kind, source.names + entry.name, entry.name_bytes, entry.site)


cdef void page_free(RoutePage *page) noexcept nogil:
    cdef uint32_t i
    if page == NULL:
        return
    for i in range(page.count):
        site_release(page.entries[i].site)
    free(page)


cdef int64_t page_find(const RoutePage *page, uint64_t h, uint8_t kind, const char *name,
                       size_t name_bytes) noexcept nogil:
    """The entry's index, or -1."""
    cdef uint32_t i
    cdef const RouteEntry *entry
    if page == NULL:
        return -1
    for i in range(page.count):
        if page.hashes[i] == h:
            entry = &page.entries[i]
            if entry.kind == kind and entry.name_bytes == name_bytes \
                    and memcmp(page.names + entry.name, name, name_bytes) == 0:
                return i
    return -1


cdef RouteTable *route_table_fork(const RouteTable *table) noexcept nogil:
    cdef RouteTable *draft = <RouteTable *>calloc(1, sizeof(RouteTable))
    if draft == NULL:
        return NULL
    draft.references = 1
    draft.version = table.version + 1 if table != NULL else 1
    draft.mask = table.mask if table != NULL else PAGE_COUNT_MIN - 1
    draft.count = table.count if table != NULL else 0
    draft.line_bytes_max = table.line_bytes_max if table != NULL else 0
    draft.pages = <RoutePage **>calloc(draft.mask + 1, sizeof(RoutePage *))
    if draft.pages == NULL:
        free(draft)
        return NULL
    if table != NULL:
        memcpy(draft.pages, table.pages, (table.mask + 1) * sizeof(RoutePage *))
    return draft


cdef void draft_replace(RouteTable *draft, RoutePage *page) noexcept nogil:
    """The draft has no use for the page any more; nor has anybody, if it was made for the draft."""
    if page == NULL:
        return
    if page.version == draft.version:
        page_free(page)
        return
    page.next = draft.replaced
    draft.replaced = page


cdef void count_route(const Site *site, int32_t change) noexcept nogil:
    """Each tunnel knows how many routes of the newest table lead to it."""
    cdef uint8_t i
    for i in range(site.tunnel_count):
        site.tunnels[i].route_count += change


cdef int draft_rebuild(RouteTable *draft, uint32_t at, int64_t without, uint64_t h, uint8_t kind, const char *name,
                       size_t name_bytes, Site *site) noexcept nogil:
    """The page at `at` again, less the entry `without` (-1: all stay), with one more if there is a site."""
    cdef RoutePage *old = draft.pages[at]
    cdef uint32_t old_count = old.count if old != NULL else 0
    cdef uint32_t count = old_count + (site != NULL) - (without >= 0)
    cdef uint32_t i
    cdef RoutePage *page = NULL
    if count:
        page = page_new(draft.version, count, (old.name_bytes if old != NULL else 0) + <uint32_t>name_bytes)
        if page == NULL:
            return RC_MEMORY
        for i in range(old_count):
            if i != without:
                page_copy(page, old, i)
        if site != NULL:
            page_add(page, h, kind, name, name_bytes, site)
    if site != NULL:
        count_route(site, 1)
    if without >= 0:
        count_route(old.entries[without].site, -1)
    draft.pages[at] = page
    draft.count += count - old_count
    draft_replace(draft, old)
    return 0


cdef RoutePage *page_part(const RoutePage *page, uint64_t version, uint32_t mask, uint32_t at) noexcept nogil:
    """A page of those entries that belong to bucket `at` under a larger mask; it may be empty."""
    cdef RoutePage *part = page_new(version, page.count, page.name_bytes)
    cdef uint32_t i
    if part != NULL:
        for i in range(page.count):
            if (<uint32_t>page.hashes[i] & mask) == at:
                page_copy(part, page, i)
    return part


cdef int draft_grow(RouteTable *draft) noexcept nogil:
    """Twice as many pages, each with one half of an old one. On failure the draft stays as it is: slower, not wrong."""
    cdef uint32_t size = draft.mask + 1
    cdef uint32_t i, j
    cdef RoutePage **pages = <RoutePage **>calloc(2 * size, sizeof(RoutePage *))
    if pages == NULL:
        return RC_MEMORY
    for i in range(size):
        if draft.pages[i] == NULL:
            continue
        pages[i] = page_part(draft.pages[i], draft.version, 2 * size - 1, i)
        pages[i + size] = page_part(draft.pages[i], draft.version, 2 * size - 1, i + size)
        if pages[i] == NULL or pages[i + size] == NULL:
            for j in range(2 * size):
                page_free(pages[j])
            free(pages)
            return RC_MEMORY
    for i in range(size):
        draft_replace(draft, draft.pages[i])
    free(draft.pages)
    draft.pages = pages
    draft.mask = 2 * size - 1
    return 0


cdef int route_table_put(RouteTable *draft, uint8_t kind, const char *name, size_t name_bytes,
                         Site *site) noexcept nogil:
    """Adds the route, or leads an existing one elsewhere."""
    cdef uint64_t h = hash_name(kind, name, name_bytes)
    cdef uint32_t at
    if site.policy.limits.line_bytes_max > draft.line_bytes_max:
        draft.line_bytes_max = site.policy.limits.line_bytes_max
    if draft.count >= (draft.mask + 1) * PAGE_ENTRY_COUNT:
        draft_grow(draft)
    at = <uint32_t>h & draft.mask
    return draft_rebuild(draft, at, page_find(draft.pages[at], h, kind, name, name_bytes), h, kind, name, name_bytes,
                         site)


cdef int route_table_drop(RouteTable *draft, uint8_t kind, const char *name, size_t name_bytes) noexcept nogil:
    cdef uint64_t h = hash_name(kind, name, name_bytes)
    cdef uint32_t at = <uint32_t>h & draft.mask
    cdef int64_t found = page_find(draft.pages[at], h, kind, name, name_bytes)
    cdef int rc
    if found < 0:
        return 0
    rc = draft_rebuild(draft, at, found, 0, 0, NULL, 0, NULL)
    return 1 if rc == 0 else rc


cdef int route_table_drop_tunnel(RouteTable *draft, const Tunnel *tunnel) noexcept nogil:
    """Every route to the tunnel; one that leads to others as well leads to those. Every entry is checked."""
    cdef const RouteEntry *entry
    cdef const char *name
    cdef Site *rest
    cdef uint32_t at, i
    cdef int rc
    for at in range(draft.mask + 1):
        i = 0
        while draft.pages[at] != NULL and i < draft.pages[at].count:
            entry = &draft.pages[at].entries[i]
            if not site_has(entry.site, tunnel):
                i += 1
                continue
            rest = NULL
            if entry.site.tunnel_count > 1:
                rest = site_without(entry.site, tunnel)
                if rest == NULL:
                    return RC_MEMORY
            name = draft.pages[at].names + entry.name
            rc = draft_rebuild(draft, at, i, draft.pages[at].hashes[i], entry.kind, name,
                               entry.name_bytes if rest != NULL else 0, rest)
            site_release(rest)
            if rc < 0:
                return rc
    return 0


cdef void route_table_succeed(RouteTable *table, RouteTable *draft) noexcept nogil:
    """The draft is complete and takes the place of the table (NULL: of none), which is released later."""
    if table != NULL:
        table.retired = draft.replaced
        table.is_succeeded = 1
    draft.replaced = NULL


cdef void route_table_discard(RouteTable *draft) noexcept nogil:
    """A draft that nobody else has seen; what it shares with the table it was forked from stays there."""
    cdef uint32_t i
    if draft == NULL:
        return
    for i in range(draft.mask + 1):
        if draft.pages[i] != NULL and draft.pages[i].version == draft.version:
            page_free(draft.pages[i])
    free(draft.pages)
    free(draft)


cdef void route_table_release(RouteTable *table) noexcept nogil:
    cdef uint32_t i
    cdef RoutePage *page
    if table == NULL or atomic_sub_acq(&table.references, 1) != 1:
        return
    if not table.is_succeeded:
        for i in range(table.mask + 1):
            page_free(table.pages[i])
    while table.retired != NULL:
        page = table.retired
        table.retired = page.next
        page_free(page)
    free(table.pages)
    free(table)


cdef Site *route_find(RouteTable *table, uint8_t kind, const char *name, size_t name_bytes) noexcept nogil:
    cdef uint64_t h
    cdef int64_t found
    cdef RoutePage *page
    if table == NULL:
        return NULL
    h = hash_name(kind, name, name_bytes)
    page = table.pages[<uint32_t>h & table.mask]
    found = page_find(page, h, kind, name, name_bytes)
    return page.entries[found].site if found >= 0 else NULL


cdef Site *route_find_port(RouteTable *table, uint8_t kind, uint16_t port) noexcept nogil:
    cdef char key[2]
    key[0] = <char>(port >> 8)
    key[1] = <char>(port & 255)
    return route_find(table, kind, key, 2)


cdef Site *route_find_certificate(RouteTable *table, const char *name, size_t name_bytes) noexcept nogil:
    cdef char wild[256]
    cdef const char *dot
    cdef size_t parent_bytes
    cdef Site *site = route_find(table, ROUTE_CERTIFICATE, name, name_bytes)
    if site != NULL or name_bytes == 0 or name_bytes > 253:
        return site
    dot = <const char *>memchr(name, c'.', name_bytes)
    if dot == NULL:
        return NULL
    parent_bytes = name_bytes - (dot - name)            # with its dot
    wild[0] = c'*'
    memcpy(wild + 1, dot, parent_bytes)
    return route_find(table, ROUTE_CERTIFICATE, wild, parent_bytes + 1)
