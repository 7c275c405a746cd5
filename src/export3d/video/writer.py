"""Encode frames as H.264 beside the target, and give the file its name when it is complete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import av.error
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from export3d.errors import Export3DError, OutputError, UsageError
from export3d.files import publish, temporary_beside, write_error
from export3d.video.audio import AudioCopy
from export3d.video.target import check_video_target

_LOOKAHEAD = {"x264-params": "mbtree=1:rc-lookahead=10:bframes=1"}
"""With it `superfast` takes half the time of `veryfast` for files as good; more B-frames in a row take up to a quarter more
time for files 7 to 10 percent smaller and 0.1 to 0.3 dB worse."""

_BEST_CRF = 1
"""x264 takes 0 for lossless, in a profile that many players do not know."""


class VideoWriter:
    """Encode H.264 (yuv420p, BT.709), copy the sound of another file; the target appears only when complete.

    Frames go to a temporary file beside the target, which is renamed by a clean exit and removed by any
    error, Ctrl-C included. Odd sizes are padded by one repeated row or column,
    because yuv420p has none.

    Args:
        path: target, `.mp4`, `.m4v`, `.mov` or `.mkv`.
        fps: nominal frame rate (exact).
        size: (width, height) of the images that will be written.
        time_base: clock of `pts`; 1 / fps when None.
        copy_audio_from: file whose first sound track is copied packet by packet, or re-encoded to AAC where
            the container cannot hold its codec.
        crf: constant quality, 0 (lossless) to 51 (worst).
        threads: encoder threads; 0 lets the encoder choose.
        transparent: images have an opacity; written as VP9 (`.webm`) or ProRes 4444 (`.mov`, which has no `crf`).
        to_yuv: writes a uint8 ``(H, W, 3)`` image, both sides even, into the three planes of yuv420p (BT.709, TV range), uint8
            ``(rows, bytes)`` each; FFmpeg's scaler when None.
        on_complete: called with the complete file before it gets its name; may change it.

    Raises:
        OutputError: Folder missing or not writable, or the disk is full.
        UsageError: Unknown suffix or quality.
    """

    def __init__(
        self,
        path: str | Path,
        fps: Fraction | int,
        size: tuple[int, int],
        *,
        time_base: Fraction | None = None,
        copy_audio_from: str | Path | None = None,
        crf: int = 18,
        preset: str = "superfast",
        threads: int = 0,
        transparent: bool = False,
        on_complete: Callable[[Path], None] | None = None,
        to_yuv: Callable[[np.ndarray, Sequence[np.ndarray]], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self.size = size
        self.num_frames = 0
        self._on_complete, self._to_yuv = on_complete, to_yuv
        self._reformatter = VideoReformatter()
        self._next_pts = 0
        self.fps = Fraction(fps)
        self.time_base = time_base or 1 / self.fps
        container = check_video_target(self.path, transparent=transparent)
        if not 0 <= crf <= 51:
            raise UsageError(f"--crf must be from 0 (lossless) to 51 (worst); got {crf}.")
        self._temporary = temporary_beside(self.path)
        self._audio: AudioCopy | None = None
        self._output: Any = None
        try:
            options = {"movflags": "+faststart"} if container in ("mp4", "mov") else {}
            self._output = av.open(f"file:{self._temporary.absolute()}", "w", format=container, options=options)
            codec_name, self._format, quality = "libx264", "yuv420p", {"crf": str(crf or _BEST_CRF), "preset": preset}
            quality |= _LOOKAHEAD
            if transparent and container == "webm":
                codec_name, self._format = "libvpx-vp9", "yuva420p"
                quality = {"crf": str(crf), "b": "0", "deadline": "good", "cpu-used": "5", "row-mt": "1"}
            elif transparent:
                codec_name, self._format, quality = "prores_ks", "yuva444p10le", {"profile": "4444"}
            self._channels = 4 if transparent else 3
            stream = self._output.add_stream(codec_name, rate=self.fps, options=quality)
            width, height = size
            stream.width, stream.height = width + width % 2, height + height % 2
            stream.pix_fmt = self._format
            codec = stream.codec_context
            codec.time_base = self.time_base
            codec.thread_count = threads
            # BT.709, TV range
            codec.color_range = codec.colorspace = codec.color_primaries = codec.color_trc = 1
            self._video = stream
            if copy_audio_from is not None:
                self._audio = AudioCopy.open(Path(copy_audio_from), self._output, container)
        except av.error.FFmpegError as error:
            self._discard()
            raise self._output_error(error) from error
        except BaseException:
            self._discard()
            raise

    def write(self, image: np.ndarray, pts: int | None = None, duration: int | None = None) -> None:
        """Encode one uint8 ``(H, W, 3)`` image, ``(H, W, 4)`` where transparent, at `pts` (None: the next)."""
        width, height = self.size
        if image.dtype != np.uint8 or image.shape != (height, width, self._channels):
            wanted = (height, width, self._channels)
            raise ValueError(f"image must be uint8 {wanted}; got {image.dtype} {image.shape}")
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        period = max(round(1 / self.fps / self.time_base), 1)
        picture = self._converted(image)
        picture.pts = self._next_pts if pts is None else pts
        picture.duration = duration or period
        picture.time_base = self.time_base
        self._next_pts = picture.pts + period
        self._guard(lambda: self._mux(self._video.encode(picture)))
        self.num_frames += 1

    def _converted(self, image: np.ndarray) -> av.VideoFrame:
        if self._to_yuv is not None and self._channels == 3:
            picture: Any = av.VideoFrame(image.shape[1], image.shape[0], self._format)
            picture.colorspace, picture.color_range = Colorspace.ITU709, ColorRange.MPEG
            self._to_yuv(image, [np.frombuffer(p, dtype=np.uint8).reshape(-1, p.line_size) for p in picture.planes])
            return picture
        kind = "rgba" if self._channels == 4 else "rgb24"
        picture = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format=kind)  # no copy
        return self._reformatter.reformat(
            picture, format=self._format, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )

    def close(self) -> None:
        """Finish the file and give it its name."""
        if self._output is None:
            return
        if self.num_frames == 0:
            self._discard()
            raise OutputError(f"{self.path}: no frame was written, so no file was made.")
        self._guard(self._finish)

    def abort(self) -> None:
        """Throw the unfinished file away."""
        self._discard()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            if self._audio is not None and packet.dts is not None:
                self._audio.copy_until(packet.dts * packet.time_base)
            self._output.mux(packet)

    def _finish(self) -> None:
        self._mux(self._video.encode(None))
        if self._audio is not None:
            self._audio.copy_until(None)
        output, self._output = self._output, None
        output.close()
        if self._on_complete is not None:
            self._on_complete(self._temporary)
        publish(self._temporary, self.path)
        if self._audio is not None:
            self._audio.close()

    def _guard(self, action: Any) -> None:
        """Run one step; a failure removes the unfinished file and becomes a typed error."""
        try:
            action()
        except Export3DError:
            self._discard()
            raise
        except (av.error.FFmpegError, OSError) as error:
            self._discard()
            raise self._output_error(error) from error
        except BaseException:
            self._discard()
            raise

    def _output_error(self, error: BaseException) -> OutputError:
        return OutputError(f"{write_error(self.path, error)} No file was left behind.")

    def _discard(self) -> None:
        output, self._output = self._output, None
        if output is not None:
            with suppress(av.error.FFmpegError, OSError, ValueError):
                output.close()
        if self._audio is not None:
            self._audio.close()
        self._temporary.unlink(missing_ok=True)
