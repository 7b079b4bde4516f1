"""Training's inner loops, compiled for the CPU by Numba: one row of a batch at a time.

A row is one user's history: what a layer needs of it stays in the cache, and nothing is computed
for padding. All float arrays are float32 and contiguous.
"""
