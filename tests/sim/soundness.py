# SPDX-License-Identifier: Apache-2.0
"""Whether what consensus keeps on one replica agrees with itself, and with the disk.

Much is kept twice to be quick, and most of what is forgotten on one side heals before anybody is harmed: by the next
leader, page or heartbeat. So it is asked at each turn of each replica, when nothing has healed yet. Each rule stands in
the product as the sentence of an invariant, or follows from what a shell may rely on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Final

from replicas.paxos import leader
from replicas.paxos.core import Paxos
from replicas.paxos.types import Ballot, Entry, EntryKind

__all__ = ["consensus_is_sound", "nothing_above_is_lost", "snapshot_is_sound"]

SLOTS: Final = 8
"""Of those that a replica counts itself for, so many are looked up on its disk in one turn."""


def consensus_is_sound(core: Paxos, disk: Mapping[int, Entry], promised: Ballot) -> None:
    """Between two turns. `disk` and `promised` are what a sync has made durable here."""
    acceptor, log = core._acceptor, core._log
    own = f"replica {core.replica}"
    leadership, candidacy, following = core._leadership, core._candidacy, core._following
    assert leadership is None or candidacy is None, f"{own} leads, and stands"
    assert leadership is None or following is None, f"{own} leads, and follows"
    assert core.ballot_in_force <= acceptor.promised, f"{own} knows a LEADS above its promise"
    assert log.chosen <= core._known <= log.last, f"{own} knows of {core._known} in {log.chosen} to {log.last}"
    assert core._is_member == (core.replica in core.configuration.ids)
    assert acceptor.promised_durably <= promised, f"{own} counts on a promise that is not on its disk"
    for slot in range(max(log.chosen, acceptor.durable - SLOTS) + 1, acceptor.durable + 1):
        assert slot in acceptor.doubtful or disk.get(slot) == log.get(slot), (
            f"{own} counts itself for slot {slot}, and its disk has {disk.get(slot)}, not {log.get(slot)}"
        )
    if leadership is None:
        rounds = core._confirmations
        assert not rounds.asked, f"{own} does not lead, and somebody waits for its word"
        assert not rounds.under_way, f"{own} does not lead, and a round of its reign is under way"
    if leadership is not None:
        _leadership_is_sound(core)
    elif candidacy is not None:
        assert candidacy.configuration == core.configuration, f"{own} stands in another configuration"
        assert candidacy._votes.keys() | {core.replica} == set(core.configuration.ids)
        assert not candidacy.preparing or candidacy.ballot == acceptor.promised, (
            f"{own} prepares, and has promised more"
        )
    elif following is not None:
        assert following.ballot == acceptor.promised, f"{own} follows below its promise"
        assert following.leader == following.ballot.replica
        assert following.received is None or following.received <= log.last


@contextlib.contextmanager
def nothing_above_is_lost(core: Paxos, slot: int) -> Iterator[None]:
    """While a snapshot of that slot is installed: what was promised, accepted and doubted above it stays so."""
    log, own = core._log, f"replica {core.replica}"
    promised, doubtful = core.promised, {one for one in core._acceptor.doubtful if one > slot}
    above = log.span(slot + 1, log.last) if log.first <= slot + 1 <= log.last else []
    yield
    assert core.promised >= promised, f"{own} forgets its promise for a snapshot"
    assert doubtful <= core._acceptor.doubtful, f"{own} doubts no more what a snapshot of {slot} does not hold"
    for entry in above:
        kept = entry.slot < log.first or (entry.slot <= log.last and log.get(entry.slot) == entry)
        assert kept, f"{own} forgets slot {entry.slot} for a snapshot of {slot}"


def snapshot_is_sound(core: Paxos, slot: int, promised: Ballot) -> None:
    """One of that slot is begun: whoever starts from it promises as much as those slots were chosen under."""
    log, own = core._log, f"replica {core.replica}"
    highest = max((entry.ballot for entry in log.span(log.first, slot)), default=promised)
    assert promised >= highest, f"{own} cuts a snapshot of {slot} that promises {promised}, below {highest}"


def _leadership_is_sound(core: Paxos) -> None:
    leadership, log, own = core._leadership, core._log, f"replica {core.replica}"
    assert leadership is not None
    assert leadership.configuration == core.configuration, f"{own} leads in another configuration than is in force"
    assert leadership.ballot == core._acceptor.promised, f"{own} leads below its promise"
    assert leadership.ballot.replica == core.replica
    assert leadership.last <= log.last, f"{own} has proposed {leadership.last}, and has {log.last}"
    assert leadership.barrier in {0, leadership.last}, f"{own} has proposed beyond {leadership.barrier}"
    assert not leadership.barrier or leadership.barrier > log.chosen
    if leadership.barrier:
        entry = log.get(leadership.barrier)
        changes = entry.kind == EntryKind.CONFIGURATION and core._changes_epoch(entry)
        assert changes, f"{own} proposes nothing beyond slot {entry.slot}, which changes no members"
    assert leadership.leads_slot or leadership.barrier, f"{own} leads without a LEADS"
    assert not core.ready or core.ballot_in_force == leadership.ballot, f"{own} is ready, and its LEADS is not in force"
    for slot in range(log.chosen + 1, min(leadership.last, log.chosen + SLOTS) + 1):
        entry = log.get(slot)
        if entry.kind == EntryKind.CONFIGURATION and core._changes_epoch(entry):
            assert leadership.barrier == slot, f"{own} has members to be chosen in slot {slot}, and goes on beyond"
    assert leadership.followers.keys() | {core.replica} == set(core.configuration.ids)
    assert sum(leadership._window) == leadership._window_bytes
    rounds = core._confirmations
    latest = rounds._rounds[-1][0] if rounds.under_way else 0
    assert latest <= leadership.heartbeat, f"{own} waits for heartbeat {latest}, and was never there in this reign"
    for member, follower in leadership.followers.items():
        assert max(follower.acked, follower.sent) <= leadership.last, f"{own}: {member} has what nobody has proposed"
        assert follower.beat <= leadership.heartbeat, f"{own}: {member} has answered what was not asked"
        assert follower.told <= log.chosen
        assert len(follower.pages) <= leader.PAGES_IN_FLIGHT
