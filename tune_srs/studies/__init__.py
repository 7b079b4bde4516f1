"""A study: configurations compared on data sets over seeds."""

import tune_srs.tuning  # noqa: F401  (sets what Ray reads when it is imported)
