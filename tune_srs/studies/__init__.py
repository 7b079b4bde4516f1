"""Studies: named configurations x data sets x seeds, compared with their uncertainty."""
