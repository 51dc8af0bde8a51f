"""What the modules of this package work with, handed over once by the composition root."""

from dataclasses import dataclass
from pathlib import Path

from teu.container.containers import Containers
from teu.events import EventBus
from teu.image.service import ImageService
from teu.model.config import LogConfig
from teu.network.files import EtcFiles
from teu.network.service import NetworkService
from teu.runtime.service import RuntimeService
from teu.runtime.shim import ShimService
from teu.tasks import TaskOwner
from teu.volume.service import VolumeService


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a container's files are; drawn in docs/architecture.md."""

    data_root: Path
    exec_root: Path

    def home(self, container_id: str) -> Path:
        return self.data_root / "containers" / container_id

    def rootfs(self, container_id: str) -> Path:
        return self.home(container_id) / "rootfs"

    def run(self, container_id: str) -> Path:
        """Bundle and shim files; void after a reboot."""
        return self.exec_root / "containers" / container_id

    def log_file(self, container_id: str) -> Path:
        return self.home(container_id) / f"{container_id}-json.log"


@dataclass(frozen=True, slots=True)
class Defaults:
    """Daemon-wide settings that a container inherits when it does not say otherwise."""

    log: LogConfig
    boot_id: str
    stop_timeout_s: int


@dataclass(frozen=True, slots=True)
class Services:
    paths: Paths
    defaults: Defaults
    containers: Containers
    images: ImageService
    networks: NetworkService
    etc: EtcFiles
    volumes: VolumeService
    runtime: RuntimeService
    shims: ShimService
    tasks: TaskOwner
    events: EventBus
