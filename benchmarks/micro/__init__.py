"""Micro-benchmarks of the hot paths, for use while optimising."""
