# SPDX-License-Identifier: Apache-2.0
"""Nobody gets in who does not know the secret, and the secret itself is never sent."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from dthreading.errors import NotAuthenticated, ProtocolError
from dthreading.wire.auth import Acceptor, Connector, load_secret, make_secret
from dthreading.wire.messages import Challenge, Hello, Proof, Rejected, Role

A, B = b"a" * 16, b"b" * 16
SECRET, OTHER = b"s" * 32, b"o" * 32


def test_both_who_know_the_secret_agree() -> None:
    connector, acceptor = Connector(Role.REPLICA, SECRET, A), Acceptor(SECRET, B)
    challenge = acceptor.step(connector.hello())
    assert isinstance(challenge, Challenge)
    assert acceptor.step(connector.challenged(challenge)) is None
    assert acceptor.role is Role.REPLICA


def test_a_server_without_the_secret_learns_nothing() -> None:
    """The acceptor proves first: a program that took the server's port gets a nonce and no proof."""
    connector, acceptor = Connector(Role.CLIENT, SECRET, A), Acceptor(OTHER, B)
    challenge = acceptor.step(connector.hello())
    assert isinstance(challenge, Challenge)
    with pytest.raises(NotAuthenticated, match="secret"):
        connector.challenged(challenge)


def test_a_server_that_wants_no_proof_is_not_believed_by_a_client_that_has_a_secret() -> None:
    connector, acceptor = Connector(Role.CLIENT, SECRET, A), Acceptor(None, B)
    challenge = acceptor.step(connector.hello())
    assert isinstance(challenge, Challenge)
    with pytest.raises(NotAuthenticated):
        connector.challenged(challenge)


@pytest.mark.parametrize("proof", [b"", b"x" * 32])
def test_a_client_without_the_secret_is_rejected(proof: bytes) -> None:
    acceptor = Acceptor(SECRET, B)
    acceptor.step(Connector(Role.CLIENT, None, A).hello())
    answer = acceptor.step(Proof(proof))
    assert isinstance(answer, Rejected)
    assert answer.code == "not_authenticated"
    assert acceptor.role is None


def test_a_proof_is_bound_to_role_nonces_and_side() -> None:
    """Neither a recorded proof, nor the acceptor's own reflected, nor a client's used for a replica, opens the door."""
    connector, acceptor = Connector(Role.CLIENT, SECRET, A), Acceptor(SECRET, B)
    challenge = acceptor.step(connector.hello())
    assert isinstance(challenge, Challenge)
    proof = connector.challenged(challenge)
    replayed = Acceptor(SECRET, b"c" * 16)
    replayed.step(connector.hello())
    assert isinstance(replayed.step(proof), Rejected)
    reflected = Acceptor(SECRET, B)
    own = reflected.step(connector.hello())
    assert isinstance(own, Challenge)
    assert isinstance(reflected.step(Proof(own.proof)), Rejected)
    promoted = Acceptor(SECRET, B)
    promoted.step(connector.hello()._replace(role=Role.REPLICA))
    assert isinstance(promoted.step(proof), Rejected)


def test_another_version_is_told_so_by_name() -> None:
    answer = Acceptor(SECRET, B).step(Connector(Role.CLIENT, SECRET, A).hello()._replace(version=99))
    assert isinstance(answer, Rejected)
    assert "version 99" in answer.reason


def test_frames_out_of_order_are_protocol_errors() -> None:
    with pytest.raises(ProtocolError):
        Acceptor(SECRET, B).step(Proof(b""))
    with pytest.raises(ProtocolError):
        Acceptor(SECRET, B).step(Hello("redis", 1, 0, A))


def test_the_secret_file_is_made_once_and_for_its_user_only(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "secret"
    secret = make_secret(path)
    assert make_secret(path) == secret == load_secret(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["secret"]


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    make_secret(path)
    path.chmod(0o644)
    with pytest.raises(NotAuthenticated, match="chmod 600"):
        load_secret(path)
    path.chmod(0o600)
    path.write_text("short\n")
    with pytest.raises(NotAuthenticated, match="hexadecimal"):
        load_secret(path)
