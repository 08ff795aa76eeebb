"""Secrets: encrypted if Spine stores them, referenced if another system does."""
