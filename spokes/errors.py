"""Every error raised on purpose, one tree: what happened, and what to do about it.

`code` is stable: the wire, logs, pages and the API show it, docs/errors.md explains it. A class says whose fault it is:
PeerError the other side's (client, visitor, upstream, API caller), OwnError ours or our host's.
"""

from __future__ import annotations


class SpokesError(Exception):
    """Raised on purpose; `str()` says what happened, `hint` what to do (may be empty)."""

    code = "SPK-INTERNAL"
    http_status = 500
    retryable = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def told(self) -> str:
        """What happened, for the other side of a link: nothing of where things stand here."""
        return str(self)

    def line(self) -> str:
        """One line for a terminal: message, hint, code."""
        text = str(self)
        return f"{text}; {self.hint} [{self.code}]" if self.hint else f"{text} [{self.code}]"


class PeerError(SpokesError):
    """The other side asked for something that cannot be done."""

    http_status = 400


class OwnError(SpokesError):
    """Our own fault, or our host's."""


class ConfigError(OwnError):
    code = "SPK-CONFIG"


class AddressInUseError(OwnError):
    code = "SPK-ADDRESS-IN-USE"
    http_status = 503


class DataDirError(OwnError):
    code = "SPK-DATA-DIR"


class DataLockedError(DataDirError):
    code = "SPK-DATA-LOCKED"


class CertificateError(OwnError):
    """A certificate or key of ours that cannot be used as it is."""

    code = "SPK-CERTIFICATE"


class WebRootError(OwnError):
    """The directory of a site is not there or cannot be read."""

    code = "SPK-WEBROOT"


class StoreError(OwnError):
    """`told`: the message without addresses and paths, where it has any."""

    code = "SPK-STORE"
    http_status = 503
    retryable = True

    def __init__(self, message: str, *, hint: str = "", told: str = "") -> None:
        super().__init__(message, hint=hint)
        self._told = told or message

    @property
    def told(self) -> str:
        return self._told


class DatabaseMissingError(StoreError):
    """A database that was to be there already."""

    retryable = False


class SchemaTooNewError(StoreError):
    code = "SPK-SCHEMA-TOO-NEW"
    retryable = False


class ControlError(OwnError):
    """The control socket's other end did not answer; or it refused, then with the code it gave."""

    code = "SPK-CONTROL"

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code or self.code


class NoServerError(ControlError):
    """Nobody listens on the control socket."""

    code = "SPK-NO-SERVER"


class EngineError(OwnError):
    """The engine refused a command."""

    code = "SPK-ENGINE"


class LimitError(PeerError):
    code = "SPK-LIMIT"
    http_status = 429


class AdmissionRefusedError(LimitError):
    """Too many handshakes at once; come back in a while."""

    code = "SPK-BUSY"
    http_status = 503
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SessionUnknownError(PeerError):
    """A link that joins a session which is not (or no longer) here."""

    code = "SPK-SESSION"
    http_status = 410


class ReplacedError(PeerError):
    """Another client logged in with the same tunnel key."""

    code = "SPK-REPLACED"
    http_status = 409


class CopyError(PeerError):
    """Another client with the same tunnel key is connected and answers; this one may ask again in a while."""

    code = "SPK-COPY"
    http_status = 409
    retryable = True

    def __init__(self, message: str, *, hint: str = "", retry_after_s: float) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class ClosedByOperatorError(PeerError):
    """The session was ended by hand; the client may come back."""

    code = "SPK-CLOSED"
    retryable = True


class StoppedByOperatorError(PeerError):
    """The session was ended by hand, and the client is to stay away until somebody starts it again."""

    code = "SPK-STOPPED"
    http_status = 403


class BandwidthError(PeerError):
    """The owner's traffic of the month is used up. The client stays on-line; visitors are not let through."""

    code = "SPK-BANDWIDTH"
    http_status = 503
    retryable = True


