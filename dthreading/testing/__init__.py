# SPDX-License-Identifier: Apache-2.0
"""For tests, yours and ours. `local` is a group inside the process: no sockets, no disk, nothing to start. `history`
records what threads and processes asked of locks and queues, and judges whether what they were told could have been.
"""
