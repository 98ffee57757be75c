from hypothesis import given
from hypothesis import strategies as st

from spokes.cluster.digest import EMPTY, added, digest_key, element, from_hex, removed, to_hex

KEY = digest_key(b"k" * 32)
OBJECTS = st.tuples(st.sampled_from(["site", "port"]), st.text("0123456789abcdef", min_size=2, max_size=4),
                    st.integers(0, 99), st.text(max_size=20))  # fmt: skip


def digest_of(objects):
    digest = EMPTY
    for one in objects:
        digest = added(digest, element(KEY, *one))
    return digest


@given(st.lists(OBJECTS), st.randoms())
def test_digest_any_order_is_the_same(objects, random):
    shuffled = list(objects)
    random.shuffle(shuffled)
    assert digest_of(shuffled) == digest_of(objects)


@given(st.lists(OBJECTS, min_size=1), st.data())
def test_digest_removing_undoes_adding(objects, data):
    one = data.draw(st.sampled_from(objects))
    rest = list(objects)
    rest.remove(one)
    assert removed(digest_of(objects), element(KEY, *one)) == digest_of(rest)


@given(st.sets(OBJECTS), st.sets(OBJECTS))
def test_digest_of_different_sets_differs(one, other):
    assert (digest_of(one) == digest_of(other)) == (one == other)


def test_element_depends_on_each_part_and_the_key():
    parts = ("site", "ab", 1, "{}")
    elements = {
        element(KEY, *parts), element(KEY, "port", *parts[1:]), element(KEY, "site", "ac", 1, "{}"),
        element(KEY, "site", "ab", 2, "{}"), element(KEY, "site", "ab", 1, "{ }"),
        element(digest_key(b"other"), *parts), element(KEY, "sit", "eab", 1, "{}"),
        element(KEY, "site", "ab1", 1, "{}"),
    }  # fmt: skip
    assert len(elements) == 8


@given(st.integers(0, 2**256 - 1))
def test_hex_reads_back(digest):
    assert len(to_hex(digest)) == 64
    assert from_hex(to_hex(digest)) == digest


def test_digest_wraps_at_its_width():
    assert removed(EMPTY, 1) == 2**256 - 1
    assert added(2**256 - 1, 1) == EMPTY
