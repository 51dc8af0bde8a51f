"""How a field is spelled on Docker's wire: `cap_add` -> `CapAdd`, the odd ones listed."""

_IRREGULAR = {
    "id": "Id",
    "uts_mode": "UTSMode",
    "container_id_file": "ContainerIDFile",
    "io_maximum_iops": "IOMaximumIOps",
    "io_maximum_bandwidth": "IOMaximumBandwidth",
    "blkio_device_read_iops": "BlkioDeviceReadIOps",
    "blkio_device_write_iops": "BlkioDeviceWriteIOps",
    "kernel_memory_tcp": "KernelMemoryTCP",
    "device_ids": "DeviceIDs",
    "host_ip": "HostIp",
    "ip_prefix_len": "IPPrefixLen",
    "ip_address": "IPAddress",
    "ipv4_address": "IPv4Address",
    "ipv6_address": "IPv6Address",
    "ipv6_gateway": "IPv6Gateway",
    "global_ipv6_address": "GlobalIPv6Address",
    "global_ipv6_prefix_len": "GlobalIPv6PrefixLen",
    "link_local_ips": "LinkLocalIPs",
    "link_local_ipv6_address": "LinkLocalIPv6Address",
    "link_local_ipv6_prefix_len": "LinkLocalIPv6PrefixLen",
    "network_id": "NetworkID",
    "endpoint_id": "EndpointID",
    "ipam_config": "IPAMConfig",
    "dns_names": "DNSNames",
    "ip_range": "IPRange",
    "aux_addresses": "AuxiliaryAddresses",
    "ipam": "IPAM",
    "enable_ipv4": "EnableIPv4",
    "enable_ipv6": "EnableIPv6",
}


def docker_name(field: str) -> str:
    """The rename function for msgspec structs."""
    return _IRREGULAR.get(field) or "".join(part.capitalize() for part in field.split("_"))
