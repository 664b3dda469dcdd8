"""Certificates: who holds the secret gets in under its own id, and nobody else under any."""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from container_manager.cluster.certificates import Authority, Identity, explain, peer_id
from container_manager.cluster.errors import POSED_ID, SECRET, TLS, LinkRefused
from container_manager.cluster.secret import ClusterSecret
from container_manager.node import Node, new_key, node_id

if TYPE_CHECKING:
    from pathlib import Path

SECRET_A = ClusterSecret("the first secret, 32 or more characters")
SECRET_B = ClusterSecret("the second secret, 32 or more characters")


def tls(client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A handshake in memory; both ends of it.

    Raises:
        ssl.SSLError: of the first side that fails.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(3):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends


def identity(secret: ClusterSecret = SECRET_A) -> Identity:
    return Identity.from_key(new_key(), secret)


def test_both_sides_learn_the_id_of_the_other() -> None:
    key = new_key()
    one, two = Identity.from_key(key, SECRET_A), identity()
    client, server = tls(one.client, two.server)
    assert peer_id(client) == two.node
    assert peer_id(server) == one.node == Node.from_key(key, "").id
    assert client.version() == server.version() == "TLSv1.3"


def test_each_node_makes_the_same_authority() -> None:
    assert Authority(SECRET_A).certificate == Authority(SECRET_A).certificate
    assert Authority(SECRET_A).certificate != Authority(SECRET_B).certificate


def test_no_clock_is_too_wrong() -> None:
    certificate = x509.load_der_x509_certificate(Authority(SECRET_A).certificate)
    key = Ed25519PrivateKey.from_private_bytes(new_key()).public_key()
    for one in (certificate, Authority(SECRET_A).sign(key, "name")):
        assert one.not_valid_before_utc == datetime(1970, 1, 1, tzinfo=UTC)
        assert one.not_valid_after_utc.year == 9999


@pytest.mark.parametrize("reverse", [False, True])
def test_another_secret_is_refused(reverse: bool) -> None:
    one, two = identity(SECRET_A), identity(SECRET_B)
    if reverse:
        one, two = two, one
    with pytest.raises(ssl.SSLCertVerificationError) as refused:
        tls(one.client, two.server)
    assert explain(refused.value).kind == SECRET
    assert "another cluster secret" in str(explain(refused.value))


def test_an_authority_signs_no_further_authorities() -> None:
    """A node's certificate, used as an authority's, makes nobody a member."""
    key = Ed25519PrivateKey.from_private_bytes(new_key())
    certificate = Authority(SECRET_A).sign(key.public_key(), node_id(b""))
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert not basic.value.ca


@pytest.mark.parametrize("name", ["0" * 32, "", "another"])
def test_a_posed_id_is_refused(name: str) -> None:
    key = new_key()
    honest = identity()
    if not name:
        name = honest.node  # the very node's that is spoken to
    liar = Identity.claiming(name, key, SECRET_A)
    for ends in (tls(honest.client, liar.server), reversed(tls(liar.client, honest.server))):
        with pytest.raises(LinkRefused, match="poses as another node") as refused:
            peer_id(next(iter(ends)))
        assert refused.value.kind == POSED_ID


def test_a_client_without_a_certificate_is_refused() -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLError) as refused:
        tls(bare, identity().server)
    assert explain(refused.value).kind == SECRET
    assert "no certificate" in str(explain(refused.value))


def test_older_tls_is_refused() -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError) as refused:
        tls(old, identity().server)
    assert explain(refused.value).kind == TLS
    assert "TLS 1.3" in str(explain(refused.value))


def test_only_the_clusters_authority_is_trusted() -> None:
    one = identity()
    for context in (one.client, one.server):
        assert context.get_ca_certs(binary_form=True) == [Authority(SECRET_A).certificate]
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.minimum_version == ssl.TLSVersion.TLSv1_3


def test_session_keys_are_written_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    tls(identity().client, identity().server)
    assert not list(tmp_path.iterdir())


def test_keys_are_loaded_without_memfd_too_and_leave_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    client, _ = tls(identity().client, identity().server)
    assert client.version() == "TLSv1.3"
    assert not list(tmp_path.iterdir())


def test_the_secret_is_in_no_certificate() -> None:
    key = Ed25519PrivateKey.from_private_bytes(new_key())
    authority = Authority(SECRET_A)
    shown = authority.certificate + authority.sign(key.public_key(), "x").public_bytes(Encoding.DER)
    for hidden in (b"the first secret", SECRET_A.key(b"authority"), key.private_bytes_raw()):
        assert hidden not in shown
