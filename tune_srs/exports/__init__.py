"""Exported models: write, read, verify, score, and ask for recommendations."""
