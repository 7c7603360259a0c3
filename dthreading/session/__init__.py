# SPDX-License-Identifier: Apache-2.0
"""A client's session with the group, without I/O. A map: `calls` is what a call is, `fate` what becomes of one
that is not answered, `lease` how long we may believe to
live, `words` what may be said and what means anything, `core` the session that sends calls, again and again, until they
are answered.
"""

from __future__ import annotations

from dthreading.session.calls import (
    ACQUIRE,
    CHANGE,
    GET,
    GET_NOWAIT,
    JOIN,
    PUT,
    PUT_NOWAIT,
    PUT_SIMPLE,
    READ,
    RELEASE,
    RESTORE,
    TRY_ACQUIRE,
    WAIT_BARRIER,
    WAIT_CONDITION,
    WAIT_EVENT,
    Answer,
    Manner,
    OnLost,
    PendingCall,
    Target,
)
from dthreading.session.core import ClientSession
from dthreading.session.fate import Deadline, Fate, when_late, when_lost
from dthreading.session.lease import State

__all__ = [
    "ACQUIRE",
    "CHANGE",
    "GET",
    "GET_NOWAIT",
    "JOIN",
    "PUT",
    "PUT_NOWAIT",
    "PUT_SIMPLE",
    "READ",
    "RELEASE",
    "RESTORE",
    "TRY_ACQUIRE",
    "WAIT_BARRIER",
    "WAIT_CONDITION",
    "WAIT_EVENT",
    "Answer",
    "ClientSession",
    "Deadline",
    "Fate",
    "Manner",
    "OnLost",
    "PendingCall",
    "State",
    "Target",
    "when_late",
    "when_lost",
]
