"""Flowmetal in Jupyter: the kernel, its cells and magics, its live views. It speaks to a `Client` only."""
