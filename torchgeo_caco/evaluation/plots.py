"""Results as pictures."""

import re
from collections.abc import Sequence
from itertools import count as numbers
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.manifold import TSNE
from sklearn.metrics import ConfusionMatrixDisplay

from ..transforms.downstream import InputNormalization
from .published import published_rows
from .run import Pair

#: Images at most that t-SNE places.
PLACED = 1000


def draw_all(pairs: Sequence[Pair], out: Path, seed: int = 0) -> list[Path]:
    """Write all pictures.

    Args:
        pairs: The results.
        out: Folder to write to.
        seed: Seed of t-SNE and of the images that are shown.

    Returns:
        The files.
    """
    written: list[Path] = []
    for data in dict.fromkeys(pair.data.title for pair in pairs):
        of_data = [pair for pair in pairs if pair.data.title == data]
        stem = _other_than(written, out, _plain(data), 'scores')
        written.append(_save(plot_bars(of_data), out / f'{stem}_scores.png'))
    for pair in pairs:
        stem = _other_than(written, out, file_stem(pair), 'tsne')
        if pair.test.y.ndim == 1:
            written.append(_save(plot_confusion(pair), out / f'{stem}_confusion.png'))
        written.append(_save(plot_map(pair, seed), out / f'{stem}_tsne.png'))
        written.append(_save(plot_retrieval(pair, seed), out / f'{stem}_retrieval.png'))
    return written


def file_stem(pair: Pair) -> str:
    """A name for a pair's files."""
    return _plain('_'.join((pair.data.title, pair.weights, pair.normalization, pair.batch_norm)))


def _plain(name: str) -> str:
    return re.sub(r'[^A-Za-z0-9.]+', '_', name).strip('_')


def _other_than(written: Sequence[Path], out: Path, stem: str, what: str) -> str:
    """The stem, with a number if names that differ in punctuation alone gave the same."""
    stems = (stem if n == 1 else f'{stem}_{n}' for n in numbers(1))
    return next(s for s in stems if out / f'{s}_{what}.png' not in written)


def plot_bars(pairs: Sequence[Pair]) -> Figure:
    """Scores of one data set with their intervals, the published linear ones as lines.

    Args:
        pairs: Results on one data set.

    Returns:
        The figure.
    """
    first = next(score.measure for score in pairs[0].scores)
    shown = [s.protocol for s in pairs[0].scores if s.measure in (first, 'precision')]
    figure = _figure(max(8, 1.3 * len(shown)), 5)
    axis = figure.add_subplot()
    width = 0.8 / len(pairs)
    places = np.arange(len(shown))
    for i, pair in enumerate(pairs):
        scores = {s.protocol: s for s in pair.scores if s.measure in (first, 'precision')}
        there = [j for j, name in enumerate(shown) if name in scores]
        found = [scores[shown[j]] for j in there]
        value = np.array([s.value for s in found])
        ends = np.array([[s.value - s.low, s.high - s.value] for s in found]).T.clip(0)
        label = f'{pair.weights} ({pair.normalization}, {pair.batch_norm})'
        axis.bar(places[there] + i * width, value, width, yerr=ends, capsize=2, label=label)
    architectures = {pair.architecture for pair in pairs}
    rows = [r for r in published_rows(pairs[0].data.name, architectures) if r.protocol in shown]
    height = -np.inf
    for row in sorted(rows, key=lambda row: row.value):
        centre = shown.index(row.protocol) + 0.4 - width / 2
        axis.hlines(row.value, centre - 0.45, centre + 0.45, color='0.3', ls=':', lw=1)
        # Names stand beside the bars, one above the other.
        height = max(row.value, height + 3)
        axis.annotate(
            f'{row.weights}, published', (centre + 0.45, row.value), (len(shown) + 0.1, height),
            fontsize=7, va='center', annotation_clip=False,
            arrowprops={'arrowstyle': '-', 'color': '0.8', 'lw': 0.5},
        )  # fmt: skip
    axis.set_xticks(places + 0.4 - width / 2, shown, rotation=30, ha='right')
    axis.set(ylabel=f'{first} or precision, %', ylim=(0, 105), title=pairs[0].data.title)
    axis.set_xlim(-0.6, len(shown) - 0.1)
    figure.legend(fontsize=8, loc='outside lower center', ncols=3)
    return figure


