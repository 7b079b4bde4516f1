"""Loops compiled for the CPU by Numba: of training and evaluation, and of sorting interactions.

All float arrays are float32 and contiguous. Each kernel of the model and of the loss has a twin in
plain torch that the tests hold it to.
"""
