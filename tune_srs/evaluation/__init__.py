"""A model and a split → ranks → metrics with intervals."""