class WebhookAddressError(PeerError):
    """A webhook whose URL is malformed, cannot be resolved or leads to an address that is not public."""

    code = "SPK-WEBHOOK-ADDRESS"


class WebhookUnresolvedError(WebhookAddressError):
    """The name has no address at the moment; name servers have bad hours."""

    retryable = True


class NodeError(PeerError):
    """Another node of the cluster that is not who it should be, or does not know us."""

    code = "SPK-NODE"
    http_status = 403
    retryable = True


class HandshakeTimeoutError(PeerError):
    code = "SPK-TIMEOUT"
    http_status = 408
    retryable = True


class ShutdownError(OwnError):
    """The server stops or restarts; come back in a while."""

    code = "SPK-SHUTDOWN"
    http_status = 503
    retryable = True


class InternalError(OwnError):
    """Something that must not happen; the log has the details."""

    code = "SPK-INTERNAL"


class ProtocolError(PeerError):
    """A message that breaks docs/protocol.md."""

    code = "SPK-PROTOCOL"


class VersionError(PeerError):
    code = "SPK-VERSION"


class TokenError(PeerError):
    """Unknown registration token, or unknown tunnel key."""

    code = "SPK-TOKEN"
    http_status = 401


class InactiveError(PeerError):
    """Known, but deactivated or shut down by the operator."""

    code = "SPK-INACTIVE"
    http_status = 403


class NotSignedInError(PeerError):
    """No live session, or a wrong key or password."""

    code = "SPK-LOGIN"
    http_status = 401


class LoginDelayedError(PeerError):
    """Too many failed logins from one address; the next may come in a while."""

    code = "SPK-LOGIN-DELAYED"
    http_status = 429
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ForbiddenError(PeerError):
    """The caller is known, but may not do this."""

    code = "SPK-FORBIDDEN"
    http_status = 403


class RequestError(PeerError):
    """A request to the API that is malformed, or not sent as the API wants it."""

    code = "SPK-REQUEST"

    def __init__(self, message: str, *, http_status: int = 400) -> None:
        super().__init__(message)
        self.http_status = http_status


class NotFoundError(PeerError):
    code = "SPK-NOT-FOUND"
    http_status = 404


class TakenError(PeerError):
    """A host name or port that belongs to another tunnel."""

    code = "SPK-TAKEN"
    http_status = 409


class HeldNameError(TakenError):
    """The host name of a tunnel that was deleted, or renamed, a short while ago."""

    code = "SPK-HELD"


class RulesChangedError(PeerError):
    """A list of rules that was made before the latest change at the server; the newer rules come along."""

    code = "SPK-RULES-CHANGED"
    http_status = 409
    retryable = True


class UnmanagedError(PeerError):
    """A client whose configuration refuses rules from the server."""

    code = "SPK-UNMANAGED"
    http_status = 409


class PolicyError(PeerError):
    """The operator's limits for this user do not allow it: a domain, or one more port or tunnel."""

    code = "SPK-NOT-ALLOWED"
    http_status = 403


class DomainUnverifiedError(PolicyError):
    """A domain that is allowed to the user, who has still to show that it is theirs."""

    code = "SPK-DOMAIN-PROOF"


class VerificationLookupError(OwnError):
    """No name server says whether a domain's TXT record is there."""

    code = "SPK-DNS"
    http_status = 503
    retryable = True


class NameRefusedError(PeerError):
    """A host name that is reserved, malformed or not allowed here."""

    code = "SPK-NAME"


class WildcardNameError(NameRefusedError):
    """A rule for every name below a domain."""

    code = "SPK-WILDCARD"


class RuleError(PeerError):
    """A traffic rule that cannot be served as written."""

    code = "SPK-RULE"


class UsageFaultError(PeerError):
    """A command line that says something no verb takes."""

    code = "SPK-USAGE"


class SignatureError(PeerError):
    """A request between nodes that is not authentic, or comes from a node that may not say it."""

    code = "SPK-CLUSTER-SIGNATURE"
    http_status = 401


