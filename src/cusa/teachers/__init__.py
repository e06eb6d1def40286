"""Frozen models and their cached features, one module a kind of model."""
