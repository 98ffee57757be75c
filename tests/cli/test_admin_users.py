"""`spokes user`: limits, domains, passwords and second factors, typed."""

import pyotp
import pytest

from spokes.admin.passwords import verify_password

MAIL = "mara@example.org"


@pytest.fixture
def user(spokes):
    return spokes.json("user", "create", "--email", MAIL, "--role", "admin", "--fullname", "Mara Lind")


def test_user_created_is_listed_and_shown_by_id_and_address(spokes, user):
    assert (user["role"], user["email"], user["hasPassword"]) == ("admin", MAIL, False)
    assert [one["id"] for one in spokes.json("user", "list")["users"]] == [user["id"]]
    assert spokes.json("user", "show", "MARA@example.org")["id"] == user["id"]
    assert spokes.json("user", "show", user["id"].upper())["fullname"] == "Mara Lind"
    assert f"| {user['id']} | {MAIL} " in spokes("user", "list").out
    assert "[SPK-TAKEN]" in spokes("user", "create", "--email", MAIL, code=1).err


def test_user_edit_changes_what_is_named(spokes, user):
    edited = spokes.json("user", "edit", MAIL, "--role", "basic", "--phone", "+49 1")
    assert (edited["role"], edited["phone"], edited["fullname"]) == ("basic", "+49 1", "Mara Lind")


@pytest.mark.parametrize("given, expected", [
    (("--bandwidth", "2000"), {"bandwidth": 2000}),
    (("--bandwidth", "500g"), {"bandwidth": 500_000}),
    (("--bandwidth", "2TB"), {"bandwidth": 2_000_000}),
    (("--bandwidth", "any"), {"bandwidth": 0}),
    (("--ports", "0"), {"checkPorts": True, "maxPorts": 0}),
    (("--ports", "7"), {"checkPorts": True, "maxPorts": 7}),
    (("--ports", "any"), {"checkPorts": False}),
    (("--tunnels", "3"), {"maxTunnels": 3}),
    (("--tunnels", "any"), {"maxTunnels": 0}),
    (("--check-domains",), {"checkDomains": True}),
    (("--any-domain",), {"checkDomains": False}),
])  # fmt: skip
def test_user_limit_sets_what_is_named_and_nothing_else(spokes, user, given, expected):
    limited = spokes.json("user", "limit", MAIL, *given)
    assert {key: value for key, value in limited.items() if key != "modified"} == {
        key: value for key, value in (user | expected).items() if key != "modified"
    }


def test_user_limits_are_kept_by_the_verbs_that_would_exceed_them(spokes, user):
    spokes("user", "limit", MAIL, "--tunnels", 1, "--ports", 0)
    tunnel = spokes.json("tunnel", "create", "--user", MAIL, "--domain", "tun.test")["tunnel"]["id"]
    assert "[SPK-NOT-ALLOWED]" in spokes("tunnel", "create", "--user", MAIL, "--domain", "tun.test", code=1).err
    assert "[SPK-NOT-ALLOWED]" in spokes("port", "allocate", tunnel, code=1).err


def test_domains_allowed_removed_and_reset(spokes, user):
    typed = spokes("user", "domain", "allow", MAIL, "Shop.Example.org.", "*.example.net")
    assert "--check-domains" in typed.out
    assert spokes.json("user", "domain", "list", MAIL)["domains"] == ["*.example.net", "shop.example.org"]
    assert spokes.json("user", "domain", "remove", MAIL, "shop.example.org")["domains"] == ["*.example.net"]
    assert "[SPK-" in spokes("user", "domain", "allow", MAIL, "a b", code=1).err
    assert spokes.json("user", "domain", "reset", MAIL)["domains"] == []


def test_password_by_file_input_and_variable_never_shown(spokes, user, tmp_path, monkeypatch):
    file = tmp_path / "secret"
    file.write_text("from the file!\nsecond line\n")
    for args, stdin, variable, expected in (
        (("--password-file", file), "", "", "from the file!"),
        (("--password-file", "-"), "from a pipe at last\n", "", "from a pipe at last"),
        ((), "", "from a variable", "from a variable"),
    ):
        monkeypatch.setenv("SPOKES_PASSWORD", variable)
        typed = spokes("user", "password", MAIL, *args, stdin=stdin)
        assert expected not in typed.out + typed.err
        with spokes.store() as store:
            assert verify_password(store.users.get(user["id"]).password_hash, expected)
    monkeypatch.delenv("SPOKES_PASSWORD")
    assert "--password-file" in spokes("user", "password", MAIL, code=2).err
    assert "[SPK-VALUE]" in spokes("user", "password", MAIL, "--password-file", "-", code=1, stdin="short\n").err
    assert "[SPK-SYSTEM]" in spokes("user", "password", MAIL, "--password-file", tmp_path / "none", code=1).err
    assert spokes.json("user", "password", MAIL, "--remove") == {"id": user["id"], "hasPassword": False}


def test_password_set_ends_the_sessions_of_that_person(spokes, user):
    with spokes.store() as store:
        _, cookie = store.logins.create(user_uid=user["id"])
    spokes("user", "password", MAIL, "--password-file", "-", stdin="correct horse battery\n")
    with spokes.store() as store:
        assert store.logins.find(cookie) is None


def test_totp_enrolled_makes_codes_that_fit_and_goes_off(spokes, user):
    assert "--no-confirm" in spokes("user", "totp", "enrol", MAIL, code=2).err
    made = spokes.json("user", "totp", "enrol", MAIL, "--no-confirm")
    assert pyotp.parse_uri(made["uri"]).secret == made["secret"]
    assert spokes.json("user", "show", MAIL)["hasTotp"] is True
    spokes("user", "totp", "off", MAIL)
    assert spokes.json("user", "show", MAIL)["hasTotp"] is False


def test_user_deleted_takes_tunnels_along(spokes, user):
    tunnel = spokes.json("tunnel", "create", "--user", MAIL, "--domain", "tun.test")["tunnel"]["id"]
    assert spokes.json("user", "delete", MAIL, "--yes") == {"id": user["id"], "tunnels": [tunnel]}
    assert spokes.json("tunnel", "list") == {"total": 0, "tunnels": []}
    assert [one["id"] for one in spokes.json("tunnel", "list", "--state", "deleted")["tunnels"]] == [tunnel]
