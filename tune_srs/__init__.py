"""Hyper-parameter search for relevance-aware sequential recommenders."""

__version__ = "0.1.0"
