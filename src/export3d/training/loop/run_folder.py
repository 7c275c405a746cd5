"""A run folder: config.json, metrics.jsonl, sample sheets, states and checkpoints; what rerunning a command finds."""

from __future__ import annotations

import fcntl
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import torch

from export3d.errors import OutputError, TrainingError
from export3d.files import write_atomically
from export3d.training.loop.state import drop_old_states, newest_readable_state, save_state

RUN_FORMAT = "export3d-run"
RUN_VERSION = 1


class RunFolder:
    """One run. Only the main process opens it for writing.

    Args:
        folder: created if missing.
        command: `pretrain` or `train`.
        config: everything that decides the result, JSON-ready; a rerun must give the same.
        data: what the data set says of itself (extractor, shard checksums); a rerun must give the same.

    Raises:
        TrainingError: The folder holds a run with another configuration or data; the differences are shown. Or another
            process is writing to it.
        OutputError: The folder cannot be made or written.
    """

    def __init__(self, folder: str | Path, command: str, config: dict[str, Any], data: dict[str, Any]) -> None:
        self.path = Path(folder)
        self._lock: TextIO | None = None
        wanted = {"format": RUN_FORMAT, "version": RUN_VERSION, "command": command, "config": config, "data": data}
        wanted = json.loads(json.dumps(wanted))  # tuples become lists, as in the file
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "w")
        except OSError as error:
            raise OutputError(f"{self.path}: the run folder cannot be written ({error.strerror}).") from error
        self._take_lock()
        existing = self._read_config()
        if existing is None:
            text = json.dumps(wanted, indent=1, ensure_ascii=False) + "\n"
            write_atomically(self.path / "config.json", text.encode())
        else:
            differences = json_difference(existing, wanted)
            if differences:
                self.close()
                shown = "\n  ".join(differences[:20])
                raise TrainingError(
                    f"{self.path}: the folder holds a run with another configuration or data (there -> now):\n  {shown}\n"
                    "Give the same options to resume it, or another output folder (-o)."
                )

    def newest_state(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest readable training state, and complaints about newer, damaged ones."""
        return newest_readable_state(self.path)

    def save_bad_batch(self, step: int, batch: Any) -> Path:
        """Keep the batch (a dataclass of tensors, maybe in dataclasses of its own) of a step that gave NaN or infinity."""
        content = asdict(batch)
        path = self.path / f"bad-batch-{step:08d}.pt"
        torch.save(content, path)
        return path

    def save_state(self, step: int, content: dict[str, Any], keep: int) -> None:
        """Write a state, then delete all but the newest `keep`."""
        save_state(self.path, step, content)
        drop_old_states(self.path, keep)

    def forget_metrics_after(self, step: int) -> None:
        """Drop logged lines beyond `step`: those steps will be done again."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # a line that was cut off when the process was killed
            if entry.get("step", 0) <= step:
                kept.append(line)
        write_atomically(path, "".join(line + "\n" for line in kept).encode())

    def log(self, entry: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        try:
            with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise OutputError(f"{self.path}/metrics.jsonl: cannot be written ({error.strerror}).") from error

    def close(self) -> None:
        """Let another process use the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_lock(self) -> None:
        assert self._lock is not None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise TrainingError(
                f"{self.path}: another process is training in this folder; wait for it or stop it."
            ) from error

    def _read_config(self) -> dict[str, Any] | None:
        path = self.path / "config.json"
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise TrainingError(f"{path}: cannot be read ({error}). Use another output folder.") from error
        if content.get("format") != RUN_FORMAT or content.get("version") != RUN_VERSION:
            raise TrainingError(f"{path}: not a run of this export3d version. Use another output folder.")
        return content


def json_difference(old: Any, new: Any, where: str = "") -> list[str]:
    """Lines `path: old -> new` for every leaf in which two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines: list[str] = []
        for name in sorted({*old, *new}):
            place = f"{where}.{name}" if where else name
            lines += json_difference(old.get(name), new.get(name), place)
        return lines
    return [] if old == new else [f"{where}: {json.dumps(old)} -> {json.dumps(new)}"]
