# SPDX-License-Identifier: Apache-2.0
"""Sans-IO Multi-Paxos with a stable leader: `core.Paxos` takes messages and time, and says what to persist, send and
apply.
"""
