"""What is known of services: what came last, lines at a bounded rate, and what the server is told."""

import logging

import pytest

from spokes._fastpath.engine import FAULT_CODES, RouteKind
from spokes.client import service_health
from spokes.client.service_health import LINES_PER_CHECK_MAX, Served, ServiceHealth, ServiceName

HTTP, TCP, TLS, UDP = (int(kind) for kind in (RouteKind.HTTP, RouteKind.TCP, RouteKind.TLS, RouteKind.UDP))
SITE, PORT = ServiceName("a.example", 0), ServiceName("", 22000)
REFUSED, CLOSED = FAULT_CODES.index("SPK-UPSTREAM-REFUSED"), FAULT_CODES.index("SPK-UPSTREAM-CLOSED")


class Counter:
    """An upstream of the engine: faults and answers come when the test says so."""

    def __init__(self):
        self.last, self.at, self.counts = 0, 0.0, [0] * len(FAULT_CODES)
        self.answered = False

    def outcomes(self):
        return self.last, self.at, list(self.counts)

    def fail(self, kind, count=1):
        self.last, self.at = kind, self.at + 1
        self.counts[kind] += count

    def answer(self):
        self.last, self.at, self.answered = 0, self.at + 1, True

    def has_answered(self):
        return self.answered


class Clock:
    """Time passes by a second with every look, unless a test holds it."""

    def __init__(self):
        self.now, self.step = 0.0, 0.5  # a look reads it twice

    def __call__(self):
        self.now += self.step
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock):
    return ServiceHealth(clock=clock)


@pytest.fixture
def counter():
    return Counter()


@pytest.fixture
def served(counter):
    return {(HTTP, "a.example"): Served(upstream="127.0.0.1:8080", counter=counter)}


def lines(caplog):
    return [(record.service, record.upstream, record.code, record.left_out)
            for record in caplog.records if record.message == "service failed"]


def test_service_that_was_never_asked_does_not_fail(health, served):
    assert health.check(served) == []
    assert health.faults == {}


def test_faults_change_the_service_once_and_count_until_it_answers(health, served, counter):
    counter.fail(REFUSED)
    (change,) = health.check(served)
    assert change.service == SITE and change.fault.code == "SPK-UPSTREAM-REFUSED"
    assert "127.0.0.1:8080 refused the connection [SPK-UPSTREAM-REFUSED]" in change.line()
    counter.fail(REFUSED, 4)
    assert health.check(served) == []
    assert health.faults[SITE].count == 5
    assert "5 times" in health.faults[SITE].words()
    counter.answer()
    (change,) = health.check(served)
    assert change.fault is None and change.line() == "Service a.example answers again"
    assert health.faults == {}
    counter.fail(REFUSED)
    health.check(served)
    assert health.faults[SITE].count == 1


def test_another_cause_is_another_change(health, served, counter):
    counter.fail(REFUSED)
    health.check(served)
    counter.fail(CLOSED)
    (change,) = health.check(served)
    assert change.fault.code == "SPK-UPSTREAM-CLOSED" and change.fault.count == 2


def test_line_stands_for_all_faults_of_a_look(health, served, counter, caplog):
    with caplog.at_level(logging.WARNING, service_health.__name__):
        health.check(served)
        counter.fail(REFUSED, 1000)
        health.check(served)
        health.check(served)
    assert lines(caplog) == [("a.example", "127.0.0.1:8080", "SPK-UPSTREAM-REFUSED", 999)]


def test_fault_that_was_followed_by_an_answer_has_its_line_and_no_change(health, served, counter, caplog):
    counter.fail(CLOSED)
    counter.answer()
    with caplog.at_level(logging.WARNING, service_health.__name__):
        assert health.check(served) == []
    assert lines(caplog) == [("a.example", "127.0.0.1:8080", "SPK-UPSTREAM-CLOSED", 0)]


