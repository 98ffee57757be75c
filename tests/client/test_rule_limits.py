"""More rules than a tunnel may have: those within the limits go on."""

import json

import msgspec
import pytest

from spokes.client.rule_limits import check_rule_count, with_refused, within_limits
from spokes.errors import LimitError
from spokes.model.ports import PORT_COUNT_MAX as STORED_PORT_COUNT_MAX
from spokes.model.rule_state import RULES_BYTES_MAX as STORED_RULES_BYTES_MAX
from spokes.model.sites import SITE_COUNT_MAX as STORED_SITE_COUNT_MAX
from spokes.wire.messages import Accepted, Services, decode_message, encode_message
from spokes.wire.parts import MESSAGE_BYTES_MAX, split_message
from spokes.wire.rules import LIST_COUNT_MAX, PORT_COUNT_MAX, RULES_BYTES_MAX, SITE_COUNT_MAX, Port, Site
from tests.client.fake_engine import HOSTNAME
from tests.client.test_app import console, make_app, running  # noqa: F401 (fixtures)
from tests.support.eventually import eventually


def sites(count, **more):
    return tuple(Site(domain=f"s{number}.example", port=80, **more) for number in range(count))


def test_numbers_are_those_of_the_store():
    assert (SITE_COUNT_MAX, RULES_BYTES_MAX) == (STORED_SITE_COUNT_MAX, STORED_RULES_BYTES_MAX)
    assert PORT_COUNT_MAX >= STORED_PORT_COUNT_MAX


def test_within_limits_few_rules_are_announced_as_they_are():
    services = Services(https=sites(SITE_COUNT_MAX))
    assert within_limits(services) == (services, Accepted())


def test_within_limits_rules_too_many_are_refused_by_themselves():
    ports = tuple(Port(port=number) for number in range(1, PORT_COUNT_MAX + 3))
    offered, refused = within_limits(Services(https=sites(SITE_COUNT_MAX + 1), ports=ports))
    assert offered.https == sites(SITE_COUNT_MAX)
    assert offered.ports == ports[:-2]
    assert [(one.domain, one.error.code) for one in refused.https] == [(f"s{SITE_COUNT_MAX}.example", "SPK-LIMIT")]
    assert [one.port for one in refused.ports] == [PORT_COUNT_MAX + 1, PORT_COUNT_MAX + 2]


def test_within_limits_rules_too_long_fit_one_message_and_shorter_ones_pass():
    long = sites(20, ca="c" * 60_000)
    offered, refused = within_limits(Services(https=(*long, Site(domain="short.example", port=1))))
    assert offered.https[-1].domain == "short.example"
    assert len(offered.https) + len(refused.https) == 21
    assert len(encode_message(offered)) < MESSAGE_BYTES_MAX
    assert split_message(encode_message(offered))


def test_with_refused_is_no_longer_than_what_is_read():
    _, refused = within_limits(Services(https=sites(LIST_COUNT_MAX + SITE_COUNT_MAX + 9)))
    together = with_refused(Accepted(), refused)
    assert msgspec.convert(msgspec.to_builtins(together), Accepted) == together


def test_services_longer_than_a_tunnel_may_have_are_read():
    services = Services(https=sites(SITE_COUNT_MAX + 500))
    assert decode_message(encode_message(services)) == services


def test_check_rule_count_says_the_number_and_lets_a_long_list_become_shorter():
    with pytest.raises(LimitError, match=str(SITE_COUNT_MAX)):
        check_rule_count(sites(SITE_COUNT_MAX + 1), sites(SITE_COUNT_MAX))
    check_rule_count(sites(SITE_COUNT_MAX + 3), sites(SITE_COUNT_MAX + 4))


async def test_app_file_with_a_rule_too_many_serves_the_others_and_shows_it(engine, config_path, make_app):  # noqa: F811
    document = json.loads(config_path.read_text())
    document["https"] = [msgspec.to_builtins(site) for site in sites(SITE_COUNT_MAX + 1)]
    config_path.write_text(json.dumps(document))
    app = make_app()
    async with running(app):
        await eventually(lambda: app.state == "online")
        assert app.ready.hostname == HOSTNAME
        assert len(engine.server.services[-1].https) == SITE_COUNT_MAX
        faults = {one.domain: one.error.code for one in app.rules.accepted.https if one.error}
        assert faults == {f"s{SITE_COUNT_MAX}.example": "SPK-LIMIT"}
