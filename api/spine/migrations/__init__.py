"""The migrations of Spine's tables, and `upgrade`, which applies them."""
