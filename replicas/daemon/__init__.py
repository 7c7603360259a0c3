# SPDX-License-Identifier: Apache-2.0
"""The shell around one replica: the only clock, chance, sockets and disk on this side, and the process they live in."""
