"""An exported model: written, read, verified, judged, and asked for recommendations."""
