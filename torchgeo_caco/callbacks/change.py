"""At the end of an epoch: fit the mixture, log it, draw it, tell the sampler."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..change import ChangeEstimator, Mixture
from ..distributed import broadcast_buffers


def plot_change_histogram(estimator: ChangeEstimator, title: str = '') -> Figure:
    """Histogram of the estimates, the fitted mixture and its threshold.

    Args:
        estimator: The estimator.
        title: Title of the figure.

    Returns:
        The figure.
    """
    score = estimator.score.cpu().numpy()
    values = score[~np.isnan(score)]
    figure = Figure(figsize=(6, 4), layout='constrained')
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    if len(values):
        top = max(float(np.quantile(values, 0.995)), 1e-6)
        axis.hist(values, bins=60, range=(0, top), density=True, color='0.75')
        numbers = estimator.mixture.cpu().double().numpy()
        grid = np.linspace(0, top, 400)
        if not np.isnan(numbers[:6]).any():
            mixture = Mixture(numbers[:2], numbers[2:4], numbers[4:6], float(numbers[6]))
            for c, (name, colour) in enumerate((('unchanged', 'tab:blue'), ('changed', 'tab:red'))):
                variance = mixture.variances[c]
                bell = np.exp(-0.5 * (grid - mixture.means[c]) ** 2 / variance)
                density = mixture.weights[c] * bell / np.sqrt(2 * np.pi * variance)
                axis.plot(grid, density, color=colour, label=name)
        if not np.isnan(numbers[6]):
            axis.axvline(numbers[6], color='k', ls='--', label=f'threshold {numbers[6]:.2f}')
        # Not 'best', which takes long and warns on a busy machine.
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc='upper right')
    name = 'long-term distance' if estimator.estimate == 'distance' else 'long-term / short-term'
    axis.set(xlabel=name, ylabel='density', title=title)
    return figure


class ChangeTracker(Callback):
    """Turns the running estimates into labels after every epoch, and shows them."""

    def __init__(self, histogram_every: int = 1) -> None:
        """Initialize a new ChangeTracker instance.

        Args:
            histogram_every: Epochs between two pictures; 0: none.
        """
        self.histogram_every = histogram_every

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the sampler what a checkpoint knew, before loaders exist."""
        self._tell_sampler(trainer, pl_module)

    def _tell_sampler(self, trainer: Trainer, task: Any) -> None:
        data: Any = getattr(trainer, 'datamodule', None)
        if hasattr(data, 'set_changed'):
            data.set_changed((task.estimator.labels == 1).any(1))

    def _fit(self, trainer: Trainer, task: Any) -> None:
        # One fit for all: two machines need not round alike.
        if trainer.is_global_zero:
            task.estimator.fit()
        broadcast_buffers(task.estimator, task.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Fit with the last batch of an epoch.

        A run that resumes from a checkpoint of that very step begins with the next epoch: Lightning
        does not come back to the end of this one.
        """
        if trainer.is_last_batch:
            self._fit(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log, draw, tell the sampler."""
        estimator: Any = pl_module.estimator
        if not trainer.is_last_batch:
            # The epoch was cut short, by max_steps for instance.
            self._fit(trainer, pl_module)
        labels, score = estimator.labels, estimator.score
        figures = {
            'change_share': (labels == 1).sum() / (labels >= 0).sum().clamp(min=1),
            'change_ratio_changed': score[labels == 1].mean(),
            'change_ratio_unchanged': score[labels == 0].mean(),
            'change_threshold': estimator.mixture[6],
        }
        figures = {k: v.float().to(pl_module.device) for k, v in figures.items() if not v.isnan()}
        pl_module.log_dict(figures, sync_dist=True)
        self._tell_sampler(trainer, pl_module)
        epoch = trainer.current_epoch
        every = self.histogram_every
        due = bool(every) and (epoch % every == 0 or epoch + 1 == trainer.max_epochs)
        if due and trainer.is_global_zero:
            self._draw(trainer, estimator, epoch)

    def _draw(self, trainer: Trainer, estimator: ChangeEstimator, epoch: int) -> None:
        figure = plot_change_histogram(estimator, f'epoch {epoch}')
        for each in trainer.loggers:
            writer: Any = getattr(each, 'experiment', None)
            if hasattr(writer, 'add_figure'):
                writer.add_figure('change_histogram', figure, global_step=trainer.global_step)
        if trainer.loggers:
            folder = Path(trainer.default_root_dir) / 'change_histogram'
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(folder / f'epoch_{epoch:04d}.png', dpi=100)
