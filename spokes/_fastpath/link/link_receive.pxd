# Frames that come: each is held against docs/protocol.md and told to its stream or the link's owner.

cdef void link_read(void *owner) noexcept nogil
