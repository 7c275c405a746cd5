"""Another background, or none: what `--background` may ask for, how a person lies before it, and how it is stored."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from clips import make_clip
from cutouts import CROPS, a_disc, a_head, a_person, a_photo, share_in
from export3d.animation import Animator, ClipDriver, TransferOptions, VideoOptions, animate_video
from export3d.animation import person as person_module
from export3d.animation.backdrop import Backdrop, as_picture, laid
from export3d.animation.head import HeadLayer
from export3d.animation.paste import pasteboard
from export3d.animation.targets import check_target, finished
from export3d.cli import main
from export3d.errors import UnreadableImageError, UsageError
from export3d.portrait import PortraitModel
from export3d.provenance import Finish, ProvenanceOptions
from export3d.tracking import Tracker

MakeTracker = Callable[..., Tracker]

NOTHING = Backdrop(picture=None)
GREEN = Backdrop.of("#00c800")


def test_the_words_of_the_option() -> None:
    assert Backdrop.of("keep") is None
    assert Backdrop.of("transparent") == NOTHING and NOTHING.planes == 4
    assert GREEN is not None and GREEN.planes == 3 and GREEN.behind(2, 3)[:, 1, 2].tolist() == [0.0, 200.0, 0.0]
    white = Backdrop.of("white")
    assert white is not None and white.behind(1, 1).flatten().tolist() == [255.0] * 3


def test_a_picture_is_cut_to_the_shape_of_the_film(tmp_path: Path) -> None:
    picture = np.zeros((40, 120, 3), dtype=np.uint8)
    picture[:, 40:80] = 255  # its middle third
    Image.fromarray(picture).save(tmp_path / "room.png")
    made = Backdrop.of(str(tmp_path / "room.png"))
    assert made is not None
    behind = made.behind(80, 80)
    assert behind.shape == (3, 80, 80) and float(behind[:, :, 5:75].min()) > 250.0


def test_what_is_neither_a_picture_nor_a_colour_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["animate", "--source", "a.png", "--driving", "b.mp4", "-o", "c.mp4", "--background", "beach.jpg"]
    assert main(command) == 2
    assert "'beach.jpg' is no picture and no colour. Give keep, transparent" in capsys.readouterr().err
    (tmp_path / "words.jpg").write_text("words")
    with pytest.raises(UnreadableImageError):
        Backdrop.of(str(tmp_path / "words.jpg"))


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "still.jpg"])
def test_a_name_that_cannot_be_transparent_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be transparent; end the name in .webm .*.mov .*.png") as caught:
        check_target(tmp_path / name, transparent=True)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["film.webm", "film.mov", "still.png", "%04d.png"])
def test_a_name_that_can_be_transparent_is_taken(tmp_path: Path, name: str) -> None:
    check_target(tmp_path / name, transparent=True)


def test_laying_and_reading_back_by_hand() -> None:
    light, opacity = torch.full((3, 1, 1), 50.0), torch.full((1, 1, 1), 0.25)
    assert laid(light, opacity, torch.full((3, 1, 1), 100.0)).flatten().tolist() == [125.0] * 3
    alone = laid(light, opacity, NOTHING.behind(1, 1))
    assert alone.flatten().tolist() == [50.0, 50.0, 50.0, 63.75]
    assert as_picture(alone).flatten().tolist() == [200, 200, 200, 64]
    assert as_picture(NOTHING.behind(1, 1)).flatten().tolist() == [0, 0, 0, 0]


def test_the_person_stands_before_the_colour_and_nothing_of_the_old_background_is_left() -> None:
    photo, crop = a_photo(), CROPS["upright"]
    share = share_in(photo, crop)
    share[100:, 90:150] = 1.0  # a body
    photo[100:, 90:150] = (200, 30, 30)
    board = pasteboard(photo, crop, a_person(share), a_disc(64, 0.2), backdrop=GREEN)
    assert board.photo.flags.c_contiguous  # as the compiled renderer wants it
    made = board.paste(a_head(x=0.6))
    changing = board.changing(a_head(x=0.6))
    assert (made[(share == 0.0) & ~changing] == (0, 200, 0)).all()
    np.testing.assert_array_equal(made[150:, 95:145], photo[150:, 95:145])
    nobody = HeadLayer(torch.zeros(3, 2, 2), torch.zeros(1, 2, 2))
    assert (board.paste(nobody)[82, 118] == (0, 200, 0)).all()  # where the old head was


def test_before_nothing_the_opacity_is_the_persons() -> None:
    photo, crop = a_photo(), CROPS["tilted"]
    share = share_in(photo, crop)
    board = pasteboard(photo, crop, a_person(share), a_disc(64, 0.2), backdrop=NOTHING)
    made = board.paste(a_head(x=0.6))
    x, y = np.floor(crop.from_crop(np.array([0.6, 0.4]))).astype(int)
    assert made.shape == (180, 240, 4) and made[0, 0].tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(made[y, x], [20, 230, 40, 255], atol=2)


@pytest.mark.parametrize("name", ["film.webm", "film.mov"])
@pytest.mark.parametrize("framing", ["photo", "face"])
def test_a_transparent_film_keeps_its_opacity(
    tiny_model: PortraitModel,
    make_tracker: MakeTracker,
    tmp_path: Path,
    photo: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    framing: str,
) -> None:
    monkeypatch.setattr(person_module, "find_person", lambda image, crop: share_in(image, crop))
    animator = Animator(tiny_model, make_tracker(), framing=framing, apart=True)  # type: ignore[arg-type]
    animator.portrait(photo)
    sent: list[np.ndarray] = []
    finish = Finish(ProvenanceOptions(no_mark=True, no_manifest=True))
    finish.frame = lambda image: image  # type: ignore[method-assign]
    monkeypatch.setattr("export3d.animation.video_output.finished", lambda image, _: sent.append(image) or image)
    driver = ClipDriver(make_clip(tmp_path / "clip.mp4", fps=Fraction(25), num_frames=3), make_tracker(3))
    video = VideoOptions(backdrop=NOTHING, crf=4)
    try:
        animate_video(animator, driver, tmp_path / name, video=video, motion=TransferOptions(), finish=finish)
    finally:
        driver.close()
    read = [frame[..., 3] for frame in rgba_frames(tmp_path / name)]
    assert len(read) == len(sent) == 3 and all(image.shape[-1] == 4 for image in sent)
    for stored, image in zip(read, sent, strict=True):
        assert np.abs(stored.astype(int) - image[..., 3]).mean() < 3.0
    if framing == "photo":
        assert sent[0][..., 3].min() == 0 and sent[0][..., 3].max() > 200


def rgba_frames(path: Path) -> list[np.ndarray]:
    """The frames with their opacity; FFmpeg's own VP9 decoder leaves it out."""
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        if path.suffix != ".webm":
            return [frame.to_ndarray(format="rgba") for frame in film.decode(stream)]
        decoder = av.CodecContext.create("libvpx-vp9", "r")
        packets = [*film.demux(stream)]
        return [frame.to_ndarray(format="rgba") for packet in packets for frame in decoder.decode(packet)]


def test_a_label_can_be_read_where_the_picture_is_transparent() -> None:
    finish = Finish(ProvenanceOptions(label="made up", no_mark=True, no_manifest=True))
    made = finished(np.zeros((120, 160, 4), np.uint8), finish)
    assert 0 < (made[..., 3] == 255).mean() < 0.5 and (made[..., :3][made[..., 3] == 0] < 40).all()


def test_transparent_panels_side_by_side_are_refused(
    animator: Animator, make_tracker: MakeTracker, tmp_path: Path
) -> None:
    driver = ClipDriver(make_clip(tmp_path / "clip.mp4", fps=Fraction(25), num_frames=2), make_tracker(2))
    video = VideoOptions(backdrop=NOTHING, side_by_side=True)
    try:
        with pytest.raises(UsageError, match="--background transparent and --side-by-side exclude each other"):
            animate_video(animator, driver, tmp_path / "a.webm", video=video, motion=TransferOptions())
    finally:
        driver.close()
