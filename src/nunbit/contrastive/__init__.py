"""Contrastive training tasks: model + loss + batches."""
