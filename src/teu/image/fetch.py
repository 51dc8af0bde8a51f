"""A file from a web server, for `import URL`."""

import os
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit

import aiohttp

from teu import __version__
from teu.errors import InvalidParameter, NotFound, Unavailable
from teu.image.progress import Progress, Throttled, status

_SCHEMES = ("http", "https")
_CONNECT_LIMIT_S = 30.0
_STALL_LIMIT_S = 60.0
_CHUNK_BYTES = 256 << 10
_ERROR_STATUS = 400


async def fetch(url: str, progress: Progress) -> AsyncGenerator[bytes, None]:
    """The file's bytes, as they come; proxies as the daemon's environment says.

    Raises: InvalidParameter (no such scheme), NotFound (the server refuses), Unavailable (it
    cannot be reached, breaks off, or sends nothing for a minute).
    """
    url = url if "://" in url else f"http://{url}"
    if urlsplit(url).scheme not in _SCHEMES:
        raise InvalidParameter(f"cannot import from {url}: only http and https are known")
    limits = aiohttp.ClientTimeout(total=None, connect=_CONNECT_LIMIT_S, sock_read=_STALL_LIMIT_S)
    headers = {"User-Agent": f"teu/{__version__}", "Accept-Encoding": "identity"}
    try:
        async with (
            aiohttp.ClientSession(
                timeout=limits, trust_env=True, headers=headers, auto_decompress=False
            ) as session,
            session.get(url) as response,
        ):
            if response.status >= _ERROR_STATUS:
                raise NotFound(
                    f"failed to GET {url} with status {response.status} {response.reason}"
                )
            progress(status(f"Downloading from {url}"))
            told = Throttled(progress, "Importing", "", response.content_length or 0)
            done = 0
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                done += len(chunk)
                told(done)
                yield chunk
    except aiohttp.ClientConnectorError as error:
        reason = f"cannot connect to {error.host}:{error.port}: {os.strerror(error.errno or 0)}"
        raise Unavailable(f'Get "{url}": {reason}') from error
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Unavailable(f'Get "{url}": {str(error) or "nothing came in time"}') from error
