"""What the routes work with: the engine's parts, put together by the composition root."""

from dataclasses import dataclass

from teu.build.service import BuildService
from teu.container.archive import Archives
from teu.container.commit import Committer
from teu.container.create import Creator
from teu.container.exec import Execs
from teu.container.health import HealthMonitor
from teu.container.lifecycle import Lifecycle
from teu.container.links import Links
from teu.container.listing import Listing
from teu.container.looks import Looks
from teu.container.plugs import Plugs
from teu.container.prune import Pruner
from teu.container.reach import Reach
from teu.container.rootfs import RootFilesystems
from teu.container.services import Services
from teu.container.stats import Stats
from teu.container.streams import Streams
from teu.container.update import Updater
from teu.container.volumework import VolumeWork
from teu.events import EventBus
from teu.image.remote import RemoteImages
from teu.registry.client import RegistryClient
from teu.system import System


@dataclass(frozen=True, slots=True)
class Engine:
    services: Services
    events: EventBus
    creator: Creator
    lifecycle: Lifecycle
    streams: Streams
    execs: Execs
    listing: Listing
    looks: Looks
    plugs: Plugs
    reach: Reach
    pruner: Pruner
    stats: Stats
    committer: Committer
    archives: Archives
    rootfs: RootFilesystems
    updater: Updater
    links: Links
    health: HealthMonitor
    system: System
    builds: BuildService
    registry: RegistryClient
    volume_work: VolumeWork
    remote: RemoteImages
