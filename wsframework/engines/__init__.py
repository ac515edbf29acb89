"""Engines that carry rooms across processes. Each needs an extra, and is imported by its own name."""
