"""Directory as Python has it: one reference to the engine's own, which others hold as well."""
from spokes._fastpath.flow.files cimport can_open_beneath
from spokes._fastpath.route.site cimport directory_new, directory_release

import os


cdef class Directory:
    def __cinit__(self, str path, *, bint beneath=True):
        cdef int fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.c = directory_new(fd)
        if self.c == NULL:
            os.close(fd)
            raise MemoryError
        self.c.beneath = beneath and can_open_beneath(fd)
        info = os.fstat(fd)
        self.identity = (info.st_dev, info.st_ino)

    def __dealloc__(self):
        directory_release(self.c)