def test_many_services_that_fail_at_once_have_a_bounded_number_of_lines(health, caplog):
    served = {}
    for index in range(300):
        one = Counter()
        one.fail(REFUSED)
        served[HTTP, f"s{index}.example"] = Served(upstream="u", counter=one)
    with caplog.at_level(logging.WARNING, service_health.__name__):
        assert len(health.check(served)) == 300
        assert len(lines(caplog)) == LINES_PER_CHECK_MAX
        for _ in range(300 // LINES_PER_CHECK_MAX):
            health.check(served)
    assert len({service for service, *_ in lines(caplog)}) == len(lines(caplog)) == 300


def test_one_line_and_one_change_a_second_whatever_happens_in_it(health, served, counter, clock, caplog):
    counter.fail(REFUSED)
    clock.step = 0
    with caplog.at_level(logging.WARNING, service_health.__name__):
        assert len(health.check(served)) == 1
        for _ in range(10):
            counter.answer()
            assert health.check(served) == []
            counter.fail(CLOSED, 5)
            assert health.check(served) == []
        assert len(lines(caplog)) == 1
        clock.now += 1
        (change,) = health.check(served)
        clock.now += 1
        assert health.check(served) == []
    assert change.fault.code == "SPK-UPSTREAM-CLOSED"
    assert lines(caplog)[1:] == [("a.example", "127.0.0.1:8080", "SPK-UPSTREAM-CLOSED", 49)]


def test_other_addresses_keep_what_was_known_until_they_are_asked(health, served, counter):
    counter.fail(REFUSED, 3)
    health.check(served)
    other = Counter()
    served[HTTP, "a.example"] = Served(upstream="127.0.0.1:8080", counter=other)
    assert health.check(served) == [] and SITE in health.faults
    other.answer()
    health.check(served)
    assert health.faults == {}


def test_site_fails_while_one_of_its_routes_does(health, served, counter):
    tls = Counter()
    served[TLS, "a.example"] = Served(upstream="127.0.0.1:8443", counter=tls)
    counter.answer()
    tls.fail(REFUSED)
    health.check(served)
    assert health.faults[SITE].upstream == "127.0.0.1:8443"


def test_directory_that_is_not_there_fails_since_it_was_first_seen_so(health):
    served = {(HTTP, "a.example"): Served(upstream="/srv/www", counter=None, code="SPK-WEBROOT")}
    (change,) = health.check(served)
    assert change.fault.code == "SPK-WEBROOT"
    at = health.faults[SITE].at
    assert health.check(served) == [] and health.faults[SITE].at == at
    served[HTTP, "a.example"] = Served(upstream="/srv/www", counter=None)
    (change,) = health.check(served)
    assert change.fault is None


def test_service_that_is_removed_is_forgotten(health, served, counter):
    counter.fail(REFUSED)
    health.check(served)
    assert health.check({}) == [] and health.faults == {}


def test_message_names_what_fails(health, served, counter):
    port = Counter()
    served[TCP, 22000] = Served(upstream="localhost:22", counter=port)
    counter.fail(REFUSED)
    port.fail(CLOSED)
    health.check(served)
    told = {(one.domain, one.port): one.code for one in health.message().failing}
    assert told == {SITE: "SPK-UPSTREAM-REFUSED", PORT: "SPK-UPSTREAM-CLOSED"}


def test_every_code_has_words():
    assert {code for code in FAULT_CODES if code} <= service_health.FAULT_WORDS.keys()


# --- ports, which carry TCP and datagrams


@pytest.fixture
def both():
    """(served, TCP's counter, UDP's)"""
    tcp, udp = Counter(), Counter()
    return (
        {
            (TCP, 22000): Served(upstream="127.0.0.1:53", counter=tcp),
            (UDP, 22000): Served(upstream="127.0.0.1:53/udp", counter=udp),
        },
        tcp,
        udp,
    )


def told(health):
    return [(one.port, one.code) for one in health.message().failing]


def test_port_whose_datagrams_are_all_refused_is_not_running_and_its_server_is_not_told(health, both):
    served, _, udp = both
    udp.fail(REFUSED, 3)
    (change,) = health.check(served)
    assert change.line() == "Service port 22000 fails: 127.0.0.1:53/udp refused the connection [SPK-UPSTREAM-REFUSED]"
    assert health.faults[PORT].count == 3
    assert told(health) == []                       # anybody may send one to a port of TCP


def test_port_whose_datagrams_were_answered_fails_when_they_are_refused(health, both):
    served, _, udp = both
    udp.answer()
    health.check(served)
    udp.fail(REFUSED)
    health.check(served)
    assert told(health) == [(22000, "SPK-UPSTREAM-REFUSED")]


def test_refused_datagrams_of_a_port_whose_tcp_answers_are_a_line_and_no_state(health, both, caplog):
    served, tcp, udp = both
    tcp.answer()
    udp.fail(REFUSED)
    with caplog.at_level(logging.WARNING, service_health.__name__):
        assert health.check(served) == []
    assert health.faults == {}
    assert lines(caplog) == [("port 22000", "127.0.0.1:53/udp", "SPK-UPSTREAM-REFUSED", 0)]


def test_refused_conns_of_a_port_that_answers_datagrams_are_no_state(health, both):
    served, tcp, udp = both
    udp.answer()
    health.check(served)
    tcp.fail(REFUSED)
    assert health.check(served) == []
    assert health.faults == {}


def test_port_that_fails_by_both_is_told_by_its_tcp(health, both):
    served, tcp, udp = both
    udp.fail(REFUSED)
    tcp.fail(CLOSED)
    health.check(served)
    assert told(health) == [(22000, "SPK-UPSTREAM-CLOSED")]


def test_loop_is_said_in_words(health):
    counter = Counter()
    counter.fail(FAULT_CODES.index("SPK-LOOP"))
    (change,) = health.check({(TCP, 22000): Served(upstream="edge:22000", counter=counter)})
    assert change.line() == "Service port 22000 fails: edge:22000 leads back to this tunnel [SPK-LOOP]"


def test_loop_of_datagrams_is_a_state_and_told_though_tcp_answers(health, both):
    served, tcp, udp = both
    tcp.answer()
    udp.fail(FAULT_CODES.index("SPK-LOOP"))
    (change,) = health.check(served)
    assert change.line() == "Service port 22000 fails: 127.0.0.1:53/udp leads back to this tunnel [SPK-LOOP]"
    assert told(health) == [(22000, "SPK-LOOP")]
