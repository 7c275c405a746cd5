"""docs/results.md from the JSON files under results/: no number is typed by hand (Secs. 4.2, 4.3).

Write it anew with `python -m export3d.evaluation.figures.results_page`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from export3d.errors import DataError
from export3d.evaluation.figures.markdown import shown, table
from export3d.files import write_atomically
from export3d.reading import read_json
from export3d.reproduce.page import reproduction_section

MEASURED: dict[str, tuple[str, str, str]] = {
    "reproduce_main": (
        "Tables 1 and 2: the model beside trivial baselines",
        "export3d reproduce",
        "People of the test split. 'driving' is the driving frames themselves, the upper bound.",
    ),
    "reproduce_table3": (
        "Table 3: ablation of the expression encoding",
        "export3d reproduce",
        "Every variant was trained on the same clips in the same order, with the same loss and seed.",
    ),
    "reproduce_table4": (
        "Table 4: EAdaLN against cross-attention",
        "export3d reproduce",
        "Both variants use the same pre-trained expression encoder.",
    ),
    "quality": (
        "Quality against exact truth",
        "export3d quality",
        "Test people, every frame driven by its own clip. The other variants bound the scale: another expression, the "
        "source's camera, the source's torso (`source_turn`), and copying the source. Views: the expression of one frame seen "
        "level from -30, 0 and +30 degrees, PSNR inside the true mask; the model's frontal view in place of the others bounds "
        "the scale.",
    ),
    "evaluate": (
        "All metrics on all test people",
        "export3d evaluate",
        "Same and cross identity, with intervals.",
    ),
    "groups": (
        "By kind of person and by turn",
        "python benchmarks/groups.py --save",
        "Same identity, from the evaluation above; mean over people. Groups are small and differ in more than their name, so "
        "only large differences mean something; PSNR is also higher where there is less contrast.",
    ),
    "quality_eighth": (
        "The eighth bundled checkpoint on the same frames",
        "export3d quality",
        "As above, for the model that was bundled before.",
    ),
    "quality_seventh": (
        "The seventh bundled checkpoint on the same frames",
        "export3d quality",
        "As above, for the model before that.",
    ),
    "quality_sixth": (
        "The sixth bundled checkpoint on the same frames",
        "export3d quality",
        "As above, for the model before that.",
    ),
    "quality_fifth": (
        "The fifth bundled checkpoint on the same frames",
        "export3d quality",
        "As above, for the model before that.",
    ),
    "quality_fourth": (
        "The fourth bundled checkpoint on the same frames",
        "export3d quality",
        "As above, for the model before that.",
    ),
    "quality_third": (
        "The third bundled checkpoint on the same frames",
        "export3d quality",
        "As above, for the model before that.",
    ),
    "quality_second": (
        "The second bundled checkpoint on the same frames",
        "export3d quality --model",
        "As above, for the model before that.",
    ),
    "quality_second_views": (
        "Novel views of the second bundled checkpoint",
        "export3d quality --views",
        "Views of all test people; the scores beside them are of fewer.",
    ),
    "quality_first": (
        "The first bundled checkpoint on the same frames",
        "export3d quality --model",
        "As above, for the first model.",
    ),
    "clebs": (
        "CLeBS: identity and expression in beta and beta'",
        "export3d measure-expression",
        "Test people only. R^2 is the share of the true expression's movement of the landmarks that a ridge regression, "
        "fitted on half of the people, explains on the other half. A clip's mean is taken off with hindsight over the "
        "whole clip; the code sees one frame at a time. With the mean removed the halves of a clip are opposite, so the "
        "nearest-half accuracy is below chance by construction.",
    ),
    "architecture": (
        "Parts of the small model, at equal budgets",
        "python benchmarks/architecture.py --save",
        "Short trainings from the start, same samples and seed, scored on people of the val split. So short a run shows what a "
        "part brings early, not where it ends. Done before the neck, and while bf16 still rounded the rays of training.",
    ),
    "architecture_first": (
        "Parts of an earlier small model, at equal budgets",
        "python benchmarks/architecture.py --save",
        "As above, with the code and the people of the day before; compare within one table only.",
    ),
    "face_shapes": (
        "Upper and lower face: what is read and what shows",
        "python benchmarks/face_shapes.py --save",
        "`reading`: R^2 of the true weights on test people, from beta-hat, from CLeBS's ten numbers, and with beta read by the "
        "tracker. `showing`: MediaPipe measures true frames and the model's; slope and correlation of the changes, each "
        "person's mean taken off. 1 and 1 are right, slope 0 does not move. Turns of more than 25 degrees are left out.",
    ),
    "regions": (
        "Where the head is wrong, and whether the lookup moves",
        "python benchmarks/regions.py --data out/test --save",
        "Every fourth frame of the test people, same identity, errors pooled over all pixels of a part (not comparable with "
        "means over frames). `motion`: displacement of surface points from driving frame to portrait, made against true; "
        "slope 1 is right, 0 stands still.",
    ),
    "regions_eighth": (
        "The same of the eighth bundled checkpoint",
        "python benchmarks/regions.py --data out/test --save",
        "As above, for the model that was bundled before.",
    ),
    "regions_seventh": (
        "The same of the seventh bundled checkpoint",
        "python benchmarks/regions.py --data out/test --save",
        "As above, for the model before that.",
    ),
    "regions_sixth": (
        "The same of the sixth bundled checkpoint",
        "python benchmarks/regions.py --data out/test --save",
        "As above, for the model before that.",
    ),
    "clebs_whole_frames": (
        "CLeBS with whole frames for f_I (tried, not shipped)",
        "export3d measure-expression",
        "As above, for a pre-training on the same people that shows f_I the whole frame.",
    ),
    "entanglement": (
        "Identity in the extractor's beta-hat",
        "export3d heads entanglement",
        "How much of the person the synthetic extractor mixes into the expression, with and without a resting face.",
    ),
    "regressor": (
        "Bundled landmark-to-coefficients network",
        "export3d train-regressor",
        "People that it was not trained on. `held_out`: exact points with noise, the 68-point network. `face_tracker`: "
        "MediaPipe on rendered frames; `points` reads its 68 points, `mesh` its dense mesh, as portraits and clips are "
        "read. Slope 1 means that nothing is shrunk. Quantities are recovered linearly from beta; `clip_beta` is the "
        "clips' own beta-hat, the most that can be expected. Lists of one number per mode are in the file only.",
    ),
    "gaze": (
        "Gaze from MediaPipe's irises",
        "export3d train-gaze",
        "People that it was not fitted to, at 128 pixels; frames with both eyes closed are left out. The fit draws no random "
        "numbers, so it has no seed. The synthetic eyes tend to stay on the camera: the pose of the head alone says a part.",
    ),
    "backends": (
        "Back ends of the metrics: landmarks, pose, expression, identity",
        "export3d evaluate --data DATA --backends-only -o results",
        "Rendered people whom no training saw, read as `export3d evaluate` reads them. Errors of landmarks are those of a "
        "256-pixel picture; a part of them is another definition of the points (`without_offsets_px`). R^2 is plain, so that "
        "a wrong scale counts; `correlation2` forgives the scale; `within_clips` takes the mean of each clip off. The stored "
        "beta is the synthetic extractor's, the true beta is exact. Limits: photos of people are not rendered heads, and "
        "nothing here says how well the back ends read them; the identity network means nothing outside rendered heads; "
        "modes of low R^2 are hardly seen by 68 points, so that AED says little about them.",
    ),
    "heads_detector": (
        "A face detector on synthetic heads",
        "python benchmarks/heads_detector.py",
        "MediaPipe finds the heads as faces, and its yaw agrees with the true one.",
    ),
    "prepare": (
        "Speed of `export3d prepare`",
        "python benchmarks/prepare.py --save",
        "CPU time on one core, 256-pixel clips of one face. The estimate for VFHQ is arithmetic: clips x frames per clip "
        "(assumed, not counted) x time or bytes of a frame.",
    ),
    "heads": ("Speed of the head renderer", "python benchmarks/heads.py", "One thread."),
    "animate": ("Speed of animation", "python benchmarks/animate.py --save", "Milliseconds of each step of a frame."),
    "animate_avx512": (
        "Speed of animation on a newer processor",
        "python benchmarks/animate.py --save",
        "Two cores that have AVX-512 and AMX.",
    ),
    "memory": ("Memory of animation", "python benchmarks/memory.py --save", "Peak of a short and of a long clip."),
    "train_speed": ("Speed of training", "python benchmarks/train.py --save", "Plain settings against ours."),
    "train": ("Training of the bundled model", "export3d train", "The run that made the bundled model."),
}
"""File under results/ -> title, command that makes it, what it shows. Other files follow under their own names."""

PICTURES: dict[str, tuple[str, ...]] = {
    "reproduce_main": ("same_identity.jpg", "cross_identity.jpg", "novel_view.jpg"),
    "reproduce_table3": ("ablation_expression.jpg", "ablation_error.jpg"),
    "reproduce_table4": ("ablation_eadaln.jpg",),
    "clebs": ("clebs_tsne.png", "sweep.png"),
    "quality": ("quality.jpg",),
}
"""Pictures under docs/pictures that belong to a file."""

ELSEWHERE = {"evaluate": "The tables stand in [model_card.md](model_card.md), made from `results/evaluate.json`."}
"""Files whose numbers another page shows."""

REPRODUCED = ("reproduce_main", "reproduce_table3", "reproduce_table4")
"""Files of `export3d reproduce`, which have a section of their own form."""

_WHY_SHORT = (
    "Why orderings differ (run of 2026-11-25): at 200 steps no variant follows the expression yet, as the sheet shows; all of "
    "them mostly copy the portrait through the source lookup. CSIM to the source then rewards whoever moves least, and AED "
    "has nothing to tell apart. The differences are thousandths, with one training seed each. The claims need a longer "
    "training than this project could afford for six variants, and one in which bf16 does not round the rays, as it did "
    "then; the lookup, which the paper does not have, also takes "
    "the identity out of the hands of the expression code."
)

_CLEBS_TRIED = """\
What it means (run of 2026-11-25): identity falls from certain to a few times chance. The expression is kept as well as in
beta-hat without its clip mean for a reader that may use squares and products, but not for a linear one. No ten linear numbers
can reach that, as the last row shows. What is lost is mostly the brows.

