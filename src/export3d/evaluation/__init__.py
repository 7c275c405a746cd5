"""Metrics, protocols and figures (Secs. 4.2-4.3, 6.5)."""
