"""Raw interaction logs → prepared data: read, filtered, split, with noise on purpose, and kept."""
