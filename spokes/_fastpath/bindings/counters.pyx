"""What workers count: sums, access records; and what Python tells them of the memory that the kernel uses."""
from libc.string cimport memset

from spokes._fastpath.base.access_log cimport AccessRecord, access_log_take
from spokes._fastpath.base.address cimport address_text
from spokes._fastpath.base.buf cimport Budget
from spokes._fastpath.base.stats cimport Stats
from spokes._fastpath.base.types cimport atomic_get, atomic_set, int64_t, uint32_t
from spokes._fastpath.core.shared cimport COMMAND_RELIEVE

cdef int STATS_COUNT = sizeof(Stats) // sizeof(uint64_t)


cdef void stats_add(Stats *to, const Stats *stats) noexcept nogil:
    cdef int i
    for i in range(STATS_COUNT):
        (<uint64_t *>to)[i] += (<const uint64_t *>stats)[i]


cdef dict stats_dict(const Stats *stats):
    """By the names of stats.pxd. A worker alone may be below zero."""
    cdef int i
    cdef dict unsigned = stats[0]
    return {name: (<const int64_t *>stats)[i] for i, name in enumerate(unsigned)}


cdef dict stats_sums(Threads threads):
    cdef uint32_t i
    cdef Stats sums
    cdef uint64_t timers = 0
    cdef dict answer
    memset(&sums, 0, sizeof(sums))
    if not threads.stopped:
        for i in range(threads.shared.worker_count):
            stats_add(&sums, &threads.shared.workers[i].loop.stats)
            timers += threads.shared.workers[i].loop.wheel.count
    answer = stats_dict(&sums)
    answer["timers_open"] = timers
    answer["buffer_bytes"] = atomic_get(&threads.shared.budget.used_bytes)
    answer["buffer_limit_bytes"] = threads.shared.budget.limit_bytes
    answer["window_promised_bytes"] = atomic_get(&threads.shared.budget.promised_bytes)
    answer["visitors_open"] = atomic_get(&threads.shared.visitor_count)
    return answer


cdef list worker_stats(Threads threads):
    cdef uint32_t i
    cdef list answer = []
    for i in range(0 if threads.stopped else threads.shared.worker_count):
        row = stats_dict(&threads.shared.workers[i].loop.stats)
        row["timers_open"] = threads.shared.workers[i].loop.wheel.count
        answer.append(row)
    return answer


cdef list drain_access_records(Threads threads):
    cdef char text[46]
    cdef AccessRecord record
    cdef uint32_t i
    cdef list records = []
    for i in range(threads.shared.worker_count):
        while access_log_take(&threads.shared.workers[i].loop.access_log, &record):
            address = text[:address_text(text, &record.visitor)].decode("ascii")
            records.append((record.service, address, record.bytes_in, record.bytes_out, record.begin_ms / 1000.0,
                            record.end_ms / 1000.0))
    return records


cdef int note_kernel_memory(Threads threads, uint64_t used_bytes, uint64_t limit_bytes) except -1:
    cdef Budget *budget = &threads.shared.budget
    cdef int64_t stream_count = 0
    cdef uint32_t i
    if threads.stopped:
        return 0
    for i in range(threads.shared.worker_count):
        stream_count += <int64_t>threads.shared.workers[i].loop.stats.streams_open
    atomic_set(&budget.kernel_stream_count, <uint64_t>max(stream_count, 0))
    atomic_set(&budget.kernel_used_bytes, used_bytes)
    atomic_set(&budget.kernel_limit_bytes, limit_bytes)
    if used_bytes > limit_bytes // 4 * 3 and limit_bytes > 0:
        threads.push_all(COMMAND_RELIEVE)
    return 0
