# SPDX-License-Identifier: Apache-2.0
"""What must hold over the clients, replicas and log of the lock model, and its scopes."""

from __future__ import annotations

from typing import Any, Final

from tests.scope.clients import ClientFacts, ClientProcess, LockScope
from tests.scope.exploring import Explorer
from tests.scope.hosts import HostProcess, LogFacts, LogProcess
from tests.scope.oracle import WAITS, WITHDRAWN
from tests.scope.places import Process


def judge(facts: tuple[Any, ...]) -> None:
    """In every state."""
    clients: tuple[ClientFacts, ...] = facts[:2]
    log: LogFacts = facts[4]
    outcomes = dict(log.outcomes)
    granted = [value for how, value in outcomes.values() if how == "granted"]
    assert len(granted) == len(set(granted)), "a fence was given twice"
    holding = [client for client in clients if client.holds]
    assert len(holding) < 2, "two clients believe that they hold the lock"
    for client in holding:
        assert (log.view.holder, log.view.fence) == (client.session, client.holds), (
            f"client {client.session} believes that it holds fence {client.holds}, and {log.view} is the truth"
        )
    for client in clients:
        for lane, number, how, value in client.told:
            if lane < 0:  # its time was up before it could be sent
                assert how == "in vain"
                continue
            decided = outcomes.get((client.session, lane, number))
            if how != "lost":
                assert decided is not None, f"client {client.session} was told {how}, of a call that is in no log"
                assert decided == (how, value) or (how == "runtime" and decided == WITHDRAWN), (
                    f"client {client.session} was told {how} {value}, and the log has decided {decided}"
                )


def judge_at_rest(facts: tuple[Any, ...]) -> None:
    """Where nothing is on its way: whoever waits is in the line and nobody else is, and the lock is somebody's."""
    log: LogFacts = facts[4]
    outcomes = dict(log.outcomes)
    assert not any(facts[2:4]), "a replica has accepted a command that will never be decided"
    for client in facts[:2]:
        if client.over or not client.connected:
            continue
        line = [name[1:] for name in log.view.line if name[0] == client.session]
        wants = [client.wants] if client.wants is not None else []
        assert all(outcomes.get((client.session, *want)) == WAITS for want in wants), (
            f"client {client.session} waits for {wants}, and nothing will ever answer it"
        )
        assert line == wants, f"client {client.session} waits for {wants}, but {line} stand in the line: a ghost"
        held = log.view.fence if log.view.holder == client.session else 0
        assert held == client.holds, f"client {client.session} holds {client.holds}, and by the log it is {held}"
    assert log.view.holder or not log.view.line, "the lock is free, and somebody waits"


def explorer(scope: LockScope) -> Explorer:
    """The model of that scope, ready to run."""
    clients = [ClientProcess(place, scope) for place in (0, 1)]
    hosts = [HostProcess(place, scope, clients) for place in (2, 3)]
    processes: list[Process] = [*clients, *hosts, LogProcess(scope, clients)]
    budgets = (scope.acquires, scope.withdrawals, scope.breaks, scope.lapses, scope.leaders, scope.stale)
    return Explorer(processes, judge, at_rest=judge_at_rest, budgets=budgets)


QUICK: Final = {
    "a call is withdrawn": LockScope(acquires=2, withdrawals=1),
    "a connection breaks": LockScope(acquires=2, breaks=1),
    "a call is withdrawn and a connection breaks": LockScope(acquires=1, withdrawals=1, breaks=1),
    "a lease lapses": LockScope(acquires=2, lapses=1),
    "another leader": LockScope(acquires=2, leaders=2),
    "the Expire of a deposed leader": LockScope(acquires=1, leaders=2, stale=1),
}
"""What the tests run: seconds each."""

FINISHED: Final = {
    "acquires=2,withdrawals=1": (6_188, 15_954),
    "acquires=2,breaks=1": (58_212, 177_862),
    "acquires=1,withdrawals=1,breaks=1": (49_403, 170_032),
    "acquires=2,lapses=1": (44_826, 119_184),
    "acquires=2,withdrawals=1,lapses=1": (496_656, 1_489_924),
    "acquires=2,leaders=2": (71_230, 248_370),
    "acquires=1,leaders=2,breaks=1": (568_050, 2_447_506),
    "acquires=2,leaders=2,stale=1": (884_464, 3_423_244),
}
"""Scopes that were searched to the end without a fault: states, transitions. The last takes twelve seconds."""
