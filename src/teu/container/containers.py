"""The directory of all containers: who has which name, finding one by what a user typed, saving.

Everything here is synchronous and belongs to the loop's thread, so a look-up and the change that
follows it in the same step cannot be overtaken.
"""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager

from teu import ids
from teu.container.container import Container
from teu.container.state import is_active
from teu.errors import Conflict, InvalidParameter, NotFound
from teu.events import EventBus
from teu.model.container import ContainerRecord, Status
from teu.store.containers import ContainerStore, NameTaken

_ALLOCATING = "Error when allocating new name: "
log = logging.getLogger(__name__)


class NoSuchContainer(NotFound):
    def __init__(self, ref: str) -> None:
        super().__init__(f"No such container: {ref}")
        self.ref = ref


class NameInUse(Conflict):
    def __init__(self, name: str, holder_id: str, *, before: str = "") -> None:
        super().__init__(
            f'{before}Conflict. The container name "/{name}" is already in use by container '
            f'"{holder_id}". You have to remove (or rename) that container to be able to reuse '
            "that name."
        )
        self.name = name
        self.holder_id = holder_id


def _checked_name(name: str) -> str:
    try:
        return ids.check_name(name)
    except InvalidParameter as error:
        raise InvalidParameter(f"{_ALLOCATING}{error.message}") from None


class Containers:
    """Holds every container that is not being removed."""

    def __init__(self, store: ContainerStore, events: EventBus) -> None:
        self._store = store
        self._events = events
        self._by_id: dict[str, Container] = {}
        self._by_name: dict[str, Container] = {}
        self.broken: dict[str, str] = {}  # id -> why its record cannot be read
        self._broken_raw: dict[str, bytes] = {}

    def __iter__(self) -> Iterator[Container]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    # --- finding -------------------------------------------------------------------------

    def get(self, ref: str) -> Container:
        """By full id, name (with or without slash) or unique id prefix, in this order.

        Raises: NoSuchContainer; InvalidParameter for a prefix of several ids.
        """
        found = self._by_id.get(ref) or self._by_name.get(ref.removeprefix("/"))
        if found is not None:
            return found
        matches = ids.matching_ids(self._by_id, ref) if ref else []
        if len(matches) == 1:
            return self._by_id[matches[0]]
        if matches:
            raise InvalidParameter(f"multiple IDs found with provided prefix: {ref}")
        raise NoSuchContainer(ref)

    def find(self, ref: str) -> Container | None:
        try:
            return self.get(ref)
        except (NoSuchContainer, InvalidParameter):
            return None

    def using_image(self, image_id: str) -> list[tuple[str, bool]]:
        """(container id, runs) of each container made from the image, or with it mounted."""
        return [
            (c.id, c.running)
            for c in self
            if c.record.image_id == image_id or any(m.image_id == image_id for m in c.record.mounts)
        ]

    def layers_in_use(self) -> set[str]:
        """Chain ids below all containers, whatever became of their images."""
        own = {layer for c in self for layer in c.record.layers}
        return own | {layer for c in self for m in c.record.mounts for layer in m.layers}

    def layers_mounted(self) -> dict[str, str]:
        """Chain ids below containers that run, start or end, and the id of one of them each."""
        mounted = [c for c in self if c.record.status not in (Status.CREATED, Status.EXITED)]
        return {layer: c.id for c in mounted for layer in c.record.layers}

    def using_volume(self, name: str) -> list[str]:
        """Ids of the containers that mention it; a record that cannot be read mentions whatever
        text is in it."""
        text = f'"{name}"'.encode()
        broken = [c for c, raw in self._broken_raw.items() if text in raw]
        return [c.id for c in self if any(m.name == name for m in c.record.mounts)] + broken

    def is_going(self, container_id: str) -> bool:
        """Whether what a run of the container held is being freed, or already is: it has ended or
        is being removed."""
        container = self._by_id.get(container_id)
        return container is None or not is_active(container.record)

    # --- changing ------------------------------------------------------------------------

    def add(self, record: ContainerRecord) -> Container:
        """Stores a new record and takes its name. Raises: NameInUse."""
        if (holder := self._by_name.get(record.name)) is not None:
            raise NameInUse(record.name, holder.id)
        try:
            self._store.insert(record)
        except NameTaken as error:  # a quarantined row has it
            raise NameInUse(record.name, "a record that cannot be read") from error
        return self.adopt(record)

    def adopt(self, record: ContainerRecord) -> Container:
        """Takes a record that is already stored (recovery)."""
        container = Container(record)
        self._by_id[record.id] = container
        self._by_name[record.name] = container
        return container

    def free_name(self) -> str:
        """A random name that nobody has."""
        for attempt in range(1000):
            name = ids.random_name() + (str(attempt) if attempt > 5 else "")
            if name not in self._by_name:
                return name
        return f"container_{ids.new_id()[:12]}"

    def together(self) -> AbstractContextManager[None]:
        """What is saved in the body, of containers and volumes, with the events that tell it, is
        stored as one: all of it is there after a crash or nothing, for one commit. No await."""
        return self._store.together()

    def save(self, container: Container) -> None:
        self._store.save(container.record)

    def rename(self, container: Container, new_name: str) -> None:
        """Raises: InvalidParameter, NameInUse."""
        record = container.record
        if not new_name or new_name == "/":
            raise InvalidParameter("Neither old nor new names may be empty")
        name = _checked_name(new_name)
        old = record.name
        if name == old:
            raise InvalidParameter("Renaming a container with the same name as its current name")
        if (holder := self._by_name.get(name)) is not None:
            raise NameInUse(name, holder.id, before=_ALLOCATING)
        record.name = name
        try:
            self._store.rename(record)
        except NameTaken as error:
            record.name = old
            raise NameInUse(name, "a record that cannot be read", before=_ALLOCATING) from error
        del self._by_name[old]
        self._by_name[name] = container
        self.tell(container, "rename", oldName=f"/{old}")

    def begin_removal(self, container: Container) -> None:
        """The record is saved as being removed, name and id are free, nobody finds it any more."""
        self._store.free_name(container.record)
        self._by_id.pop(container.id, None)
        if self._by_name.get(container.name) is container:
            del self._by_name[container.name]

    def end_removal(self, container: Container) -> None:
        """The row goes: nothing of the container is left."""
        self._store.delete(container.id)

    def load(self) -> list[ContainerRecord]:
        """All readable records, those being removed included; unreadable ones are reported."""
        records, broken = self._store.load()
        for row in broken:
            log.error(
                "container %s: its record cannot be read (%s); it is kept aside: nothing of it is "
                "touched",
                row.id[:12],
                row.reason,
            )
            self.broken[row.id] = row.reason
            self._broken_raw[row.id] = row.raw
        return records

    # --- telling -------------------------------------------------------------------------

    def tell(
        self, container: Container, action: str, *, lasting: bool = True, **attributes: str
    ) -> None:
        """Publishes an event of the container; see EventBus.publish for `lasting`."""
        record = container.record
        labels = record.config.labels or {}
        self._events.publish(
            "container",
            action,
            record.id,
            {**labels, "image": record.config.image, "name": record.name, **attributes},
            lasting=lasting,
        )

    def tell_detached(self, container: Container, exec_id: str) -> None:
        """A client typed its detach keys; `exec_id` is empty for the container's own process."""
        if exec_id:
            self.tell(container, "exec_detach", execID=exec_id)
        else:
            self.tell(container, "detach")

    def in_status(self, *statuses: Status) -> list[Container]:
        return [c for c in self if c.record.status in statuses]
