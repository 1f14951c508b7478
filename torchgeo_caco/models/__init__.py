"""Models and the forms in which they leave."""

from .folder import save_model_folder

__all__ = ('save_model_folder',)
