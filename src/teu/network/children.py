"""The macvlan and ipvlan drivers: containers as stations of the network that a host's link is on.

    parent (eth0) ── LAN          -o parent=eth0; eth0.50 is made if it is not there (VLAN 50)
      └─ eth0 in the sandbox      macvlan: a MAC of its own; ipvlan: the parent's

There is no bridge, no firewall rule and no published port: the LAN reaches a container directly.
The host itself does not, which is the kernel's nature of these links. Without `parent` the network
is one of containers only, on a dummy link.

Source: ip-link(8), linux/if_link.h, kernel Documentation/networking/ipvlan.rst.
"""

import logging
import os
import re
from pathlib import Path
from typing import Final

from teu.errors import InvalidParameter, SystemFailure
from teu.model.network import IPVLAN, MACVLAN, EndpointRecord, NetworkRecord
from teu.network.inside import configure
from teu.network.kernel import HostLinks
from teu.sys import netlink
from teu.sys.netlink import Link, Netlink
from teu.sys.syscalls import os_errors

OPTION_PARENT: Final = "parent"
OPTION_MODES: Final = {MACVLAN: "macvlan_mode", IPVLAN: "ipvlan_mode"}
OPTION_FLAG: Final = "ipvlan_flag"
_MODES: Final = {
    MACVLAN: {"bridge": 4, "private": 1, "vepa": 2, "passthru": 8},
    IPVLAN: {"l2": 0, "l3": 1, "l3s": 2},
}
_FLAGS: Final = {"bridge": 0, "private": 1, "vepa": 2}
_VLAN: Final = re.compile(r"(.+)\.(\d{1,4})")
log = logging.getLogger(__name__)


def check(record: NetworkRecord) -> None:
    """Raises: InvalidParameter."""
    mode(record)
    _flag(record)
    if len(record.link) > 15 or not record.link or "/" in record.link or record.link == "lo":
        raise InvalidParameter(f"invalid parent link {record.link!r}")


def mode(record: NetworkRecord) -> str:
    """Raises: InvalidParameter."""
    option, known = OPTION_MODES[record.driver], _MODES[record.driver]
    asked = record.options.get(option) or next(iter(known))
    if asked not in known:
        raise InvalidParameter(
            f"requested {record.driver} mode {asked!r} is not valid: use {', '.join(known)}"
        )
    return asked


def is_direct(record: NetworkRecord) -> bool:
    """Whether everything is sent without a gateway: the kernel routes on the parent."""
    return record.driver == IPVLAN and mode(record) != "l2"


def _flag(record: NetworkRecord) -> int:
    asked = record.options.get(OPTION_FLAG) or "bridge"
    if asked not in _FLAGS:
        raise InvalidParameter(f"requested ipvlan flag {asked!r} is not valid")
    return _FLAGS[asked]


class ChildDriver:
    """Both drivers; which one, the record says."""

    def __init__(self, host: HostLinks) -> None:
        self._host = host

    def ensure(self, record: NetworkRecord, *, idle: bool = False) -> None:
        """The parent, up; a VLAN or dummy link is made. `idle` makes no difference.

        Raises: SystemFailure, InvalidParameter (no such parent).
        """
        with os_errors(f"parent link {record.link} of network {record.name}"):
            if self._host.link(record.link) is None:
                self._make_parent(record)
            self._host.run(netlink.set_link(record.link, up=True))

    def remove(self, record: NetworkRecord) -> None:
        """A parent that was there before us stays. Accepts "already gone"."""
        if record.link_is_ours:
            with os_errors(f"parent link {record.link} of network {record.name}"):
                self._host.run(netlink.delete_link(record.link))

    def plug(
        self, record: NetworkRecord, endpoint: EndpointRecord, sandbox: Path, inside: Netlink,
        *, default_routes: set[int],
    ) -> None:  # fmt: skip
        """The child link in the sandbox, with addresses and routes.

        Raises: SystemFailure. On failure `unplug` it.
        """
        with os_errors(f"endpoint {endpoint.container_name} on network {record.name}"):
            parent = self._parent(record)
            netns_fd = os.open(sandbox, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._host.run(
                    netlink.create_child(
                        record.driver, endpoint.link, parent=parent.index, data=_data(record),
                        netns_fd=netns_fd, mac=endpoint.mac if record.driver == MACVLAN else "",
                    )
                )  # fmt: skip
            finally:
                os.close(netns_fd)
            inside.run(netlink.set_link(endpoint.link, up=True))
            configure(endpoint, sandbox, inside, default_routes)

    def unplug(self, endpoint: EndpointRecord, inside: Netlink) -> None:
        """Accepts "never there"."""
        with os_errors(f"endpoint of {endpoint.container_name}"):
            inside.run(netlink.delete_link(endpoint.link))

    def mute(self, endpoint: EndpointRecord) -> None:
        """Nothing to shut: the kernel reaps the link with its namespace."""

    def _parent(self, record: NetworkRecord) -> Link:
        link = self._host.link(record.link)
        if link is None:
            self.ensure(record)
            link = self._host.link(record.link)
        if link is None:
            raise SystemFailure(f"parent link {record.link} vanished")
        return link

    def _make_parent(self, record: NetworkRecord) -> None:
        if OPTION_PARENT not in record.options:
            self._host.run(netlink.create_dummy(record.link))
            return
        match = _VLAN.fullmatch(record.link)
        base = self._host.link(match[1]) if match else None
        if match is None or base is None or not 0 < int(match[2]) < 4095:
            raise InvalidParameter(
                f"invalid subinterface vlan name {record.link}: this host has no such link, and "
                "none to make it on (LINK.VLAN, such as eth0.50)"
            )
        data = netlink.vlan_data(int(match[2]))
        self._host.run(netlink.create_child("vlan", record.link, parent=base.index, data=data))
        log.info("made VLAN link %s for network %s", record.link, record.name)


def _data(record: NetworkRecord) -> bytes:
    number = _MODES[record.driver][mode(record)]
    if record.driver == MACVLAN:
        return netlink.macvlan_data(number)
    return netlink.ipvlan_data(number, _flag(record))
