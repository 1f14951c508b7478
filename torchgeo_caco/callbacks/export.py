"""The model folder at the end of a run."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors import SafetensorError

from ..models import save_model_folder
from ..models.describe import describe_run

logger = logging.getLogger(__name__)


class ModelFolderExport(Callback):
    """Writes the backbone as a timm model folder, ``<default_root_dir>/model``."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder."""
        if not trainer.is_global_zero or not hasattr(pl_module, 'backbone'):
            return
        data: Any = getattr(trainer, 'datamodule', None)
        task: Any = pl_module
        described, about = describe_run(
            task.hparams,
            data.describe_input() if hasattr(data, 'describe_input') else {},
            len(getattr(data, 'location_names', ())),
            trainer.current_epoch,
            {k: float(v) for k, v in trainer.callback_metrics.items() if not k.endswith('_step')},
        )
        root = Path(trainer.default_root_dir) / 'model'
        try:
            save_model_folder(task.backbone, task.hparams['model'], root, described, about)
        except (OSError, SafetensorError) as error:
            # Half a file must not be taken for a whole one.
            (root / 'model.safetensors').unlink(missing_ok=True)
            logger.warning(
                '%s: the model folder could not be written (%s); the same command with '
                '--ckpt_path last writes it once there is room.',
                root,
                error,
            )
