"""The swarm part of `info`, for daemons that have one."""

from __future__ import annotations

from teu.cli import human

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def swarm_lines(swarm: dict[str, Any]) -> list[str]:
    lines = [f"  NodeID: {swarm.get('NodeID', '')}"]
    if swarm.get("Error"):
        lines.append(f"  Error: {swarm['Error']}")
    is_manager = bool(swarm.get("ControlAvailable"))
    lines.append(f"  Is Manager: {human.yes_no(is_manager)}")
    cluster = swarm.get("Cluster")
    healthy = not swarm.get("Error") and swarm.get("LocalNodeState") != "error"
    if cluster and is_manager and healthy:
        lines += _cluster_lines(swarm, cluster)
    lines.append(f"  Node Address: {swarm.get('NodeAddr', '')}")
    if managers := swarm.get("RemoteManagers"):
        lines.append("  Manager Addresses:")
        lines += [f"   {address}" for address in sorted(m.get("Addr", "") for m in managers)]
    return lines


def _cluster_lines(swarm: dict[str, Any], cluster: dict[str, Any]) -> list[str]:
    spec = cluster.get("Spec") or {}
    lines = [
        f"  ClusterID: {cluster.get('ID', '')}",
        f"  Managers: {swarm.get('Managers', 0)}",
        f"  Nodes: {swarm.get('Nodes', 0)}",
    ]
    if cluster.get("DefaultAddrPool") is not None:
        pools = "".join(f"{pool}  " for pool in cluster["DefaultAddrPool"])
        lines.append(f"  Default Address Pool: {pools}")
        lines.append(f"  SubnetSize: {cluster.get('SubnetSize', 0)}")
    if cluster.get("DataPathPort"):
        lines.append(f"  Data Path Port: {cluster['DataPathPort']}")
    history = (spec.get("Orchestration") or {}).get("TaskHistoryRetentionLimit") or 0
    lines += ["  Orchestration:", f"   Task History Retention Limit: {history}"]
    lines += _raft_lines(spec.get("Raft") or {})
    heartbeat = (spec.get("Dispatcher") or {}).get("HeartbeatPeriod", 0)
    lines += ["  Dispatcher:", f"   Heartbeat Period: {human.duration(heartbeat / 1e9)}"]
    lines += _authority_lines(spec.get("CAConfig") or {})
    locked = (spec.get("EncryptionConfig") or {}).get("AutoLockManagers")
    lines.append(f"  Autolock Managers: {human.yes_no(locked)}")
    rotating = cluster.get("RootRotationInProgress")
    return [*lines, f"  Root Rotation In Progress: {human.yes_no(rotating)}"]


def _raft_lines(raft: dict[str, Any]) -> list[str]:
    lines = ["  Raft:", f"   Snapshot Interval: {raft.get('SnapshotInterval', 0)}"]
    if raft.get("KeepOldSnapshots") is not None:
        lines.append(f"   Number of Old Snapshots to Retain: {raft['KeepOldSnapshots']}")
    lines.append(f"   Heartbeat Tick: {raft.get('HeartbeatTick', 0)}")
    return [*lines, f"   Election Tick: {raft.get('ElectionTick', 0)}"]


def _authority_lines(config: dict[str, Any]) -> list[str]:
    expiry = human.duration(config.get("NodeCertExpiry", 0) / 1e9)
    lines = [
        "  CA Configuration:",
        f"   Expiry Duration: {expiry}",
        f"   Force Rotate: {config.get('ForceRotate', 0)}",
    ]
    if certificate := config.get("SigningCACert", "").strip():
        lines.append(f"   Signing CA Certificate: \n{certificate}\n")
    if external := config.get("ExternalCAs"):
        lines.append("   External CAs:")
        lines += [f"     {entry.get('Protocol')}: {entry.get('URL')}" for entry in external]
    return lines
