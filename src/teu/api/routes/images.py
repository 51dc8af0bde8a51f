"""`/images/…`, `/commit`."""

from contextlib import aclosing

from aiohttp import web

from teu.api import status, versions
from teu.api.call import Call, answer
from teu.api.engine import Engine
from teu.api.headers import HEADERS
from teu.api.progress import Emit, stream_progress
from teu.api.registryauth import registry_auth
from teu.api.router import Route
from teu.errors import InvalidParameter, SystemFailure, Unauthorized
from teu.image.bootstrap import Plan
from teu.image.fetch import fetch
from teu.model.config import ContainerConfig
from teu.model.image import Image
from teu.model.reference import Reference

_MANIFESTS_SINCE = (1, 47)


class ImageRoutes:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._images = engine.services.images
        self._tasks = engine.services.tasks

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/images/json", self.listing),
            Route("POST", "/images/create", self.create),
            Route("POST", "/images/load", self.load),
            Route("POST", "/images/prune", self.prune),
            Route("POST", "/images/bootstrap", self.bootstrap),
            Route("GET", "/images/get", self.save_many),
            Route("GET", "/images/{name:path}/json", self.inspect),
            Route("GET", "/images/{name:path}/history", self.history),
            Route("GET", "/images/{name:path}/get", self.save),
            Route("POST", "/images/{name:path}/tag", self.tag),
            Route("POST", "/images/{name:path}/push", self.push),
            Route("DELETE", "/images/{name:path}", self.remove),
            Route("POST", "/commit", self.commit),
        ]

    # --- queries -------------------------------------------------------------------------

    async def listing(self, call: Call) -> web.StreamResponse:
        rows = self._images.list_images(
            call.filters(),
            all_=call.flag("all"),
            shared_size=call.flag("shared-size"),
        )
        if call.flag("manifests") and call.version >= _MANIFESTS_SINCE:
            await self._images.add_manifests(rows)
        for row in rows:
            versions.adapt_image_row(row, call.version)
        return answer(rows)

    async def inspect(self, call: Call) -> web.StreamResponse:
        platform, manifests = call.text("platform"), call.flag("manifests")
        if platform and manifests:
            raise InvalidParameter(
                "conflicting options: manifests and platform options cannot both be set"
            )
        shown = self._images.inspect(call.params["name"], platform=platform, manifests=manifests)
        versions.adapt_image(shown, call.version)
        return answer(shown)

    async def history(self, call: Call) -> web.StreamResponse:
        return answer(self._images.history(call.params["name"], call.text("platform")))

    # --- bringing in and out ---------------------------------------------------------------

    async def create(self, call: Call) -> web.StreamResponse:
        """pull (`fromImage`) or import (`fromSrc`)."""
        if call.text("fromSrc"):
            return await self._import(call)
        name = call.text("fromImage")
        if not name:
            raise InvalidParameter("invalid reference format: no image is named")
        tag = call.text("tag")
        if tag:
            name += f"@{tag}" if tag.startswith("sha256:") else f":{tag}"
        auth = registry_auth(call)
        parsed = Reference.parse(name)
        pull = self._images.pull if parsed.tag or parsed.digest else self._images.pull_tags

        async def work(emit: Emit) -> None:
            try:
                image = await pull(name, platform=call.text("platform"), auth=auth, progress=emit)
            except Unauthorized as error:
                # As Docker answers; at a 401 its client asks for a password, terminal or not.
                raise SystemFailure(error.message) from error
            self._tell("pull", name, image)

        return await stream_progress(call, self._tasks, f"pull {name}", work)

    async def _import(self, call: Call) -> web.StreamResponse:
        source = call.text("fromSrc")
        name = call.text("repo")
        if name and call.text("tag"):
            name += f":{call.text('tag')}"
        changes = call.values("changes")

        async def work(emit: Emit) -> None:
            pieces = call.chunks() if source == "-" else fetch(source, emit)
            async with aclosing(pieces):
                image = await self._images.import_image(
                    pieces,
                    name=name,
                    changes=changes,
                    message=call.text("message") or f"Imported from {source}",
                    platform=call.text("platform"),
                )
            emit({"status": image.id})

        return await stream_progress(call, self._tasks, "import", work)

    async def bootstrap(self, call: Call) -> web.StreamResponse:
        """Not Docker's: a base image out of the host's package mirror."""
        plan = Plan(
            source=call.text("source"),
            name=call.text("name"),
            mirror=call.text("mirror"),
            variant=call.text("variant") or "minbase",
            include=call.text("include"),
        )

        async def work(emit: Emit) -> None:
            await self._images.bootstrap(plan, emit)

        return await stream_progress(call, self._tasks, f"bootstrap {plan.source}", work)

    async def load(self, call: Call) -> web.StreamResponse:
        async def work(emit: Emit) -> None:
            await self._images.load(call.chunks(), progress=emit, platform=call.text("platform"))

        return await stream_progress(call, self._tasks, "load", work, errors_in_stream=True)

    async def save(self, call: Call) -> web.StreamResponse:
        return await self._save(call, [call.params["name"]])

    async def save_many(self, call: Call) -> web.StreamResponse:
        return await self._save(call, call.values("names"))

    async def _save(self, call: Call, names: list[str]) -> web.StreamResponse:
        pieces = self._images.save(names, call.text("platform"))
        response = web.StreamResponse(headers={"Content-Type": "application/x-tar", **HEADERS})
        await response.prepare(call.request)
        async with aclosing(pieces):
            async for piece in pieces:
                await response.write(piece)
        await response.write_eof()
        return response

    async def push(self, call: Call) -> web.StreamResponse:
        name = call.params["name"]
        auth = registry_auth(call)

        async def work(emit: Emit) -> None:
            tag = call.text("tag")
            await self._images.push(
                name, tag=tag, platform=call.text("platform"), auth=auth, progress=emit
            )
            self._tell("push", f"{name}:{tag}" if tag else name, None)

        return await stream_progress(call, self._tasks, f"push {name}", work)

    # --- changes -------------------------------------------------------------------------

    async def tag(self, call: Call) -> web.StreamResponse:
        repo, tag = call.text("repo"), call.text("tag")
        target = f"{repo}:{tag}" if tag else repo
        self._images.tag(call.params["name"], target)
        return web.Response(status=status.CREATED)

    async def remove(self, call: Call) -> web.StreamResponse:
        removed = await self._tasks.shielded(
            self._images.remove(
                call.params["name"],
                force=call.flag("force"),
                prune=not call.flag("noprune"),
                platforms=call.values("platforms"),
            ),
            "remove image",
        )
        return answer(removed)

    async def prune(self, call: Call) -> web.StreamResponse:
        removed, reclaimed = await self._tasks.shielded(
            self._images.prune(call.filters()), "prune images"
        )
        return answer({"ImagesDeleted": removed or None, "SpaceReclaimed": reclaimed})

    async def commit(self, call: Call) -> web.StreamResponse:
        container = self._engine.services.containers.get(call.text("container"))
        repo, tag = call.text("repo"), call.text("tag")
        image = await self._tasks.shielded(
            self._engine.committer.commit(
                container,
                name=f"{repo}:{tag}" if repo and tag else repo,
                author=call.text("author"),
                comment=call.text("comment"),
                changes=call.values("changes"),
                override=await call.body(ContainerConfig),
                pause=call.flag("pause", default=True),
            ),
            "commit",
        )
        return answer({"Id": image.id}, status.CREATED)

    def _tell(self, action: str, ref: str, image: Image | None) -> None:
        """What concerns a registry names the image as it is called there."""
        reference = Reference.parse(ref).with_default_tag()
        labels = (image.config.config.labels if image else None) or {}
        facts = {**labels, "name": reference.familiar_name}
        self._engine.events.publish("image", action, reference.familiar, facts)
