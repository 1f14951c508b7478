"""The demo: simulate, pretrain, and say what was learned (``python -m torchgeo_caco.demo``)."""

import argparse
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from .callbacks import plot_change_histogram
from .change import ChangeEstimator
from .datasets import SeasonalTemporalDataset, Truth, load_truth
from .transforms import SeasonalViews, Stretch, artificial_augmentation, normalised_crop
from .transforms.views import IMAGENET_MEAN, IMAGENET_STD

PICTURES = ('views.png', 'most_and_least_changed.png', 'change_histogram.png')


def load_estimator(checkpoint: dict[str, Any]) -> ChangeEstimator:
    """The change estimates of a checkpoint.

    Args:
        checkpoint: A loaded checkpoint of a CACo run.

    Returns:
        The estimator.
    """
    given = checkpoint['hyper_parameters']
    estimator = ChangeEstimator(
        checkpoint['caco_locations'],
        1 if given['long_term_negatives'] == 'never' else 2,
        estimate=given['estimate'],
        beta=given['ema_beta'],
        squared=given['squared'],
        threshold=given['change_threshold'],
        assignment=given['assignment'],
        label=given['label'],
    )
    state = checkpoint['state_dict']
    prefix = 'estimator.'
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    estimator.load_state_dict(own)
    return estimator


@torch.no_grad()
def features(model: nn.Module, images: Tensor) -> NDArray[np.float32]:
    """Features of stretched RGB images in evaluation mode.

    Args:
        model: A timm model without classifier.
        images: Shape (N, 3, H, W), in [0, 1].

    Returns:
        Features, shape (N, F).
    """
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    model.eval()
    parts = [model((chunk - mean) / std) for chunk in images.split(128)]
    return torch.cat(parts).numpy()


