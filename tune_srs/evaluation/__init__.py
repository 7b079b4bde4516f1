"""A model and sequences → ranks → metrics with intervals."""
