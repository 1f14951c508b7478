"""Contrastive losses as pure functions on tensors."""

from .change_aware import change_aware_logits, info_nce

__all__ = ('change_aware_logits', 'info_nce')
