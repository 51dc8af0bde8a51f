"""The composition root: builds every part, recovers what the last daemon left, owns shutdown.

The only module that knows all classes. Start order: database, content and images, networks,
runtime, shims, recovery; stop is the reverse. Containers live on when the daemon stops.
"""

import logging
from pathlib import Path

from aiohttp import web

from teu import ids
from teu.api.engine import Engine
from teu.api.router import Route
from teu.api.routes.absent import AbsentRoutes
from teu.api.routes.archive import ArchiveRoutes
from teu.api.routes.build import BuildRoutes
from teu.api.routes.buildsessions import BuildSessionRoutes
from teu.api.routes.containers import ContainerRoutes
from teu.api.routes.distribution import DistributionRoutes
from teu.api.routes.exec import ExecRoutes
from teu.api.routes.images import ImageRoutes
from teu.api.routes.networks import NetworkRoutes
from teu.api.routes.system import SystemRoutes
from teu.api.routes.volume_work import VolumeWorkRoutes
from teu.api.routes.volumes import VolumeRoutes
from teu.api.server import ApiServer
from teu.build.running import Runner
from teu.build.service import BuildService
from teu.build.workspace import Workspace
from teu.container.archive import Archives
from teu.container.commit import Committer
from teu.container.containers import Containers
from teu.container.create import Creator
from teu.container.exec import Execs
from teu.container.exits import Exits
from teu.container.health import HealthMonitor
from teu.container.lifecycle import Lifecycle
from teu.container.links import Links
from teu.container.listing import Listing
from teu.container.logdrivers import check_log
from teu.container.looks import Looks
from teu.container.mounting import Mounter
from teu.container.plugevents import PlugEvents
from teu.container.plugs import Plugs
from teu.container.prune import Pruner
from teu.container.reach import Reach
from teu.container.recovery import Recovery
from teu.container.removal import Remover
from teu.container.rootfs import RootFilesystems
from teu.container.services import Defaults, Paths, Services
from teu.container.setup import Setup
from teu.container.stats import Stats
from teu.container.streams import Streams
from teu.container.update import Updater
from teu.container.view import Views
from teu.container.volumework import VolumeWork
from teu.daemon.config import DaemonConfig
from teu.daemon.translate import (
    mirrors,
    network_config,
    registry_config,
    reload_facts,
    runtime_config,
)
from teu.errors import InvalidParameter
from teu.events import EventBus
from teu.image.remote import RemoteImages
from teu.image.service import ImageService
from teu.model.config import LogConfig
from teu.network.files import EtcFiles
from teu.network.service import NetworkService
from teu.registry.client import RegistryClient
from teu.runtime.service import RuntimeService
from teu.runtime.shim import ShimService
from teu.store.builds import BuildStore
from teu.store.containers import ContainerStore
from teu.store.db import Database
from teu.store.events import EventStore
from teu.store.volumes import VolumeStore
from teu.system import About, System
from teu.tasks import TaskOwner
from teu.volume.plugins import FOLDERS, Plugins
from teu.volume.service import VolumeService

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
log = logging.getLogger(__name__)


