"""A container's /etc/hosts, /etc/hostname and /etc/resolv.conf, in its home directory."""

from pathlib import Path

from teu.errors import SystemFailure
from teu.model.container import ContainerRecord
from teu.network import files
from teu.network.config import NetworkConfig
from teu.network.service import NetworkService


class EtcFiles:
    """Written before each start, when the addresses are known."""

    def __init__(self, config: NetworkConfig, networks: NetworkService) -> None:
        self._config = config
        self._networks = networks

    def write(self, home: Path, record: ContainerRecord) -> None:
        """Raises: InvalidParameter (bad name server, search domain or extra host)."""
        config, host = self._config, record.host
        naming = files.Naming(
            hostname=record.config.hostname,
            domainname=record.config.domainname,
            addresses=[s.ip_address for s in record.networks.values() if s.ip_address],
            extra_hosts=[
                files.parse_extra_host(text, self.host_gateway()) for text in host.extra_hosts or []
            ],
            asked=files.checked_resolver(
                host.dns or config.dns,
                host.dns_search or config.dns_search,
                host.dns_options or config.dns_options,
            ),
            uses_host_network=host.network_mode == "host",
        )
        try:
            files.write(home, files.contents(naming))
        except OSError as error:
            raise SystemFailure(f"cannot write the container's /etc files: {error}") from error

    def host_gateway(self) -> str:
        """What `host-gateway` stands for: configured, or the default bridge's own address."""
        if self._config.host_gateway_ip:
            return self._config.host_gateway_ip
        pools = self._networks.get("bridge").pools
        return pools[0].gateway if pools else ""
