"""Who serves Sentinel-2 L2A, and what is particular about each."""

import re
from dataclasses import dataclass, field
from typing import Literal

from pystac import Item

Offset = Literal['baseline', 'flag', 'metadata', 'none']

#: From this processing baseline on L2A values are 1000 too large, unless the provider mended that.
OFFSET_SINCE = 4.0
OFFSET = -1000

#: Such as 05.09, or 0509 as in products' names.
_BASELINE = re.compile(r'\s*N?(\d{1,2})(?:\.(\d+)|(\d\d))?\s*', re.ASCII)

_TEN = ('B2', 'B3', 'B4', 'B8')
_SIXTY = ('B1', 'B9')
_BANDS = ('B1', 'B2', 'B3', 'B4', 'B5', 'B6', 'B7', 'B8', 'B8A', 'B9', 'B11', 'B12')
_COMMON = (
    'coastal', 'blue', 'green', 'red', 'rededge1', 'rededge2', 'rededge3', 'nir', 'nir08',
    'nir09', 'swir16', 'swir22',
)  # fmt: skip


@dataclass(frozen=True)
class Provider:
    """A STAC API and the names that it uses.

    Attributes:
        url: Address of the API's landing page.
        collection: Name of the collection.
        assets: Name of the asset of each band, by short names such as ``'B4'``.
        classes: Name of the scene classification's asset, or None: nothing is judged then.
        offset: How to bring both processing baselines to one scale. ``'baseline'``: subtract 1000
            from baseline 04.00 on; ``'flag'``: the same, unless ``earthsearch:boa_offset_applied``
            says that it was done; ``'metadata'``: the asset's own offset and scale; ``'none'``.
        sign: ``'planetary-computer'``: addresses are signed by its library.
        gdal: Options of GDAL; none of them a secret.
    """

    url: str
    collection: str
    assets: dict[str, str]
    classes: str | None = None
    offset: Offset = 'baseline'
    sign: Literal['planetary-computer'] | None = None
    gdal: dict[str, str] = field(default_factory=dict)


def _padded(band: str) -> str:
    return f'B{int(band[1:]):02}' if band[1:].isdigit() else band


def _copernicus(band: str) -> str:
    metres = 10 if band in _TEN else 60 if band in _SIXTY else 20
    return f'{_padded(band)}_{metres}m'


#: Presets. Earth Search's first collection says of some scenes wrongly whether the offset was
#: removed (Element84/earth-search#66, #71), so the default is its Collection 1, which never does.
PROVIDERS = {
    'planetary-computer': Provider(
        'https://planetarycomputer.microsoft.com/api/stac/v1',
        'sentinel-2-l2a',
        {band: _padded(band) for band in _BANDS},
        'SCL',
        sign='planetary-computer',
    ),
    'earth-search': Provider(
        'https://earth-search.aws.element84.com/v1',
        'sentinel-2-c1-l2a',
        dict(zip(_BANDS, _COMMON, strict=True)),
        'scl',
    ),
    'earth-search-v1': Provider(
        'https://earth-search.aws.element84.com/v1',
        'sentinel-2-l2a',
        dict(zip(_BANDS, _COMMON, strict=True)),
        'scl',
        offset='flag',
    ),
    'cdse': Provider(
        'https://stac.dataspace.copernicus.eu/v1',
        'sentinel-2-l2a',
        {band: _copernicus(band) for band in _BANDS},
        'SCL_20m',
        gdal={
            'AWS_S3_ENDPOINT': 'eodata.dataspace.copernicus.eu',
            'AWS_VIRTUAL_HOSTING': 'FALSE',
        },
    ),
}


def baseline(item: Item) -> float | None:
    """Processing baseline of a scene, such as 5.09 for '05.09' or 'N0509'; None if it says none."""
    for name in ('s2:processing_baseline', 'processing:version'):
        match = _BASELINE.fullmatch(str(item.properties.get(name)))
        if match:
            return float(f'{match[1]}.{match[2] or match[3] or 0}')
    return None


def find_offset(item: Item, asset: str, mode: Offset) -> int:
    """What to add to a scene's values so that they are reflectance times 10000.

    Args:
        item: The scene.
        asset: Name of the asset.
        mode: See :class:`Provider`.

    Returns:
        0 or -1000, or what the metadata say.

    Raises:
        ValueError: If the scene does not say what is needed, or is known to say it unreliably.
    """
    if mode == 'none':
        return 0
    if mode == 'metadata':
        fields = item.assets[asset].extra_fields
        about = (fields.get('raster:bands') or fields.get('bands') or [{}])[0] | fields
        offset = about.get('offset', about.get('raster:offset'))
        scale = about.get('scale', about.get('raster:scale'))
        if offset is None or not scale:
            raise ValueError('it does not say its offset and scale')
        return round(float(offset) / float(scale))
    version = baseline(item)
    if version is None:
        raise ValueError('it does not say its processing baseline')
    if version < OFFSET_SINCE:
        return 0
    if mode == 'flag':
        if item.properties.get('earthsearch:boa_offset_applied'):
            return 0
        raise ValueError('its flag boa_offset_applied is not reliable when it says no')
    return OFFSET
