"""CACo: change-aware contrastive learning (Mall, Hariharan and Bala, CVPR 2023)."""

import copy
import logging
from collections.abc import Callable, Sequence
from functools import partial
from itertools import batched
from typing import Any, Literal, cast

import timm
import torch
from lightly.models.modules import MoCoProjectionHead
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torchgeo.tasks import MoCo
from torchvision.models._api import WeightsEnum

from ..change import Assignment, ChangeEstimator, Estimate, Label
from ..distributed import (
    RowShuffle,
    broadcast_buffers,
    check_strategy,
    count_fused_norms,
    gather_rows,
    has_own_batch_norm,
    mean_of_all,
    rank,
    world_size,
)
from ..losses.change_aware import LongTermNegatives, MaskOwn, QueueNegatives
from ..memory import MemoryBank
from ..models import load_encoder
from ..models.size import size_arguments
from ..reading import check_shapes
from ..transforms import SeasonalViews, artificial_augmentation, moco_view, normalised_crop
from ..transforms.views import statistics
from .checks import check_data, check_precision, check_shapes_of_step, may_be_rgb
from .optim import build_optimizer
from .step import StepOutput, contrast, embed, spread

logger = logging.getLogger(__name__)


class CACoTask(MoCo):
    """Change-aware contrastive learning in three subspaces.

    With ``long_term_negatives='never'`` it is SeCo, with ``'always'`` TeCo (the long-term contrast
    without change-awareness), with ``subspaces=1`` and ``'never'`` MoCo v2.

    If you use this task in your research, please cite the following paper:

    * https://openaccess.thecvf.com/content/CVPR2023/html/Mall_Change-Aware_Sampling_and_Contrastive_Learning_for_Satellite_Images_CVPR_2023_paper.html
    """

    #: Images with a smaller share of pixels with data do not move the change estimate.
    min_valid = 0.9

    def __init__(
        self,
        model: str = 'resnet18',
        weights: WeightsEnum | str | bool | None = None,
        in_channels: int = 3,
        version: int = 2,
        layers: int = 2,
        hidden_dim: int | None = None,
        output_dim: int = 128,
        lr: float = 0.03,
        weight_decay: float = 1e-4,
        momentum: float = 0.9,
        schedule: Sequence[int | float] = (0.6, 0.8),
        temperature: float = 0.07,
        memory_bank_size: int = 16384,
        moco_momentum: float = 0.999,
        gather_distributed: bool = True,
        size: int = 224,
        grayscale_weights: Tensor | None = None,
        augmentation1: nn.Module | None = None,
        augmentation2: nn.Module | None = None,
        subspaces: int = 3,
        long_term_negatives: LongTermNegatives = 'changed',
        queue_negatives: QueueNegatives = 'same_period',
        mask_own: MaskOwn = 'view',
        label: Label = 'row',
        estimate: Estimate = 'ema',
        ema_beta: float = 0.8,
        squared: bool = False,
        change_threshold: float | None = None,
        assignment: Assignment = 'threshold',
        optimizer: Literal['sgd', 'adamw'] = 'sgd',
        warmup_epochs: int = 10,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        crop_scale: tuple[float, float] = (0.2, 1.0),
        channels_last: bool = False,
        histogram_every: int = 1,
        shuffle_bn: bool = True,
    ) -> None:
        """Initialize a new CACoTask instance.

        Args:
            model: Name of the timm model.
            weights: Initial weights: a weights enum or its name, ours or TorchGeo's; True (what
                timm has for *model*: ImageNet, or a model folder's own); None (random); a
                checkpoint or model folder as :func:`~torchgeo_caco.models.find_encoder` takes
                them. Where channels differ the first layer is adapted.
            in_channels: Number of bands C.
            version: MoCo version; only 2.
            layers: Layers of each projection head.
            hidden_dim: Hidden dimension of the heads; the backbone's feature number by default.
            output_dim: Dimension D of an embedding.
            lr: Learning rate (0.03 for a batch of 256 rows).
            weight_decay: Weight decay.
            momentum: Momentum of SGD.
            schedule: Epochs at which SGD's learning rate drops to a tenth; numbers below 1 are
                shares of the trainer's ``max_epochs``.
            temperature: Temperature of the loss.
            memory_bank_size: Keys of a queue, both periods together.
            moco_momentum: Momentum of the key encoder.
            gather_distributed: Whether keys of all processes are negatives. If not, each process
                has queues of its own, of which only the first one's are saved.
            size: Height and width of the crops in pixels. A network for images of one size, such
                as a ViT, is built for this one.
            grayscale_weights: Weights of the bands for grayscale, unless RGB; equal by default.
            augmentation1: Makes views q and k1 from stretched images in [0, 1].
                :func:`~torchgeo_caco.transforms.normalised_crop` by default.
            augmentation2: Makes views k0 and k2.
                :func:`~torchgeo_caco.transforms.artificial_augmentation` by default, without hue
                and saturation if the data's three bands are known not to be red, green and blue.
            subspaces: 3 (SeCo, CACo), or 1 (MoCo).
            long_term_negatives: Whether the own place in the other period is a negative:
                ``'never'``, ``'always'``, or where the place is estimated as ``'changed'``.
            queue_negatives: ``'same_period'`` (published code) or ``'all'`` (equation 2).
            mask_own: ``'view'`` (published code) or ``'all'`` (paper, section 3.4).
            label: Whether each ``'row'`` (location, period) has its own label (published code) or
                both rows share the ``'location'``'s.
            estimate: ``'ema'``, ``'ratio'`` or ``'distance'`` (paper, table 8).
            ema_beta: Weight of the past in the running estimate.
            squared: Squared distances in the ratio (equation 3).
            change_threshold: A fixed threshold in the place of the mixture.
            assignment: ``'threshold'`` or ``'posterior'`` (published code).
            optimizer: ``'sgd'`` with steps, or ``'adamw'`` with warm-up and cosine and no decay on
                norms and biases.
            warmup_epochs: Warm-up of AdamW in epochs.
            mean: Means of the stretched bands; ImageNet's for RGB by default.
            std: Standard deviations of the stretched bands; ImageNet's for RGB by default.
            crop_scale: Smallest and largest share of the area that a crop keeps.
            channels_last: Whether images and convolutions are laid out channels last.
            histogram_every: Epochs between two pictures of the change histogram, beside the last
                one's; 0: none.
            shuffle_bn: Whether several processes mix their places before the key encoder, so that
                a query and its key are not normalised by one batch (MoCo, section 3.3). Backbones
                without batch norm, or with ``trainer.sync_batchnorm``, need none and mix nothing.

        Raises:
            ValueError: If arguments contradict each other.
        """
        if version != 2:
            raise ValueError(f'CACoTask is built on MoCo v2; version must be 2, not {version}.')
        if subspaces not in (1, 3):
            raise ValueError(f'subspaces must be 3, or 1 for MoCo, not {subspaces}.')
        if subspaces == 1 and long_term_negatives != 'never':
            raise ValueError("subspaces=1 is MoCo, which needs long_term_negatives='never'.")
        # The command line gives True and False as text.
        weights = {'true': True, 'false': False}.get(str(weights).lower(), weights)
        self.periods = 1 if long_term_negatives == 'never' else 2
        self._due: int | None = None
        self._fused_norms = 0
        super().__init__(
            model=model,
            weights=weights,
            in_channels=in_channels,
            version=version,
            layers=layers,
            hidden_dim=cast(int, hidden_dim),
            output_dim=output_dim,
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            schedule=cast(Sequence[int], schedule),
            temperature=temperature,
            memory_bank_size=memory_bank_size,
            moco_momentum=moco_momentum,
            gather_distributed=gather_distributed,
            size=size,
            grayscale_weights=grayscale_weights,
            augmentation1=augmentation1,
            augmentation2=augmentation2,
        )
        arguments = (size, in_channels, mean, std)
        if augmentation1 is None:
            self.augmentation1 = normalised_crop(*arguments, scale=crop_scale)
        self._augment: Callable[..., nn.Module] | None = None
        if augmentation2 is None:
            make = moco_view if subspaces == 1 else artificial_augmentation
            self._augment = partial(make, *arguments, grayscale_weights, crop_scale)
            self.augmentation2 = self._augment()

    def configure_models(self) -> None:
        """Make backbone, heads, their momentum copies, queues and the change estimate."""
        name, channels = self.hparams['model'], self.hparams['in_channels']
        arguments, features = size_arguments(name, channels, self.hparams['size'])
        if self.hparams['hidden_dim'] is None:
            self.hparams['hidden_dim'] = features
        # TorchGeo reads fewer forms, and drops the first layer when channel counts differ.
        weights, self.weights = self.weights, self.weights is True
        super().configure_models()
        if arguments:
            # TorchGeo passes none on.
            self.backbone = timm.create_model(
                name, in_chans=channels, num_classes=0, pretrained=weights is True, **arguments
            )
        if weights and weights is not True:
            load_encoder(self.backbone, weights)
        del self.projection_head, self.projection_head_momentum
        # TorchGeo's tasks look for `model` when they read a checkpoint.
        self.model = self.backbone
        subspaces, dim = self.hparams['subspaces'], self.hparams['output_dim']
        hidden = self.hparams['hidden_dim']
        self.projection_heads = nn.ModuleList(
            MoCoProjectionHead(features, hidden, dim, self.hparams['layers'], batch_norm=False)
            for _ in range(subspaces)
        )
        self.backbone_momentum = copy.deepcopy(self.backbone).requires_grad_(False)
        self.projection_heads_momentum = copy.deepcopy(self.projection_heads).requires_grad_(False)
        size = self.hparams['memory_bank_size']
        self.memory_bank = MemoryBank(size, dim, subspaces, self.periods)
        self.estimator = ChangeEstimator(
            periods=self.periods,
            estimate=self.hparams['estimate'],
            beta=self.hparams['ema_beta'],
            squared=self.hparams['squared'],
            threshold=self.hparams['change_threshold'],
            assignment=self.hparams['assignment'],
            label=self.hparams['label'],
        )
        if self.hparams['channels_last']:
            self.backbone.to(memory_format=torch.channels_last)
            self.backbone_momentum.to(memory_format=torch.channels_last)

    def configure_losses(self) -> None:
        """Nothing to make: the loss is a function."""

    def configure_optimizers(self) -> Any:
        """Initialize the optimizer and learning rate scheduler."""
        plugin, clip = self.trainer.precision_plugin, self.trainer.gradient_clip_val
        # A fused optimiser unscales gradients itself, too late for Lightning to clip them.
        fused = getattr(plugin, 'scaler', None) is None or not clip
        return build_optimizer(self, self.hparams, self.trainer.max_epochs, fused)

    @property
    def trainer(self) -> Any:
        """The trainer; where a run's files lie is settled as soon as there is one.

        Lightning looks for the checkpoint ``'last'`` before it asks for callbacks.
        """
        return super().trainer

    @trainer.setter
    def trainer(self, trainer: Any) -> None:
        from ..callbacks.run import settle

        inherited: Any = LightningModule.__dict__['trainer']
        inherited.fset(self, trainer)
        if isinstance(trainer, Trainer):
            settle(trainer)

    def configure_callbacks(self) -> Sequence[Callback]:
        """Callbacks that belong to every run, and the folder in which its files lie."""
        from ..callbacks import run_callbacks

        return run_callbacks(self)

    def setup(self, stage: str) -> None:
        """Make room for the estimates of the datamodule's locations.

        Args:
            stage: Lightning's stage.

        Raises:
            ValueError: If data, task and trainer do not fit together.
        """
        if stage == 'fit':
            check_strategy(self.trainer)
            check_precision(self.trainer)
            self._fused_norms = count_fused_norms(self.backbone)
        data: Any = getattr(self.trainer, 'datamodule', None)
        if stage != 'fit':
            return
        if data is None or not hasattr(data, 'location_names'):
            if self.hparams['long_term_negatives'] == 'changed':
                logger.warning(
                    'The data have no location_names (a SeasonalTemporalDataModule has): changes '
                    'are not estimated, and no place counts as changed.'
                )
            return
        check_data(data, self.periods, self.hparams)
        if self._augment is not None and not may_be_rgb(data.bands):
            self.augmentation2 = self._augment(rgb=False)
        if self.estimator.names != tuple(data.location_names):
            self.estimator.allocate(data.location_names, self.device)

    @property
    def _ddp_params_and_buffers_to_ignore(self) -> list[str]:
        """What DDP must not overwrite with the first process's before every step."""
        return [name for name, _ in self.named_buffers()]

    def on_fit_start(self) -> None:
        """Start all processes alike, but for the random numbers of their views.

        Raises:
            ValueError: If synchronised batch norms have cost the backbone its activations.
        """
        if count_fused_norms(self.backbone) < self._fused_norms:
            raise ValueError(
                f'trainer.sync_batchnorm takes activations out of {self.hparams["model"]}, whose '
                'batch norms hold them; leave it off (shuffle_bn serves the same end).'
            )
        broadcast_buffers(self, self.device)
        if rank() > 0:
            torch.manual_seed(torch.initial_seed() + rank())

    def describe_normalisation(self) -> dict[str, list[float]]:
        """Mean and standard deviation of the stretched bands."""
        given = self.hparams['mean'], self.hparams['std']
        mean, std = statistics(self.hparams['in_channels'], *given)
        return {'mean': mean.tolist(), 'std': std.tolist()}

    @property
    def views(self) -> SeasonalViews:
        """What makes the views of a batch."""
        return SeasonalViews(self.augmentation1, self.augmentation2, self.hparams['subspaces'])

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Features of images.

        Args:
            x: Normalised images, shape (B, C, H, W).

        Returns:
            Features, shape (B, F).
        """
        if self.hparams['channels_last']:
            x = x.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.backbone(x)
        return features

    def forward_momentum(self, x: Tensor) -> Tensor:
        """Features of images from the momentum encoder.

        Args:
            x: Normalised images, shape (B, C, H, W).

        Returns:
            Features, shape (B, F).
        """
        if self.hparams['channels_last']:
            x = x.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.backbone_momentum(x)
        return features

    @torch.no_grad()
    def _update_momentum(self) -> None:
        """Move the momentum copies once for each step of the optimiser."""
        step = self.global_step if self._trainer is not None else None
        if step is not None and step == self._due:
            return
        self._due = step
        update = get_ema_multi_avg_fn(self.hparams['moco_momentum'])
        for source, target in (
            (self.backbone, self.backbone_momentum),
            (self.projection_heads, self.projection_heads_momentum),
        ):
            update(list(target.parameters()), list(source.parameters()), 0)

    def _deal(self, rows: Tensor) -> RowShuffle | None:
        """How to mix the places of a step over the processes, if at all."""
        mixed = self.hparams['shuffle_bn'] and world_size() > 1
        if not mixed or not has_own_batch_norm(self.backbone_momentum):
            return None
        step = self.global_step if self._trainer is not None else 0
        return RowShuffle(len(rows) // self.periods, step, rows.device)

    def _momentum_features(self, rows: Tensor, deal: RowShuffle | None) -> Tensor:
        """Features from the momentum encoder, of batches mixed over the processes.

        The periods of a place stay together, so that its distances are measured within one batch.
        """
        if deal is None:
            return self.forward_momentum(rows)
        places = rows.unflatten(0, (-1, self.periods))
        features = self.forward_momentum(deal.shuffle(places).flatten(0, 1))
        return deal.restore(features.unflatten(0, (-1, self.periods))).flatten(0, 1)

    def step(
        self,
        query: Tensor,
        keys: Tensor | Sequence[Tensor],
        index: Tensor,
        changed: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> StepOutput:
        """The whole method on ready views: momentum, embeddings, loss, queues, estimate.

        Rows may be given as (B, P, ...) or flat as (B * P, ...), where the periods of one location
        follow each other, the earlier first.

        Args:
            query: View q, normalised, shape (B, P, C, H, W).
            keys: Views k_0, k_1, ... of the same shape each, as many as there are subspaces.
            index: Numbers of the locations, shape (B,).
            changed: Labels of the rows, shape (B, P), bool; the estimator's by default.
            valid: Which rows may move the estimate, shape (B, P), bool; all by default.

        Returns:
            Loss and figures.

        Raises:
            ValueError: If shapes do not belong together.
        """
        periods, subspaces = self.periods, self.hparams['subspaces']
        check_shapes_of_step(query, keys, index, (changed, valid), subspaces, periods)
        query = query.flatten(0, 1) if query.ndim == 5 else query
        views = [key.flatten(0, 1) if key.ndim == 5 else key for key in keys]
        gated = self.hparams['long_term_negatives'] == 'changed'
        self._update_momentum()

        features = self.forward(query)
        queries = [embed(head, features, periods) for head in self.projection_heads]
        with torch.no_grad():
            deal = self._deal(query)
            key_features = [self._momentum_features(view, deal) for view in views]
            heads = self.projection_heads_momentum
            # Subspace 0 compares with no other view.
            counts = [1 if h == 0 else len(views) for h in range(subspaces)]
            every_key = [
                embed(head, features, periods)
                for head, count in zip(heads, counts, strict=True)
                for features in key_features[:count]
            ]
            gather = gather_rows if self.hparams['gather_distributed'] else nn.Identity()
            # One message for all of them.
            own_keys = gather(torch.stack(every_key, 1)).movedim(1, 0).split(counts)
            if gated:
                z = embed(heads[1], self._momentum_features(query, deal), periods)
                z_season = embed(heads[1], key_features[1], periods)
                triples = self.estimator.measure(z, z_season)
                if changed is None:
                    changed = self.estimator.changed(index)
                changed = changed.reshape(-1, periods).bool()
                valid = torch.ones_like(changed) if valid is None else valid
            own = index[:, None] == gather(index)[None]
        with torch.autocast(query.device.type, enabled=False):
            losses, accuracies = contrast(
                queries, own_keys, self.memory_bank.queue, own, changed, self.hparams
            )
        for h in range(subspaces):
            self.memory_bank.enqueue(h, own_keys[h][h])
        if gated and valid is not None and self.estimator.names:
            # Every process remembers all places, whatever its negatives are.
            self.estimator.update(*(gather_rows(x) for x in (index, triples, valid)))
        return StepOutput(losses.sum(), losses.detach(), accuracies, spread(features.detach()))

    def training_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Make the views, take a step, log.

        Args:
            batch: ``image`` (B, P, S, C, H, W), stretched to [0, 1]; ``index`` (B,); optionally
                ``valid`` (B, P, S), share of pixels with data.
            batch_idx: Number of this batch.
            dataloader_idx: Number of the data loader.

        Returns:
            The loss.

        Raises:
            ValueError: If the images are not what is expected.
        """
        image = batch['image']
        if image.ndim != 6 or not image.is_floating_point() or image.shape[1] != self.periods:
            raise ValueError(
                f'image must be floats of shape (B, {self.periods}, S, C, H, W), '
                f'not {image.dtype} of shape {tuple(image.shape)}.'
            )
        query, keys = self.views(image)
        valid = None
        if self.periods == 2 and 'valid' in batch:
            enough = batch['valid'] >= self.min_valid
            valid = enough[:, :, 0].all(1, keepdim=True) & enough[:, :, 2]
        out = self.step(query, keys, batch['index'], valid=valid)
        self._log_step(out, len(image))
        return out.loss

    def _log_step(self, out: StepOutput, batch_size: int) -> None:
        """Log means over the processes; Lightning would ask, and wait, for each by itself."""
        means = torch.stack([out.loss.detach(), out.std, *out.losses, *out.accuracies])
        loss, std, *others = mean_of_all(means)
        log = partial(self.log, batch_size=batch_size)
        log('train_loss', loss, prog_bar=True)
        log('train_ssl_std_step', std)
        log('train_ssl_std_epoch', std, on_step=False, on_epoch=True, sync_dist=True)
        for h, (one, other) in enumerate(zip(*batched(others, len(out.losses)), strict=True)):
            log(f'train_loss_{h}', one)
            log(f'train_acc_{h}', other)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the names of the locations, by which estimates are matched on loading."""
        checkpoint['caco_locations'] = list(self.estimator.names)
        checkpoint['caco_momentum_step'] = self._due
        checkpoint['caco_max_epochs'] = self.trainer.max_epochs

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Match the estimates of a checkpoint to the locations at hand, by name.

        Args:
            checkpoint: The checkpoint.

        Raises:
            ValueError: If its backbone, channels or queues are others.
        """
        path = getattr(self._trainer, 'ckpt_path', None) or 'the checkpoint'
        check_shapes(checkpoint.get('hyper_parameters', {}), self.hparams, path)
        if self._augment is not None:
            # Its constants depend on whether the bands of the data at hand are RGB.
            state, own = checkpoint['state_dict'], self.state_dict()
            for key in [key for key in state if key.startswith('augmentation2.')]:
                del state[key]
            state |= {k: v for k, v in own.items() if k.startswith('augmentation2.')}
        self._due = checkpoint.get('caco_momentum_step')
        self._compare_lengths(checkpoint.get('caco_max_epochs'), path)
        saved = checkpoint.get('caco_locations', [])
        if not self.estimator.names:
            self.estimator.allocate(saved, self.device)
        added, removed = self.estimator.match(saved, checkpoint['state_dict'], 'estimator.')
        if added or removed:
            logger.warning(
                '%d locations are new since the checkpoint, %d are gone; '
                'the estimates of the others are kept.',
                added,
                removed,
            )

    def _compare_lengths(self, saved: int | None, path: str) -> None:
        """Say so if a learning rate that follows the length of a run is that of another length."""
        epochs = None if self._trainer is None else self.trainer.max_epochs
        shares = any(isinstance(mark, float) and mark < 1 for mark in self.hparams['schedule'])
        follows = self.hparams['optimizer'] == 'adamw' or shares
        if follows and saved is not None and epochs is not None and saved != epochs:
            logger.warning(
                '%s is of a run of %d epochs, this one has %d: the learning rate goes on as '
                'planned for %d. (For another plan start a run with model.weights=%s.)',
                path, saved, epochs, saved, path,
            )  # fmt: skip
