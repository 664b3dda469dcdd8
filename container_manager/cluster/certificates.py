"""Mutual TLS among those who hold the cluster secret, and nobody else.

Each node derives the same certificate authority from the secret and signs a certificate with it
for its own identity key. Nothing is ever asked of an authority elsewhere, and no private key but
the node's own leaves memory. Times do not matter: a node whose clock is wrong has to get in, and
who is to be shut out is shut out by another secret.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from container_manager.cluster.errors import POSED_ID, SECRET, TLS, LinkRefused
from container_manager.cluster.secret import AUTHORITY, ClusterSecret
from container_manager.node import node_id

_FROM = datetime(1970, 1, 1, tzinfo=UTC)
_UNTIL = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""What RFC 5280, section 4.1.2.5, has for certificates that do not expire."""
_AUTHORITY_NAME = x509.Name(
    [x509.NameAttribute(NameOID.COMMON_NAME, "container-manager cluster authority")]
)

_SECRET_ALERTS = frozenset(
    {
        "TLSV1_ALERT_UNKNOWN_CA",
        "TLSV1_ALERT_DECRYPT_ERROR",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    }
)
_NO_TLS = frozenset({"HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "WRONG_VERSION_NUMBER"})
_OLD_TLS = frozenset(
    {"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_SHARED_CIPHER", "VERSION_TOO_LOW"}
)


class Authority:
    """The certificate authority of one cluster: the same at each node."""

    def __init__(self, secret: ClusterSecret) -> None:
        """Derive it; nothing of it depends on where or when."""
        self._key = Ed25519PrivateKey.from_private_bytes(secret.key(AUTHORITY))
        usage = _key_usage(digital_signature=False, key_cert_sign=True)
        self._own_key_id = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        self._certificate = (
            _builder(_AUTHORITY_NAME, self._key.public_key(), serial=1)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(self._own_key_id, critical=False)
            .sign(self._key, None)
        )

    @property
    def certificate(self) -> bytes:
        """The authority's certificate, as DER."""
        return self._certificate.public_bytes(Encoding.DER)

    def sign(self, public_key: Ed25519PublicKey, name: str) -> x509.Certificate:
        """A certificate for a node's key, with its id as the common name."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        issuer_key_id = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
            self._own_key_id
        )
        return (
            _builder(subject, public_key, serial=x509.random_serial_number())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True, key_cert_sign=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(issuer_key_id, critical=False)
            .sign(self._key, None)
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """What a node shows on links, and by what it judges what others show."""

    node: str
    """The node's id."""
    cluster: str
    """16 hexadecimal digits that tell clusters apart, and are no secret."""
    server: ssl.SSLContext
    client: ssl.SSLContext

    @classmethod
    def from_key(cls, private_key: bytes, secret: ClusterSecret) -> Identity:
        """Of the node with this identity key (32 bytes), in the cluster with this secret."""
        public = Ed25519PrivateKey.from_private_bytes(private_key).public_key()
        return cls.claiming(node_id(public.public_bytes_raw()), private_key, secret)

    @classmethod
    def claiming(cls, node: str, private_key: bytes, secret: ClusterSecret) -> Identity:
        """As `from_key`, with an id that may be another's; others refuse it then."""
        key = Ed25519PrivateKey.from_private_bytes(private_key)
        authority = Authority(secret)
        pem = authority.sign(key.public_key(), node).public_bytes(Encoding.PEM) + key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        server = _context(ssl.PROTOCOL_TLS_SERVER, authority, pem)
        server.num_tickets = 0  # nobody resumes a session
        cluster = hashlib.sha256(authority.certificate).hexdigest()[:16]
        return cls(node, cluster, server, _context(ssl.PROTOCOL_TLS_CLIENT, authority, pem))


def peer_id(tls: ssl.SSLObject | ssl.SSLSocket) -> str:
    """The id of the node on the other side of a finished handshake.

    TLS has shown that it holds the key of its certificate; the id has to be the hash of that key.

    Raises:
        LinkRefused: the certificate was made for another id.
    """
    der = tls.getpeercert(binary_form=True)
    try:
        certificate = x509.load_der_x509_certificate(der or b"")
        key = certificate.public_key()
        names = [str(one.value) for one in certificate.subject]
    except ValueError:
        raise LinkRefused("its certificate is malformed", POSED_ID) from None
    if not isinstance(key, Ed25519PublicKey):
        raise LinkRefused("its certificate is not for an Ed25519 key", POSED_ID)
    found = node_id(key.public_bytes_raw())
    if names != [found]:
        raise LinkRefused(
            f"it poses as another node: its key is that of node {found}, and its certificate "
            "says otherwise",
            POSED_ID,
        )
    return found


def explain(error: ssl.SSLError) -> LinkRefused:
    """What a failed handshake means, told of the other side ("it …")."""
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return LinkRefused("it has another cluster secret", SECRET)
    if reason in _SECRET_ALERTS:
        return LinkRefused("it refuses this node's certificate: the cluster secrets differ", SECRET)
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return LinkRefused("it shows no certificate, so it has no cluster secret", SECRET)
    if reason in _NO_TLS:
        return LinkRefused("it does not speak TLS", TLS)
    if reason in _OLD_TLS:
        return LinkRefused("it does not speak TLS 1.3", TLS)
    return LinkRefused(f"the TLS handshake failed ({reason or 'for no known reason'})", TLS)


def _builder(subject: x509.Name, key: Ed25519PublicKey, *, serial: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_AUTHORITY_NAME)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
    )


def _key_usage(*, digital_signature: bool, key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _context(protocol: int, authority: Authority, pem: bytes) -> ssl.SSLContext:
    """Mutual TLS 1.3 under this authority alone.

    Not `ssl.create_default_context`: it trusts the system's authorities too, and writes session
    keys where SSLKEYLOGFILE says.
    """
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # nodes are known by their keys, wherever they are
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority.certificate)
    _load(context, pem)
    return context


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Give a context its certificate and key, which `ssl` reads from files only."""
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("certificate", os.MFD_CLOEXEC)
        with os.fdopen(number, "wb") as file:
            file.write(pem)
            file.flush()
            with suppress(FileNotFoundError):  # where /proc is not mounted
                context.load_cert_chain(f"/proc/self/fd/{number}")
                return
    with tempfile.NamedTemporaryFile() as file:  # mode 0600
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
