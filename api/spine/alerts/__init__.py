"""Alerts: who hears of what, every attempt to tell them, and what raises alerts by itself."""
