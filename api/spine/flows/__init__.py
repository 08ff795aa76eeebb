"""The flows that belong to Spine itself, deployed by module."""
