"""Scores in the CACo paper, to stand beside ours; they were not measured here."""

from typing import NamedTuple

SOURCE = 'CACo paper (CVPR 2023), tables 1 and 2'
#: In what the paper's numbers differ from a linear score of this command.
NOTE = (
    'published: linear probe by Adam for 100 epochs; EuroSAT on pictures in [0, 1] with BatchNorm '
    'in train mode and scored on the validation split, BigEarthNet average precision by batch'
)


class Published(NamedTuple):
    """A number of the paper, in percent."""

    data: str
    architecture: str
    weights: str
    protocol: str
    measure: str
    value: float


_METHODS = ('random', 'ImageNet', 'MoCo v2 100k', 'GSSL 100k', 'SeCo 100k', 'CACo 100k',
            'SeCo 1M', 'CACo 1M')  # fmt: skip
_EUROSAT = {
    'resnet18': (64.21, 86.16, 87.22, 87.74, 90.05, 93.08, 93.99, 94.72),
    'resnet50': (55.32, 89.08, 89.75, 90.19, 93.12, 94.48, 95.63, 95.90),
}
_BIGEARTHNET_10 = {
    'resnet18': (42.87, 65.43, 65.43, 65.78, 65.80, 67.89, 67.68, 68.64),
    'resnet50': (44.76, 70.36, 70.38, 70.65, 70.69, 71.55, 72.89, 73.40),
}
_BIGEARTHNET = {
    'resnet18': (45.95, 66.40, 67.20, 67.36, 67.43, 69.43, 69.95, 70.41),
    'resnet50': (45.22, 71.37, 72.88, 72.86, 73.42, 73.63, 74.82, 74.98),
}

_TABLES = (
    ('eurosat_rgb', 'linear 100 %', 'accuracy', _EUROSAT),
    ('bigearthnet', 'linear 10 %', 'AP micro', _BIGEARTHNET_10),
    ('bigearthnet', 'linear 100 %', 'AP micro', _BIGEARTHNET),
)


def published_rows(data: str, architectures: set[str]) -> list[Published]:
    """What the paper has for a data set.

    Args:
        data: Kind of data set.
        architectures: Architectures wanted.

    Returns:
        Its numbers; none for other data or architectures.
    """
    return [
        Published(data, architecture, method, protocol, measure, value)
        for kind, protocol, measure, table in _TABLES
        if kind == data
        for architecture, values in table.items()
        if architecture in architectures
        for method, value in zip(_METHODS, values, strict=True)
    ]