def linear_probe(x: NDArray[np.float32], y: NDArray[Any], places: NDArray[Any]) -> float:
    """Accuracy of a linear classifier on places that it has not seen.

    Args:
        x: Features, shape (N, F).
        y: Classes, shape (N,).
        places: Number of the place of each row; three quarters train, a quarter tests.

    Returns:
        Accuracy in [0, 1].
    """
    numbers = np.random.default_rng(0).permutation(places.max() + 1)
    train = np.isin(places, numbers[: len(numbers) * 3 // 4])
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    probe.fit(x[train], y[train])
    return float(probe.score(x[~train], y[~train]))


def evaluate(root: Path, data: Path) -> dict[str, float]:
    """Probe and change ranking of a finished run.

    Args:
        root: Folder of the run.
        data: Folder of the simulated store.

    Returns:
        ``probe_random``, ``probe_pretrained``, ``auroc_ratio``, ``auroc_distance``.
    """
    truth = load_truth(data)
    checkpoint = torch.load(root / 'checkpoints' / 'last.ckpt', weights_only=True)
    name = checkpoint['hyper_parameters']['model']
    estimator = load_estimator(checkpoint)
    changed = dict(zip(truth.names.tolist(), truth.changed.tolist(), strict=True))
    real = [changed[location] for location in estimator.names]
    distance = estimator.estimates[..., 0].mean(1)
    images, labels, places = probe_images(data, truth, checkpoint)
    model = timm.create_model(f'local-dir:{root / "model"}', pretrained=True, num_classes=0)
    torch.manual_seed(0)
    random = timm.create_model(name, num_classes=0)
    return {
        'probe_random': linear_probe(features(random, images), labels, places),
        'probe_pretrained': linear_probe(features(model, images), labels, places),
        'auroc_ratio': float(roc_auc_score(real, estimator.location_score())),
        'auroc_distance': float(roc_auc_score(real, distance)),
    }


def probe_images(
    data: Path, truth: Truth, checkpoint: dict[str, Any]
) -> tuple[Tensor, NDArray[Any], NDArray[Any]]:
    """Two dates of each period of each place, with their dominant classes."""
    dataset = SeasonalTemporalDataset(data, seasons=2)
    dataset.set_epoch(0)
    stretched = stretch_of(checkpoint)
    samples = dataset.__getitems__(range(len(dataset)))
    image = torch.stack([stretched(sample['image']).image for sample in samples])
    count, periods, seasons = image.shape[:3]
    rows = [int(np.flatnonzero(truth.names == n)[0]) for n in dataset.location_names]
    labels = np.repeat(truth.labels[rows].reshape(-1), seasons)
    places = np.repeat(np.arange(count), periods * seasons)
    return image.flatten(0, 2), labels, places


def stretch_of(checkpoint: dict[str, Any]) -> Stretch:
    """The stretch that a checkpoint's run used."""
    for value in checkpoint.values():
        if isinstance(value, dict) and 'quantiles' in value:
            return Stretch(value['quantiles'], value['nodata'])
    raise ValueError('the checkpoint does not say how its images were stretched.')


def plot_views(dataset: SeasonalTemporalDataset, stretch: Stretch, size: int) -> Figure:
    """A few places: three dates of both periods, and the views of the first period."""
    chosen = np.linspace(0, len(dataset) - 1, 4).astype(int).tolist()
    samples = dataset.__getitems__(chosen)
    image = torch.stack([stretch(sample['image']).image for sample in samples])
    plain, zero, one = {}, (0.0,) * 3, (1.0,) * 3
    plain['query'], plain['keys'] = SeasonalViews(
        normalised_crop(size, 3, zero, one), artificial_augmentation(size, 3, zero, one)
    )(image)
    figure = Figure(figsize=(16, 6.4), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(4, 10)
    for row in range(4):
        panels = [image[row, p, s] for p in range(2) for s in range(3)]
        panels += [plain['query'][row, 0], *plain['keys'][:, row, 0]]
        dates = samples[row]['dates'].flatten().tolist()
        titles = [str(np.datetime64(d, 'D')) for d in dates] + ['q', 'k0', 'k1', 'k2']
        for axis, panel, title in zip(axes[row], panels, titles, strict=True):
            axis.imshow(panel.clamp(0, 1).permute(1, 2, 0).numpy() ** 0.7)
            axis.set_title(title, fontsize=8)
            axis.axis('off')
    return figure


def plot_extremes(
    dataset: SeasonalTemporalDataset, stretch: Stretch, estimator: ChangeEstimator, count: int = 6
) -> Figure:
    """The most and the least changed places by the estimate: two dates of each period.

    Args:
        dataset: The dataset of the run.
        stretch: Its stretch.
        estimator: The estimates.
        count: Places of each kind.

    Returns:
        The figure.
    """
    position = {name: i for i, name in enumerate(dataset.location_names)}
    score = estimator.location_score()
    order = [i for i in score.argsort().tolist() if not score[i].isnan()]
    most, least = order[::-1][:count], order[:count]
    figure = Figure(figsize=(1.35 * count, 12), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(8, count)
    for top, group, word in ((0, most, 'most'), (4, least, 'least')):
        for column, i in enumerate(group):
            sample = dataset[position[estimator.names[i]]]
            image = stretch(sample['image']).image
            for row in range(4):
                axis = axes[top + row, column]
                axis.imshow(image[row // 2, row % 2].permute(1, 2, 0).numpy() ** 0.7)
                date = np.datetime64(int(sample['dates'][row // 2, row % 2]), 'D')
                axis.set_title(f'{word} {score[i]:.2f}  {date}' if row == 0 else date, fontsize=7)
                axis.axis('off')
    return figure


def pictures(root: Path, data: Path) -> None:
    """Write the pictures of a finished run.

    Args:
        root: Folder of the run.
        data: Folder of its store.
    """
    checkpoint = torch.load(root / 'checkpoints' / 'last.ckpt', weights_only=True)
    estimator, stretch = load_estimator(checkpoint), stretch_of(checkpoint)
    dataset = SeasonalTemporalDataset(data)
    dataset.set_epoch(0)
    size = checkpoint['hyper_parameters']['size']
    figures = (
        plot_views(dataset, stretch, size),
        plot_extremes(dataset, stretch, estimator),
        plot_change_histogram(estimator),
    )
    for name, figure in zip(PICTURES, figures, strict=True):
        figure.savefig(root / name, dpi=90)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Run the demo.

    Args:
        arguments: Command-line arguments; those unknown go to ``torchgeo fit``.

    Returns:
        What :func:`evaluate` returns.
    """
    parser = argparse.ArgumentParser('python -m torchgeo_caco.demo', description=__doc__)
    parser.add_argument('--config', default='conf/demo.yaml', help='what to train (%(default)s)')
    parser.add_argument(
        '--out', type=Path, default=Path('output/demo'), help='folder of the run (%(default)s)'
    )
    options, rest = parser.parse_known_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    start = time.monotonic()
    out: Path = options.out
    data, marker = out / 'data', out / '.demo'
    if out.is_dir() and any(out.iterdir()) and not marker.is_file():
        parser.error(f'{out} holds files that no demo made; a new or empty folder was expected.')
    out.mkdir(parents=True, exist_ok=True)
    marker.touch()
    # What an earlier demo left must not pass for this one's.
    for name in ('checkpoints', 'model', 'change_histogram', 'data'):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ('results.json', *PICTURES):
        (out / name).unlink(missing_ok=True)

    from torchgeo.main import main as torchgeo

    torchgeo(
        ['fit', '--config', options.config, '--trainer.default_root_dir', str(out),
         '--data.init_args.root', str(data), *rest]
    )  # fmt: skip
    pictures(out, data)
    figures = evaluate(out, data)
    (out / 'results.json').write_text(json.dumps(figures, indent=1) + '\n')
    print(
        f'\n{"":44}random   pretrained\n'
        f'{"land-cover linear probe, accuracy":40}{figures["probe_random"]:10.3f}'
        f'{figures["probe_pretrained"]:13.3f}\n\n'
        f'{"":44} ratio     distance\n'
        f'{"ranking of the places that changed, AUROC":40}{figures["auroc_ratio"]:9.3f}'
        f'{figures["auroc_distance"]:13.3f}\n\n'
        f'Everything is in {out}/ (after {time.monotonic() - start:.0f} s).'
    )
    return figures


if __name__ == '__main__':
    main()
