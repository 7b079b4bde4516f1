"""pandas tables for a reader: as text, selected, and side by side."""
