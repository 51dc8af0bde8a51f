"""The single changes: a network, a volume, a container made, started, replaced, removed."""

from __future__ import annotations

import io
import tarfile
import time

from teu.cli.client import DaemonError, escape
from teu.cli.session import Failure
from teu.compose import convert
from teu.compose.plan import RECREATE, Change, Found
from teu.compose.shapes import seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.client import Client
    from teu.cli.compose.steps import Steps
    from teu.compose.project import Project

_POLL_S = 0.2


class Changer:
    """Carries changes out on one daemon, and tells of each."""

    def __init__(self, client: Client, project: Project, steps: Steps) -> None:
        self._client = client
        self._project = project
        self._steps = steps

    # Networks and volumes.

    def create_network(self, key: str) -> None:
        body = convert.network_body(self._project, key)
        self._create("Network", "/networks/create", body)

    def create_volume(self, key: str) -> None:
        self._create("Volume", "/volumes/create", convert.volume_body(self._project, key))

    def _create(self, kind: str, path: str, body: dict[str, Any]) -> None:
        what = f"{kind} {body['Name']}"
        self._steps.tell(what, "Creating")
        try:
            self._client.post(path, body=body)
        except DaemonError as error:
            if not error.is_conflict:  # somebody else made it just now
                self._steps.tell(what, "Error")
                raise
        self._steps.tell(what, "Created")

    def check_external(self) -> None:
        """Raises: Failure for what the files say is there, and is not."""
        for kind, objects in (
            ("network", self._project.networks),
            ("volume", self._project.volumes),
        ):
            for value in objects.values():
                if value.get("external") and not self._exists(kind, value["name"]):
                    raise Failure(
                        f'external {kind} "{value["name"]}" not found: make it with '
                        f"'{kind} create {value['name']}', or take `external` away"
                    )

    def _exists(self, kind: str, name: str) -> bool:
        try:
            self._client.get(f"/{kind}s/{escape(name)}")
        except DaemonError as error:
            if error.is_missing:
                return False
            raise
        return True

    def remove_network(self, name: str) -> None:
        self._remove("Network", f"/networks/{escape(name)}", name)

    def remove_volume(self, name: str) -> None:
        self._remove("Volume", f"/volumes/{escape(name)}", name)

    def remove_image(self, name: str) -> None:
        self._remove("Image", f"/images/{escape(name)}", name)

    def _remove(self, kind: str, path: str, name: str) -> None:
        what = f"{kind} {name}"
        self._steps.tell(what, "Removing")
        try:
            self._client.delete(path)
        except DaemonError as error:
            if kind == "Volume" and error.is_conflict:
                self._steps.tell(what, "Resource is still in use")
                return
            if not error.is_missing:
                self._steps.tell(what, "Error")
                raise
        self._steps.tell(what, "Removed")

    # Containers.

    def create(self, change: Change, peers: dict[str, str], name: str = "") -> str:
        """The id of a new container, not started; `name` instead of the change's own."""
        what = f"Container {change.name}"
        begin, end = (
            ("Recreate", "Recreated") if change.action == RECREATE else ("Creating", "Created")
        )
        self._steps.tell(what, begin)
        body = convert.container_body(self._project, change.service, change.number, peers=peers)
        query = {"name": name or change.name, "platform": self._platform(change.service)}
        try:
            made = self._client.post("/containers/create", query, body)["Id"]
            self.copy_files(made, change.service)
        except Failure:
            self._steps.tell(what, "Error")
            raise
        self._steps.tell(what, end)
        return str(made)

    def _platform(self, service: str) -> str | None:
        return self._project.services[service].get("platform")

    def copy_files(self, container: str, service: str) -> None:
        """Configs and secrets with an owner or mode, or from elsewhere than a file."""
        try:
            files = convert.copied_files(self._project, service)
        except OSError as error:
            raise Failure(f"service {service}: {error.filename}: {error.strerror}") from error
        if not files:
            return
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for path, content, mode, uid, gid in files:
                entry = tarfile.TarInfo(path.lstrip("/"))
                entry.size, entry.mode, entry.uid, entry.gid = len(content), mode, uid, gid
                entry.mtime = int(time.time())
                archive.addfile(entry, io.BytesIO(content))
        headers = {"Content-Type": "application/x-tar"}
        where = {"path": "/", "copyUIDGID": "1"}
        path = f"/containers/{container}/archive"
        response = self._client.request("PUT", path, where, packed.getvalue(), headers)
        self._client.finish(response)

    def start(self, container: str, name: str, service: str) -> None:
        """Also runs the service's `post_start` hooks."""
        what = f"Container {name}"
        self._steps.tell(what, "Starting")
        try:
            self._client.post(f"/containers/{container}/start")
            self._run_hooks(container, service, "post_start")
        except Failure:
            self._steps.tell(what, "Error")
            raise
        self._steps.tell(what, "Started")

    def stop(self, found: Found, timeout_s: int | None = None) -> None:
        what = f"Container {found.name}"
        self._steps.tell(what, "Stopping")
        try:
            if found.state == "running" and found.service in self._project.services:
                self._run_hooks(found.id, found.service, "pre_stop")
            self._client.post(f"/containers/{found.id}/stop", {"t": timeout_s})
        except DaemonError as error:
            if not error.is_missing:
                self._steps.tell(what, "Error")
                raise
        self._steps.tell(what, "Stopped")

    def remove(self, found: Found, *, volumes: bool = False) -> None:
        """Stopped or not; gone is fine."""
        what = f"Container {found.name}"
        self._steps.tell(what, "Removing")
        try:
            self._client.delete(f"/containers/{found.id}", {"v": volumes, "force": True})
        except DaemonError as error:
            if not error.is_missing and not error.is_conflict:
                self._steps.tell(what, "Error")
                raise
        self._steps.tell(what, "Removed")

    def act(self, found: Found, action: str, states: tuple[str, str], **query: Any) -> None:
        """`restart`, `kill`, `pause`, … of one container, told as `states`."""
        what = f"Container {found.name}"
        self._steps.tell(what, states[0])
        try:
            self._client.post(f"/containers/{found.id}/{action}", query)
        except Failure:
            self._steps.tell(what, "Error")
            raise
        self._steps.tell(what, states[1])

    def replace(self, change: Change, peers: dict[str, str], timeout_s: int | None) -> str:
        """Makes the new container beside the old one, which goes only then: if the new one cannot
        be made, the old one runs on."""
        old = change.container
        assert old is not None
        aside = f"{old.id[:12]}_{change.name}"
        made = self.create(change, peers, name=aside)
        try:
            self.stop(old, timeout_s)
            self._client.delete(f"/containers/{old.id}", {"force": True})
            self._client.post(f"/containers/{made}/rename", {"name": change.name})
        except Failure:
            self._steps.tell(f"Container {change.name}", "Error")
            raise
        return made

    # Waiting.

    def wait_until(self, container: str, name: str, condition: str, limit_s: float) -> None:
        """`service_healthy`, `service_completed_successfully`, or running.

        Raises: Failure when that will not come.
        """
        deadline = time.monotonic() + limit_s
        what = f"Container {name}"
        self._steps.tell(what, "Waiting")
        while True:
            state = self._client.get(f"/containers/{container}/json")["State"]
            if self._is_met(state, condition, name):
                end = {"service_healthy": "Healthy", "service_completed_successfully": "Exited"}
                self._steps.tell(what, end.get(condition, "Running"))
                return
            if time.monotonic() > deadline:
                raise Failure(f"container {name} is not {condition} after {limit_s:.0f} s")
            time.sleep(_POLL_S)

    def _is_met(self, state: dict[str, Any], condition: str, name: str) -> bool:
        ended = state["Status"] in ("exited", "dead")
        if condition == "service_completed_successfully":
            if ended and state["ExitCode"] != 0:
                raise Failure(
                    f'service "{name}" didn\'t complete successfully: exit {state["ExitCode"]}'
                )
            return bool(ended)
        if ended:
            raise Failure(f"container {name} exited ({state['ExitCode']})")
        if condition != "service_healthy":
            return bool(state["Running"])
        health = (state.get("Health") or {}).get("Status", "")
        if not health:
            raise Failure(f"container {name} has no healthcheck configured")
        if health == "unhealthy":
            raise Failure(f"container {name} is unhealthy")
        return bool(health == "healthy")

    def _run_hooks(self, container: str, service: str, kind: str) -> None:
        """Commands of `post_start` and `pre_stop`, one after the other. Raises: Failure."""
        for hook in self._project.services[service].get(kind, ()):
            variables = hook.get("environment", {})
            body = {
                "Cmd": hook["command"],
                "User": hook.get("user", ""),
                "Privileged": hook.get("privileged", False),
                "WorkingDir": hook.get("working_dir", ""),
                "Env": [n if v is None else f"{n}={v}" for n, v in variables.items()],
                "AttachStdout": True,
            }
            made = self._client.post(f"/containers/{container}/exec", body=body)["Id"]
            output = self._client.request("POST", f"/exec/{made}/start", body={"Detach": False})
            self._client.copy(output, lambda _: None)
            code = self._client.get(f"/exec/{made}/json")["ExitCode"]
            if code:
                raise Failure(f"{service} {kind} hook exited with status {code}")


def grace_s(project: Project, service: str, asked: int | None) -> int | None:
    """How long a container may take to stop; None: as it was made."""
    if asked is not None:
        return asked
    told = project.services.get(service, {}).get("stop_grace_period")
    return None if told is None else round(seconds(told))
