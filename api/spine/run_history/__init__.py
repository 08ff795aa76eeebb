"""Outcomes of finished runs: the follower that records them, and the statistics per deployment."""
