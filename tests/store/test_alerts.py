import pytest

from spokes import clock
from spokes.errors import NotFoundError
from spokes.ids import new_uid


def test_raise_alert_once_until_resolved(store):
    alert = store.alerts.open("disk", "/var", "warning", "nearly full")
    assert store.alerts.open("disk", "/var", "warning", "still") is None
    assert store.alerts.open("disk", "/srv", "warning", "another").uid != alert.uid
    assert store.alerts.resolve("disk", "/var").uid == alert.uid
    assert store.alerts.resolve("disk", "/var") is None
    assert store.alerts.open("disk", "/var", "warning", "again").uid != alert.uid


def test_raise_alert_that_grew_critical_is_told_again(store):
    alert = store.alerts.open("disk", "/", "warning", "80 of 100")
    store.alerts.acknowledge(alert.uid)
    grown = store.alerts.open("disk", "/", "critical", "99 of 100")
    assert (grown.uid, grown.severity, grown.text, grown.acknowledged) == (alert.uid, "critical", "99 of 100", None)
    assert store.alerts.open("disk", "/", "critical", "99 of 100") is None
    assert store.alerts.open("disk", "/", "warning", "80 of 100") is None
    assert store.alerts.select() == [grown]
    with pytest.raises(ValueError, match="fatal"):
        store.alerts.open("disk", "/", "fatal", "x")


def test_list_alerts_newest_first_open_ones_apart(store):
    manual = clock.ManualClock()
    with clock.replaced(manual):
        raised = []
        for n in range(3):
            manual.advance(1)
            raised.append(store.alerts.open("offline", str(n), "warning", "t"))
        resolved = store.alerts.resolve("offline", "1")
    assert store.alerts.select() == [raised[2], resolved, raised[0]]
    assert store.alerts.select(open_only=True) == [raised[2], raised[0]]
    assert store.alerts.select(limit=1) == [raised[2]]


def test_acknowledge_alert_counts_once(store):
    alert = store.alerts.open("disk", "/", "warning", "t")
    store.alerts.open("memory", "", "critical", "t")
    assert store.alerts.count_unacknowledged() == 2
    seen = store.alerts.acknowledge(alert.uid)
    assert seen.acknowledged is not None
    assert store.alerts.acknowledge(alert.uid) == seen
    assert store.alerts.count_unacknowledged() == 1
    for uid in (new_uid(), "", "\x00"):
        with pytest.raises(NotFoundError):
            store.alerts.acknowledge(uid)


@pytest.mark.parametrize("text", ["\x00\ud800", "'; DROP TABLE alert; --", "x" * 999, "<b>"])
def test_raise_alert_hostile_text_is_made_fit(store, text):
    alert = store.alerts.open("certificate", text, "warning", text)
    assert store.alerts.select() == [alert]
    assert alert.text.isprintable() and len(alert.text) <= 255
    assert store.alerts.resolve("certificate", text).uid == alert.uid


def test_purge_alerts_only_what_is_over(store):
    manual = clock.ManualClock()
    with clock.replaced(manual):
        standing = store.alerts.open("disk", "/", "warning", "t")
        store.alerts.open("memory", "", "warning", "t")
        store.alerts.resolve("memory", "")
    assert store.alerts.purge(manual.wall_s()) == 0
    assert store.alerts.purge(manual.wall_s() + 1) == 1
    assert store.alerts.select() == [standing]
