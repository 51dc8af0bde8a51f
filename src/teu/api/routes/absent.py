"""What this engine is not: a swarm node, a host of managed plugins, a BuildKit server.

Every endpoint of these parts answers as a Docker daemon outside of a swarm and without plugins
does, so that clients that ask before they act go on; what would make one of them is refused with
the reason.
"""

from typing import Final

from aiohttp import web

from teu.api.call import Call, answer
from teu.api.router import Route
from teu.errors import InvalidParameter, NotFound, NotImplementedYet, Unavailable

_SWARM_OBJECTS: Final = ("nodes", "services", "tasks", "secrets", "configs")
_ALWAYS: Final = (1, 24)
_SINCE: Final = {"secrets": (1, 25), "configs": (1, 30)}


class AbsentRoutes:
    def routes(self) -> list[Route]:
        return [*self._swarm(), *self._plugins(), Route("POST", "/session", self.session)]

    # --- swarm ---------------------------------------------------------------------------

    def _swarm(self) -> list[Route]:
        routes = [
            Route("GET", "/swarm", self.no_swarm),
            Route("GET", "/swarm/unlockkey", self.no_swarm),
            Route("POST", "/swarm/update", self.no_swarm),
            Route("POST", "/swarm/unlock", self.no_swarm),
            Route("POST", "/swarm/leave", self.leave),
            Route("POST", "/swarm/init", self.refuse_swarm),
            Route("POST", "/swarm/join", self.refuse_swarm),
            Route("PUT", "/volumes/{name}", self.no_swarm, (1, 42)),  # cluster volumes only
        ]
        for kind in _SWARM_OBJECTS:
            minimum = _SINCE.get(kind, _ALWAYS)
            routes.append(Route("GET", f"/{kind}", self.no_swarm, minimum))
            routes += [
                Route(method, f"/{kind}/{{rest:path}}", self.no_swarm, minimum)
                for method in ("GET", "POST", "DELETE")
            ]
        return routes

    async def no_swarm(self, call: Call) -> web.StreamResponse:
        raise Unavailable(
            'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to '
            "connect this node to swarm and try again."
        )

    async def leave(self, call: Call) -> web.StreamResponse:
        raise Unavailable("This node is not part of a swarm")

    async def refuse_swarm(self, call: Call) -> web.StreamResponse:
        raise NotImplementedYet(
            "teu runs the containers of one host and takes no part in swarms; for several "
            "services on one host use a Compose project"
        )

    # --- plugins -------------------------------------------------------------------------

    def _plugins(self) -> list[Route]:
        one = "/plugins/{name:path}"
        return [
            Route("GET", "/plugins", self.plugins, (1, 25)),
            Route("GET", "/plugins/privileges", self.refuse_plugin, (1, 25)),
            Route("POST", "/plugins/pull", self.refuse_plugin, (1, 25)),
            Route("POST", "/plugins/create", self.refuse_plugin, (1, 25)),
            Route("GET", f"{one}/json", self.no_plugin, (1, 25)),
            Route("DELETE", one, self.no_plugin, (1, 25)),
            *(
                Route("POST", f"{one}/{verb}", self.no_plugin, (1, 25))
                for verb in ("enable", "disable", "push", "set")
            ),
            Route("POST", f"{one}/upgrade", self.no_plugin, (1, 26)),
        ]

    async def plugins(self, call: Call) -> web.StreamResponse:
        call.filters()
        return answer([])

    async def no_plugin(self, call: Call) -> web.StreamResponse:
        raise NotFound(f'plugin "{call.params["name"]}" not found')

    async def refuse_plugin(self, call: Call) -> web.StreamResponse:
        raise NotImplementedYet(
            "teu has no managed plugins; what they do for Docker (network, volume and log "
            "drivers) is built in or not there: see `info`"
        )

    # --- BuildKit ------------------------------------------------------------------------

    async def session(self, call: Call) -> web.StreamResponse:
        if not call.request.headers.get("Upgrade"):
            raise InvalidParameter("no upgrade proto in request")
        raise NotImplementedYet(
            "sessions belong to BuildKit's protocol, which this engine does not speak; build with "
            "`teu build`, or with DOCKER_BUILDKIT=0"
        )
