"""Animation: a portrait, driven by a clip, a photo, a motion file or a camera path (Fig. 1 at inference)."""

from export3d.animation.animator import Animator, Subject
from export3d.animation.drivers import ClipDriver, Driver, DrivingFrame, MotionDriver, PhotoDriver, open_driver
from export3d.animation.film import FilmReport, animate_film, orbit_film
from export3d.animation.lost import LostFaces
from export3d.animation.transfer import TransferOptions

__all__ = [
    "Animator",
    "ClipDriver",
    "Driver",
    "DrivingFrame",
    "FilmReport",
    "LostFaces",
    "MotionDriver",
    "PhotoDriver",
    "Subject",
    "TransferOptions",
    "animate_film",
    "open_driver",
    "orbit_film",
]
