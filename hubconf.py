"""Entry points of ``torch.hub.load('ORG/torchgeo_caco', 'caco_resnet18', weights=...)``."""

dependencies = ['kornia', 'lightly', 'lightning', 'timm', 'torch', 'torchgeo']

from torchgeo_caco.models import caco_resnet18, caco_resnet50  # noqa: E402, F401
