import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spokes.errors import NameRefusedError
from spokes.ids import (
    AVOIDED_NUMBERS,
    RESERVED_LABELS,
    TRIES_PER_WIDTH,
    automatic_hostname,
    canonical_host,
    is_reserved,
    is_secret,
    is_uid,
    new_secret,
    new_uid,
)
from spokes.wordlists import ADJECTIVES, NOUNS

DOMAIN = "tun.example.net"

# None may appear in a word, nor where two words meet once the hyphen is overlooked. Innocent words that hold one
# (sturdy, shell) are not worth an exception.
RUDE_FRAGMENTS = (
    "anal", "anus", "arse", "bitch", "boob", "butt", "clit", "cock", "coon", "crap", "cum", "cunt", "damn", "dick",
    "dyke", "fag", "fart", "fuck", "gook", "hell", "homo", "jerk", "kike", "kill", "negro", "nigg", "nazi", "nude",
    "orgy", "paki", "penis", "piss", "poop", "porn", "pube", "puss", "queer", "rape", "rect", "retard", "semen", "sex",
    "shit", "slave", "slut", "smut", "spic", "suck", "tard", "tits", "turd", "twat", "vagin", "wank", "whore",
)


def test_new_uid_many_are_distinct_and_well_formed():
    uids = {new_uid() for _ in range(1000)}
    assert len(uids) == 1000
    assert all(is_uid(uid) for uid in uids)


def test_new_secret_has_the_form_of_a_key():
    assert is_secret(new_secret())
    assert new_secret() != new_secret()


@pytest.mark.parametrize("text", ["", "0" * 31, "0" * 33, "G" * 32, "A" * 32, "0" * 31 + "\n", "0" * 32 + "\n"])
def test_is_uid_other_forms_refused(text):
    assert not is_uid(text)


# --- word lists ------------------------------------------------------------------------------------------------------

def test_word_lists_are_long_enough_distinct_and_short():
    for words in (ADJECTIVES, NOUNS):
        assert len(words) >= 200
        assert len(set(words)) == len(words)
        assert all(re.fullmatch(r"[a-z]{2,10}", word) for word in words)


def test_word_lists_any_pair_holds_no_rude_fragment():
    pairs = (adjective + noun for adjective in ADJECTIVES for noun in NOUNS)
    assert [pair for pair in pairs if any(fragment in pair for fragment in RUDE_FRAGMENTS)] == []


# --- automatic host names --------------------------------------------------------------------------------------------

def test_automatic_hostname_form_is_readable():
    for _ in range(500):
        label, _, rest = automatic_hostname(DOMAIN, lambda _: False).partition(".")
        adjective, noun, digits = label.split("-")
        assert (adjective in ADJECTIVES, noun in NOUNS, rest) == (True, True, DOMAIN)
        assert re.fullmatch(r"[1-9][0-9]{2}", digits)
        assert not any(number in digits for number in AVOIDED_NUMBERS)


def test_automatic_hostname_is_canonical_and_not_reserved():
    name = automatic_hostname(DOMAIN, lambda _: False)
    assert canonical_host(name) == name
    assert not is_reserved(name, DOMAIN)


def test_automatic_hostname_short_numbers_taken_uses_more_digits():
    asked = []

    def taken(name):
        asked.append(name)
        return len(name.partition(".")[0].rpartition("-")[2]) < 5

    name = automatic_hostname(DOMAIN, taken)
    assert re.search(r"-[0-9]{5}\.", name)
    assert len(asked) <= 2 * TRIES_PER_WIDTH + 1


def test_automatic_hostname_everything_taken_ends_with_an_error():
    with pytest.raises(NameRefusedError):
        automatic_hostname(DOMAIN, lambda _: True)


# --- canonical host names --------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("text", "host"), [
    ("shop.example.org", "shop.example.org"),
    ("Shop.EXAMPLE.Org", "shop.example.org"),
    ("shop.example.org.", "shop.example.org"),
    ("localhost", "localhost"),
    ("_acme.example.org", "_acme.example.org"),
    ("bücher.example", "xn--bcher-kva.example"),
    ("BÜCHER.example", "xn--bcher-kva.example"),
    ("bu\u0308cher.example", "xn--bcher-kva.example"),       # decomposed
    ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
    ("faß.example", "xn--fa-hia.example"),                   # as browsers do since 2016, not "fass"
    ("\uff45\uff58\uff41.example", "exa.example"),           # full-width letters
    ("a\u3002b.example", "a.b.example"),                     # ideographic full stop
    ("a" * 63 + ".example", "a" * 63 + ".example"),
    ("123.example", "123.example"),
])
def test_canonical_host_variants_become_one_form(text, host):
    assert canonical_host(text) == host


@pytest.mark.parametrize("text", [
    "", ".", "..", ".example", "a..example", "example..", "a b.example", "a/b", "a:80", "a@b.example", "-a.example",
    "a-.example", "a" * 64 + ".example", ".".join(["a" * 60] * 5), "127.0.0.1", "0x7f000001", "1.0x10", "[::1]", "::1",
    "*.example", "a\x00.example", "a\n", "a.example\n", "a\ud800.example", "xn--a.example", "xn--.example",
    "xn--shop-.example", "ab--cd.example", "☃️.example", "a\u202e.example", "x" * 100_000, "ü" * 100_000, "%61.example",
    "xn--" + "a" * 59 + ".example",
])
def test_canonical_host_no_host_name_refused(text):
    with pytest.raises(NameRefusedError):
        canonical_host(text)


@given(st.text(max_size=80))
def test_canonical_host_any_text_is_a_fixed_point_or_refused(text):
    try:
        host = canonical_host(text)
    except NameRefusedError:
        return
    assert canonical_host(host) == host
    assert host.isascii()
    assert host == host.lower()
    assert re.fullmatch(r"[a-z0-9_.-]{1,253}", host)


# --- reserved names --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("label", ["admin", "api", "dashboard", "www", "mail", "wpad", "_spokes", "xn--p1ai"])
def test_is_reserved_first_labels(label):
    expected = label in RESERVED_LABELS
    assert is_reserved(f"{label}.{DOMAIN}", DOMAIN) is expected
    assert is_reserved(f"deep.{label}.{DOMAIN}", DOMAIN) is expected


@pytest.mark.parametrize(("host", "expected"), [
    (DOMAIN, True),                                          # the server itself
    ("example.net", True),                                   # above it
    ("net", True),
    ("shop." + DOMAIN, False),
    ("admin.shop." + DOMAIN, False),
    ("admin.example.org", False),                            # another's domain
    ("admin" + DOMAIN, False),                               # ends alike, but is no subdomain
])
def test_is_reserved_by_place(host, expected):
    assert is_reserved(host, DOMAIN) is expected


def test_reserved_labels_are_canonical():
    assert all(canonical_host(label) == label for label in RESERVED_LABELS)
