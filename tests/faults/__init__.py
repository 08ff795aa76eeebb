"""What Spine promises while a part of the topology is down, measured under steady load."""
