"""Export3D: one portrait and a driving clip become a 3D-aware, expression- and camera-controllable video."""

__version__ = "0.1.0"
