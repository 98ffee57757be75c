import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spokes.cluster.sealing import PREFIX, Sealer, cluster_id
from spokes.errors import SealError
from spokes.redaction import SECRET_FIELDS

SEALER = Sealer(b"k" * 32)
UID = "ab" * 16
NAMES = st.sampled_from([*sorted(SECRET_FIELDS), "domain", "port"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8,
)


@given(st.dictionaries(NAMES, JSON))
def test_seal_opens_to_the_same(body):
    assert SEALER.open("site", UID, SEALER.seal("site", UID, body)) == body


def test_seal_shows_no_secret_wherever_it_stands():
    body = {"value": "hush-1", "rule": {"password": "hush-2", "tls": [{"privateKey": "hush-3"}], "domain": "shown"}}
    text = json.dumps(SEALER.seal("site", UID, body))
    assert "hush" not in text and "shown" in text
    assert text.count(PREFIX) == 3
    assert SEALER.seal("site", UID, body) != SEALER.seal("site", UID, body)


@pytest.mark.parametrize("name", sorted(SECRET_FIELDS))
def test_seal_every_declared_secret(name):
    assert SEALER.seal("user", UID, {name: "hush"})[name].startswith(PREFIX)
    assert SEALER.seal("user", UID, {name: ""}) == {name: ""}


@pytest.mark.parametrize("opening", [
    lambda sealed: SEALER.open("port", UID, sealed),
    lambda sealed: SEALER.open("site", "cd" * 16, sealed),
    lambda sealed: SEALER.open("site", UID, {"secret": sealed["value"]}),
    lambda sealed: SEALER.open("site", UID, {"rule": sealed}),
    lambda sealed: Sealer(b"other" * 8).open("site", UID, sealed),
    lambda sealed: SEALER.open("site", UID, {"value": sealed["value"][:-4]}),
    lambda sealed: SEALER.open("site", UID, {"value": PREFIX + "!"}),
    lambda sealed: SEALER.open("site", UID, {"value": PREFIX}),
    lambda sealed: SEALER.open("site", UID, {"value": "hush"}),
    lambda sealed: SEALER.open("site", UID, {"value": 7}),
])
def test_open_elsewhere_or_damaged_refused(opening):
    sealed = SEALER.seal("site", UID, {"value": "hush"})
    with pytest.raises(SealError):
        opening(sealed)


def test_cluster_id_tells_clusters_apart():
    assert len(cluster_id(b"k" * 32)) == 32
    assert cluster_id(b"k" * 32) != cluster_id(b"l" * 32)
