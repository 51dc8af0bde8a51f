"""TLS for TCP listeners, from PEM files: a certificate of ours, and clients' of our authority."""

import ssl

from teu.daemon.config import DaemonConfig, TlsMode
from teu.errors import InvalidParameter


class BadCertificate(InvalidParameter):
    """A file that TLS needs is missing or wrong; the message names it."""


def server_context(config: DaemonConfig) -> ssl.SSLContext | None:
    """None when TLS is off. TLS 1.2 or newer; with `MUTUAL` a client must show a certificate.

    Raises: BadCertificate.
    """
    if config.tls in (TlsMode.OFF, TlsMode.UNSAID):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(config.tlscert, config.tlskey)
    except (OSError, ssl.SSLError) as error:
        raise BadCertificate(
            f'Could not load X509 key pair (cert: "{config.tlscert}", key: "{config.tlskey}"): '
            f"{_reason(error)}. Give the files with --tlscert and --tlskey"
        ) from error
    if config.tls is TlsMode.MUTUAL:
        _demand_certificates(context, config)
    return context


def _demand_certificates(context: ssl.SSLContext, config: DaemonConfig) -> None:
    try:
        context.load_verify_locations(config.tlscacert)
    except (OSError, ssl.SSLError) as error:
        raise BadCertificate(
            f'could not read CA certificate "{config.tlscacert}": {_reason(error)}. Give the '
            "authority that signs your clients' certificates with --tlscacert"
        ) from error
    context.verify_mode = ssl.CERT_REQUIRED


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "not PEM, or the key is of another certificate"
    return (error.strerror or str(error)).lower()
