"""`spine doctor`: checks of this installation, each with what to do about what it finds."""
