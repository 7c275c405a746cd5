"""Streaming video: upright RGB frames with exact times in, H.264 with copied sound out (no paper section).

Memory does not grow with the length of a clip: one frame is decoded, handed out and forgotten, audio packets
are copied in step with the pictures. Times are exact fractions of a second in the source's own clock, so a
frame rate of 30000/1001, a variable frame rate and the offset between picture and sound all survive the trip.
"""

from export3d.video.reader import VideoFrame, VideoReader
from export3d.video.source import has_picture
from export3d.video.target import CONTAINERS, check_video_target, check_writable
from export3d.video.writer import VideoWriter

__all__ = [
    "CONTAINERS",
    "VideoFrame",
    "VideoReader",
    "VideoWriter",
    "check_video_target",
    "check_writable",
    "has_picture",
]
