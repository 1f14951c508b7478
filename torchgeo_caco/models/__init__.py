"""Weights: from whom they come, and the forms in which they leave."""

from .convert import Encoder, read_encoder
from .export import export_encoder, push
from .folder import save_model_folder
from .load import find_encoder, load_encoder
from .resnet import CACoResNet18_Weights, CACoResNet50_Weights, caco_resnet18, caco_resnet50

__all__ = (
    'CACoResNet18_Weights',
    'CACoResNet50_Weights',
    'Encoder',
    'caco_resnet18',
    'caco_resnet50',
    'export_encoder',
    'find_encoder',
    'load_encoder',
    'push',
    'read_encoder',
    'save_model_folder',
)
