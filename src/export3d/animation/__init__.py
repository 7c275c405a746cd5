"""Animation: a portrait, driven by a clip, a photo, a motion file or a camera path (Fig. 1 at inference)."""

from export3d.animation.animator import Animator, Subject
from export3d.animation.drivers import ClipDriver, Driver, DrivingFrame, MotionDriver, PhotoDriver, open_driver
from export3d.animation.sound import SoundDriver
from export3d.animation.transfer import TransferOptions
from export3d.animation.video_output import VideoOptions, VideoReport, animate_video, orbit_video

__all__ = [
    "Animator",
    "ClipDriver",
    "Driver",
    "DrivingFrame",
    "MotionDriver",
    "PhotoDriver",
    "SoundDriver",
    "Subject",
    "TransferOptions",
    "VideoOptions",
    "VideoReport",
    "animate_video",
    "open_driver",
    "orbit_video",
]
