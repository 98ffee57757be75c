import pytest

from spokes import clock
from spokes.errors import NotFoundError
from spokes.ids import new_uid


def test_raise_alert_once_until_resolved(store):
    alert = store.raise_alert("disk", "/var", "warning", "nearly full")
    assert store.raise_alert("disk", "/var", "warning", "still") is None
    assert store.raise_alert("disk", "/srv", "warning", "another").uid != alert.uid
    assert store.resolve_alert("disk", "/var").uid == alert.uid
    assert store.resolve_alert("disk", "/var") is None
    assert store.raise_alert("disk", "/var", "warning", "again").uid != alert.uid


def test_raise_alert_that_grew_critical_is_told_again(store):
    alert = store.raise_alert("disk", "/", "warning", "80 of 100")
    store.acknowledge_alert(alert.uid)
    grown = store.raise_alert("disk", "/", "critical", "99 of 100")
    assert (grown.uid, grown.severity, grown.text, grown.acknowledged) == (alert.uid, "critical", "99 of 100", None)
    assert store.raise_alert("disk", "/", "critical", "99 of 100") is None
    assert store.raise_alert("disk", "/", "warning", "80 of 100") is None
    assert store.list_alerts() == [grown]
    with pytest.raises(ValueError, match="fatal"):
        store.raise_alert("disk", "/", "fatal", "x")


def test_list_alerts_newest_first_open_ones_apart(store):
    manual = clock.ManualClock()
    with clock.replaced(manual):
        raised = []
        for n in range(3):
            manual.advance(1)
            raised.append(store.raise_alert("offline", str(n), "warning", "t"))
        resolved = store.resolve_alert("offline", "1")
    assert store.list_alerts() == [raised[2], resolved, raised[0]]
    assert store.list_alerts(open_only=True) == [raised[2], raised[0]]
    assert store.list_alerts(limit=1) == [raised[2]]


def test_acknowledge_alert_counts_once(store):
    alert = store.raise_alert("disk", "/", "warning", "t")
    store.raise_alert("memory", "", "critical", "t")
    assert store.count_unacknowledged() == 2
    seen = store.acknowledge_alert(alert.uid)
    assert seen.acknowledged is not None
    assert store.acknowledge_alert(alert.uid) == seen
    assert store.count_unacknowledged() == 1
    for uid in (new_uid(), "", "\x00"):
        with pytest.raises(NotFoundError):
            store.acknowledge_alert(uid)


@pytest.mark.parametrize("text", ["\x00\ud800", "'; DROP TABLE alert; --", "x" * 999, "<b>"])
def test_raise_alert_hostile_text_is_made_fit(store, text):
    alert = store.raise_alert("certificate", text, "warning", text)
    assert store.list_alerts() == [alert]
    assert alert.text.isprintable() and len(alert.text) <= 255
    assert store.resolve_alert("certificate", text).uid == alert.uid


def test_purge_alerts_only_what_is_over(store):
    manual = clock.ManualClock()
    with clock.replaced(manual):
        standing = store.raise_alert("disk", "/", "warning", "t")
        store.raise_alert("memory", "", "warning", "t")
        store.resolve_alert("memory", "")
    assert store.purge_alerts(manual.wall_s()) == 0
    assert store.purge_alerts(manual.wall_s() + 1) == 1
    assert store.list_alerts() == [standing]
