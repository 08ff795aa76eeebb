"""How runs ended: a follower of finished runs, and the statistics per deployment that it keeps."""
