"""Tracking: frames to face boxes, 68 landmarks, expression coefficients and cameras (Sec. 4, data)."""

from export3d.tracking.alignment import EG3D_ALIGNMENT, Alignment, Crop, crop_image, crop_transform
from export3d.tracking.faces import CoefficientModel, ExtractorInfo, Face, FaceTracker, ObservingModel
from export3d.tracking.gaze import GazeMap, unknown_gaze
from export3d.tracking.lost import LostFaces
from export3d.tracking.motion import Motion
from export3d.tracking.tracker import Portrait, TrackedFrame, Tracker

__all__ = [
    "EG3D_ALIGNMENT",
    "Alignment",
    "CoefficientModel",
    "Crop",
    "ExtractorInfo",
    "Face",
    "FaceTracker",
    "GazeMap",
    "LostFaces",
    "Motion",
    "ObservingModel",
    "Portrait",
    "TrackedFrame",
    "Tracker",
    "crop_image",
    "crop_transform",
    "unknown_gaze",
]
