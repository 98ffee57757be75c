"""Places of consumers in the change log."""


def test_mark_is_what_was_written_last_and_each_consumer_has_its_own(store):
    assert store.read_mark("webhooks") is None
    store.write_mark("webhooks", 1, 5)
    store.write_mark("webhooks", 2, 7)
    store.write_mark("other", 1, 1)
    assert store.read_mark("webhooks") == (2, 7)
    assert store.read_mark("other") == (1, 1)
