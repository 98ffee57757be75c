"""Operations as a test asks for them: on the server's own account unless it says on whose behalf."""

from spokes.model.operation import SYSTEM, perform


def do(store, operation, principal=SYSTEM):
    return perform(store, principal, operation)