def plot_confusion(pair: Pair) -> Figure:
    """Which class the linear classifier with all labels takes for which.

    Args:
        pair: A result with one class an image.

    Returns:
        The figure, its rows in percent.
    """
    figure = _figure(7, 6.5)
    axis = figure.add_subplot()
    ConfusionMatrixDisplay.from_predictions(
        pair.test.y, pair.predicted.argmax(1), labels=np.arange(len(pair.data.classes)),
        display_labels=list(pair.data.classes), normalize='true', values_format='.0%',
        xticks_rotation='vertical', cmap='Blues', colorbar=False, ax=axis, text_kw={'fontsize': 7},
    )  # fmt: skip
    axis.set_title(_title(pair), fontsize=9)
    return figure


def plot_map(pair: Pair, seed: int = 0) -> Figure:
    """The scored images by t-SNE of their features.

    Args:
        pair: A result.
        seed: Seed.

    Returns:
        The figure; an image with several labels has the colour of its first one.
    """
    rows = np.random.default_rng(seed).permutation(len(pair.test.y))[:PLACED]
    x, y = pair.test.x[rows], pair.test.y[rows]
    classes = y if y.ndim == 1 else y.argmax(1)
    perplexity = min(30.0, (len(x) - 1) / 3)
    place = TSNE(perplexity=perplexity, init='random', random_state=seed).fit_transform(x)
    figure = _figure(7.5, 6)
    axis = figure.add_subplot()
    for number in np.unique(classes):
        own = classes == number
        colour = f'C{number}' if number < 10 else None
        name = pair.data.classes[number][:30]
        axis.scatter(place[own, 0], place[own, 1], s=6, color=colour, label=name)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.legend(fontsize=7, markerscale=2, loc='center left', bbox_to_anchor=(1, 0.5))
    axis.set_title(f't-SNE, {_title(pair)}', fontsize=9)
    return figure


def plot_retrieval(pair: Pair, seed: int = 0, most: int = 10, count: int = 8) -> Figure:
    """For some images the most similar other ones; green frames share a label.

    Args:
        pair: A result.
        seed: Seed of the images shown.
        most: Classes shown at most, an image of each.
        count: Similar images for each.

    Returns:
        The figure.
    """
    y = pair.test.y
    classes = y if y.ndim == 1 else y.argmax(1)
    rng = np.random.default_rng(seed)
    asked = [int(rng.choice(np.flatnonzero(classes == c))) for c in np.unique(classes)][:most]
    count = min(count, pair.neighbours.shape[1])
    figure = _figure(1.2 * (count + 1), 1.25 * len(asked) + 0.4)
    axes = figure.subplots(len(asked), count + 1, squeeze=False)
    for row, query in enumerate(asked):
        for column, index in enumerate([query, *pair.neighbours[query, :count].tolist()]):
            axis = axes[row, column]
            axis.imshow(_picture(pair, index))
            axis.set_xticks([])
            axis.set_yticks([])
            same = bool((y[index] == y[query]) if y.ndim == 1 else (y[index] & y[query]).any())
            colour = 'k' if column == 0 else ('tab:green' if same else 'tab:red')
            for spine in axis.spines.values():
                spine.set(color=colour, linewidth=2.5)
            if column == 0:
                axis.set_ylabel(pair.data.classes[classes[query]][:14], fontsize=7)
    figure.suptitle(_title(pair), fontsize=9)
    return figure


def _picture(pair: Pair, index: int) -> Any:
    """A scored image in red, green and blue, stretched by the data set's own stretch."""
    data = pair.data
    shown = InputNormalization(
        'plain', data.bands, data.quantiles, data.units, {'bands': ['red', 'green', 'blue']}
    )
    dataset: Any = data.test
    image: torch.Tensor = shown(dataset[index]['image'])
    if data.units == 'reflectance':
        image = (image / image.quantile(0.98).clamp(min=1e-6)).clamp(0, 1)
    return image.permute(1, 2, 0).numpy()


def _title(pair: Pair) -> str:
    return f'{pair.weights} ({pair.normalization}, {pair.batch_norm}) on {pair.data.title}'


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=100)
    return path
