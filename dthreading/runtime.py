# SPDX-License-Identifier: Apache-2.0
"""The only I/O of the client: one socket, one service thread, and calling threads that write and then wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dthreading.session import Answer, Manner, Target

__all__ = ["Client", "client", "thread_token"]


def client() -> Client:
    """The process's client for the configured group: made on first use, and anew in a forked child. Opens nothing yet."""
    raise NotImplementedError


def thread_token() -> str:
    """This thread's name in the replicated state: minted by us, since the system reuses its own; new after a fork."""
    raise NotImplementedError


class Client:
    """One process's connection to one group."""

    def call(
        self,
        target: Target,
        operation: str,
        arguments: tuple[Any, ...],
        manner: Manner,
        timeout: float | None = None,
        *,
        others: tuple[Target, ...] = (),
    ) -> Answer:
        """One operation, once. Returns its answer, or raises what it raised.

        Args:
            target: attached on first use in each session.
            operation: its name on the wire.
            arguments: plain values. Where the handle of another object belongs, the `Target` itself stands, and it is
                named in `others` as well.
            manner: one of the constants of `dthreading.session`.
            timeout: how long it may wait in the replicated state; None is for ever.
            others: targets among the arguments.

        Returns:
            The replica's answer. Where time runs out: the verdict of the object (False, or the error it answers a
            withdrawn call with); Answer(False, 0) when there is no verdict and `manner.patience` allows to go without.

        """
        raise NotImplementedError

    def holds_are_valid(self, session: int) -> bool:
        """False once the session is lost by our own clock, and then for ever."""
        raise NotImplementedError

    def detach(self, target: Target) -> None:
        """Nobody uses this target any more. Safe from `__del__` and finalizers: enqueues, nothing else."""
        raise NotImplementedError
