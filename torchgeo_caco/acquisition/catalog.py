"""Which scenes show a place at a time."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import shapely
from pystac import Item, STACError
from pystac_client import Client, ConformanceClasses
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from shapely.geometry.base import BaseGeometry

from .network import LaterError, hosts, persist, redact, retries
from .plan import Network, Plan
from .providers import baseline

#: Scenes of one pass over neighbouring tiles are at most so far apart.
PASS = timedelta(minutes=15)


class Acquisition(NamedTuple):
    """One pass of a satellite over a place: scenes of neighbouring tiles, the best one first."""

    time: datetime
    cloud: float
    scenes: tuple[Item, ...]


class Catalog:
    """A STAC API; safe to use from several threads."""

    def __init__(self, plan: Plan) -> None:
        """Initialize a new Catalog instance.

        Args:
            plan: What to look for.

        Raises:
            LaterError: If the API does not answer.
        """
        self._plan, self._network = plan, plan.network
        self._client = persist(self._network, self._open)
        self._filters = self._client.conforms_to(ConformanceClasses.QUERY)

    def _open(self) -> Client:
        io = StacApiIO(timeout=self._network.timeout, max_retries=retries(self._network))
        url = self._plan.provider.url
        with hosts(self._network.per_host).request(url), self._errors('landing page'):
            return Client.open(url, stac_io=io)

    def find(self, patch: BaseGeometry, start: datetime, stop: datetime) -> list[Acquisition]:
        """Find what shows a patch in a window of time.

        Args:
            patch: Its outline in EPSG:4326.
            start: Start of the window.
            stop: Its end.

        Returns:
            Acquisitions that claim few enough clouds, the clearest first; among equals the one
            nearest to the middle of the window.

        Raises:
            LaterError: If the API does not answer.
        """
        west, south, east, north = patch.bounds
        # Across the date line a box is ambiguous, a point never.
        place: dict[str, Any] = (
            {'bbox': (west, south, east, north)}
            if east - west < 180
            else {'intersects': shapely.geometry.mapping(patch.representative_point())}
        )
        most = self._plan.quality.scene_cloud
        if self._filters:
            place['query'] = {'eo:cloud_cover': {'lte': most}}
        items = [
            item
            for item in persist(self._network, lambda: self._search(place, start, stop))
            if _cloud(item) <= most
            # Some servers round times to days.
            and item.datetime is not None
            and start <= item.datetime <= stop
        ]
        middle = start + (stop - start) / 2
        passes = group_passes(items, patch)
        return sorted(passes, key=lambda p: (p.cloud, abs(p.time - middle), p.scenes[0].id))

    def _search(self, place: dict[str, Any], start: datetime, stop: datetime) -> list[Item]:
        url, collection = self._plan.provider.url, self._plan.provider.collection
        with hosts(self._network.per_host).request(url, 'searches'), self._errors('search'):
            search = self._client.search(
                collections=[collection], datetime=(start, stop), limit=100, max_items=500, **place
            )
            return list(search.items())

    def _errors(self, what: str) -> '_Errors':
        return _Errors(f'{self._plan.provider.url}: {what}')


class _Errors:
    """Turns all that a STAC API may do wrong into one kind of error."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # Malformed JSON and items without what STAC demands are a broken answer, too.
        if isinstance(error, APIError | STACError | ValueError | KeyError | TypeError):
            raise LaterError(f'{self._what} failed: {redact(error)}') from error


#: Catalogs of this process, the last few, opened or being opened.
_catalogs: dict[tuple[Plan, Network], Future[Catalog]] = {}
_CATALOGS = threading.Lock()


def open_catalog(plan: Plan) -> Catalog:
    """The catalog of a plan; each process opens it once, while its other threads wait.

    Args:
        plan: What to look for; plans whose network settings differ have catalogs of their own.

    Returns:
        The catalog.

    Raises:
        LaterError: If the API does not answer; the next call asks again.
    """
    key = plan, plan.network
    with _CATALOGS:
        found = _catalogs.get(key)
        if found is None:
            while len(_catalogs) >= 4:
                del _catalogs[next(iter(_catalogs))]
            future = _catalogs[key] = Future[Catalog]()
    if found is not None:
        return found.result()
    try:
        future.set_result(Catalog(plan))
    except BaseException as error:
        with _CATALOGS:
            _catalogs.pop(key, None)
        future.set_exception(error)
    return future.result()


def group_passes(items: Sequence[Item], patch: BaseGeometry) -> list[Acquisition]:
    """Group scenes by pass; of scenes that were processed twice only the newest counts.

    Args:
        items: Scenes, each with a datetime.
        patch: The place in EPSG:4326.

    Returns:
        The passes in chronological order; in each the scene that covers most of the patch first,
        and among equals the newest processing.
    """
    newest: dict[Any, Item] = {}
    for item in sorted(items, key=lambda i: (baseline(i) or 0, i.id)):
        tile = item.properties.get('grid:code', item.properties.get('s2:mgrs_tile', item.id))
        # A tile may come in two halves of one pass, some seconds apart.
        newest[item.properties.get('platform'), tile, _time(item).replace(microsecond=0)] = item
    passes: list[list[Item]] = []
    for item in sorted(newest.values(), key=lambda i: (_time(i), i.id)):
        last = passes[-1][0] if passes else None
        if (
            last is not None
            and _time(item) - _time(last) <= PASS
            and item.properties.get('platform') == last.properties.get('platform')
        ):
            passes[-1].append(item)
        else:
            passes.append([item])
    return [_acquisition(scenes, patch) for scenes in passes]


def _acquisition(scenes: list[Item], patch: BaseGeometry) -> Acquisition:
    def order(item: Item) -> tuple[float, float, str]:
        outline = shapely.geometry.shape(item.geometry) if item.geometry else patch
        # Outlines that cross themselves do occur.
        outline = shapely.make_valid(outline)
        uncovered = round(patch.difference(outline).area / patch.area, 3)
        return uncovered, -(baseline(item) or 0), item.id

    ordered = sorted(scenes, key=order)
    return Acquisition(_time(ordered[0]), _cloud(ordered[0]), tuple(ordered))


def _cloud(item: Item) -> float:
    """What a scene claims; one that does not say, or says null, is judged by its classes alone."""
    return float(item.properties.get('eo:cloud_cover') or 0)


def _time(item: Item) -> datetime:
    assert item.datetime is not None
    return item.datetime
