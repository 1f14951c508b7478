"""What is particular about each provider."""

from datetime import UTC, datetime

import pytest
from pystac import Asset, Item

from torchgeo_caco.acquisition import PROVIDERS
from torchgeo_caco.acquisition.network import explain, is_network, redact
from torchgeo_caco.acquisition.patch import patch_grid, utm
from torchgeo_caco.acquisition.providers import find_offset


def scene(properties: dict, **fields: object) -> Item:
    item = Item('a', None, None, datetime(2022, 6, 1, tzinfo=UTC), properties)
    item.add_asset('red', Asset('red.tif', extra_fields=fields))
    return item


@pytest.mark.parametrize(
    ('name', 'bands'),
    [
        ('planetary-computer', ('B04', 'B8A', 'SCL')),
        ('earth-search', ('red', 'nir08', 'scl')),
        ('earth-search-v1', ('red', 'nir08', 'scl')),
        ('cdse', ('B04_10m', 'B8A_20m', 'SCL_20m')),
    ],
)
def test_names(name, bands):
    provider = PROVIDERS[name]
    assert (provider.assets['B4'], provider.assets['B8A'], provider.classes) == bands
    assert len(provider.assets) == 12


@pytest.mark.parametrize(
    ('properties', 'offset'),
    [
        ({'s2:processing_baseline': '02.14'}, 0),
        ({'s2:processing_baseline': '03.01'}, 0),
        ({'s2:processing_baseline': '04.00'}, -1000),
        ({'processing:version': '05.11'}, -1000),
    ],
)
def test_offset_by_baseline(properties, offset):
    assert find_offset(scene(properties), 'red', 'baseline') == offset


def test_offset_by_flag():
    new = {'s2:processing_baseline': '05.09'}
    applied = {**new, 'earthsearch:boa_offset_applied': True}
    assert find_offset(scene(applied), 'red', 'flag') == 0
    assert find_offset(scene({'s2:processing_baseline': '02.09'}), 'red', 'flag') == 0
    with pytest.raises(ValueError, match='not reliable'):
        find_offset(scene({**new, 'earthsearch:boa_offset_applied': False}), 'red', 'flag')


def test_offset_by_metadata():
    bands = [{'scale': 0.0001, 'offset': -0.1}]
    assert find_offset(scene({}, **{'raster:bands': bands}), 'red', 'metadata') == -1000
    fields = {'raster:scale': 0.0001, 'raster:offset': -0.1}
    assert find_offset(scene({}, **fields), 'red', 'metadata') == -1000
    with pytest.raises(ValueError, match='does not say its offset'):
        find_offset(scene({}), 'red', 'metadata')


def test_no_baseline():
    with pytest.raises(ValueError, match='does not say its processing baseline'):
        find_offset(scene({}), 'red', 'baseline')
    assert find_offset(scene({}), 'red', 'none') == 0


@pytest.mark.parametrize(
    ('lon', 'lat', 'code'),
    [
        (11.9, 45, 32632), (12.1, 45, 32633), (-179.9, -16, 32701), (179.9, -16, 32760),
        (5, 60, 32632), (2, 60, 32631), (8, 75, 32631), (10, 75, 32633), (180, 10, 32601),
    ],
)  # fmt: skip
def test_utm(lon, lat, code):
    assert utm(lon, lat) == code


def test_grid_lies_on_sentinels_pixels():
    grid = patch_grid(2.35, 48.86, 264, 10)
    assert grid.shape == (264, 264)
    assert (grid.transform.c % 60, grid.transform.f % 60) == (0, 0)
    lon, lat = grid.center_pixel.extent.to_crs('EPSG:4326').centroid.coords[0]
    assert abs(lon - 2.35) < 1e-3
    assert abs(lat - 48.86) < 1e-3


def test_messages():
    assert redact("'https://a.b/c.tif?sig=xyz&se=1' failed\n twice") == (
        "'https://a.b/c.tif?...' failed twice"
    )
    try:
        try:
            raise OSError('HTTP response code: 500')
        except OSError as error:
            raise ValueError('Read failed.') from error
    except ValueError as error:
        assert explain(error) == 'Read failed.; HTTP response code: 500'
        assert is_network(explain(error))
    assert not is_network('TIFFReadDirectory: wrong tag')
