"""What wrk and iperf3 print, read; and what must not count as a result."""

from __future__ import annotations

import json

import pytest

from benchmarks.loads.bulk import parse_gbit_per_s
from benchmarks.loads.http import check_answers, parse_count, parse_percentile_ms, parse_rate
from benchmarks.processes import BenchmarkError

WRK = """Running 1s test @ http://127.0.0.1:8080
  2 threads and 64 connections
  Latency Distribution
     50%   25.00us
     75%    1.10ms
     90%    2.00s{blank}
     99%    1.50m
  40510 requests in 1.00s, 6.10MB read
{extra}Requests/sec:  40321.77
Transfer/sec:      6.07MB
"""      # wrk pads its units to two characters


def test_wrk_output_gives_rate_count_and_percentiles_in_ms():
    text = WRK.format(blank=" ", extra="")
    assert parse_rate(text) == 40321.77
    assert parse_count(text) == 40510
    assert [parse_percentile_ms(text, percent) for percent in (50, 75, 90, 99)] == pytest.approx([0.025, 1.1, 2e3, 9e4])
    check_answers(text)


@pytest.mark.parametrize("extra", [
    "  Non-2xx or 3xx responses: 12\n",
    "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
])
def test_wrk_output_with_errors_is_no_result(extra):
    with pytest.raises(BenchmarkError):
        check_answers(WRK.format(blank=" ", extra=extra))


def test_wrk_output_without_answers_is_no_result():
    with pytest.raises(BenchmarkError, match="no answer"):
        check_answers(WRK.format(blank=" ", extra="").replace("40510", "0"))


def test_wrk_output_of_another_kind_says_so():
    with pytest.raises(BenchmarkError, match="wrk said nothing like"):
        parse_rate("unable to connect")


def test_iperf3_answer_counts_what_was_received():
    answer = {"end": {"sum_sent": {"bits_per_second": 9e9}, "sum_received": {"bits_per_second": 8e9}}}
    assert parse_gbit_per_s(json.dumps(answer)) == 8.0


@pytest.mark.parametrize("text", ["", json.dumps({"error": "unable to connect"})])
def test_iperf3_failure_is_no_result(text):
    with pytest.raises(BenchmarkError, match="iperf3"):
        parse_gbit_per_s(text)
