import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spokes.cluster.signing import (
    SIGNATURE_HEADER,
    WINDOW_S,
    Envelope,
    Verifier,
    new_nonce,
    read_headers,
    signature,
)
from spokes.errors import ClockError, ClusterMessageError, ReplayError, SignatureError

KEY, A, B = b"k" * 32, "a" * 32, "b" * 32
NOW = 1_800_000_000


def envelope(**parts):
    fields = {
        "method": "POST", "path": "/api/admin/v1.0/replication/batch", "sender": A, "receiver": B, "epoch": 3,
        "from_seq": 7, "to_seq": 9, "time": NOW, "nonce": "n",
    }  # fmt: skip
    return Envelope(**fields | parts)


def check(verifier, one, body=b"body", now=NOW, key=KEY):
    verifier.check(one, signature(key, one, body), body, now)


def test_verifier_takes_what_headers_carried():
    one = envelope(nonce=new_nonce())
    headers = {name.upper(): value for name, value in one.headers(KEY, b"body").items()}
    found, given = read_headers(one.method, one.path, headers)
    assert found == one
    Verifier(KEY, B).check(found, given, b"body", NOW)


@pytest.mark.parametrize("change", [
    {"method": "GET"}, {"path": "/x"}, {"sender": B}, {"receiver": A}, {"epoch": 4}, {"from_seq": 6}, {"to_seq": 10},
    {"time": NOW + 1}, {"nonce": "m"},
])  # fmt: skip
def test_verifier_any_changed_field_refused(change):
    one = envelope()
    with pytest.raises(SignatureError):
        Verifier(KEY, B).check(dataclasses.replace(one, **change), signature(KEY, one, b"body"), b"body", NOW)


def test_verifier_changed_body_other_key_and_other_receiver_refused():
    one = envelope()
    with pytest.raises(SignatureError):
        Verifier(KEY, B).check(one, signature(KEY, one, b"body"), b"bodY", NOW)
    with pytest.raises(SignatureError):
        Verifier(b"other", B).check(one, signature(KEY, one, b"body"), b"body", NOW)
    with pytest.raises(SignatureError, match="another node"):
        check(Verifier(KEY, A), one)
    for damaged in ("", "\u00e9" * 64, "0" * 64):
        with pytest.raises(SignatureError):
            Verifier(KEY, B).check(one, damaged, b"body", NOW)


TEXTS = st.text(max_size=8)


@given(st.tuples(TEXTS, TEXTS, TEXTS), st.tuples(TEXTS, TEXTS, TEXTS))
def test_signature_of_different_envelopes_differs(one, other):
    """Wherever one field ends and the next begins."""
    first, second = (
        envelope(path=path, sender=sender, receiver=receiver) for path, sender, receiver in (one, other)
    )
    assert (signature(KEY, first, b"") == signature(KEY, second, b"")) == (one == other)


@pytest.mark.parametrize(("off_s", "refused"), [(0, False), (300, False), (-300, False), (301, True), (-301, True)])
def test_verifier_window(off_s, refused):
    verifier = Verifier(KEY, B)
    if refused:
        with pytest.raises(ClockError):
            check(verifier, envelope(time=NOW + off_s))
    else:
        check(verifier, envelope(time=NOW + off_s))


def test_verifier_replay_refused_and_forgery_uses_up_no_nonce():
    verifier = Verifier(KEY, B)
    with pytest.raises(SignatureError):
        check(verifier, envelope(), key=b"forged")
    assert verifier.nonce_count == 0
    check(verifier, envelope())
    with pytest.raises(ReplayError):
        check(verifier, envelope())


@pytest.mark.parametrize("seed", range(20))
def test_verifier_never_takes_one_twice_and_stays_small(seed):
    """However many come, and whatever is done to the clock meanwhile."""
    rng = random.Random(seed)
    verifier = Verifier(KEY, B, nonce_count_max=20)
    taken, sent, now = set(), [], NOW
    for number in range(400):
        now += rng.choice([0, 1, 1, 30, -200])
        if sent and rng.random() < 0.4:
            one = rng.choice(sent)
        else:
            one = envelope(time=now + rng.randint(-10, 10), nonce=str(number))
            sent.append(one)
        try:
            check(verifier, one, now=now)
        except (ReplayError, ClockError):
            continue
        assert one not in taken
        taken.add(one)
        assert verifier.nonce_count <= 20
    assert taken


def test_verifier_forgets_nonces_that_are_out_of_the_window():
    verifier = Verifier(KEY, B)
    for number in range(10):
        check(verifier, envelope(nonce=str(number)))
    late = NOW + int(WINDOW_S) + 1
    check(verifier, envelope(time=late), now=late)
    assert verifier.nonce_count == 1


@pytest.mark.parametrize("damage", [
    {"x-spokes-cluster-time": "now"}, {"x-spokes-cluster-epoch": "-1"}, {"x-spokes-cluster-to": "\u0661"},
    {"x-spokes-cluster-from": "9" * 20}, {"x-spokes-cluster-nonce": "n" * 201}, {SIGNATURE_HEADER.lower(): None},
])  # fmt: skip
def test_read_headers_malformed_refused(damage):
    headers = {name.lower(): value for name, value in envelope().headers(KEY, b"").items()} | damage
    headers = {name: value for name, value in headers.items() if value is not None}
    with pytest.raises(ClusterMessageError):
        read_headers("POST", "/", headers)
