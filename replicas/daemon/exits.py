# SPDX-License-Identifier: Apache-2.0
"""What the end of the process means, in numbers for supervisors and in words for people."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """What the end of the process means, for supervisors and scripts."""

    STOPPED = 0
    """Asked to stop (SIGTERM, SIGINT, or an embedded group that nobody uses), and stopped cleanly."""
    FAILED = 1
    """An error of ours; the log has the details. Restarting is safe."""
    REFUSED = 2
    """Bad options, or a data directory, address or secret that cannot be used. Restarting changes nothing."""
    DISK_FAILED = 3
    """Writing or syncing the log failed. What was acknowledged is on the disks of a quorum; look at this disk first."""
    TAKEN = 4
    """Another process holds the data directory (for the embedded group: it is up already, which is well)."""
    DATA_GONE = 5
    """The directory is empty, but the group knows this replica: its data is gone and it must not vote again."""
    REMOVED = 6
    """The group has gone on without this replica, whose id is used up: its directory is of no more use."""
    DIVERGED = 7
    """Its state was found to differ from that of the majority: its memory or its program is wrong. To be replaced."""


EXIT_CODES_HELP: Final = """exit codes:
  0  asked to stop, and stopped cleanly
  1  an error of ours; the log says more
  2  bad options, or an address, secret or data directory that cannot be used
  3  writing or syncing the log failed
  4  another process holds the data directory
  5  the directory is empty but the group knows this replica: its data is gone
  6  this replica was removed from its group, and never comes back
  7  its state was found to differ from the majority's: it is to be replaced
"""
