"""A run folder: config.json, metrics.jsonl, sample sheets, states and checkpoints; what rerunning a command finds."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from export3d.configs import json_difference
from export3d.errors import TrainingError
from export3d.files import clear_leftovers, make_folder, only_user, replacing, write_atomically, write_error
from export3d.reading import read_json, read_log
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
        self._lock = ExitStack()
        wanted = {"format": RUN_FORMAT, "version": RUN_VERSION, "command": command, "config": config, "data": data}
        wanted = json.loads(json.dumps(wanted))  # tuples become lists, as in the file
        make_folder(self.path)
        self._lock.enter_context(only_user(self.path, TrainingError))
        clear_leftovers(self.path)
        try:
            self._keep_config(wanted)
        except BaseException:
            self.close()
            raise

    def _keep_config(self, wanted: dict[str, Any]) -> None:
        existing = self._read_config()
        if existing is None:
            text = json.dumps(wanted, indent=1, ensure_ascii=False) + "\n"
            write_atomically(self.path / "config.json", text.encode())
        else:
            differences = json_difference(existing, wanted)
            if differences:
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
        try:
            with replacing(path) as temporary, open(temporary, "wb") as file:
                torch.save(content, file)
        except (OSError, RuntimeError) as error:
            raise write_error(path, error) from error
        return path

    def save_state(self, step: int, content: dict[str, Any], keep: int) -> None:
        """Write a state, then delete all but the newest `keep`."""
        save_state(self.path, step, content)
        drop_old_states(self.path, keep)

    def forget_metrics_after(self, step: int) -> None:
        """Drop logged lines beyond `step`: those steps will be done again."""
        path = self.path / "metrics.jsonl"
        if path.is_file():
            kept = [json.dumps(entry) + "\n" for entry in read_log(path) if entry.get("step", 0) <= step]
            write_atomically(path, "".join(kept).encode())

    def log(self, entry: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        try:
            with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise write_error(self.path / "metrics.jsonl", error) from error

    def close(self) -> None:
        """Let another process use the folder."""
        self._lock.close()

    def _read_config(self) -> dict[str, Any] | None:
        path = self.path / "config.json"
        if not path.is_file():
            return None
        content = read_json(path, "cannot be read", TrainingError, "Use another output folder.")
        if content.get("format") != RUN_FORMAT or content.get("version") != RUN_VERSION:
            raise TrainingError(f"{path}: not a run of this export3d version. Use another output folder.")
        return content
