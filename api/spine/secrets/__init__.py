"""Secrets: encrypted where Spine keeps them, named where somebody else does."""