class ClockError(PeerError):
    """A request between nodes whose time is too far from this node's clock."""

    code = "SPK-CLUSTER-CLOCK"
    http_status = 401


class ReplayError(PeerError):
    """A request between nodes that came before."""

    code = "SPK-CLUSTER-REPLAY"
    http_status = 401


class ClusterMessageError(PeerError):
    """A batch or answer between nodes that is malformed or too large."""

    code = "SPK-CLUSTER-MESSAGE"


class StaleEpochError(PeerError):
    """A batch of a master that was deposed: `epoch` is the highest that was seen, (number, owner)."""

    code = "SPK-CLUSTER-EPOCH"
    http_status = 409

    def __init__(self, epoch: tuple[int, str]) -> None:
        super().__init__(
            f"node {epoch[1]} owns epoch {epoch[0]}, which is newer",
            hint="this node was deposed; it becomes a replica and synchronizes",
        )
        self.epoch = epoch


class GapError(PeerError):
    """A batch that begins behind what this node has."""

    code = "SPK-CLUSTER-GAP"
    http_status = 409
    retryable = True


class DivergedError(OwnError):
    """Two nodes stand at one position and hold different rows."""

    code = "SPK-CLUSTER-DIVERGED"
    http_status = 409

    def __init__(self, position: tuple[tuple[int, str], int], sender: str) -> None:
        (number, _), seq = position
        super().__init__(
            f"at change {seq} of epoch {number} this node holds other rows than node {sender}",
            hint="spokes cluster sync loads everything from the master again",
        )


class ReplicaError(OwnError):
    """Configuration is changed at the master, and this node is not the master, or not yet or no longer."""

    code = "SPK-REPLICA"
    http_status = 503
    retryable = True


class OperationUnknownError(PeerError):
    """An operation that another node sent and that this program does not know."""

    code = "SPK-OPERATION"


class IdempotencyKeyError(PeerError):
    """A call with the idempotency key of another one."""

    code = "SPK-IDEMPOTENCY-KEY"
    http_status = 409


class ClusterKindError(OwnError):
    """A change of a kind that this program does not know; nothing is passed over."""

    code = "SPK-CLUSTER-KIND"
    http_status = 409

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"a change is of a kind or form that this program does not know: {kind}",
            hint="install the master's version of Spokes here; replication goes on by itself",
        )


class NewerSchemaError(OwnError):
    """The master's store has a schema that this program does not know."""

    code = "SPK-CLUSTER-SCHEMA"
    http_status = 409

    def __init__(self, theirs: int, ours: int) -> None:
        super().__init__(
            f"the master writes schema {theirs}; this program knows up to {ours}",
            hint="install the master's version of Spokes here; replicas are upgraded before the master",
        )


class SnapshotError(PeerError):
    """A snapshot that is cut, damaged, older than what it is to replace, or of another cluster."""

    code = "SPK-CLUSTER-SNAPSHOT"
    retryable = True


class SealError(PeerError):
    """A secret from another node that cannot be opened."""

    code = "SPK-CLUSTER-SEAL"


class PromotionRefusedError(PeerError):
    """A promotion by which changes would be lost."""

    code = "SPK-CLUSTER-PROMOTION"
    http_status = 409


class ServerKeyError(PeerError):
    """The server's key is not the pinned one."""

    code = "SPK-SERVER-KEY"


class UnreachableError(PeerError):
    code = "SPK-UNREACHABLE"
    http_status = 502
    retryable = True


class NobodyThereError(UnreachableError):
    """No TCP connection came about, or the name has no address: whoever should answer was not troubled."""


class RemoteError(PeerError):
    """A refusal that came over a link or an API; it keeps the code that the other side gave it."""

    def __init__(
        self, message: str, *, code: str, hint: str = "", retryable: bool = False, retry_after_s: float = 0.0
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class ValueRefusedError(PeerError):
    """A value that is malformed, too long or out of range."""

    code = "SPK-VALUE"
