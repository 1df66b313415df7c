"""Distilled encoders: a small picture tower in its teacher's space, beside the teacher's own text side."""
