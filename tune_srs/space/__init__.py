"""A search space: its parameters, how it is searched, and what it suggests."""
