"""Sites, and what they hold: upstreams and directories.

A site never changes once a table has it; another rule is another site. It is freed with the last table that leads to
it, and lets go of what it holds then.
Bound: what the control plane puts in.
"""
from spokes._fastpath.base.counted cimport counted_free, counted_hold, counted_new, counted_release
from spokes._fastpath.base.net cimport close
from spokes._fastpath.tls.certificate cimport certificate_hold, certificate_release

# Atomic, of the process: a reference that was forgotten is seen.
cdef uint64_t sites_live = 0
cdef uint64_t upstreams_live = 0
cdef uint64_t directories_live = 0


cdef Site *site_new(uint8_t kind, uint8_t tunnel_count, const Policy *policy) noexcept nogil:
    cdef size_t more = sizeof(Tunnel *) * (tunnel_count - 1) if tunnel_count > 1 else 0
    cdef Site *site = <Site *>counted_new(sizeof(Site) + more, &sites_live)
    if site == NULL:
        return NULL
    site.kind = kind
    if policy != NULL:
        site.policy = policy[0]
    return site


cdef Site *site_to_tunnels(Tunnel *const *tunnels, uint8_t tunnel_count, Service *service,
                           const Policy *policy) noexcept nogil:
    cdef Site *site = site_new(SITE_TUNNELS, tunnel_count, policy)
    cdef uint8_t i
    if site == NULL:
        return NULL
    site.service = service
    site.tunnel_count = tunnel_count
    for i in range(tunnel_count):
        site.tunnels[i] = tunnels[i]
    return site


cdef Site *site_to_upstream(Upstream *upstream, const Policy *policy) noexcept nogil:
    cdef Site *site = site_new(SITE_UPSTREAM, 0, policy)
    if site != NULL:
        site.upstream = upstream_hold(upstream)
    return site


cdef Site *site_to_directory(Directory *directory, const Policy *policy) noexcept nogil:
    cdef Site *site = site_new(SITE_DIRECTORY, 0, policy)
    if site != NULL:
        site.directory = directory_hold(directory)
    return site


cdef Site *site_to_page(uint8_t page) noexcept nogil:
    cdef Site *site = site_new(SITE_PAGE, 0, NULL)
    if site != NULL:
        site.page = page
    return site


cdef Site *site_with_certificate(Certificate *certificate) noexcept nogil:
    cdef Site *site = site_new(SITE_CERTIFICATE, 0, NULL)
    if site != NULL:
        site.certificate = certificate_hold(certificate)
    return site


cdef Site *site_without(const Site *site, const Tunnel *tunnel) noexcept nogil:
    cdef Site *rest = site_new(site.kind, site.tunnel_count, &site.policy)
    cdef uint8_t i
    if rest == NULL:
        return NULL
    rest.service = site.service
    for i in range(site.tunnel_count):
        if site.tunnels[i] != tunnel:
            rest.tunnels[rest.tunnel_count] = site.tunnels[i]
            rest.tunnel_count += 1
    return rest


cdef Site *site_hold(Site *site) noexcept nogil:
    return <Site *>counted_hold(site)


cdef void site_release(Site *site) noexcept nogil:
    if not counted_release(site):
        return
    upstream_release(site.upstream)
    directory_release(site.directory)
    certificate_release(site.certificate)
    counted_free(site, &sites_live)


cdef bint site_has(const Site *site, const Tunnel *tunnel) noexcept nogil:
    cdef uint8_t i
    for i in range(site.tunnel_count):
        if site.tunnels[i] == tunnel:
            return True
    return False


cdef Upstream *upstream_new() noexcept nogil:
    return <Upstream *>counted_new(sizeof(Upstream), &upstreams_live)


cdef Upstream *upstream_hold(Upstream *upstream) noexcept nogil:
    return <Upstream *>counted_hold(upstream)


cdef void upstream_release(Upstream *upstream) noexcept nogil:
    if counted_release(upstream):
        counted_free(upstream, &upstreams_live)


cdef Directory *directory_new(int fd) noexcept nogil:
    cdef Directory *directory = <Directory *>counted_new(sizeof(Directory), &directories_live)
    if directory != NULL:
        directory.fd = fd
    return directory


cdef Directory *directory_hold(Directory *directory) noexcept nogil:
    return <Directory *>counted_hold(directory)


cdef void directory_release(Directory *directory) noexcept nogil:
    if counted_release(directory):
        close(directory.fd)
        counted_free(directory, &directories_live)
