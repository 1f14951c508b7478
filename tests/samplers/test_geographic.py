"""Where on Earth: the law, the coast, regions, distances, and TorchGeo's samplers."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from pyproj import Geod, Transformer
from scipy.spatial import cKDTree
from scipy.stats import ks_2samp, kstest, rayleigh
from torchgeo.samplers import RandomTimestampSampler

from torchgeo_caco.cli import main
from torchgeo_caco.samplers import GeographicSampler, LandMask, load_cities

GEOD = Geod(ellps='WGS84')


@pytest.fixture(scope='module')
def many() -> gpd.GeoDataFrame:
    return GeographicSampler().places(100_000)


def offsets(places: gpd.GeoDataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Metres east and north of the city, by the geodesic, and its latitude."""
    cities = load_cities().drop_duplicates(['city', 'country'], keep=False)
    known = places[['city', 'country', 'geometry']].merge(cities, on=['city', 'country'])
    points = gpd.GeoSeries(known['geometry'])
    azimuth, _, distance = GEOD.inv(known['lon'], known['lat'], points.x, points.y)
    angle = np.deg2rad(azimuth)
    return distance * np.sin(angle), distance * np.cos(angle), known['lat'].to_numpy()


def test_cities():
    cities = load_cities()
    assert len(cities) == 10_000
    assert cities['population'].is_monotonic_decreasing
    assert cities['population'].min() > 50_000
    assert {'Paris', 'Lagos', 'Lima'} <= set(cities['city'])


def test_distance_before_rejection_is_rayleighs():
    places = GeographicSampler(reject_ocean=False).places(100_000)
    east, north, _ = offsets(places)
    distance = np.hypot(east, north)
    assert kstest(distance, rayleigh(scale=5000).cdf).pvalue > 0.01
    assert kstest(places['distance_km'], rayleigh(scale=5).cdf).pvalue > 0.01
    assert kstest(east / 5000, 'norm').pvalue > 0.01
    assert kstest(north / 5000, 'norm').pvalue > 0.01


def test_no_bias_with_latitude(many):
    east, north, lat = offsets(GeographicSampler(reject_ocean=False, seed=1).places(100_000))
    for low, high in ((0, 15), (15, 30), (30, 45), (45, 70)):
        band = (np.abs(lat) >= low) & (np.abs(lat) < high)
        for metres in (east, north):
            assert metres[band].std() == pytest.approx(5000, rel=0.03)
    # Coasts do not push cities out: rejection keeps the city.
    cities = load_cities()
    drawn = many.groupby(['city', 'country']).size()
    expected = cities.groupby(['city', 'country']).size()
    assert len(drawn) > 0.99 * len(expected)
    assert ks_2samp(many.geometry.y, cities['lat']).statistic < 0.01


def test_none_in_the_ocean(many):
    # Looked up cell by cell, not by the sampler's own search.
    mask = LandMask.load()
    lon, lat = many.geometry.x.to_numpy(), many.geometry.y.to_numpy()
    found = np.zeros(len(many), bool)
    for a in np.linspace(-1, 1, 9):
        for b in np.linspace(-1, 1, 9):
            north = b * 1320 / 110_500
            found |= mask.contains(lon + a * 1320 / 110_500 / np.cos(np.deg2rad(lat)), lat + north)
    assert (~found).mean() < 1e-4  # corners that a ninth of a side steps over
    all_of_them = GeographicSampler(reject_ocean=False).places(20_000)
    sea = ~mask.touches(all_of_them.geometry.x.to_numpy(), all_of_them.geometry.y.to_numpy(), 1320)
    assert 0.005 < sea.mean() < 0.2
    assert not (~mask.touches(lon, lat, 1320)).any()


def test_land_mask():
    mask = LandMask.load()
    land = {'Paris': (2.35, 48.85), 'Chad': (18.7, 15.4), 'Fiji': (178.0, -17.8), 'Pole': (0, -90)}
    sea = {'Atlantic': (-30, 30), 'Pacific': (-180, 0), 'Pole': (0, 90), 'North Sea': (3, 56)}
    assert mask.contains(*np.array(list(land.values()), float).T).all()
    assert not mask.contains(*np.array(list(sea.values()), float).T).any()
    assert not mask.touches(*np.array(list(sea.values()), float).T, 1320).any()
    # A box across the date line sees Taveuni, 7 km behind it, from either side.
    both = np.array([179.99, -179.99]), np.full(2, -16.85)
    assert mask.touches(*both, 20_000).all()
    assert mask.grid().mean() == pytest.approx(0.33, abs=0.02)


def test_seeds_and_prefixes():
    few, more = GeographicSampler().places(10), GeographicSampler().places(2000)
    assert few.geometry.equals(more.geometry[:10])
    assert not GeographicSampler(seed=1).places(10).geometry.equals(few.geometry)


