"""What can go wrong with networks, in Docker's words where clients match on them."""

from teu.errors import Conflict, Forbidden, InvalidParameter, NotFound, SystemFailure, Unavailable
from teu.ids import short


class NoSuchNetwork(NotFound):
    code = "no-such-network"

    def __init__(self, ref: str) -> None:
        super().__init__(f"network {ref} not found")


class AmbiguousNetwork(InvalidParameter):
    code = "ambiguous-network"

    def __init__(self, ref: str) -> None:
        super().__init__(
            f"network {ref} is ambiguous: several ids start like this, give more of it"
        )


class PredefinedNetwork(Forbidden):
    code = "predefined-network"

    def __init__(self, name: str, *, creating: bool = False) -> None:
        super().__init__(
            f"operation is not permitted on predefined {name} network"
            if creating
            else f"{name} is a pre-defined network and cannot be removed"
        )


class OnlyOneInstance(Forbidden):
    code = "only-one-instance"

    def __init__(self, driver: str) -> None:
        super().__init__(f'only one instance of "{driver}" network is allowed')


class NetworkInUse(Forbidden):
    code = "network-in-use"

    def __init__(self, name: str, endpoints: list[tuple[str, str]]) -> None:
        """`endpoints`: (container name, endpoint id)."""
        held = ", ".join(f'name:"{holder}" id:"{short(ident)}"' for holder, ident in endpoints)
        super().__init__(
            f"error while removing network: network {name} has active endpoints ({held})"
        )


class NoSuchConfiguration(NotFound):
    code = "no-such-configuration"

    def __init__(self, name: str) -> None:
        super().__init__(f'configuration network "{name}" does not exist')


class ConfigurationMixed(InvalidParameter):
    code = "configuration-mixed"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"user specified configurations are not supported if the network depends on a "
            f"configuration network ({name})"
        )


class ConfigurationInUse(Forbidden):
    code = "configuration-in-use"

    def __init__(self, name: str, users: list[str]) -> None:
        super().__init__(f'configuration network "{name}" is in use by {", ".join(users)}')


class ConfigurationOnly(Forbidden):
    code = "configuration-only"

    def __init__(self, name: str) -> None:
        super().__init__(f"cannot attach to network {name}: it is a configuration network")


class SubnetTaken(Forbidden):
    code = "subnet-taken"

    def __init__(self, subnet: str, holder: str) -> None:
        super().__init__(
            "invalid pool request: Pool overlaps with other one on this address space: "
            f"{subnet} overlaps with {holder}; choose another --subnet"
        )


class PoolsExhausted(Unavailable):
    code = "pools-exhausted"

    def __init__(self, holders: list[str]) -> None:
        shown = ", ".join(holders[:20]) + (", …" if len(holders) > 20 else "")
        super().__init__(
            "all predefined address pools have been fully subnetted; taken by: "
            f"{shown or 'routes of the host'}. Remove unused networks, give --subnet, or extend "
            "default-address-pools"
        )


class NoFreeAddress(Unavailable):
    code = "no-free-address"

    def __init__(self, network: str, network_id: str, subnet: str) -> None:
        super().__init__(
            f"no available IPv4 addresses on this network's address pools: {network} "
            f"({short(network_id)}); all of {subnet} is in use"
        )


class AddressInUse(Forbidden):
    code = "address-in-use"

    def __init__(self, address: str, holder: str, container_id: str = "") -> None:
        super().__init__(f"Address already in use: {address} is held by {holder}")
        self.container_id = container_id


class AlreadyConnected(Forbidden):
    code = "already-connected"

    def __init__(self, container: str, network: str) -> None:
        super().__init__(f"endpoint with name {container} already exists in network {network}")


class NotConnected(Conflict):
    code = "not-connected"

    def __init__(self, container: str, network: str) -> None:
        super().__init__(f"container {container} is not connected to the network {network}")


class PortTaken(SystemFailure):
    """`reason` tells who holds it: another container of ours, or a process of the host."""

    code = "port-taken"

    def __init__(self, endpoint: str, endpoint_id: str, reason: str) -> None:
        super().__init__(
            "driver failed programming external connectivity on endpoint "
            f"{endpoint} ({endpoint_id}): {reason}"
        )
