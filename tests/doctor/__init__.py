"""Tests of `spine doctor`."""
