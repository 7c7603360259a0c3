# SPDX-License-Identifier: Apache-2.0
"""Bugs that sessions and locks must not have, each with a small scope that finds it."""

from __future__ import annotations

from typing import Final

from tests.scope.clients import LockScope
from tests.scope.planting import Bug

_WITHDRAWN = LockScope(acquires=2, withdrawals=1)

BUGS: Final = (
    Bug(
        "a Withdraw leaves a ghost in the line",
        "replicas.machine.calls:Calls._abandon",
        "waiter.leave()",
        "queue = waiter.queue",
        _WITHDRAWN,
    ),
    Bug(
        "a Withdraw that overtakes its call is forgotten",
        "replicas.machine.calls:Calls._withdraw",
        "lane = self._new_number(session, withdraw.lane, withdraw.number)",
        "return",
        LockScope(acquires=1, withdrawals=1, breaks=1),
    ),
    Bug(
        "a call that was sent again is applied again",
        "replicas.machine.calls:Calls._new_number",
        "number <= lane.number:",
        "number < lane.number:",
        LockScope(acquires=1, breaks=1),
    ),
    Bug(
        "a copy of a call is not answered",
        "replicas.machine.calls:Calls._repeat",
        "if lane.reply is not None:",
        "if False:",
        LockScope(acquires=1, breaks=1),
    ),
    Bug(
        "an Expire of an older ballot is obeyed",
        "replicas.machine.core:Machine._is_in_force",
        "(proposed.round, proposed.replica) == self.ballot_in_force",
        "True",
        LockScope(acquires=1, leaders=2, stale=1),
    ),
    Bug(
        "a lock that is given back is not passed on",
        "replicas.objects.lock:Lock.undo",
        "self._pass_on()",
        "self.host.unstake(session, self); self.owner, self.count = None, 0",
        _WITHDRAWN,
    ),
    Bug(
        "an undo gives back nothing",
        "replicas.machine.calls:Calls._undo",
        "subject.fault is None",
        "subject.fault is not None",
        _WITHDRAWN,
    ),
    Bug(
        "the lock of a session that ends stays taken",
        "replicas.objects.lock:Ownable.session_ended",
        "self.owner == session",
        "False",
        LockScope(acquires=1, lapses=1),
    ),
    Bug(
        "the waits of a session that ends stay in the line",
        "replicas.machine.core:Machine._end",
        "stood = [(waiter, waiter.queue) for waiter in session.waits.values()]",
        "stood = []",
        LockScope(acquires=2, lapses=1),
    ),
    Bug(
        "a new leader is not told of what is pending",
        "replicas.replica.core:Replica._notice_reign",
        "self._to_propose.extend(self._hosting.pending)",
        "pass",
        LockScope(acquires=1, leaders=2, breaks=1),
    ),
    Bug(
        "a client does not send its calls again",
        "dthreading.session.core:ClientSession._say_again",
        "self._ready.append(call.frame)",
        "pass",
        LockScope(acquires=1, breaks=1),
    ),
    Bug(
        "a client forgets an undo that is on its way",
        "dthreading.session.core:ClientSession._undo",
        "lane.undo = call",
        "self._lanes.free.append(lane)",
        LockScope(acquires=2, withdrawals=1, breaks=1),
    ),
    Bug(
        "an undo is not sent again",
        "dthreading.session.core:ClientSession._say_again",
        "lane.undo is not None",
        "False",
        LockScope(acquires=1, withdrawals=1, breaks=1),
    ),
)
