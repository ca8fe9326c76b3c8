"""What can come of running a contract or a measurement; none of these is ever folded into another."""

from __future__ import annotations

from enum import StrEnum


class Severity(StrEnum):
    """How much a user is hurt when a contract is broken."""

    MUST = "MUST"
    SHOULD = "SHOULD"
    MAY = "MAY"

    @property
    def meaning(self) -> str:
        return {
            "MUST": "a drop-in breaks without it",
            "SHOULD": "users rely on it",
            "MAY": "a capability: right, or refused with a clear error",
        }[self.value]


class Outcome(StrEnum):
    """The result of one (contract, implementation, case), or of one cell of a benchmark."""

    PASSED = "passed"
    FAILED = "failed"
    EXPECTED_FAILURE = "expected-failure"
    DOES_NOT_APPLY = "does-not-apply"
    UNSUPPORTED = "unsupported"
    UNAVAILABLE = "unavailable"
    CRASHED = "crashed"
    TIMED_OUT = "timed-out"
    OUT_OF_MEMORY = "out-of-memory"

    @property
    def meaning(self) -> str:
        return {
            "passed": "did what the contract says",
            "failed": "broke the contract, or answered where it should have refused",
            "expected-failure": "failed as the implementation declares, with the declared exception",
            "does-not-apply": "the contract says nothing about this implementation",
            "unsupported": "refused with NotImplementedError, or declared as not supported",
            "unavailable": "cannot run on this machine",
            "crashed": "ended the process that ran it, or left it without its device",
            "timed-out": "did not answer within the time limit",
            "out-of-memory": "needed more memory than there was",
        }[self.value]

    @property
    def fails_run(self) -> bool:
        """Whether this outcome makes the exit status of a run non-zero.

        Severity plays no part: a MAY contract ends as UNSUPPORTED when the implementation refuses clearly, so what is
        left as FAILED is a silently wrong answer, and that is a failure at any level.
        """
        return self in (Outcome.FAILED, Outcome.CRASHED, Outcome.TIMED_OUT, Outcome.OUT_OF_MEMORY)


#: How the message begins of what ended as TIMED_OUT without having been begun: others of the implementation had not answered in time.
NOT_RUN = "not run: "
