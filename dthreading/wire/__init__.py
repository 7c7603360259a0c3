# SPDX-License-Identifier: Apache-2.0
"""The words both sides know: messages, their encoding, framing, the handshake, and the limits. Imports only
dthreading.errors.
"""
