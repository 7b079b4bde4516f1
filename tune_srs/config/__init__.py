"""The settings of a trial, their validation, and YAML in and out."""
