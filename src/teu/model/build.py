"""What the build cache keeps: results of steps by key, and facts that take long to find out."""

from msgspec import Struct, field


class CacheRecord(Struct, kw_only=True):
    """One row of the `build_cache` table. Instants are epoch nanoseconds.

    `kind`: exec, files, directory (results of steps: `diff_ids` is the whole stack of layers),
    image (only `created_ns` matters), digest (`value` is a content digest), mount (`value` is the
    directory of a cache mount). `slot` names the step over changes of its inputs; `parts` are
    the named parts of the key, `files` the digests of what was copied: to tell what changed.
    """

    key: str
    kind: str
    name: str = ""
    slot: str = ""
    diff_ids: list[str] = field(default_factory=list)
    value: str = ""
    created_ns: int = 0
    used_ns: int = 0
    uses: int = 0
    size_bytes: int = 0
    parent: str = ""
    parts: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
