"""What was kept and dropped, and why: report.json and a page of pictures, report.html (docs/data.md)."""

from __future__ import annotations

import base64
import html
import io
import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from export3d.data import ClipDataset
from export3d.data.manifest import MANIFEST_NAME
from export3d.data.sheet import contact_sheet
from export3d.files import write_atomically
from export3d.preprocess.jobs import Loss
from export3d.preprocess.packing import packed_keys
from export3d.preprocess.quality import POSE_BINS
from export3d.preprocess.results import KeptClip, VideoResult

REPORT_FORMAT = "export3d-prepare-report"
SHARPNESS_BINS = (0, 5, 10, 20, 40, 80, 160, 320, 640, 1280)
"""Lower edges; the last bin is open."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The whole of report.json but its format and version."""

    clips: int
    frames: int
    hours: float
    identities: int
    splits: dict[str, int]
    """Clips in each split."""
    extractor: dict[str, str]
    videos: int
    videos_lost: int
    """Videos of which nothing was kept."""
    frames_dropped: dict[str, int]
    """Frames by the kind of reason."""
    lost: tuple[dict[str, Any], ...]
    """Each video of which nothing was kept: source, reasons."""
    dropped: tuple[dict[str, Any], ...]
    """Each dropped stretch: source, cut, start_s, end_s, frames, reason."""
    errors: tuple[dict[str, str], ...]
    """Damage met while reading: source, text."""
    ignored: tuple[str, ...]
    """Files that no layout has a use for."""
    histograms: dict[str, dict[str, list[int]]]
    """`yaw_deg`, `pitch_deg` in frames, `sharpness` in clips: lower edges of the bins, and counts."""
    speed: dict[str, dict[str, float]]
    """Step -> CPU seconds, frames, frames per second of one core."""


def make_report(folder: Path, results: list[VideoResult], losses: list[Loss], ignored: list[str]) -> Report:
    """Put the records of all videos together; the clips are those that the data set in `folder` holds."""
    packed = packed_keys(folder)
    kept: list[KeptClip] = []
    dropped: list[dict[str, Any]] = []
    errors: list[dict[str, str]] = []
    lost = [{"source": loss.source, "reasons": [loss.reason]} for loss in losses]
    for result in results:
        mine = [clip for clip in result.clips if clip.key in packed]
        kept += mine
        stretches = [{"source": result.source, **asdict(drop)} for drop in result.drops]
        for clip in result.clips:
            if clip.key not in packed:
                entry = {"cut": clip.cut, "start_s": clip.start_s, "end_s": clip.end_s, "frames": clip.frames}
                stretches.append({"source": result.source, **entry, "reason": "not the first clip of its identity"})
        dropped += stretches
        errors += [{"source": result.source, "text": text} for text in result.errors]
        if not mine:
            reasons = [*result.errors, *dict.fromkeys(stretch["reason"] for stretch in stretches)]
            lost.append({"source": result.source, "reasons": reasons or ["no frame in it"]})
    frames_dropped: Counter[str] = Counter()
    for stretch in dropped:
        frames_dropped[stretch["reason"].partition(" (")[0]] += stretch["frames"]
    frames = sum(clip.frames for clip in kept)
    fps = _fps(folder)
    return Report(
        clips=len(kept),
        frames=frames,
        hours=round(frames / fps / 3600, 6),
        identities=len({clip.identity for clip in kept}),
        splits=dict(sorted(Counter(clip.split for clip in kept).items())),
        extractor=next((result.extractor for result in results if result.clips), {}),
        videos=len(results) + len(losses),
        videos_lost=len(lost),
        frames_dropped=dict(frames_dropped.most_common()),
        lost=tuple(lost),
        dropped=tuple(dropped),
        errors=tuple(errors),
        ignored=tuple(ignored),
        histograms=_histograms(kept),
        speed=_speed(results),
    )


