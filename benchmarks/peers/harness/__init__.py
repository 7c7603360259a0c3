# SPDX-License-Identifier: Apache-2.0
"""Shared parts of the peer benchmark: adapter interface, workers, workloads."""
