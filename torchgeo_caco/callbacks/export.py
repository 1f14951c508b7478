"""The model folder at the end of a run."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ..models import save_model_folder


class ModelFolderExport(Callback):
    """Writes the backbone as a timm model folder, ``<default_root_dir>/model``."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder."""
        if not trainer.is_global_zero or not hasattr(pl_module, 'backbone'):
            return
        data: Any = getattr(trainer, 'datamodule', None)
        described = data.describe_input() if hasattr(data, 'describe_input') else {}
        task: Any = pl_module
        described |= (
            task.describe_normalisation() if hasattr(task, 'describe_normalisation') else {}
        )
        root = Path(trainer.default_root_dir) / 'model'
        save_model_folder(task.backbone, task.hparams['model'], root, described)