def write_report(report: Report, folder: Path) -> None:
    """Write report.json and report.html."""
    content = {"format": REPORT_FORMAT, "version": 1, **asdict(report)}
    write_atomically(folder / "report.json", (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    write_atomically(folder / "report.html", report_page(report, _sheet(folder)).encode())


def report_page(report: Report, sheet: bytes | None) -> str:
    """One HTML page without any outside file.

    Args:
        sheet: JPEG of a contact sheet.
    """
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Export3D: prepared clips</title>",
        "<style>body{font:15px sans-serif;margin:2em auto;max-width:1160px;padding:0 1em}td,th{padding:2px 12px 2px 0;",
        "text-align:left;vertical-align:top}figure{display:inline-block;margin:0 1em 1em 0}img{max-width:100%}</style>",
        "<h1>Prepared clips</h1>",
        _table(
            ("", ""),
            [
                ("Clips kept", report.clips),
                ("Frames", report.frames),
                ("Hours", f"{report.hours:.3f}"),
                ("Identities", report.identities),
                ("Clips by split", ", ".join(f"{name} {count}" for name, count in report.splits.items())),
                ("Videos", report.videos),
                ("Videos of which nothing was kept", report.videos_lost),
                ("Extractor", " ".join(filter(None, report.extractor.values()))),
            ],
        ),
        "<h2>Kept frames</h2>",
        *(_chart(name, histogram) for name, histogram in report.histograms.items()),
    ]
    if sheet is not None:
        picture = base64.b64encode(sheet).decode()
        parts.append(f"<p><img alt='frames of kept clips' src='data:image/jpeg;base64,{picture}'></p>")
    stretch = ("source", "cut", "start_s", "end_s", "frames", "reason")
    speed = [(step, *(f"{v:.1f}" for v in row.values())) for step, row in report.speed.items()]
    tables: list[tuple[str, tuple[str, ...], list[Any]]] = [
        ("Dropped", ("Reason", "Frames"), list(report.frames_dropped.items())),
        (
            "Videos of which nothing was kept",
            ("Video", "Why"),
            [(e["source"], "; ".join(e["reasons"])) for e in report.lost],
        ),
        (
            "Dropped stretches",
            ("Video", "Cut", "From (s)", "To (s)", "Frames", "Why"),
            [tuple(d[k] for k in stretch) for d in report.dropped],
        ),
        ("Damage", ("Video", "What"), [(entry["source"], entry["text"]) for entry in report.errors]),
        *([("Other files, left alone", ("File",), [(name,) for name in report.ignored])] if report.ignored else []),
        ("Speed of one core", ("Step", "CPU seconds", "Frames", "Frames per second"), speed),
    ]
    for title, head, rows in tables:
        parts += [f"<h2>{title}</h2>", _table(head, rows)]
    return "\n".join([*parts, "</html>", ""])


def _histograms(clips: list[KeptClip]) -> dict[str, dict[str, list[int]]]:
    edges = list(POSE_BINS)
    zero = np.zeros(len(edges), dtype=int)
    sharpness = np.array([clip.quality["sharpness"] for clip in clips])
    places = np.searchsorted(SHARPNESS_BINS, sharpness, side="right") - 1
    counts = np.bincount(np.clip(places, 0, None), minlength=len(SHARPNESS_BINS)) if len(clips) else zero
    return {
        "yaw_deg": {"from": edges, "count": sum((np.array(clip.yaw_counts) for clip in clips), zero).tolist()},
        "pitch_deg": {"from": edges, "count": sum((np.array(clip.pitch_counts) for clip in clips), zero).tolist()},
        "sharpness": {"from": list(SHARPNESS_BINS), "count": counts[: len(SHARPNESS_BINS)].tolist()},
    }


def _speed(results: list[VideoResult]) -> dict[str, dict[str, float]]:
    """Decoding counts the frames of the file, all other steps those at the target rate."""
    seconds: dict[str, float] = defaultdict(float)
    for result in results:
        for step, value in result.seconds.items():
            seconds[step] += value
    decoded, resampled = sum(r.num_decoded for r in results), sum(r.num_frames for r in results)
    table = {}
    for step, value in sorted(seconds.items()):
        frames = decoded if step == "decode" else resampled
        table[step] = {"seconds": round(value, 3), "frames": frames, "fps": round(frames / value, 1) if value else 0.0}
    total = sum(seconds.values())
    if total:
        table["all"] = {"seconds": round(total, 3), "frames": resampled, "fps": round(resampled / total, 1)}
    return table


def _fps(folder: Path) -> float:
    if not (folder / MANIFEST_NAME).exists():
        return 25.0
    numerator, denominator = ClipDataset(folder).meta(0)["fps"]
    return numerator / denominator


def _sheet(folder: Path) -> bytes | None:
    if not (folder / MANIFEST_NAME).exists():
        return None
    out = io.BytesIO()
    Image.fromarray(contact_sheet(ClipDataset(folder))).save(out, "JPEG", quality=88)
    return out.getvalue()


def _table(head: tuple[str, ...], rows: list[Any]) -> str:
    if not rows:
        return "<p>None.</p>"
    titles = "".join(f"<th>{html.escape(title)}</th>" for title in head)
    lines = ("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{titles}</tr>{''.join(lines)}</table>"


def _chart(name: str, histogram: dict[str, list[int]]) -> str:
    """Bars as SVG: 320 x 120 with the lower edges of every few bins below."""
    counts, edges = histogram["count"], histogram["from"]
    top, width = max([*counts, 1]), 320 / len(counts)
    bars, labels = [], []
    for place, (count, edge) in enumerate(zip(counts, edges, strict=True)):
        height = 100 * count / top
        bars.append(
            f"<rect x='{place * width:.1f}' y='{100 - height:.1f}' width='{width - 1:.1f}' height='{height:.1f}' "
            f"fill='#4472a8'><title>from {edge}: {count}</title></rect>"
        )
        if len(counts) <= 12 or place % 6 == 0:
            labels.append(f"<text x='{place * width:.1f}' y='114' font-size='10'>{edge}</text>")
    unit = "clips" if name == "sharpness" else "frames"
    return (
        f"<figure><figcaption>{html.escape(name)} ({unit}, highest bar {top})</figcaption>"
        f"<svg width='320' height='120'>{''.join(bars)}{''.join(labels)}</svg></figure>"
    )
