import pytest

from spokes.ids import new_uid
from spokes.store import Visit, base

TUNNEL, OTHER, SERVICE = "01" * 16, "02" * 16, "03" * 16


def visit(closed, **given):
    return Visit(**{
        "uid": new_uid(), "tunnel_uid": TUNNEL, "service_uid": SERVICE, "service": 1, "address": "198.51.100.7",
        "bytes_in": 3, "bytes_out": 2**40, "established": 1.0, "closed": closed, **given,
    })


def test_add_visits_come_back_as_they_were(store):
    visits = [visit(float(n)) for n in range(3)]
    store.access_records.add(visits)
    store.access_records.add([*visits[:1], visit(9.0, uid="\x00")])  # told twice, told wrongly
    store.access_records.add([])
    assert store.access_records.select() == list(reversed(visits))


def test_add_visits_many_at_once(store):
    store.access_records.add(visit(float(n)) for n in range(2_500))
    assert len(store.access_records.select(limit=10**9)) == 2_500


def test_list_visits_filters(store):
    a, b, c = visit(1.0), visit(2.0, tunnel_uid=OTHER, address="2001:db8::1"), visit(3.0, service_uid="04" * 16)
    store.access_records.add([a, b, c])
    assert store.access_records.select(tunnel_uid=OTHER) == [b]
    assert store.access_records.select(service_uid=SERVICE) == [b, a]
    assert store.access_records.select(address="2001:db8::1") == [b]
    assert store.access_records.select(tunnel_uids=[TUNNEL, "\x00"]) == [c, a]
    assert store.access_records.select(begin=2.0, end=3.0) == [b]
    for nothing in ({"tunnel_uid": "\x00"}, {"service_uid": ""}, {"address": "\x00"}, {"address": "%"}, {"limit": -1}):
        assert store.access_records.select(**nothing) == []


def test_list_visits_pages_join_to_the_whole_also_at_one_moment(store):
    store.access_records.add([visit(float(n // 3)) for n in range(9)])
    whole, pages, before = store.access_records.select(), [], None
    while page := store.access_records.select(limit=2, before=before):
        pages += page
        before = (page[-1].closed, page[-1].uid)
    assert pages == whole
    assert len(whole) == 9


@pytest.mark.parametrize(("older_than", "row_count_max", "left"), [
    (0.0, 10, [4, 3, 2, 1, 0]), (2.0, 10, [4, 3, 2]), (0.0, 2, [4, 3]), (4.0, 3, [4]), (0.0, 0, []),
])
def test_purge_visits_by_age_and_number(store, older_than, row_count_max, left):
    store.access_records.add([visit(float(n)) for n in range(5)])
    assert store.access_records.purge(older_than, row_count_max) == 5 - len(left)
    assert [int(row.closed) for row in store.access_records.select()] == left


def test_purge_visits_goes_slice_by_slice(store, monkeypatch):
    monkeypatch.setattr(base, "PURGE_COUNT_MAX", 3)
    store.access_records.add([visit(float(n)) for n in range(8)])
    assert [store.access_records.purge(7.0, 100) for _ in range(4)] == [3, 3, 1, 0]
    assert [int(row.closed) for row in store.access_records.select()] == [7]


def test_add_visits_hostile_address_is_made_fit(store):
    store.access_records.add([visit(1.0, address="\x00'; --\ud800")])
    assert store.access_records.select()[0].address == "\ufffd'; --\ufffd"
