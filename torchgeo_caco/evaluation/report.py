"""Results as a table, CSV and JSON."""

import csv
import hashlib
import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .published import NOTE, SOURCE, published_rows
from .run import Pair
from .weights import file_of

COLUMNS = (
    'data', 'weights', 'architecture', 'normalization', 'batch_norm', 'protocol', 'measure',
    'value', 'low', 'high', 'labels', 'test_images', 'C', 'source',
)  # fmt: skip
#: What the terminal shows of all protocols, and under what name.
SHOWN = {
    'kNN 5 cosine': 'kNN 5', 'kNN 20 cosine': 'kNN 20', 'kNN 20 L2': 'kNN 20 L2',
    'linear 1 %': 'lin. 1 %', 'linear 10 %': 'lin. 10 %', 'linear 100 %': 'linear',
    'P@20': 'P@20', 'P@100': 'P@100',
}  # fmt: skip
PACKAGES = ('torchgeo_caco', 'torch', 'timm', 'torchgeo', 'scikit-learn', 'numpy', 'scipy')


def rows_of(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """A row for each number, ours and then the published ones beside them.

    Args:
        pairs: The results.

    Returns:
        Rows with the keys of :data:`COLUMNS`; numbers in percent.
    """
    rows: list[dict[str, Any]] = [
        {
            'data': pair.data.title, 'weights': pair.weights, 'architecture': pair.architecture,
            'normalization': pair.normalization, 'batch_norm': pair.batch_norm,
            'protocol': score.protocol, 'measure': score.measure, 'value': f'{score.value:.2f}',
            'low': f'{score.low:.2f}', 'high': f'{score.high:.2f}', 'labels': score.labels,
            'test_images': len(pair.test.y),
            'C': '' if score.strength is None else f'{score.strength:g}', 'source': 'measured',
        }
        for pair in pairs
        for score in pair.scores
    ]  # fmt: skip
    for data, kind in dict.fromkeys((pair.data.title, pair.data.name) for pair in pairs):
        used = {pair.architecture for pair in pairs if pair.data.title == data}
        names = used & {'resnet18', 'resnet50'} or {'resnet18'}
        rows += [
            dict.fromkeys(COLUMNS, '') | number._asdict()
            | {'data': data, 'value': f'{number.value:.2f}', 'source': f'published: {SOURCE}'}
            for number in published_rows(kind, names)
        ]  # fmt: skip
    return rows


def write_csv(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the rows; equal results give equal bytes.

    Args:
        rows: The rows.
        path: The file.
    """
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def write_json(
    rows: Sequence[dict[str, Any]],
    pairs: Sequence[Pair],
    sources: dict[str, str],
    about: dict[str, dict[str, Any]],
    arguments: dict[str, Any],
    failed: Sequence[str],
    path: Path,
) -> None:
    """Write the rows with all that is needed to repeat them.

    Args:
        rows: The rows.
        pairs: The results.
        sources: For each name of weights, where they came from.
        about: For each name of weights that could be read, what is known of their making.
        arguments: Arguments of the command.
        failed: A sentence for each pair that failed.
        path: The file.
    """
    content = {
        'arguments': arguments,
        'versions': {name: version(name) for name in PACKAGES}
        | {'python': platform.python_version(), 'machine': platform.machine()},
        'weights': {
            name: _identify(source) | ({'about': about[name]} if name in about else {})
            for name, source in sources.items()
        },
        'pairs': [
            {
                'data': pair.data.title, 'root': pair.data.root, 'weights': pair.weights,
                'architecture': pair.architecture, 'normalization': pair.normalization,
                'batch_norm': pair.batch_norm, **pair.about,
            }
            for pair in pairs
        ],
        'failed': list(failed),
        'published': {'source': SOURCE, 'note': NOTE},
        'rows': list(rows),
    }  # fmt: skip
    path.write_text(json.dumps(content, indent=1, default=str) + '\n', encoding='utf-8')


def table(rows: Sequence[dict[str, Any]], data: str) -> str:
    """The main numbers of a data set for the terminal.

    Args:
        rows: The rows.
        data: Title of the data set.

    Returns:
        Lines, a row for each set of weights with half the width of the interval behind each
        number, the published ones last.
    """
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        name = SHOWN.get(row['protocol'])
        if row['data'] != data or name is None or row['measure'] == 'AP macro':
            continue
        published = row['source'] != 'measured'
        settings = f'{row["normalization"]}, {row["batch_norm"]}' if not published else 'published'
        cell = row['value']
        if not published:
            cell = f'{float(cell):.1f} ±{(float(row["high"]) - float(row["low"])) / 2:.1f}'
        lines.setdefault((row['weights'], row['architecture'], settings), {})[name] = cell
    used = [n for n in SHOWN.values() if any(n in cells for cells in lines.values())]
    header = ['weights', 'model', 'input, BatchNorm', *used]
    body = [[_short(k[0]), *k[1:], *(c.get(n, '') for n in used)] for k, c in lines.items()]
    widths = [max(len(line[i]) for line in [header, *body]) for i in range(len(header))]
    aligned = [
        '  '.join(
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [header, ['-' * width for width in widths], *body]
    ]
    return '\n'.join(aligned)


def _short(name: str, width: int = 34) -> str:
    return name if len(name) <= width else f'…{name[1 - width :]}'


def _identify(source: str) -> dict[str, str]:
    """Where weights came from, and the SHA-256 of their file if there is one."""
    path = file_of(source)
    if path is None:
        return {'source': source}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {'source': source, 'file': str(path), 'sha256': digest}
