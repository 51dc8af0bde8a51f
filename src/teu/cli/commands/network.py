"""`network ls|create|rm|connect|disconnect|why`."""

from __future__ import annotations

from teu.cli import filters, human
from teu.cli.client import DaemonError, escape
from teu.cli.grammar import Command, Flag
from teu.cli.lists import csv_values, pairs
from teu.cli.session import Failure
from teu.cli.tables import Listing, render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.grammar import Options
    from teu.cli.session import Session

_TABLE = "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}"
_RAW = "network_id: {{.ID}}\\nname: {{.Name}}\\ndriver: {{.Driver}}\\nscope: {{.Scope}}\\n"
_INGRESS_WARNING = (
    "WARNING! Before removing the routing-mesh network, make sure all the nodes in your swarm run "
    "the same docker engine version. Otherwise, removal may not be effective and functionality of "
    "newly create ingress networks will be impaired.\nAre you sure you want to continue?"
)


class _Row:
    __slots__ = ("data", "full")

    def __init__(self, data: dict[str, Any], full: bool) -> None:
        self.data = data
        self.full = full


def _id(row: _Row) -> str:
    identifier: str = row.data.get("Id", "")
    return identifier if row.full else human.short_id(identifier)


def _created(row: _Row) -> str:
    from teu.template.values import Time

    return str(Time(row.data.get("Created", "")))


_NETWORKS = Listing(
    "*network.networkContext",
    {
        "ID": "NETWORK ID",
        "Name": "NAME",
        "Driver": "DRIVER",
        "Scope": "SCOPE",
        "IPv4": "IPV4",
        "IPv6": "IPV6",
        "Internal": "INTERNAL",
        "Labels": "LABELS",
        "CreatedAt": "CREATED AT",
    },
    {
        "ID": _id,
        "Name": lambda row: row.data.get("Name", ""),
        "Driver": lambda row: row.data.get("Driver", ""),
        "Scope": lambda row: row.data.get("Scope", ""),
        "IPv4": lambda row: human.yes_no(row.data.get("EnableIPv4")),
        "IPv6": lambda row: human.yes_no(row.data.get("EnableIPv6")),
        "Internal": lambda row: human.yes_no(row.data.get("Internal")),
        "Labels": lambda row: human.labels_text(row.data.get("Labels")),
        "Label": lambda row, name: (row.data.get("Labels") or {}).get(name, ""),
        "CreatedAt": _created,
    },
)


def _list(session: Session, options: Options, _arguments: list[str]) -> int:
    query = {"filters": filters.encode(options.texts("filter"))}
    networks = session.client.get("/networks", query) or []
    quiet = options.flag("quiet")
    configured = "" if quiet else session.config.text("networksFormat")
    form = options.text("format") or configured or "table"
    if form == "table":
        form = "{{.ID}}" if quiet else _TABLE
    elif form == "raw":
        form = "network_id: {{.ID}}" if quiet else _RAW
    networks.sort(key=lambda data: human.natural_key(data.get("Name", "")))
    rows = [_Row(data, options.flag("no-trunc")) for data in networks]
    session.out(render(_NETWORKS, rows, form))
    return 0


def _create(session: Session, options: Options, arguments: list[str]) -> int:
    from teu.cli.ipam import ipam_config

    body: dict[str, Any] = {
        "Name": arguments[0],
        "Driver": options.text("driver"),
        "Scope": options.text("scope"),
        "IPAM": ipam_config(options),
        "Internal": options.flag("internal"),
        "Attachable": options.flag("attachable"),
        "Ingress": options.flag("ingress"),
        "ConfigOnly": options.flag("config-only"),
        "ConfigFrom": None,
        "Options": pairs(options.texts("opt")),
        "Labels": pairs(options.texts("label")),
    }
    if options.text("config-from"):
        body["ConfigFrom"] = {"Network": options.text("config-from")}
    for flag, name in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if options.changed(flag):
            body[name] = options.flag(flag)
    answer = session.client.post("/networks/create", body=body)
    session.out(answer["Id"] + "\n")
    if answer.get("Warning"):
        session.err(f"WARNING: {answer['Warning']}\n")
    return 0


def _remove(session: Session, options: Options, arguments: list[str]) -> int:
    status = 0
    for name in arguments:
        try:
            if _is_kept_ingress(session, name):
                continue
            session.client.delete(f"/networks/{escape(name)}")
        except DaemonError as error:
            if not (options.flag("force") and error.is_missing):
                session.err(f"{error}\n")
                status = 1
        else:
            session.out(name + "\n")
    if status:
        raise Failure("exit status 1")
    return 0


def _is_kept_ingress(session: Session, name: str) -> bool:
    """True for the swarm's routing mesh when the user does not want it removed after all."""
    try:
        network = session.client.get(f"/networks/{escape(name)}")
    except DaemonError:
        return False  # the removal itself says what is wrong
    if not network.get("Ingress"):
        return False
    from teu.cli.prompt import confirm

    return not confirm(session, _INGRESS_WARNING)


