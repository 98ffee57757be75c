"""Two tenants and an administrator, each with a principal of their own, and what the tenants own."""

from __future__ import annotations

from spokes.model.api_keys import CreateApiKey
from spokes.model.domains import AllowDomains
from spokes.model.operation import client_of
from spokes.model.portmaps import PutPortMaps
from spokes.model.ports import AllocatePort
from spokes.model.sites import PutSites
from spokes.model.tokens import CreateToken
from spokes.model.tunnels import CreateTunnel
from spokes.model.users import CreateUser
from spokes.model.webhooks import CreateWebhook
from spokes.store import Principal, PrincipalKind, Store, User
from tests.support.operations import do

DOMAIN = "tun.example.net"
UNKNOWN = "f" * 32


def person(user: User) -> Principal:
    return Principal(
        kind=PrincipalKind.PERSON, uid=user.uid, user_uid=user.uid, name=user.email, role=user.role,
        scopes=("read", "write"),
    )


class Tenant:
    """A basic user with one of everything."""

    def __init__(self, store: Store, name: str) -> None:
        self.user = do(store, CreateUser(email=f"{name}@example.org"))
        self.principal = person(self.user)
        do(store, AllowDomains(self.user.uid, [f"{name}.example.org"]))
        self.tunnel, self.auth = do(store, CreateTunnel(name=name, domain=DOMAIN, user_uid=self.user.uid))
        self.client = client_of(self.tunnel.uid)
        (self.site,) = do(store, PutSites(self.tunnel.uid, [{"domain": f"{name}.example.org", "port": 80}]))
        self.port = do(store, AllocatePort(self.tunnel.uid, 22000, 22999))
        do(store, PutPortMaps(self.tunnel.uid, [{"listenPort": 5432, "dstPort": 22001, "transport": "tcp"}]))
        self.api_key, _ = do(store, CreateApiKey(name, user_uid=self.user.uid))
        self.webhook = do(store, CreateWebhook(f"https://{name}.example.org/hook", user_uid=self.user.uid))


class World:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.mara = Tenant(store, "mara")
        self.lind = Tenant(store, "lind")
        self.boss = do(store, CreateUser(email="boss@example.org", role="admin"))
        self.admin = person(self.boss)
        self.token = do(store, CreateToken("shops"))

    def do(self, principal, operation):
        return do(self.store, operation, principal)

    def refuses(self, error, principal, operation, match: str = "") -> None:
        """The operation fails with exactly this class of error, and nothing is written."""
        before = self.store.changes.position()
        try:
            do(self.store, operation, principal)
        except error as raised:
            assert type(raised) is error
            assert match in str(raised)
        else:
            raise AssertionError(f"{operation} was done")
        assert self.store.changes.position() == before
