"""What a push sends: bytes in memory, blobs of the store, layers made again from their trees."""

import hashlib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator

from isal import isal_zlib

from teu.content.blobs import digest_of
from teu.image.progress import Progress, Throttled
from teu.image.stock import Stock
from teu.store.images import LayerRow
from teu.sys.bytepipe import FromThread

_GZIP_LEVEL = 1
_GZIP_WINDOW = 31
_BATCH_BYTES = 1 << 20
_ID = slice(7, 19)


class SmallUpload:
    """A config."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.digest = digest_of(data)
        self.size_bytes = len(data)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        yield self._data


class BlobUpload:
    """A blob of the store, as it is."""

    def __init__(self, stock: Stock, digest: str, progress: Progress) -> None:
        self._stock = stock
        self._progress = progress
        self.digest = digest
        self.size_bytes = stock.blobs.size_bytes(digest)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        told = Throttled(self._progress, "Pushing", self.digest[_ID], self.size_bytes)
        sent = 0
        pieces = _from_thread(self._stock, lambda: self._stock.blobs.chunks(self.digest))
        async for piece in pieces:
            sent += len(piece)
            told(sent)
            yield piece


class LayerUpload:
    """A layer, made again from its tree and compressed; `digest` and `sent_bytes` are those of
    the compressed form once `chunks` has given everything."""

    size_bytes = None

    def __init__(self, stock: Stock, row: LayerRow, progress: Progress) -> None:
        self._stock = stock
        self._row = row
        self._progress = progress
        self._hash = hashlib.sha256()
        self.sent_bytes = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        summed, self.sent_bytes = hashlib.sha256(), 0
        self._hash = summed  # an earlier attempt's thread may still be adding to its own
        told = Throttled(self._progress, "Pushing", self._row.diff_id[_ID], self._row.size_bytes)
        async for piece in _from_thread(self._stock, lambda: self._compressed(summed)):
            self.sent_bytes += len(piece)
            told(self.sent_bytes)
            yield piece

    def _compressed(self, summed: "hashlib._Hash") -> Iterator[bytes]:
        compressor = isal_zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_WINDOW)
        batch = b""
        for piece in self._stock.layers.archive(self._row):
            batch += compressor.compress(piece)
            if len(batch) >= _BATCH_BYTES:
                summed.update(batch)
                yield batch
                batch = b""
        batch += compressor.flush()
        summed.update(batch)
        yield batch


async def _from_thread(
    stock: Stock, pieces: Callable[[], Iterable[bytes]]
) -> AsyncGenerator[bytes, None]:
    with FromThread() as pipe:
        working = stock.start(pipe.drain_from, pieces)
        try:
            async for piece in pipe:
                yield piece
        finally:
            pipe.close()
            await working
