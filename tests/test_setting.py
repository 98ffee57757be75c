"""Declarations of settings: what options and variables derive from them."""

from dataclasses import dataclass

import pytest

from spokes.setting import number, setting, settings_of, switch


@dataclass(frozen=True, kw_only=True)
class Example:
    ping_interval_s: float = number(5.0, 0.5, 60, unit="s", reloadable=True, help="How often.")
    per_address_per_s: int = number(9, 0, 99, unit="1/s", zero="any number", help="How many.")
    limit_bytes: int = setting(0, int, type=str | int, unit="bytes", help="All.", allowed="a size", metavar="SIZE")
    names: tuple[str, ...] = setting((), tuple, type=str | list[str], help="All.", allowed="names", metavar="NAME")
    is_on: bool = switch(False, help="On.")


SETTINGS = settings_of(Example)


def test_setting_name_option_and_variable_come_from_the_field():
    assert [(one.field, one.name, one.option, one.variable) for one in SETTINGS.values()] == [
        ("ping_interval_s", "ping_interval_s", "--ping-interval", "SPOKES_PING_INTERVAL"),
        ("per_address_per_s", "per_address_per_s", "--per-address-per-s", "SPOKES_PER_ADDRESS_PER_S"),
        ("limit_bytes", "limit", "--limit", "SPOKES_LIMIT"),
        ("names", "names", "--names", "SPOKES_NAMES"),
        ("is_on", "is_on", "--is-on", "SPOKES_IS_ON"),
    ]
    assert [one.name for one in SETTINGS.values() if one.is_list] == ["names"]
    assert [one.name for one in SETTINGS.values() if one.reloadable] == ["ping_interval_s"]


def test_setting_words_of_a_number_name_bounds_unit_and_zero():
    assert SETTINGS["ping_interval_s"].allowed == "0.5 to 60 seconds"
    assert SETTINGS["per_address_per_s"].allowed == "1 to 99; 0 = any number"
    assert SETTINGS["ping_interval_s"].metavar == "SECONDS"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("per_address_per_s", "7", 7),
        ("ping_interval_s", "7", 7.0),
        ("ping_interval_s", "often", "often"),
        ("limit", "7M", "7M"),
    ],
)
def test_setting_of_text_is_what_the_file_would_hold(name, text, value):
    read = SETTINGS[name].of_text(text)
    assert (read, type(read)) == (value, type(value))


def test_setting_default_is_the_value_of_the_class():
    assert Example().ping_interval_s == SETTINGS["ping_interval_s"].default == 5.0
