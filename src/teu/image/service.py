"""Images, as the rest of the engine sees them.

`resolve` and `layer_directories` never wait: they answer from memory. Everything that changes the
store is all or nothing; see `stock.py` for the order of steps.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from teu.clock import now_ns
from teu.content.blobs import BlobStore
from teu.errors import EngineError
from teu.image import helloworld, removal, views
from teu.image.bootstrap import Bootstrapper, Plan
from teu.image.cachetransfer import CacheTransfer
from teu.image.catalog import Catalog
from teu.image.checking import Checker
from teu.image.download import Downloader, Registry
from teu.image.filters import Filters
from teu.image.layers import LayerFiles
from teu.image.listing import ImageList
from teu.image.loading import Loader
from teu.image.making import Made, Maker
from teu.image.manifests import Manifests
from teu.image.platform import parse_platform
from teu.image.progress import Progress
from teu.image.pulling import Puller, check_platform
from teu.image.pushing import Pusher
from teu.image.removal import ImageUsers, Removed, Remover
from teu.image.repairing import Logins, Repairer
from teu.image.saving import SavedImage, Saver, choose_images
from teu.image.stock import Stock
from teu.image.variants import NotAnImage, variant_for
from teu.image.workshop import Workshop
from teu.model.config import ContainerConfig
from teu.model.image import Image
from teu.model.reference import Reference
from teu.model.registry import RegistryUnreachable
from teu.store.db import Database
from teu.store.images import ImageStore
from teu.sys.pack import pack_tree

Tell = Callable[[str, str, dict[str, str]], None]


class ImageService:
    """One per data root. Loop's thread; `start` first, `close` last.

    `tell(action, image id, attributes)` hears of every change.
    """

    def __init__(
        self,
        db: Database,
        data_root: Path,
        registry: Registry,
        users: ImageUsers,
        tell: Tell = lambda action, image_id, attributes: None,
    ) -> None:
        self._users = users
        self._tell = tell
        self._registry = registry
        self._blobs = BlobStore(data_root / "content")
        self._layers = LayerFiles(data_root / "layers")
        self._catalog = Catalog(ImageStore(db), self._blobs, self._layers)
        self._stock = Stock(self._catalog, self._blobs, self._layers)
        self._downloader = Downloader(self._stock, registry)
        self._puller = Puller(self._stock, self._downloader)
        self._pusher = Pusher(self._stock, registry)
        self._maker = Maker(self._stock)
        self._remover = Remover(self._catalog, users)
        self.workshop = Workshop(self._stock)
        self.caches = CacheTransfer(self._stock, self._downloader)
        self._manifests = Manifests(self._catalog, self._blobs, users)
        self._list = ImageList(self._catalog, self._manifests, users)
        self._bootstrapper = Bootstrapper(
            data_root / "bootstrap", self.import_image, self.archive_tree
        )

    async def start(self) -> None:
        """Reads all records and removes what a crash left half done. Layers that nobody uses any
        more go with `collect`, once the containers are known."""
        self._catalog.load()
        known = {row.directory for row in self._catalog.layers().values()}
        await self._stock.in_thread(self._layers.clean, known)
        await self._stock.in_thread(self._blobs.clean)
        await self._stock.in_thread(self._bootstrapper.clean)

    async def close(self) -> None:
        """Waits for file work under way; closes connections to registries."""
        await self._registry.close()
        await self._stock.close()

    # --- reading ------------------------------------------------------------------------

    def resolve(self, ref: str, platform: str = "") -> Image:
        """By name, name@digest, id or unambiguous id prefix; of several platforms this machine's,
        or the one asked for.

        Raises: NoSuchImage, InvalidReference; NoSuchVariant when it is there for others only.
        """
        if not platform:
            return self._catalog.resolve(ref)
        return variant_for(self._catalog.variants(ref), parse_platform(platform), ref)

    def runnable(self, ref: str, platform: str = "") -> Image:
        """`resolve`, for a container. Raises: NotAnImage for an artifact, too."""
        image = self.resolve(ref, platform)
        if image.record.artifact_type:
            raise NotAnImage(ref, image.record.artifact_type)
        return image

    def get(self, image_id: str) -> Image:
        """By full id. Raises: NoSuchImage."""
        return self._catalog.get(image_id)

    def config_data(self, image_id: str) -> bytes:
        """The config of an image, byte for byte. Raises: DataLoss."""
        return self._blobs.read(image_id)

    def find(self, image_id: str) -> Image | None:
        """By full id."""
        return self._catalog.find(image_id)

    def layer_directories(self, chain_ids: list[str]) -> list[Path]:
        """For an overlay's `lowerdir`: top first. Raises: DataLoss when one is missing."""
        return self._catalog.directories(chain_ids)

    def is_name_of(self, name: str, image_id: str) -> bool:
        """Whether a user's text means this image now."""
        try:
            return self._catalog.find_id(name) == image_id
        except EngineError:
            return False

    def descends(self, image_id: str, ref: str) -> bool:
        """Whether an image is, or is built on, the one that `ref` means."""
        try:
            ancestor = self._catalog.resolve(ref)
        except EngineError:
            return False
        image = self._catalog.find(image_id)
        if image is None or image.id == ancestor.id:
            return image_id == ancestor.id
        depth = len(ancestor.chain_ids)
        return depth > 0 and image.chain_ids[:depth] == ancestor.chain_ids

    def count(self) -> int:
        return len(self._catalog.all())

    def layers_of_images(self) -> set[str]:
        """Chain ids of all layers that an image has."""
        return {chain_id for image in self._catalog.all() for chain_id in image.chain_ids}

    def layers_size(self) -> int:
        """Bytes of all layers, each once."""
        return sum(row.size_bytes for row in list(self._catalog.layers().values()))

    def list_images(
        self,
        filters: Filters,
        *,
        all_: bool = False,
        shared_size: bool = False,
    ) -> list[dict[str, Any]]:
        """See ImageList."""
        return self._list.rows(filters, all_=all_, shared_size=shared_size)

    async def add_manifests(self, rows: list[dict[str, Any]]) -> None:
        """See ImageList."""
        await self._list.add_manifests(rows)

    def inspect(self, ref: str, *, platform: str = "", manifests: bool = False) -> dict[str, Any]:
        """`GET /images/{name}/json`. Raises: NoSuchImage, NoSuchVariant."""
        image = self.resolve(ref, platform)
        shown = views.inspect(image, self._catalog, self._layers)
        if (descriptor := self._manifests.descriptor(image)) is not None:
            shown["Descriptor"] = descriptor
        if manifests:
            shown["Manifests"] = self._manifests.of(image)
        return shown

    def history(self, ref: str, platform: str = "") -> list[dict[str, Any]]:
        """`GET /images/{name}/history`. Raises: NoSuchImage, NoSuchVariant."""
        return views.history(self.resolve(ref, platform), self._catalog)

    def keeping(self, chain_ids: Iterable[str]) -> AbstractContextManager[None]:
        """Keeps layers while something that is not a record yet needs them."""
        return self._stock.keeping(chain_ids)

    # --- taking in ----------------------------------------------------------------------

    async def pull(
        self,
        reference: str,
        *,
        platform: str = "",
        auth: Mapping[str, Any] | None = None,
        progress: Progress,
    ) -> Image:
        """Fetches an image (or artifact) that is not there yet, or is older here; all of an
        index for the platform `all`. `progress` gets Docker's JSON messages.

        Cancel: stops, and keeps what was downloaded for the next attempt.
        Crash: the next start removes everything but resumable parts.
        Raises: InvalidReference, ManifestUnknown, PullDenied, Unauthorized, RegistryUnreachable,
        WrongDigest, InvalidImage, InvalidArchive, SystemFailure; nothing is left then.
        """
        name = Reference.parse(reference).with_default_tag()
        check_platform(platform)
        async with self._tidy():
            try:
                return await self._puller.pull(
                    name, platform=platform, auth=auth, progress=progress
                )
            except RegistryUnreachable as error:
                if name != helloworld.NAME:
                    raise
                return await helloworld.built_in(self._stock, error, progress)

    async def pull_tags(
        self,
        repository: str,
        *,
        platform: str = "",
        auth: Mapping[str, Any] | None = None,
        progress: Progress,
    ) -> Image:
        """`pull` for every tag of a repository; the last one's image."""
        name = Reference.parse(repository)
        check_platform(platform)
        async with self._tidy():
            return await self._puller.pull_tags(
                name, platform=platform, auth=auth, progress=progress
            )

    async def load(
        self, stream: AsyncIterator[bytes], progress: Progress, platform: str = ""
    ) -> list[Image]:
        """Reads a docker-archive or an OCI layout, compressed or not.

        Raises: InvalidArchive, InvalidImage, WrongDigest, SystemFailure; nothing is left then.
        Crash: nothing of an unfinished image is seen at the next start.
        """
        async with self._tidy():
            images = await Loader(self._stock, progress, platform).run(stream)
        for image in images:
            self._tell_of("load", image)
        return images

    async def import_image(
        self,
        stream: AsyncIterator[bytes],
        *,
        name: str = "",
        changes: Sequence[str] = (),
        message: str = "",
        platform: str = "",
    ) -> Image:
        """An image of one layer from a root file system's tar, compressed or not.

        Raises: InvalidReference, InvalidParameter (changes, platform), InvalidArchive.
        """
        async with self._tidy():
            image = await self._maker.import_image(
                stream, name=name, changes=changes, message=message, platform=platform
            )
        self._tell_names(image, name)
        self._tell_of("import", image)
        return image

    async def bootstrap(self, plan: Plan, progress: Progress) -> Image:
        """A base image out of the host's package mirror. Raises: InvalidParameter,
        SystemFailure."""
        return await self._bootstrapper.run(plan, progress)

    async def commit(
        self,
        upper: Path,
        *,
        parent_id: str,
        config: ContainerConfig,
        container_id: str = "",
        name: str = "",
        author: str = "",
        comment: str = "",
        changes: Sequence[str] = (),
    ) -> Image:
        """An image from a container's upper directory on top of its image.

        Raises: InvalidReference, InvalidParameter (changes), SystemFailure.
        """
        parent = self._catalog.get(parent_id) if parent_id else None
        command = [config.cmd] if isinstance(config.cmd, str) else config.cmd or []
        made = Made(
            config=config,
            platform=parent.config.platform if parent else parse_platform(""),
            author=author,
            comment=comment,
            created_by=" ".join(command),
            container_id=container_id,
            container_config=config,
        )
        async with self._tidy():
            image = await self._maker.commit(
                upper, parent=parent, made=made, name=name, changes=changes
            )
        self._tell_names(image, name)
        return image

    async def push(
        self,
        reference: str,
        *,
        tag: str = "",
        platform: str = "",
        auth: Mapping[str, Any] | None = None,
        progress: Progress,
    ) -> None:
        """Sends an image to the registry in its name; without a tag, all tags of the repository.
        Of an image in several platforms all that are here, or the one asked for.

        Raises: NotHere, NoSuchVariant, Unauthorized, Forbidden, RegistryUnreachable,
        BrokenTransfer, DataLoss.
        """
        name = Reference.parse(reference)
        name = name.with_tag(tag) if tag else name
        await self._pusher.push(name, auth, progress, platform)

    # --- giving out ---------------------------------------------------------------------

    def save(self, refs: Sequence[str], platform: str = "") -> AsyncGenerator[bytes, None]:
        """One tar that is an OCI layout and a docker-archive at once; of images in several
        platforms all, or the one asked for.

        Raises: NoSuchImage, NoSuchVariant, InvalidReference, DataLoss; the pieces raise DataLoss
        when a layer turns out to be damaged.
        """
        wanted = parse_platform(platform) if platform else None
        images = choose_images(self._catalog, refs, wanted)
        return self._saved(images, Saver(self._blobs, self._layers, images, self._catalog))

    async def _saved(self, images: list[SavedImage], saver: Saver) -> AsyncGenerator[bytes, None]:
        every = [image for saved in images for image in saved.variants]
        chain = [chain_id for image in every for chain_id in image.chain_ids]
        blobs = [digest for image in every for digest in self._catalog.blobs_of(image.id)]
        with self._stock.keeping(chain), self._blobs.lease(blobs):
            async for piece in self._stock.from_thread(saver.pieces):
                yield piece
        for saved in images:
            self._tell_of("save", saved.variants[0])

    async def archive_tree(self, root: Path) -> AsyncIterator[bytes]:
        """A whole directory tree as a tar. Raises: SystemFailure."""
        async for piece in self._stock.from_thread(lambda: pack_tree(root)):
            yield piece

    # --- names and removal --------------------------------------------------------------

    def tag(self, ref: str, target: str) -> Image:
        """`target` means this image from now on. Raises: NoSuchImage, InvalidReference."""
        image = self._catalog.resolve(ref)
        name = Reference.parse(target)
        if name.digest:
            raise removal.DigestTag(target)
        self._catalog.tag(image, name.with_default_tag(), now_ns(), like=ref)
        image = self._catalog.get(image.id)
        self._tell_of("tag", image, name.with_default_tag().familiar)
        return image

    async def remove(
        self,
        ref: str,
        force: bool = False,
        prune: bool = True,
        platforms: Sequence[str] = (),
    ) -> list[dict[str, str]]:
        """`DELETE /images/{name}`: Docker's list of what was untagged and deleted. With
        `platforms` only these of an image in several.

        Raises: NoSuchImage, NoSuchVariant, ImageInUse, ReferenceInUse.
        """
        if platforms:
            wanted = [parse_platform(text) for text in platforms]
            removed = self._remover.remove_platforms(ref, wanted, force=force)
        else:
            removed = self._remover.remove(ref, force=force, prune=prune)
        records, _ = self._take_away(removed)
        return records

    async def prune(self, filters: Filters) -> tuple[list[dict[str, str]], int]:
        """What was removed, and the bytes freed. Raises: InvalidParameter."""
        records, freed = self._take_away(self._remover.prune(filters))
        self._tell("prune", "", {"reclaimed": str(freed)})
        return records, freed

    def _take_away(self, removed: Removed) -> tuple[list[dict[str, str]], int]:
        before = dict(self._catalog.layers())
        freed = self.collect()
        after = self._catalog.layers()
        gone = [c for c in dict.fromkeys(removed.chain_ids) if c in before and c not in after]
        for action, image in removed.events:
            self._tell_of(action, image)
        return removed.records + [{"Deleted": chain_id} for chain_id in gone], freed

    def _tell_names(self, image: Image, name: str) -> None:
        if name:
            self._tell_of("tag", image, Reference.parse(name).with_default_tag().familiar)

    def _tell_of(self, action: str, image: Image, name: str = "") -> None:
        """As Docker does: with the image's labels, named by its id where no name is given."""
        labels = image.config.config.labels or {}
        self._tell(action, image.id, {**labels, "name": name or image.id})

    def collect(self) -> int:
        """Removes layers and blobs that nothing needs any more; the bytes freed. Call it once
        the containers are known after a start."""
        return self._stock.collect(self._users.layers_in_use())

    async def check(
        self, progress: Progress, *, repair: bool = False, logins: Logins | None = None
    ) -> None:
        """Looks at all content; `progress` also gets each problem and, last, the sums, as `aux`.
        Repairs from registries, with these logins.

        Cancel and crash: what was repaired stays so.
        """
        users = self._users
        checker = Checker(self._stock, set(users.layers_in_use()), progress)
        repairer = Repairer(self._stock, self._downloader, users.layers_mounted, logins or {})
        async for problem in checker.problems():
            if repair:
                await repairer.repair(problem, progress)
            progress({"aux": problem.shape()})
        progress({"aux": {"Checked": checker.checked.shape()}})

    def _tidy(self) -> "_Tidy":
        return _Tidy(self)


class _Tidy:
    """Collects what a failed piece of work left behind."""

    def __init__(self, service: ImageService) -> None:
        self._service = service

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._service.collect()
