# SPDX-License-Identifier: Apache-2.0
"""What holds for all tests."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in whatever a shell has put into the background. The programs that tests start would inherit it, and Ctrl-C is
    # among what they are tested with.
    signal.signal(signal.SIGINT, signal.default_int_handler)
