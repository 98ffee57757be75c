"""Traffic of two sites of one tunnel, with real processes: apart in API, metrics and tables, and over restarts."""

from __future__ import annotations

import csv
import http.client
import io
import signal
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.test_administration import OWN_API, Operator
from tests.support.ports import free_port, free_port_range
from tests.support.processes import BIG_BYTES, DOMAIN, Client, ServerProcess, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def metrics_port() -> int:
    return free_port()


@pytest.fixture
def server(tmp_path: Path, metrics_port: int):
    config = tmp_path / "spokes.toml"
    config.write_text(
        f'traffic_interval_s = 0.2\nconnection_metrics = true\nmetrics = "127.0.0.1:{metrics_port}"\n'
    )
    server = ServerProcess(tmp_path, str(free_port_range(4)), "--admin", "true", "--config", config)
    server.start()
    yield server
    server.end()


@pytest.fixture
def operator(server):
    operator = Operator(server)
    wait_until(operator.sign_in, 20, "the administration")
    return operator


def sums(operator: Operator) -> dict[str, tuple[int, int]]:
    """By service: bytes from and to visitors, as the API tells them."""
    status, answer = operator.call("/traffic/list?by=service&period=month", api=OWN_API)
    assert status == 200, answer
    return {row["serviceID"]: (row["bytesIn"], row["bytesOut"]) for row in answer["traffic"]}


def scrape(port: int, path: str = "/metrics") -> tuple[int, str]:
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        conn.request("GET", path)
        answer = conn.getresponse()
        return answer.status, answer.read().decode()
    finally:
        conn.close()


def service_metrics(port: int, name: str) -> dict[str, float]:
    status, text = scrape(port)
    assert status == 200, text
    return {
        sample.labels["service"]: sample.value
        for family in text_string_to_metric_families(text) for sample in family.samples if sample.name == name
    }


def table(operator: Operator, path: str) -> list[dict[str, str]]:
    conn = http.client.HTTPConnection("127.0.0.1", operator.server.http_port, timeout=10)
    try:
        conn.request("GET", OWN_API + path, headers={
            "Host": DOMAIN, "Content-Type": "application/json", "Accept": "text/csv",
            "Authorization": f"Bearer {operator.key}",
        })
        answer = conn.getresponse()
        assert answer.status == 200
        return list(csv.DictReader(io.StringIO(answer.read().decode())))
    finally:
        conn.close()


def test_two_sites_of_one_tunnel_are_counted_apart_and_their_counts_outlive_the_server(
    server, operator, web, tmp_path, metrics_port
):
    client = Client(server, tmp_path / "client.json")
    try:
        own, other = client.hostname, f"other.{client.hostname}"
        for host in (own, other):
            client.spoke("http", "add", "--domain", host, "--destination", "127.0.0.1", "--http", web.port)
        client.start()
        for host in (own, other):
            wait_until(lambda host=host: server.serves(host), 15, host)
        _, listed = operator.call(f"/tunnel/info/{client.tunnel}?details=true")
        sites = {one["domainName"]: one["id"] for one in listed["tunnel"]["https"]}
        big, small = sites[own], sites[other]
        before = {name: sums(operator).get(uid, (0, 0)) for name, uid in (("big", big), ("small", small))}
        for _ in range(2):
            assert server.get(own, "/big")[0] == 200
        assert server.get(other)[0] == 200
        wait_until(lambda: sums(operator).get(big, (0, 0))[1] > before["big"][1] + 2 * BIG_BYTES, 10, "its traffic")
        wait_until(lambda: sums(operator).get(small, (0, 0))[1] > before["small"][1], 10, "the other's traffic")

        def written() -> bool:
            """The end of an answer may be counted after its beginning was stored."""
            sent, stored = service_metrics(metrics_port, "spokes_service_sent_bytes_total"), sums(operator)
            return all(sent[site] == stored[site][1] for site in (big, small))

        wait_until(written, 10, "the store and the metrics agree")
        counted = sums(operator)
        assert counted[small][1] < 5000
        assert service_metrics(metrics_port, "spokes_service_http_requests_total")[big] >= 2
        assert scrape(metrics_port, "/api/admin/openapi.json")[0] == 404
        exported = {row["service_uid"]: row for row in table(operator, "/traffic/export/csv?period=month")}
        assert (int(exported[big]["bytes_in"]), int(exported[big]["bytes_out"])) == counted[big]
        visits = table(operator, "/visit/export/csv")
        assert sum(int(row["bytes_out"]) for row in visits if row["service_uid"] == big) == counted[big][1]
        assert {row["address"] for row in visits} == {"127.0.0.1"}
        _, listed = operator.call(f"/tunnel/info/{client.tunnel}?details=true")
        daily = {one["id"]: one["bandwidth"]["daily"] for one in listed["tunnel"]["https"]}
        assert daily == {big: sum(counted[big]), small: sum(counted[small])}

        # An end in order loses nothing; what was counted before a kill is there after it.
        assert server.get(other, "/big")[0] == 200
        assert server.end(signal.SIGTERM) == 0
        server.start()
        wait_until(operator.sign_in, 20, "the administration")
        kept = sums(operator)
        assert kept[big] == counted[big]
        assert kept[small][1] > counted[small][1] + BIG_BYTES
        wait_until(lambda: server.serves(own), 15, "the tunnel")
        wait_until(lambda: sums(operator)[big][1] > kept[big][1], 10, "the count")
        counted = sums(operator)
        server.end(signal.SIGKILL)
        server.start()
        wait_until(operator.sign_in, 20, "the administration")
        kept = sums(operator)
        assert all(kept[uid][way] >= counted[uid][way] for uid in (big, small) for way in (0, 1))
    finally:
        client.end()
