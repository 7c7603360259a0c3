# SPDX-License-Identifier: Apache-2.0
"""Multi-Paxos with a stable leader, all roles of one replica, without I/O: step and tick put in, take gets out."""

from __future__ import annotations

from collections.abc import Callable

from replicas.paxos.messages import PeerMessage
from replicas.paxos.types import Ballot, Configuration, Durable, Output, Role, Timing


class Paxos:
    """One replica's part in the agreement. The shell's loop is: step and tick and propose, then take, then do what it says."""

    def __init__(
        self,
        *,
        replica: int,
        configuration: Configuration,
        durable: Durable,
        timing: Timing,
        luck: Callable[[], float],
        now_ms: int,
    ) -> None:
        raise NotImplementedError

    role: Role
    leader: int | None
    ballot: Ballot
    ballot_in_force: Ballot
    chosen: int
    chain: int
    promised: Ballot
    configuration: Configuration
    first_kept: int
    ready: bool
    wake_ms: int

    def step(self, source: int, message: PeerMessage) -> None:
        """A message of consensus from replica `source` arrived."""

    def tick(self, now_ms: int) -> None:
        """It is now `now_ms`. At any time, any number of times; call it before step() and no later than `wake_ms`."""

    def propose(self, value: bytes) -> int | None:
        """Propose a command; its slot, or None when this replica is no ready leader or its window is full.

        The slot is a hint: another leader may put another value there. Whoever must know watches what is chosen.
        """

    def reconfigure(self, configuration: Configuration) -> int | None:
        """Propose the configuration of the next epoch; None as propose(), or while another change is in flight."""

    def confirm(self, token: object) -> bool:
        """Ask whether this replica still leads, by a heartbeat round that starts after now; False when it does not lead."""

    def inform(self, replica: int) -> None:
        """That follower waits for what was proposed up to now: tell it as soon as it is chosen, not with the next message."""

    def synced(self, batch: int) -> None:
        """Everything persisted up to and with this batch is on disk."""

    def compact(self, slot: int, chain: int) -> None:
        """A snapshot of `slot`, or of a later one, is durable: forget the entries at or below `slot`."""

    def chain_at(self, slot: int) -> int:
        """The hash chain at a chosen slot that is kept, or at the one before the first kept: it goes into a snapshot's header."""

    def installed(self, slot: int, configuration: Configuration, chain: int) -> None:
        """The shell has fetched, stored and loaded a peer's snapshot of `slot`: go on from there."""

    def hand_over(self) -> None:
        """Pass leadership to the follower that has most, and propose nothing more (a stop, or a disk that hangs)."""

    def take(self) -> Output:
        """Everything that has become due since the last take."""