What was tried on the way:

- Whole frames as the input of f_I instead of a square around the face, all else but the landmark head's weight equal: the
  section 'CLeBS with whole frames' below. A mouth is then a few pixels wide.
- Refits on frozen features of f_I, measured by hand on validation people and not kept under results/: a linear f_e let
  identity through; weight decay and noise on beta cost expression and kept identity; f_I given the exact landmarks instead
  of the picture kept the brows. So the brows are lost in f_I, whose landmarks are off by about a pixel of its small
  picture, not in f_e or Eq. 1.
- A finer grid for f_I's landmarks: no gain in a short run, dropped. Twice the people with a heavier landmark loss: stopped
  early for want of time, not judged. Both are the first things to go on with."""

_EIGHTH = (
    "Measured with the eighth bundled checkpoint, as are the pictures under Tables 1 and 2 and the sweep under CLeBS; the "
    "ninth is the same network, trained a little further and reading a sharpened portrait. Its own scores on all test people "
    "are under 'Quality against exact truth' and in the model card."
)

DISCUSSIONS: dict[str, str] = {
    "reproduce_main": _EIGHTH,
    "face_shapes": _EIGHTH,
    "reproduce_table3": _WHY_SHORT,
    "reproduce_table4": _WHY_SHORT,
    "clebs": _CLEBS_TRIED,
}
"""What a reader should think of a recorded run; written by people, about the files of that date."""

FACTS = ("command", "date", "seed")
LONGEST_LIST = 4

INTRO = (
    "# Results",
    "",
    "Generated by `python -m export3d.evaluation.figures.results_page` from the files under `results/`; a test holds them "
    "together. Numbers are rounded to four digits; the files hold all of them.",
)

VERDICTS = {
    "identity_near_chance": "Identity accuracy of beta' is near chance",
    "expression_kept_linear": "R^2 of beta' is at least that of beta-hat minus its clip mean (linear)",
    "expression_kept_within": "The same within clips",
    "expression_kept_quadratic": "The same with squares and products of the code",
}


def results_page(results: Path, pictures: Path) -> str:
    """The page as Markdown.

    Args:
        results: folder of the JSON files.
        pictures: docs/pictures.

    Raises:
        DataError: A file is not a JSON object.
    """
    found = {path.stem: read_result(path) for path in sorted(results.glob("*.json"))}
    lines = list(INTRO)
    for name in [*MEASURED, *(stem for stem in found if stem not in MEASURED)]:
        title, command, about = MEASURED.get(name, (name, "", ""))
        lines += ["", f"## {title}", ""]
        if name not in found:
            lines.append(f"Not measured yet. `{command}` makes `results/{name}.json`.")
            continue
        if name in ELSEWHERE:
            lines.append(ELSEWHERE[name])
            continue
        if about:
            lines += [about, ""]
        lines += _section(name, found[name])
        if name in DISCUSSIONS:
            lines += ["", DISCUSSIONS[name]]
        for picture in PICTURES.get(name, ()):
            if (pictures / picture).exists():
                lines += ["", f"![{picture}](pictures/{picture})"]
    return "\n".join(lines) + "\n"


def write_page(root: Path) -> Path:
    """Write docs/results.md of the repository at `root`."""
    page = root / "docs" / "results.md"
    write_atomically(page, results_page(root / "results", root / "docs" / "pictures").encode())
    return page


def read_result(path: Path) -> dict[str, Any]:
    """A file under results/.

    Raises:
        DataError: It is not a JSON object.
    """
    return read_json(path, "not readable as JSON", DataError, "Measure it again.")


def _section(name: str, content: dict[str, Any]) -> list[str]:
    facts = [f"{fact} {_fact(fact, content)}" for fact in FACTS]
    lines = [f"From `results/{name}.json`: {'; '.join(facts)}.", ""]
    if name in REPRODUCED:
        return lines + reproduction_section(content)
    body = {key: value for key, value in content.items() if key not in FACTS}
    if name == "clebs":
        lines += [*_clebs_verdicts(body), ""]
        body.pop("verdicts", None)
    single, tables = _split(body, "")
    for title, rows in tables:
        lines += ([f"`{title}`", ""] if title else []) + table(rows) + [""]
    if single:
        lines += ["| fact | value |", "|---|---|"]
        lines += [f"| {key} | {shown(value)} |" for key, value in single.items()]
    return lines if lines[-1] else lines[:-1]


def _fact(fact: str, content: dict[str, Any]) -> str:
    """A command, date or seed of the file itself or of its settings."""
    places = [content, *(value for value in content.values() if isinstance(value, dict))]
    found = next((place[fact] for place in places if fact in place), None)
    if found is None:
        return "not recorded"
    return f"`{found}`" if fact == "command" else shown(found)


def _clebs_verdicts(content: dict[str, Any]) -> list[str]:
    """Whether the paper's two claims hold here, in words made from the numbers."""
    rows = {row["code"]: row for row in content["rows"]}
    beta, centred, code = rows["beta-hat"], rows["beta-hat minus clip mean"], rows["beta' (lambda)"]
    lines = [f"- {text}: **{shown(content['verdicts'][name])}**." for name, text in VERDICTS.items()]
    lines.append(
        f"- Nearest-half identity accuracy: {shown(beta['identity_1nn'])} in beta-hat, {shown(code['identity_1nn'])} in "
        f"beta', chance {shown(content['chance']['identity_1nn'])}; 'near' means at most "
        f"{shown(content['near_chance_factor'])} times chance. Frame by frame: {shown(beta['identity_1nn_frames'])}, "
        f"{shown(code['identity_1nn_frames'])}, chance {shown(content['chance']['identity_1nn_frames'])}."
    )
    lines.append(
        f"- R^2 of the true expression: {shown(centred['r2'])} from beta-hat minus its clip mean, {shown(code['r2'])} "
        f"from beta'."
    )
    contrast = content.get("contrast")
    if contrast and contrast.get("train_retrieval") is not None:
        lines.append(
            f"- Retrieval of the own picture within a clip: {shown(contrast['train_retrieval'])} on the people of the "
            f"training, {shown(contrast['retrieval'])} on test people (chance {shown(contrast['retrieval_at_chance'])})."
        )
    return lines


def _split(content: dict[str, Any], prefix: str) -> tuple[dict[str, Any], list[tuple[str, list[dict[str, Any]]]]]:
    """Plain facts with dotted names, and what is a table; lists of many numbers stay in the file."""
    single: dict[str, Any] = {}
    tables: list[tuple[str, list[dict[str, Any]]]] = []
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            if len(value) > 1 and all(isinstance(v, dict) for v in value.values()):
                tables.append((name, [{"": row, **_flat(cells)} for row, cells in value.items()]))
            else:
                inner, more = _split(value, f"{name}.")
                single |= inner
                tables += more
        elif isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
            tables.append((name, [_flat(row) for row in value]))
        elif _is_cell(value):
            single[name] = value
    return single, tables


def _flat(cells: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in cells.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": v for inner, v in _flat(value).items()}
        elif _is_cell(value):
            flat[key] = value
    return flat


def _is_cell(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= LONGEST_LIST and all(_is_cell(v) and not isinstance(v, list) for v in value)
    return not isinstance(value, dict)


if __name__ == "__main__":
    print(f"wrote {write_page(Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd())}")