class Daemon:
    """One engine on one data root. `handle` serves the API once `start` has returned."""

    def __init__(self, config: DaemonConfig) -> None:
        self._config = config
        self._db: Database | None = None
        self._engine: Engine | None = None
        self._api: ApiServer | None = None
        self._registry = RegistryClient(registry_config(config))
        self._users = _Users()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert self._api is not None, "start() comes first"
        return await self._api.handle(request)

    async def start(self) -> None:
        """Raises: EngineError with what stands in the way and what to do about it."""
        config = self._config
        for directory, mode in ((config.data_root, 0o710), (config.exec_root, 0o711)):
            directory.mkdir(mode=mode, parents=True, exist_ok=True)
        for directory in (config.data_root / "containers", config.exec_root / "containers"):
            directory.mkdir(mode=0o710, exist_ok=True)
        self._db = Database(config.data_root / "teu.db")
        services, events = self._build_services(self._db)
        await services.images.start()
        await services.volumes.start()
        await services.networks.start()
        await services.runtime.start()
        await services.shims.start()
        self._engine, recovery = self._build_engine(services, events)
        self._api = ApiServer(_routes(self._engine))
        await self._engine.builds.start(services.runtime, services.shims)
        await recovery.run()
        services.images.collect()  # layers that no image, container or cached step needs
        recovery.start_wanted()

    async def stop(self) -> None:
        """Ends streams, cancels builds, lets other changes finish (bounded); containers run on."""
        if self._engine is None or self._db is None:
            return
        services = self._engine.services
        self._engine.events.close()
        self._engine.lifecycle.close()
        await self._engine.builds.stop()
        await self._engine.health.close()
        await services.tasks.drain(self._config.shutdown_timeout_s)
        await services.shims.close()
        await services.networks.stop()
        await services.volumes.close()
        await services.images.close()
        self._db.close()

    def reload(self, config: DaemonConfig) -> None:
        """Takes over what may change while running (SIGHUP)."""
        self._config = config
        if self._engine is not None:
            self._registry.reload(registry_config(config))
            tasks = self._engine.services.tasks
            tasks.start(
                self._engine.services.runtime.reload(runtime_config(config)), "reload runtimes"
            )
            self._engine.events.publish("daemon", "reload", self._engine_id(), reload_facts(config))

    # --- building ------------------------------------------------------------------------

    def _build_services(self, db: Database) -> tuple[Services, EventBus]:
        config = self._config
        events = EventBus(EventStore(db))
        containers = self._users.containers = Containers(ContainerStore(db), events)
        runtime = RuntimeService(runtime_config(config))
        networks = NetworkService(db, config.exec_root, network_config(config))
        networks.expect_releases(containers.is_going)
        services = Services(
            paths=Paths(config.data_root, config.exec_root),
            defaults=_defaults(config),
            containers=containers,
            images=ImageService(
                db,
                config.data_root,
                self._registry,
                self._users,
                lambda action, image_id, about: events.publish("image", action, image_id, about),
            ),
            networks=networks,
            etc=EtcFiles(network_config(config), networks),
            volumes=VolumeService(
                VolumeStore(db),
                config.data_root / "volumes",
                containers.using_volume,
                Plugins([config.exec_root / "plugins", *FOLDERS]),
                lambda action, name, facts: events.publish("volume", action, name, facts),
            ),
            runtime=runtime,
            shims=ShimService(config.exec_root / "rehearsal"),
            tasks=TaskOwner(),
            events=events,
        )
        return services, events

    def _build_engine(self, services: Services, events: EventBus) -> tuple[Engine, Recovery]:
        rootfs = RootFilesystems(services.paths, services.images)
        mounter = Mounter(services)
        remover = Remover(services, rootfs, mounter)
        health = HealthMonitor(services)
        plug_events = PlugEvents(services)
        exits = Exits(services, remover, health, plug_events)
        links = Links(services)
        setup = Setup(services, rootfs, links, mounter)
        builds = self._users.builds = self._build_builder(services, services.etc)
        lifecycle = Lifecycle(services, setup, exits, remover, health, plug_events)
        looks = Looks(services)
        engine = Engine(
            services=services,
            events=events,
            creator=Creator(services, rootfs),
            lifecycle=lifecycle,
            streams=Streams(services),
            execs=Execs(services),
            listing=Listing(services.containers, services.images),
            looks=looks,
            plugs=Plugs(services, events),
            reach=Reach(services),
            stats=Stats(services),
            pruner=Pruner(services, lifecycle, looks),
            committer=Committer(services, rootfs, lifecycle),
            rootfs=rootfs,
            archives=Archives(services, Views(rootfs, services.volumes)),
            updater=Updater(services),
            links=links,
            builds=builds,
            health=health,
            system=System(services, looks, events, self._about),
            registry=self._registry,
            volume_work=VolumeWork(services, lifecycle),
            remote=RemoteImages(self._registry),
        )
        recovery = Recovery(
            services, rootfs, lifecycle, exits, remover, engine.execs, health, mounter
        )
        return engine, recovery

    def _build_builder(self, services: Services, etc: EtcFiles) -> BuildService:
        assert self._db is not None
        workspace = Workspace(self._config.data_root, self._config.exec_root)
        runner = Runner(
            workspace, services.runtime, services.shims, services.networks, etc, services.tasks
        )
        return BuildService(
            workspace,
            BuildStore(self._db),
            services.images,
            runner,
            services.tasks,
            self._config.builder,
        )

    def _engine_id(self) -> str:
        assert self._db is not None
        return self._db.meta("engine-id", ids.new_id())

    def _about(self) -> About:
        config = self._config
        assert self._engine is not None
        runtime = self._engine.services.runtime
        return About(
            engine_id=self._engine_id(),
            data_root=config.data_root,
            labels=list(config.labels),
            debug=config.debug,
            insecure_registries=list(config.insecure_registries),
            mirrors=mirrors(config),
            log_driver=config.log_driver,
            runtimes=runtime.known(),
            default_runtime=runtime.default_runtime,
            init_path=config.init_path,
            warnings=list(self._engine.services.networks.warnings),
            address_pools=[(pool.base, pool.size) for pool in config.default_address_pools],
        )


class _Users:
    """Tells the image service who uses an image or a layer. Both parts are built after it."""

    containers: Containers
    builds: BuildService

    def containers_using(self, image_id: str) -> list[tuple[str, bool]]:
        return self.containers.using_image(image_id)

    def layers_in_use(self) -> set[str]:
        return self.containers.layers_in_use() | self.builds.layers_in_use()

    def layers_mounted(self) -> dict[str, str]:
        return self.containers.layers_mounted()


def _defaults(config: DaemonConfig) -> Defaults:
    """Raises: InvalidParameter for log options that no container could be started with."""
    log = LogConfig(type=config.log_driver, config=dict(config.log_opts))
    try:
        check_log(log)
    except InvalidParameter as error:
        raise InvalidParameter(f"failed to set log opts: {error.message}") from error
    return Defaults(
        log=log,
        stop_timeout_s=config.default_stop_timeout_s,
        boot_id=BOOT_ID.read_text().strip(),
    )


def _routes(engine: Engine) -> list[Route]:
    groups = (
        ContainerRoutes(engine),
        ArchiveRoutes(engine),
        ExecRoutes(engine),
        ImageRoutes(engine),
        DistributionRoutes(engine),
        NetworkRoutes(engine),
        VolumeRoutes(engine),
        VolumeWorkRoutes(engine),
        SystemRoutes(engine),
        BuildRoutes(engine),
        BuildSessionRoutes(engine),
        AbsentRoutes(),
    )
    return [route for group in groups for route in group.routes()]
