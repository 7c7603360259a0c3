# SPDX-License-Identifier: Apache-2.0
"""Every limit that both sides of the wire know, with its reason. Nothing else may invent a number of this kind."""

from __future__ import annotations

from typing import Final

FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
"""The largest frame body. Refused on the length prefix, before memory is taken: a prefix of 4 GB must cost nothing."""

HANDSHAKE_FRAME_BYTES_MAX: Final = 4096
"""The largest frame from a peer that has not authenticated yet; a stranger gets no more of our memory than this."""

NESTING_MAX: Final = 16
"""How deep containers may nest in a frame. Ours nest four deep; the rest is room for plain values in arguments."""

ELEMENTS_MAX: Final = 65_536
"""The most elements in one array or map of a frame: what a snapshot page or a catch-up page may carry."""

ELEMENTS_PER_FRAME_MAX: Final = 1_048_576
"""The most elements of all arrays and maps of a frame together, so that unpacking one takes 150 MB at worst and not
1.2 GB. A full page of the log has 30,000, the largest answer to a person some 200,000."""

INT_BYTES_MAX: Final = 256
"""The largest int in a call, in bytes: 617 digits. Python may be told to write no int of more than 640 digits as text
(PYTHONINTMAXSTRDIGITS), so a larger one would break whoever names it in an error."""

COMMAND_BYTES_MAX: Final = FRAME_BYTES_MAX - 64 * 1024
"""The largest frame of a client: it must fit what replicas put around it, a promise or a page of the log."""

NAME_BYTES_MAX: Final = 1024
"""The longest object name or namespace in UTF-8 bytes. A namespace may be a script's path."""

LABEL_BYTES_MAX: Final = 2048
"""The longest label of a session: ours are 200 characters, which may take six bytes each."""

OP_BYTES_MAX: Final = 64
"""The longest name of an operation; all of ours are shorter than 20."""

ARGUMENTS_MAX: Final = 16
"""The most arguments of one call."""

ITEM_BYTES_MAX: Final = 8 * 1024 * 1024
"""The largest queue item after serialization. It must fit a frame, a log record and a catch-up page with room to
spare."""

LANES_PER_SESSION_MAX: Final = 65_536
"""Concurrent calls of one session, so concurrent blocked threads of one process. A lane costs about 200 bytes on each
replica."""

SESSIONS_MAX: Final = 100_000
"""Live sessions of one group. A session costs about 1 KB on a replica, 3.5 KB where its client is connected."""

ATTACHMENTS_PER_SESSION_MAX: Final = 1_000_000
"""Objects one session may be attached to at one time."""

OBJECTS_LISTED_MAX: Final = 1000
"""The most objects, or sessions, in one answer to a person: it must fit a frame. `dthreading locks` tells of more."""

SESSION_TTL_MS_MIN: Final = 500
"""The shortest lease. Below it, ordinary scheduling noise on a busy machine would end sessions."""

SESSION_TTL_MS_MAX: Final = 3_600_000
"""The longest lease: nobody should wait longer than an hour for the dead."""
