"""Tests of `spine up`: real processes, real ports, real files."""
