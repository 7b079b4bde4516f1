"""The commands by group; each parses, calls and prints."""
