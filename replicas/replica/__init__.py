# SPDX-License-Identifier: Apache-2.0
"""Sans-IO glue of consensus and the replicated state: what one replica is to its clients, its peers and its shell."""
