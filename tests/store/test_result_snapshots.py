import pytest

from spokes import clock
from spokes.errors import NotFoundError
from spokes.ids import new_uid
from spokes.store import Store, result_snapshots
from spokes.store.result_snapshots import LIST_LIFETIME_S, PAGE_COUNT


@pytest.fixture
def time():
    manual = clock.ManualClock()
    with clock.replaced(manual):
        yield manual


@pytest.mark.parametrize("count", [1, PAGE_COUNT, PAGE_COUNT + 1, 2 * PAGE_COUNT + 50])
def test_freeze_list_pages_join_to_the_whole(store, count):
    uids = [new_uid() for _ in range(count)]
    links = store.result_snapshots.take(uids)
    assert [link.order for link in links] == list(range(1, len(links) + 1))
    pages = [store.result_snapshots.read_page(link.uid) for link in links]
    assert [len(page) for page in pages] == [link.count for link in links]
    assert [uid for page in pages for uid in page] == uids
    assert sum(link.count for link in links) == count


def test_freeze_list_of_nothing_has_no_pages(store):
    assert store.result_snapshots.take([]) == []
    with pytest.raises(ValueError, match="no id"):
        store.result_snapshots.take(["1" * 31])


def test_freeze_list_same_content_is_one_row(store, time):
    uids = [new_uid() for _ in range(150)]
    links = store.result_snapshots.take(uids)
    assert store.result_snapshots.take(uids) == links
    assert store.result_snapshots.take(list(reversed(uids))) != links
    assert store._db.query("SELECT COUNT(*) FROM frozen_list") == [(2,)]


def test_read_page_until_its_time_after_the_latest_hand_out(store, time):
    uids = [new_uid()]
    link, = store.result_snapshots.take(uids)
    time.advance(LIST_LIFETIME_S - 1)
    store.result_snapshots.take(uids)
    time.advance(LIST_LIFETIME_S)
    assert store.result_snapshots.read_page(link.uid) == uids
    time.advance(1)
    with pytest.raises(NotFoundError):
        store.result_snapshots.read_page(link.uid)
    assert LIST_LIFETIME_S >= 600


def test_read_page_unknown_is_refused(store):
    uid = store.result_snapshots.take([new_uid() for _ in range(150)])[0].uid
    for page_uid in (new_uid(), "", "\x00", "\ud800", "x" * 32, uid[:24] + "00000002", uid[:24] + "ffffffff",
                     uid[:24] + "000a3d70", uid[:24] + "00ffffff", "0" * 24 + uid[24:]):
        with pytest.raises(NotFoundError):
            store.result_snapshots.read_page(page_uid)


def test_read_page_ids_of_one_database_mean_nothing_in_another(store, tmp_path):
    uids = [new_uid()]
    with Store.open(str(tmp_path / "other.db")) as other:
        assert other.result_snapshots.take(uids) != store.result_snapshots.take(uids)


def test_freeze_list_over_the_bound_the_oldest_go(store, time, monkeypatch):
    monkeypatch.setattr(result_snapshots, "LIST_COUNT_MAX", 3)
    lists = [[new_uid()] for _ in range(5)]
    links = []
    for uids in lists:
        time.advance(1)
        links += store.result_snapshots.take(uids)
    for link in links[:2]:
        with pytest.raises(NotFoundError):
            store.result_snapshots.read_page(link.uid)
    assert [store.result_snapshots.read_page(link.uid) for link in links[2:]] == lists[2:]


def test_freeze_list_bound_is_each_owners_own(store, time, monkeypatch):
    monkeypatch.setattr(result_snapshots, "LIST_COUNT_MAX", 2)
    owner, uids = new_uid(), [new_uid()]
    kept, = store.result_snapshots.take(uids)
    theirs, = store.result_snapshots.take(uids, owner)
    assert kept != theirs
    for _ in range(3):
        time.advance(1)
        store.result_snapshots.take([new_uid()], owner)
    assert store.result_snapshots.read_page(kept.uid) == uids
    with pytest.raises(NotFoundError):
        store.result_snapshots.read_page(theirs.uid)
