"""Draw places around cities, for a dataset of one's own."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import geopandas as gpd
import matplotlib.pyplot as plt
from pyogrio.errors import DataSourceError

from ..samplers.geographic import LAWS, GeographicSampler, plot_places


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('-n', '--number', type=int, default=10_000, help='places (%(default)s)')
    parser.add_argument(
        '-o', '--out', metavar='FILE', default='places.parquet',
        help='a GeoParquet file, or .gpkg, .geojson... (%(default)s)',
    )  # fmt: skip
    parser.add_argument('--map', metavar='PNG', help='also draw a map of the world')
    parser.add_argument('--law', choices=LAWS, default='caco', help='how to draw (%(default)s)')
    parser.add_argument('--sigma-km', type=float, help="instead of the law's 5 or 50")
    parser.add_argument(
        '--cities', type=int, default=10_000, help='of the most populated cities (%(default)s)'
    )
    parser.add_argument('--roi', metavar='FILE', help='only inside this: any vector file')
    parser.add_argument('--min-distance-km', type=float, default=0, help='between any two (0)')
    parser.add_argument('--size', type=int, default=264, help='of a patch, in 10 m pixels (264)')
    parser.add_argument('--seed', type=int, default=0, help='of all draws (%(default)s)')


def run(args: Namespace) -> None:
    """Draw places."""
    region = None if args.roi is None else read_vector(args.roi).to_crs(4326).union_all()
    places = GeographicSampler(
        size=args.size,
        law=args.law,
        sigma_km=args.sigma_km,
        cities=args.cities,
        roi=region,
        min_distance_km=args.min_distance_km,
        seed=args.seed,
    ).places(args.number)
    out = Path(args.out)
    if out.suffix == '.parquet':
        places.to_parquet(out)
    else:
        places.to_file(out)
    print(f'{len(places)} places written to {out}')
    if args.map:
        figure = plot_places(places)
        figure.savefig(args.map, dpi=100)
        plt.close(figure)
        print(f'map written to {args.map}')


def read_vector(path: str | Path) -> Any:
    """Read a vector file, or say in one sentence what is wrong with it.

    Args:
        path: GeoParquet, or anything that GDAL reads.

    Returns:
        A GeoDataFrame; without a coordinate system it is taken as EPSG:4326.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it cannot be read, or has no geometries.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path} does not exist; a vector file was expected.')
    try:
        parquet = Path(path).suffix == '.parquet'
        table = gpd.read_parquet(path) if parquet else gpd.read_file(path)
    except (DataSourceError, ValueError, OSError) as error:
        raise ValueError(f'{path} is no readable vector file: {error}') from error
    if not isinstance(table, gpd.GeoDataFrame) or not len(table):
        raise ValueError(f'{path} has no geometries.')
    return table.set_crs(4326) if table.crs is None else table
