"""Items as they occur in catalogs."""

import copy
from datetime import UTC, datetime, timedelta

import pytest
import shapely
from pystac import Item
from shapely.geometry import box

from torchgeo_caco.acquisition import download
from torchgeo_caco.acquisition.catalog import group_passes
from torchgeo_caco.acquisition.providers import baseline

TIME = datetime(2023, 1, 1, 10, tzinfo=UTC)
PATCH = box(11.48, 45.2, 11.54, 45.22)


def scene(name: str, outline: object, seconds: float = 0, **more: object) -> Item:
    properties = {
        'platform': 'sentinel-2a', 'grid:code': 'MGRS-32TQR', 's2:processing_baseline': '05.09',
        'eo:cloud_cover': 1.0, **more,
    }  # fmt: skip
    time = TIME + timedelta(seconds=seconds)
    return Item(name, shapely.geometry.mapping(outline), None, time, properties)


def names(*items: Item) -> list[list[str]]:
    return [[item.id for item in found.scenes] for found in group_passes(items, PATCH)]


def test_two_halves_of_a_tile_are_one_pass():
    west, east = box(11, 45, 11.5, 46), box(11.5, 45, 12, 46)
    assert names(scene('a', west), scene('b', east, 12)) == [['b', 'a']]


def test_of_scenes_processed_twice_the_newest_counts():
    whole = box(11, 45, 12, 46)
    old, new = {'s2:processing_baseline': '02.14'}, {'s2:processing_baseline': 'N0500'}
    assert names(scene('a', whole, **old), scene('b', whole, 0.5, **new)) == [['b']]
    # If it says another time, it still comes first.
    assert names(scene('a', whole, **old), scene('b', whole, 2, **new)) == [['b', 'a']]


def test_another_platform_is_another_pass():
    whole = box(11, 45, 12, 46)
    assert names(scene('a', whole), scene('b', whole, platform='sentinel-2b')) == [['a'], ['b']]


@pytest.mark.parametrize(
    ('text', 'number'),
    [
        ('05.09', 5.09), ('5.09', 5.09), ('N0509', 5.09), ('N05.09', 5.09), ('0214', 2.14),
        (5.1, 5.1), (4, 4.0), (None, None), ('new', None), ('nan', None),
    ],
)  # fmt: skip
def test_baseline(text, number):
    assert baseline(scene('a', PATCH, **{'s2:processing_baseline': text})) == number


def test_odd_items_are_used(server, plan, places, root):
    server.items = copy.deepcopy(server.items)
    west, south, east, north = 11, 44, 13, 46
    corners = [[west, south], [east, north], [east, south], [west, north], [west, south]]
    for item in server.items:
        item['geometry'] = {'type': 'Polygon', 'coordinates': [corners]}
        if 'good' in item['id']:
            item['properties']['eo:cloud_cover'] = None
    assert not shapely.geometry.shape(server.items[0]['geometry']).is_valid
    summary = download(places[:1], root, plan, progress=False)
    assert (summary.done, summary.failed) == (1, 0)
    assert (root / 'west' / '20181218').is_dir()  # the good pass