def test_laws():
    seco = GeographicSampler(law='seco').places(20_000)
    assert kstest(seco['distance_km'], rayleigh(scale=50).cdf).pvalue > 0.01
    uniform = GeographicSampler(law='uniform').places(20_000)
    lon, lat = uniform.geometry.x.to_numpy(), uniform.geometry.y.to_numpy()
    assert LandMask.load().contains(lon, lat).all()
    assert lat.min() > -56
    # Area, not degrees: Siberia does not outweigh the Congo.
    tropics = (np.abs(lat) < 23.4).mean()
    assert 0.3 < tropics < 0.45


def test_region_and_cities_of_ones_own():
    bavaria = shapely.box(10, 47.5, 13, 50)
    places = GeographicSampler(roi=bavaria).places(500)
    assert places.within(bavaria).all()
    assert set(places['country']) <= {'DE', 'AT'}
    mine = pd.DataFrame({'city': ['here'], 'country': ['XX'], 'lon': [179.99], 'lat': [-16.85]})
    near = GeographicSampler(cities=mine, sigma_km=20).places(50)
    assert set(near['city']) == {'here'}
    assert near.geometry.x.between(-180, 180).all()
    with pytest.raises(ValueError, match='none of the 10000 cities lies in the region'):
        GeographicSampler(roi=shapely.box(-40, 10, -30, 20))
    with pytest.raises(ValueError, match='could not be found'):
        GeographicSampler(law='uniform', roi=shapely.box(-40, 10, -30, 20)).places(5)


def test_minimum_distance():
    places = GeographicSampler(min_distance_km=3, cities=300).places(2000)
    x, y, z = Transformer.from_crs(4979, 4978, always_xy=True).transform(
        places.geometry.x, places.geometry.y, np.zeros(len(places))
    )
    points = np.stack([x, y, z], -1)
    assert cKDTree(points).query(points, k=2)[0][:, 1].min() > 2980
    with pytest.raises(ValueError, match='min_distance_km too large'):
        GeographicSampler(min_distance_km=50, cities=3).places(200)


class Tiles:
    """What a sampler uses of a GeoDataset."""

    def __init__(self, crs: int, bounds: tuple[float, ...], res: float) -> None:
        times = pd.IntervalIndex.from_tuples(
            [(pd.Timestamp('2020-01-01'), pd.Timestamp('2020-01-02'))],
            closed='both',
            name='datetime',
        )
        geometry = [shapely.box(*bounds)]
        self.index = gpd.GeoDataFrame(geometry=geometry, index=times, crs=crs)
        self.crs, self.res = self.index.crs, (res, res)


@pytest.mark.parametrize('law', ['caco', 'uniform'])
@pytest.mark.parametrize(
    ('crs', 'bounds', 'res'),
    [(32632, (600_000, 5_290_200, 709_800, 5_400_000), 10), (4326, (11, 47.5, 13, 49), 0.0001)],
)
def test_over_a_dataset(law, crs, bounds, res):
    dataset = Tiles(crs, bounds, res)
    sampler = GeographicSampler(dataset, size=256, length=50, law=law)
    assert len(sampler) == 50
    boxes = [shapely.box(x.start, y.start, x.stop, y.stop) for x, y in sampler]
    assert len(boxes) == 50
    assert all(shapely.box(*bounds).contains(box) for box in boxes)
    width = np.array([b.bounds[2] - b.bounds[0] for b in boxes])
    assert np.allclose(width, 256 * res)
    steps = np.array([(b.bounds[0] - bounds[0]) / res for b in boxes])
    assert np.allclose(steps, np.round(steps), atol=1e-3)
    # Another epoch has other places.
    assert shapely.box(*bounds) not in boxes
    assert [x.start for x, _ in sampler] != [b.bounds[0] for b in boxes]


def test_with_a_temporal_sampler():
    dataset = Tiles(32632, (600_000, 5_290_200, 709_800, 5_400_000), 10)
    product = GeographicSampler(dataset, size=64, length=5) @ RandomTimestampSampler(dataset)
    drawn = list(product)
    assert len(product) == len(drawn) == 5
    assert all(t.start == pd.Timestamp('2020-01-01') for _, _, t in drawn)


def test_locate(tmp_path, capsys):
    out, drawn = tmp_path / 'places.parquet', tmp_path / 'places.png'
    region = tmp_path / 'region.geojson'
    gpd.GeoSeries([shapely.box(10, 47.5, 13, 50)], crs=4326).to_file(region)
    options = ['--roi', str(region), '--map', str(drawn)]
    assert main(['locate', '-n', '20', '-o', str(out), *options]) == 0
    places = gpd.read_parquet(out)
    assert places.crs.to_epsg() == 4326
    assert list(places.columns) == ['location', 'city', 'country', 'distance_km', 'geometry']
    assert places.attrs['sampler']['law'] == 'caco'
    assert drawn.stat().st_size > 10_000
    assert main(['locate', '--roi', str(tmp_path / 'none.shp')]) == 1
    assert 'none.shp does not exist; a vector file was expected' in capsys.readouterr().err
