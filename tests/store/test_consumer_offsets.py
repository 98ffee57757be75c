"""Offsets of consumers in the change log."""


def test_offset_is_what_was_written_last_and_each_consumer_has_its_own(store):
    assert store.consumer_offsets.read("webhooks") is None
    store.consumer_offsets.write("webhooks", 1, 5)
    store.consumer_offsets.write("webhooks", 2, 7)
    store.consumer_offsets.write("other", 1, 1)
    assert store.consumer_offsets.read("webhooks") == (2, 7)
    assert store.consumer_offsets.read("other") == (1, 1)
