"""A run: the folder of a search, and the only modules that know its files."""
