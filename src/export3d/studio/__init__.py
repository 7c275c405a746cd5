"""The studio: one model in memory for a page in the browser and for programs (`server.py`), without anything sent away."""
