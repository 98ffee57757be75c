"""Errors travel as data and come out as themselves."""

import msgspec
import pytest

from spokes import errors
from spokes.errors import (
    AdmissionRefusedError,
    HeldNameError,
    NotFoundError,
    PolicyError,
    RemoteError,
    SpokesError,
    StoreError,
)
from spokes.model.error_values import ErrorValue, error_value, made_error


def arrived(error: SpokesError) -> SpokesError:
    return made_error(msgspec.json.decode(msgspec.json.encode(error_value(error)), type=ErrorValue))


@pytest.mark.parametrize("kind", [kind for kind in vars(errors).values() if isinstance(kind, type)
                                  and issubclass(kind, SpokesError) and "code" in vars(kind)])  # fmt: skip
def test_error_of_each_code_keeps_what_it_says(kind):
    error = kind.__new__(kind)
    SpokesError.__init__(error, "what happened", hint="what to do")
    error._told = error.retry_after_s = 0
    there = made_error(ErrorValue(error.code, "what happened", "what to do", error.retryable, 3.0))
    assert (there.code, str(there), there.hint, there.retryable) == (
        error.code, "what happened", "what to do", error.retryable
    )


@pytest.mark.parametrize("error", [
    NotFoundError("unknown tunnel"), HeldNameError("held", hint="wait"), PolicyError("two tunnels", hint="delete one"),
    StoreError("the database does not answer"), AdmissionRefusedError("two an hour", retry_after_s=17.5),
])
def test_refusal_comes_out_as_the_same_class(error):
    there = arrived(error)
    assert type(there) is type(error)
    for name in ("code", "hint", "retryable", "args"):
        assert getattr(there, name) == getattr(error, name)
    assert getattr(there, "retry_after_s", None) == getattr(error, "retry_after_s", None)


def test_error_of_ours_tells_no_paths():
    assert str(arrived(StoreError("/srv/spokes.db is full", told="the database is full"))) == "the database is full"


def test_code_of_another_version_is_kept():
    there = made_error(ErrorValue("SPK-FUTURE", "not yet", hint="wait", retryable=True, retry_after_s=2.0))
    assert type(there) is RemoteError
    assert (there.code, str(there), there.hint, there.retryable, there.retry_after_s) == (
        "SPK-FUTURE", "not yet", "wait", True, 2.0
    )


def test_retryable_of_one_error_is_not_that_of_its_class():
    error = StoreError("rows that no database takes")
    error.retryable = False
    assert arrived(error).retryable is False
    assert StoreError("x").retryable is True
