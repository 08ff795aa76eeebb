"""Work on content of sources in processes of its own, whose memory is limited and which are killed at a deadline."""
