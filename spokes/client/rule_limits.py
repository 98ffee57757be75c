"""How much of its rules a client announces: what a tunnel may have. What is more is left out rule by rule, with words.

Limits are checked where a rule is added; a file that a program or a person wrote may hold more all the same, and must
not take down what is within them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from spokes.errors import LimitError
from spokes.wire.messages import Accepted, Fault, PortResult, Services, SiteResult
from spokes.wire.rules import LIST_COUNT_MAX, PORT_COUNT_MAX, RULES_BYTES_MAX, SITE_COUNT_MAX, Port, Site

Rule = TypeVar("Rule", Site, Port)


def check_rule_count(rules: Sequence[Rule], before: Sequence[Rule]) -> None:
    """Refuses the list with a rule more than a tunnel may have; one that is too long already may become shorter."""
    most, words = (SITE_COUNT_MAX, "HTTP rules") if isinstance(next(iter(rules), None), Site) else (
        PORT_COUNT_MAX, "ports")  # fmt: skip
    if len(rules) > max(most, len(before)):
        raise LimitError(f"a tunnel may have {most} {words}", hint="remove some first")


def within_limits(services: Services) -> tuple[Services, Accepted]:
    """What is announced; and what is not, as a server would refuse it."""
    ports, ports_over, room_bytes = _fitting(services.ports, PORT_COUNT_MAX, "ports", RULES_BYTES_MAX)
    sites, sites_over, _ = _fitting(services.https, SITE_COUNT_MAX, "HTTP rules", room_bytes)
    refused = Accepted(
        https=tuple(SiteResult(domain=site.domain, error=fault) for site, fault in sites_over),
        ports=tuple(PortResult(port=port.port, error=fault) for port, fault in ports_over),
    )
    if not sites_over and not ports_over:
        return services, refused
    return msgspec.structs.replace(services, https=tuple(sites), ports=tuple(ports)), refused


def with_refused(accepted: Accepted, refused: Accepted) -> Accepted:
    """Both together, no longer than a list that is read may be."""
    return msgspec.structs.replace(
        accepted,
        https=(*accepted.https, *refused.https)[:LIST_COUNT_MAX],
        ports=(*accepted.ports, *refused.ports)[:LIST_COUNT_MAX],
    )


def _fitting(
    rules: Iterable[Rule], count_max: int, words: str, room_bytes: int
) -> tuple[list[Rule], list[tuple[Rule, Fault]], int]:
    fitting: list[Rule] = []
    over: list[tuple[Rule, Fault]] = []
    for rule in rules:
        size_bytes = len(msgspec.json.encode(rule)) + 1
        if len(fitting) >= count_max:
            over.append((rule, _fault(f"a tunnel may have {count_max} {words}")))
        elif size_bytes > room_bytes:
            over.append((rule, _fault(f"the rules of a tunnel may take {RULES_BYTES_MAX} bytes")))
        else:
            room_bytes -= size_bytes
            fitting.append(rule)
    return fitting, over, room_bytes


def _fault(words: str) -> Fault:
    return Fault(code=LimitError.code, message=words)
