"""Dates of HTTP, without libc's time functions: those lock, and read the time zone.

Years 1970 to 9999. Source: RFC 9110 section 5.6.7; the calendar's days are counted from 1 March of year 0, in eras of
400 years, so that the leap day is the last of its year.
"""
from libc.string cimport memcmp, memcpy

from spokes._fastpath.base.types cimport uint32_t

cdef enum:
    DAY_S = 86400
    EPOCH_DAYS = 719468                 # 1 January 1970
    ERA_DAYS = 146097
    LAST_S = 253402300799               # the end of year 9999

cdef const char *WEEKDAYS = b"SunMonTueWedThuFriSat"
cdef const char *MONTHS = b"JanFebMarAprMayJunJulAugSepOctNovDec"


cdef void put_digits(char *dst, uint32_t value, int count) noexcept nogil:
    while count > 0:
        count -= 1
        dst[count] = <char>(c'0' + value % 10)
        value //= 10


cdef int read_digits(const char *src, int count) noexcept nogil:
    cdef int value = 0
    cdef int i
    for i in range(count):
        if not c'0' <= src[i] <= c'9':
            return -1
        value = value * 10 + src[i] - c'0'
    return value


cdef void httpdate_write(char *dst, uint64_t unix_s) noexcept nogil:
    cdef uint64_t days, second
    cdef uint32_t era, day_of_era, year_of_era, day_of_year, month, day, year
    if unix_s > LAST_S:
        unix_s = LAST_S
    days = unix_s // DAY_S + EPOCH_DAYS
    second = unix_s % DAY_S
    era = <uint32_t>(days // ERA_DAYS)
    day_of_era = <uint32_t>(days % ERA_DAYS)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * day_of_year + 2) // 153            # 0 = March
    day = day_of_year - (153 * month + 2) // 5 + 1
    year = era * 400 + year_of_era
    month += 2
    if month >= 12:
        month -= 12
        year += 1
    memcpy(dst, b"Sun, 00 Jan 0000 00:00:00 GMT", HTTP_DATE_BYTES)
    memcpy(dst, WEEKDAYS + 3 * ((days + 3) % 7), 3)
    put_digits(dst + 5, day, 2)
    memcpy(dst + 8, MONTHS + 3 * month, 3)
    put_digits(dst + 12, year, 4)
    put_digits(dst + 17, <uint32_t>(second // 3600), 2)
    put_digits(dst + 20, <uint32_t>(second // 60 % 60), 2)
    put_digits(dst + 23, <uint32_t>(second % 60), 2)


cdef int64_t httpdate_read(const char *src, size_t src_bytes) noexcept nogil:
    cdef int day, year, hour, minute, second, month
    cdef int64_t days, year_of_era, era
    cdef char again[HTTP_DATE_BYTES]
    cdef int64_t unix_s
    if src_bytes != HTTP_DATE_BYTES:
        return -1
    day = read_digits(src + 5, 2)
    year = read_digits(src + 12, 4)
    hour = read_digits(src + 17, 2)
    minute = read_digits(src + 20, 2)
    second = read_digits(src + 23, 2)
    month = 0
    while month < 12 and memcmp(src + 8, MONTHS + 3 * month, 3) != 0:
        month += 1
    if month == 12 or day < 1 or year < 1970 or hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0:
        return -1
    if month < 2:
        year -= 1
    month = (month + 10) % 12           # 0 = March
    era = year // 400
    year_of_era = year % 400
    days = era * ERA_DAYS + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + (153 * month + 2) // 5 \
        + day - 1 - EPOCH_DAYS
    unix_s = days * DAY_S + hour * 3600 + minute * 60 + second
    # Written again it must be the same: one check for weekday, punctuation, 31 April and a leap second alike.
    httpdate_write(again, unix_s)
    return unix_s if memcmp(again, src, HTTP_DATE_BYTES) == 0 else -1
