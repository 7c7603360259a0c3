# SPDX-License-Identifier: Apache-2.0
"""Every limit of consensus, with its reason."""

from __future__ import annotations

from typing import Final

WINDOW_ENTRIES: Final = 8192
"""Proposals of a leader that are not chosen yet, or not on its own disk yet. Several times what a turn of the loop
brings, and a new leader has at most about this many slots to propose again."""

WINDOW_BYTES: Final = 16 * 1024 * 1024
"""The same in bytes of values. One larger value may stand alone in the window, so no value is ever unproposable."""

PAGE_ENTRIES: Final = 4096
"""Entries in one message, well below what the wire takes in one array."""

PAGE_BYTES: Final = 4 * 1024 * 1024
"""Bytes of values in one message, unless a single value is larger; a quarter of the largest frame."""

PAGES_IN_FLIGHT: Final = 16
"""Accepts with entries that a follower has not acknowledged. More batches wait and become one larger page.
With PAGE_BYTES this also bounds what a leader holds in memory for a follower that has stopped reading."""

ENTRY_OVERHEAD_BYTES: Final = 32
"""What an entry costs beside its value, so that a flood of empty values is bounded too."""
