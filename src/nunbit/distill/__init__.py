"""Distillation: a small picture tower learns from any encoder on pictures without labels."""
