"""Names of things: UIDs, secrets, host names.

Owns: the one canonical form of a host name, the list of reserved names, and how automatic host names are made.
Fails: NameRefusedError for a text that is no host name.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

import idna

from spokes.errors import NameRefusedError, WildcardNameError
from spokes.wordlists import ADJECTIVES, NOUNS

# ruff: noqa: SIM905  a list of quoted words would hide the words

ZERO_UID = "0" * 32                      # the system, or "none given"

HOST_BYTES_MAX = 253                     # RFC 1035 §2.3.4, without the root's dot
LABEL_BYTES_MAX = 63
TRIES_PER_WIDTH = 16                     # drawings with n digits before n + 1 are used
DIGITS_MIN, DIGITS_MAX = 3, 12
AVOIDED_NUMBERS = ("187", "420", "666", "911", "1488")    # read as a threat, a drug, a curse, a disaster, a slogan

_UID = re.compile(r"[0-9a-f]{32}")
_SECRET = re.compile(r"[0-9a-f]{64}")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")

# First labels under the server's domain that nobody may hold: they belong to the server and its cluster, are trusted by
# browsers, mail programs and certificate authorities, or would be believed to speak for the operator.
RESERVED_LABELS = frozenset(
    # the server and its cluster
    "admin api app auth cluster console dashboard edge gateway health login logout master metrics node panel "
    "portal proxy replica root server signin signup spoke spokes sso static status system tunnel tunnels "
    # found by programs without being asked for (auto-configuration, mail, policies)
    "autoconfig autodiscover broadcasthost dns imap isatap localdomain localhost mail mta-sts ns ns1 ns2 ns3 ns4 "
    "pop pop3 smtp webmail wpad www ftp "
    # role names a certificate authority may ask (CA/Browser Forum, Baseline Requirements 3.2.2.4.4), and their kin
    "abuse administrator hostmaster noc postmaster security ssladmin ssladministrator sslwebmaster sysadmin webmaster "
    # believed to be the operator
    "account accounts billing docs help info support".split()
)


def new_uid() -> str:
    """16 random bytes as 32 lower-case hex digits."""
    return secrets.token_hex(16)


def new_secret() -> str:
    """32 random bytes as 64 lower-case hex digits: tokens and keys."""
    return secrets.token_hex(32)


def is_uid(text: str) -> bool:
    return _UID.fullmatch(text) is not None


def is_secret(text: str) -> bool:
    """Whether `text` has the form of a token or key; says nothing about its being known."""
    return _SECRET.fullmatch(text) is not None


def canonical_host(text: str) -> str:
    """The one form in which a host name is stored, compared and routed: lower case, no trailing dot, IDN as A-labels.

    Refused: empty names and labels, labels over 63 or names over 253 bytes, anything but letters, digits, inner hyphens
    and underscores, IDN that IDNA 2008 does not allow, ports, and addresses (a last label of digits or 0x… is an
    address to browsers).
    """
    if text.startswith("*."):
        raise WildcardNameError(
            f"{text} stands for many names, and a rule serves one", hint="add a rule for each name that is served"
        )
    name = text[:-1] if text.endswith(".") else text
    if not name or len(name) > HOST_BYTES_MAX * 4:          # four: an IDN is never that much longer than its A-labels
        raise NameRefusedError("host name is empty or too long", hint="use a name such as shop.example.org")
    if name.isascii():
        name = name.lower()
    else:
        try:
            name = idna.encode(name, uts46=True, std3_rules=False, transitional=False).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise NameRefusedError("not a valid international host name", hint="use letters and digits") from None
        name = name.removesuffix(".")
    if len(name) > HOST_BYTES_MAX:
        raise NameRefusedError(f"host name is longer than {HOST_BYTES_MAX} bytes")
    for label in name.split("."):
        _check_label(label)
    last = name.rpartition(".")[2]
    if last.isdigit() or last.startswith("0x"):
        raise NameRefusedError("an address is no host name", hint="use a name such as shop.example.org")
    return name


def _check_label(label: str) -> None:
    if not label or len(label) > LABEL_BYTES_MAX or _LABEL.fullmatch(label) is None:
        raise NameRefusedError(
            "host name has an empty, over-long or malformed label",
            hint="labels hold 1 to 63 letters, digits and inner hyphens",
        )
    if label.startswith("xn--"):
        try:
            decoded = idna.decode(label)
            same = idna.encode(decoded, uts46=True).decode("ascii") == label
        except (idna.IDNAError, UnicodeError):
            same = False
        if not same:                     # two spellings of one name would be two owners of one name
            raise NameRefusedError("host name has a malformed A-label (xn--)")
    elif label[2:4] == "--":
        raise NameRefusedError("host name has hyphens in the third and fourth place", hint="only xn-- may")


def is_reserved(hostname: str, domain: str) -> bool:
    """Whether a canonical name under the server's canonical `domain` may be held by no tunnel.

    That is the domain itself, every name above it, `localhost` (RFC 6761 §6.3: the operator's own programs ask for it),
    and whatever ends in a label of RESERVED_LABELS directly under the domain. Other domains are not ours to reserve.
    """
    if hostname in (domain, "localhost") or domain.endswith("." + hostname):
        return True
    head = hostname.removesuffix("." + domain)
    if head == hostname:
        return False
    return head.rpartition(".")[2] in RESERVED_LABELS


def automatic_hostname(domain: str, taken: Callable[[str], bool]) -> str:
    """A free `adjective-noun-123.<domain>`; `taken` says whether a name is held.

    Drawn from the system's random source, not counted up, so that nobody can guess a neighbour. When drawings keep
    hitting names that are held, more digits are used, so this ends however full the name space is.
    """
    for digit_count in range(DIGITS_MIN, DIGITS_MAX + 1):
        low = 10 ** (digit_count - 1)
        for _ in range(TRIES_PER_WIDTH):
            number = str(low + secrets.randbelow(9 * low))
            if any(avoided in number for avoided in AVOIDED_NUMBERS):
                continue
            name = f"{secrets.choice(ADJECTIVES)}-{secrets.choice(NOUNS)}-{number}.{domain}"
            if not taken(name):
                return name
    raise NameRefusedError("no free automatic host name was found", hint="name one")


def verification_domain(domain: str) -> str:
    """`*.example.org` and `example.org` are verified to be a user's together."""
    return domain.removeprefix("*.")


def verification_record(domain: str) -> str:
    """The name of the TXT record that verifies them."""
    return f"_spokes-proof.{verification_domain(domain)}"
