"""Sites, and what they hold: upstreams and directories.

A site never changes once a table has it; another rule is another site. It is freed with the last table that leads to
it, and lets go of what it holds then.
Bound: what the control plane puts in.
"""
from libc.stdlib cimport calloc, free

from spokes._fastpath.base.net cimport close
from spokes._fastpath.base.types cimport atomic_add, atomic_sub, atomic_sub_acq
from spokes._fastpath.tls.certificate cimport certificate_hold, certificate_release

# Atomic, of the process: a reference that was forgotten is seen.
cdef uint64_t sites_live = 0
cdef uint64_t upstreams_live = 0
cdef uint64_t directories_live = 0


cdef Site *site_new(uint8_t kind, uint8_t tunnel_count, const Policy *policy) noexcept nogil:
    cdef size_t more = sizeof(Tunnel *) * (tunnel_count - 1) if tunnel_count > 1 else 0
    cdef Site *site = <Site *>calloc(1, sizeof(Site) + more)
    if site == NULL:
        return NULL
    site.references = 1
    site.kind = kind
    if policy != NULL:
        site.policy = policy[0]
    atomic_add(&sites_live, 1)
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
    atomic_add(&site.references, 1)
    return site


cdef void site_release(Site *site) noexcept nogil:
    if site == NULL or atomic_sub_acq(&site.references, 1) != 1:
        return
    upstream_release(site.upstream)
    directory_release(site.directory)
    certificate_release(site.certificate)
    atomic_sub(&sites_live, 1)
    free(site)


cdef bint site_has(const Site *site, const Tunnel *tunnel) noexcept nogil:
    cdef uint8_t i
    for i in range(site.tunnel_count):
        if site.tunnels[i] == tunnel:
            return True
    return False


cdef Upstream *upstream_new() noexcept nogil:
    cdef Upstream *upstream = <Upstream *>calloc(1, sizeof(Upstream))
    if upstream != NULL:
        upstream.references = 1
        atomic_add(&upstreams_live, 1)
    return upstream


cdef Upstream *upstream_hold(Upstream *upstream) noexcept nogil:
    atomic_add(&upstream.references, 1)
    return upstream


cdef void upstream_release(Upstream *upstream) noexcept nogil:
    if upstream != NULL and atomic_sub_acq(&upstream.references, 1) == 1:
        atomic_sub(&upstreams_live, 1)
        free(upstream)


cdef Directory *directory_new(int fd) noexcept nogil:
    cdef Directory *directory = <Directory *>calloc(1, sizeof(Directory))
    if directory != NULL:
        directory.references = 1
        directory.fd = fd
        atomic_add(&directories_live, 1)
    return directory


cdef Directory *directory_hold(Directory *directory) noexcept nogil:
    atomic_add(&directory.references, 1)
    return directory


cdef void directory_release(Directory *directory) noexcept nogil:
    if directory != NULL and atomic_sub_acq(&directory.references, 1) == 1:
        close(directory.fd)
        atomic_sub(&directories_live, 1)
        free(directory)
