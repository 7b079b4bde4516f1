"""The search: Ray runs trials, Optuna proposes them, early stopping ends them."""