def _connect(session: Session, options: Options, arguments: list[str]) -> int:
    driver_options: dict[str, str] = {}
    for text in csv_values(options.texts("driver-opt")):
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise Failure("invalid key/value pair format in driver options")
        driver_options[name.strip()] = value.strip()
    ipam: dict[str, Any] = {}
    for flag, key in (("ip", "IPv4Address"), ("ip6", "IPv6Address")):
        if options.text(flag):
            ipam[key] = options.text(flag)
    if options.texts("link-local-ip"):
        ipam["LinkLocalIPs"] = csv_values(options.texts("link-local-ip"))
    endpoint = {
        "IPAMConfig": ipam,
        "Links": options.texts("link"),
        "Aliases": csv_values(options.texts("alias")),
        "DriverOpts": driver_options,
        "GwPriority": options.number("gw-priority"),
    }
    body = {"Container": arguments[1], "EndpointConfig": endpoint}
    session.client.post(f"/networks/{escape(arguments[0])}/connect", body=body)
    return 0


def _disconnect(session: Session, options: Options, arguments: list[str]) -> int:
    body = {"Container": arguments[1], "Force": options.flag("force")}
    session.client.post(f"/networks/{escape(arguments[0])}/disconnect", body=body)
    return 0


def _why(session: Session, _options: Options, arguments: list[str]) -> int:
    """Not Docker's. Exit code 0: it reaches it, 1: it does not."""
    sender, target = arguments
    found = session.client.get(f"/containers/{escape(sender)}/reach", {"target": target})
    yes = "yes" if found["Reaches"] else "no"
    verb = "reaches" if found["Reaches"] else "does not reach"
    session.out(f"{yes}: {found['From']} {verb} {found['To']}\n")
    for hop in found["Hops"]:
        mark = "ok" if hop["Passed"] else "no"
        session.out(f"  {mark}  {hop['Hop']:<8} {hop['Text']}\n")
    return 0 if found["Reaches"] else 1


COMMANDS = {
    "network ls": Command(
        _list,
        "[OPTIONS]",
        flags=(
            Flag("filter", "f", "filter", "Show only what fits `name=value` (repeatable)",
                 check="filter"),
            Flag("format", "", "string",
                 "'table', 'table TEMPLATE', 'json', or a Go template for each network"),
            Flag("no-trunc", "", "bool", "Do not cut ids"),
            Flag("quiet", "q", "bool", "Print only ids"),
        ),
    ),
    "network create": Command(
        _create,
        "[OPTIONS] NETWORK",
        args=(1, 1),
        flags=(
            Flag("attachable", "", "bool", "Containers may be attached by hand (swarm)"),
            Flag("aux-address", "", "map", "Address `name=ip` that is taken by something else"),
            Flag("config-from", "", "string", "Network to take the configuration from"),
            Flag("config-only", "", "bool", "Make only a configuration for other networks"),
            Flag("driver", "d", "string", "Driver of the network", default="bridge"),
            Flag("gateway", "", "list", "Gateway of a subnet", metavar="strings"),
            Flag("ingress", "", "bool", "Make the swarm's routing-mesh network"),
            Flag("internal", "", "bool", "No way to the outside"),
            Flag("ip-range", "", "list", "Give containers addresses only from this part of the "
                 "subnet", metavar="strings"),
            Flag("ipam-driver", "", "string", "Driver that gives out addresses",
                 default="default"),
            Flag("ipam-opt", "", "map", "Option `name=value` for that driver"),
            Flag("ipv4", "", "bool", "Give containers IPv4 addresses (default true)",
                 default=True),
            Flag("ipv6", "", "bool", "Give containers IPv6 addresses"),
            Flag("label", "", "list", "Label `name=value`", check="label"),
            Flag("opt", "o", "map", "Option `name=value` for the network's driver"),
            Flag("scope", "", "string", "Scope of the network: local, swarm"),
            Flag("subnet", "", "list", "Subnet, such as 10.9.0.0/24", metavar="strings"),
        ),
    ),
    "network rm": Command(
        _remove,
        "NETWORK [NETWORK...]",
        args=(1, None),
        flags=(Flag("force", "f", "bool", "A network that does not exist is no error"),),
    ),
    "network connect": Command(
        _connect,
        "[OPTIONS] NETWORK CONTAINER",
        args=(2, 2),
        flags=(
            Flag("alias", "", "list", "Another name for the container on this network",
                 metavar="strings"),
            Flag("driver-opt", "", "list", "Option `name=value` for the network's driver",
                 metavar="strings"),
            Flag("gw-priority", "", "int", "The network with the highest one is the container's "
                 "way out", default=0),
            Flag("ip", "", "string", "IPv4 address of the container"),
            Flag("ip6", "", "string", "IPv6 address of the container"),
            Flag("link", "", "list", "Another container to be known here, `name[:alias]`",
                 check="link"),
            Flag("link-local-ip", "", "list", "Link-local address of the container",
                 metavar="strings"),
        ),
    ),
    "network why": Command(_why, "CONTAINER TARGET[:PORT[/PROTO]]", args=(2, 2)),
    "network disconnect": Command(
        _disconnect,
        "[OPTIONS] NETWORK CONTAINER",
        args=(2, 2),
        flags=(Flag("force", "f", "bool", "Also when the container's record is broken"),),
    ),
}  # fmt: skip
