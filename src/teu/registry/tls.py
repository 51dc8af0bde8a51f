"""Which certificates are trusted, and shown, for which host: the `certs.d` folders.

    certs.d/HOST[:PORT]/*.crt             authorities to trust besides the system's
                        NAME.cert, .key   our own certificate

Source: Docker's documentation, "Verify repository client with certificates".
"""

import ssl
from pathlib import Path

from yarl import URL

from teu.errors import SystemFailure
from teu.registry.config import RegistryConfig, is_insecure


class Certificates:
    """TLS settings by host, made when first needed."""

    def __init__(self, config: RegistryConfig) -> None:
        self._config = config
        self._contexts: dict[str, ssl.SSLContext | bool] = {}

    def context(self, target: URL) -> ssl.SSLContext | bool:
        """For aiohttp: a context, True for the system's authorities, False to trust anybody.

        Raises: SystemFailure for files that are no certificates.
        """
        host = f"{target.host}:{target.port}"
        if host not in self._contexts:
            self._contexts[host] = self._made(target)
        return self._contexts[host]

    def _made(self, target: URL) -> ssl.SSLContext | bool:
        names = (target.authority, f"{target.host}:{target.port}", str(target.host))
        insecure = any(is_insecure(self._config, name) for name in names)
        for base in self._config.certs_directories:
            for name in names:
                if (base / name).is_dir():
                    return _custom(base / name, verify=not insecure)
        return not insecure


def _custom(directory: Path, *, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        for path in sorted(directory.glob("*.crt")):
            context.load_verify_locations(path)
        for path in sorted(directory.glob("*.cert")):
            context.load_cert_chain(path, path.with_suffix(".key"))
    except (OSError, ssl.SSLError) as error:
        raise SystemFailure(f"cannot use the certificates in {directory}: {error}") from error
    return context
