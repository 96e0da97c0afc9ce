"""Lists of buses: pages of the catalogue, and the pages that clients watch.

A client that shows a list watches one page of it. Each `WATCH_SECONDS` the page is looked at again in the client's turn, and
what has changed is sent, if anything has: the client asks once, and the broker's work is one page, however many buses it
has and however often they change.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ebus_jupyter.core.protocol import frames
from ebus_jupyter.core.protocol.address import Address
from ebus_jupyter.core.protocol.limits import Limits
from ebus_jupyter.core.protocol.message import BusSpec, allows
from ebus_jupyter.errors import TooLarge

from .bus import BusState
from .catalogue import EXAMINED, Catalogue, Listed
from .conn import Conn
from .effects import AuthorizeList, Effect, Send

WATCH_SECONDS = 2.0
"""The time between two looks at a watched page."""

WATCHES = 8
"""The pages that one connection may watch."""

PERMIT_SECONDS = 30.0
"""The time for which the authorizer's answer about a listed bus holds."""


class Watch(msgspec.Struct):
    """A page that a connection watches.

    Attributes:
        asked: The request.
        seen: The buses as the client was told of them, by address.
        looked_at: When the page was last looked at.
    """

    asked: frames.List
    seen: dict[str, tuple[int, int | None]]
    looked_at: float


class Listings:
    """Answers requests for lists.

    Args:
        catalogue: The kept buses.
        buses: The loaded buses, by URI.
        limits: The bounds.
        count: Counts the bytes of an answer.
    """

    def __init__(self, catalogue: Catalogue, buses: Mapping[str, BusState], limits: Limits) -> None:
        self._catalogue = catalogue
        self._buses = buses
        self._limits = limits
        self._watches: dict[int, dict[int, Watch]] = {}  # by connection, and then by request
        self._permits: dict[int, tuple[float, dict[str, bool]]] = {}  # by connection: since when, and which

    def __len__(self) -> int:
        return sum(map(len, self._watches.values()))

    def forget(self, conn_id: int) -> None:
        """A connection has ended."""
        self._watches.pop(conn_id, None)
        self._permits.pop(conn_id, None)

    def due(self, now: float) -> list[tuple[int, frames.List]]:
        """The connections whose watched page is to be looked at again, and their requests."""
        found = []
        for conn_id, watches in self._watches.items():
            for watch in watches.values():
                if now - watch.looked_at >= WATCH_SECONDS:
                    watch.looked_at = now
                    found.append((conn_id, watch.asked))
        return found

    def answer(self, conn: Conn, frame: frames.List, now: float) -> list[Effect]:
        """The page that a connection asks for; for one that it watches, its changes.

        Where the authorizer has not been asked about all of its buses, it is asked first; then call this again.

        Raises:
            InvalidName: ``after`` is no address.
            TooLarge: The connection watches too many pages.
        """
        page, unknown, following = self._page(conn, frame, now)
        if unknown:
            return [AuthorizeList(conn.id, frame, unknown)]
        watches = self._watches.get(conn.id, {})
        watch = watches.get(frame.req)
        if watch is not None and watch.asked is frame:
            return self._changes(conn, watch, page, following)
        watches.pop(frame.req, None)
        if frame.watch:
            if len(watches) >= WATCHES:
                raise TooLarge(f"a connection watches at most {WATCHES} lists.", limit="watches")
            self._watches.setdefault(conn.id, watches)[frame.req] = Watch(
                frame, {bus.uri: bus.state for bus in page}, now
            )
        elif not watches:
            self._watches.pop(conn.id, None)
        return [Send(conn.id, frames.encode(frames.Listed(frame.req, [bus.fields() for bus in page], following)))]

    def authorized(self, conn: Conn, frame: frames.List, allowed: Mapping[str, bool], now: float) -> list[Effect]:
        """The authorizer has answered an `AuthorizeList`."""
        self._permits_of(conn, now).update(allowed)
        return self.answer(conn, frame, now)

    def _changes(self, conn: Conn, watch: Watch, page: list[_Row], following: str) -> list[Effect]:
        now_there = {bus.uri: bus.state for bus in page}
        changed = [bus.fields() for bus in page if watch.seen.get(bus.uri) != bus.state]
        removed = [uri for uri in watch.seen if uri not in now_there]
        watch.seen = now_there
        if not changed and not removed:
            return []
        return [Send(conn.id, frames.encode(frames.Listed(watch.asked.req, changed, following, True, removed)))]

    def _page(self, conn: Conn, frame: frames.List, now: float) -> tuple[list[_Row], dict[str, BusSpec], str]:
        """The rows of a page, those that the authorizer has to be asked about, and where the next page begins."""
        most = min(frame.limit or self._limits.list_buses, self._limits.list_buses)
        wanted = frame.find.lower().split()
        permits = self._permits_of(conn, now) if conn.authorize else None
        rows: list[_Row] = []
        unknown: dict[str, BusSpec] = {}
        size = 0
        last = ""
        cursor = Address.parse(frame.after) if frame.after else None
        for examined, listed in enumerate(self._catalogue.after(cursor, conn.who)):
            uri = str(listed.address)
            if examined >= EXAMINED or len(rows) + len(unknown) >= most or size > self._limits.page_bytes:
                return rows, unknown, last
            last = uri
            spec = listed.spec
            if not all(word in uri.lower() for word in wanted) or not (
                allows(spec.readers, conn.who) or allows(spec.writers, conn.who)
            ):
                continue
            permit = True if permits is None else permits.get(uri)
            if permit is None:
                unknown[uri] = spec
            elif permit:
                rows.append(_Row(uri, listed, self._buses.get(uri)))
                size += listed.size + len(uri)
        return rows, unknown, ""

    def _permits_of(self, conn: Conn, now: float) -> dict[str, bool]:
        since, permits = self._permits.get(conn.id, (0.0, {}))
        if conn.id not in self._permits or now - since > PERMIT_SECONDS or len(permits) > EXAMINED:
            permits = {}
            self._permits[conn.id] = now, permits
        return permits


class _Row:
    """A bus of a page."""

    def __init__(self, uri: str, listed: Listed, loaded: BusState | None) -> None:
        self.uri = uri
        self._listed = listed
        self.state: tuple[int, int | None] = (0, None) if loaded is None else (len(loaded.presence), loaded.log.last)

    def fields(self) -> dict[str, object]:
        address = self._listed.address
        participants, last = self.state
        return {
            "address": self.uri,
            "scope": address.scope,
            "name": address.name,
            "spec": self._listed.spec,
            "participants": participants,
            "last": last,
        }
