"""The extractor of synthetic clips: a fit of a linear 3DMM (Eq. 11) to noisy landmarks gives beta-hat.

Identity and expression bases overlap, and 68 points do not tell them apart; so the fit's expression coefficients
carry identity, as those of real extractors do (Sec. 3.1, Fig. 8a). Nothing is injected to get that.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from export3d.camera import Camera
from export3d.checks import check_shape
from export3d.errors import HeadModelError
from export3d.files import write_atomically
from export3d.heads.clips.acting import independent
from export3d.heads.clips.motion import Motion
from export3d.heads.clips.people import REFERENCE_SIZE, add_noise, draw_person
from export3d.heads.shape.parametric import EXPRESSION_NAMES, WORLD_ORIGIN_CM, WORLD_SCALE, ParametricHead
from export3d.reading import checked, parse_json, reading
from export3d.tensor_files import read_tensor_file, sealed

NUM_IDENTITY = 80
"""Identity coefficients alpha of Eq. 11."""

NUM_EXPRESSION = 53
"""PCA modes of expression displacement: beta[:53]."""

NUM_RESIDUAL = 11
"""Identity modes 81 to 91, fitted with the expression: beta[53:64]."""

EXTRACTOR_NAME = "linear-landmark-fit"
EXTRACTOR_VERSION = "1"
EXPRESSION_SPACE = "ict64"

_STATISTICS_SEED = 7_000_000  # outside every split


@dataclass(frozen=True, kw_only=True)
class ExtractorConfig:
    """Settings of the fit. They are part of the extractor's hash."""

    noise_px: float = 0.5
    """Standard deviation of the landmark noise, pixels of a 256-pixel crop; also what the fit assumes."""
    alpha_sd: float = 0.85
    """Prior standard deviation of the identity coefficients, as the heads are drawn."""
    steps: int = 2
    """Gauss-Newton steps; the projection is linearised anew in each."""
    statistics_identities: int = 200
    """Random heads behind the PCA and the standardisation."""
    statistics_frames: int = 10
    """Random frames of each of them."""
    least_scale: float = 0.3
    """Coefficients that the landmarks hardly determine have a small spread; no coefficient is divided by less than
    this, so that noise is not blown up to unit variance."""

    def __post_init__(self) -> None:
        if self.noise_px <= 0 or self.alpha_sd <= 0 or self.least_scale <= 0:
            raise ValueError("ExtractorConfig: noise_px, alpha_sd and least_scale must be positive")
        if self.steps < 1 or self.statistics_identities < 2 or self.statistics_frames < 1:
            raise ValueError("ExtractorConfig: steps, identities and frames must be at least 1, 2 and 1")


class LinearExtractor:
    """Landmarks and camera of a frame -> beta-hat in R^64, the expression space `ict64`.

    Attributes:
        config: Settings.
        sha256: Hash of the head's bases and the settings: equal hashes mean equal coefficients.
    """

    def __init__(self, config: ExtractorConfig, tensors: dict[str, Tensor], sha256: str) -> None:
        self.config = config
        self.sha256 = sha256
        self._tensors = tensors
        self._mean_world = tensors["mean_world"]  # (68, 3) mean face with the mean expression, scene units
        self._modes_world = tensors["modes_world"]  # (144, 68, 3) per unit of prior spread: 80 + 53 + 11
        self._mean_weights = tensors["mean_weights"]  # (53,)
        self._weights_to_scores = tensors["weights_to_scores"]  # (53, 53)
        self._beta_mean = tensors["beta_mean"]  # (64,)
        self._beta_scale = tensors["beta_scale"]  # (64,)

    @property
    def info(self) -> dict[str, str]:
        """Name, version, hash and expression space, as clips store them."""
        return {
            "name": EXTRACTOR_NAME,
            "version": EXTRACTOR_VERSION,
            "sha256": self.sha256,
            "expression_space": EXPRESSION_SPACE,
        }

    def fits(self, head: ParametricHead) -> bool:
        """Whether this extractor was built for the head model."""
        return _hash_of(head, self.config) == self.sha256

    @property
    def mode_spread(self) -> Tensor:
        """``(64,)`` root mean square displacement of the 68 landmarks by one unit of each true mode, scene units."""
        return self._modes_world[NUM_IDENTITY:].square().mean((1, 2)).sqrt()

    @staticmethod
    def build(head: ParametricHead, config: ExtractorConfig | None = None) -> LinearExtractor:
        """Make the extractor of a head: modes by PCA, then the spread of beta-hat over random heads.

        Deterministic: the random heads and frames have fixed seeds outside every split.
        """
        config = config or ExtractorConfig()
        if head.expression_names != EXPRESSION_NAMES:
            raise HeadModelError(
                f"extractor: head model '{head.name}' must have the {NUM_EXPRESSION} expression modes of "
                "`procedural_head()` in that order; import it with `export3d heads import`."
            )
        seeds = range(_STATISTICS_SEED, _STATISTICS_SEED + config.statistics_identities)
        frames = config.statistics_frames
        people = [draw_person(head, s, lambda seed, rest: independent(seed, frames, resting=rest)) for s in seeds]
        mean_weights, weights_to_scores, scores_to_weights = _principal_modes(head, [p.motion for p in people])
        points = head.landmark_vertices
        identity = head.identity_basis[: NUM_IDENTITY + NUM_RESIDUAL, points].double()  # (91, 68, 3)
        expression = head.expression_basis[:, points].double()  # (53, 68, 3)
        origin = torch.tensor(WORLD_ORIGIN_CM, dtype=torch.float64)
        mean_cm = head.vertices[points].double() + torch.tensordot(mean_weights, expression, 1)
        modes_cm = torch.cat(
            [
                identity[:NUM_IDENTITY] * config.alpha_sd,
                torch.tensordot(scores_to_weights, expression, 1),
                identity[NUM_IDENTITY:] * config.alpha_sd,
            ]
        )
        size = NUM_EXPRESSION + NUM_RESIDUAL
        extractor = LinearExtractor(
            config,
            {
                "mean_world": (mean_cm - origin) * WORLD_SCALE,
                "modes_world": modes_cm * WORLD_SCALE,
                "mean_weights": mean_weights,
                "weights_to_scores": weights_to_scores,
                "beta_mean": torch.zeros(size, dtype=torch.float64),
                "beta_scale": torch.ones(size, dtype=torch.float64),
            },
            _hash_of(head, config),
        )
        noise_px = config.noise_px
        samples = [
            (add_noise(p.landmarks, np.random.default_rng([seed, 4]), noise_px), p.camera)
            for seed, p in zip(seeds, people, strict=True)
        ]
        raw = torch.cat([extractor.coefficients(*sample)[:, NUM_IDENTITY:] for sample in samples])
        tensors = dict(extractor._tensors)
        tensors["beta_mean"] = raw.mean(0)
        tensors["beta_scale"] = raw.std(0).clamp_min(config.least_scale)
        return LinearExtractor(config, tensors, extractor.sha256)

    def fit(self, landmarks: Tensor, camera: Camera) -> Tensor:
        """Standardised expression coefficients of each frame.

        Args:
            landmarks: ``(T, 68, 2)``, [0, 1] of the crop; add the noise with :func:`add_noise` first.
            camera: The T cameras, which the fit knows exactly.

        Returns:
            ``(T, 64)`` float32 beta-hat: mean 0 and spread 1 over random heads.
        """
        raw = self.coefficients(landmarks, camera)[:, NUM_IDENTITY:]
        return ((raw - self._beta_mean) / self._beta_scale).float()

    def coefficients(self, landmarks: Tensor, camera: Camera) -> Tensor:
        """``(T, 144)`` float64 in prior units, maximum a posteriori: 80 identity, 53 expression, 11 residual."""
        check_shape("landmarks", landmarks, len(camera), 68, 2)
        landmarks = landmarks.double()
        view = Camera(camera.cam_to_world.double(), camera.intrinsics.double())
        frames = landmarks.shape[0]
        modes = self._modes_world.flatten(1)  # (144, 204)
        coefficients = landmarks.new_zeros(frames, modes.shape[0])
        variance = (self.config.noise_px / REFERENCE_SIZE) ** 2
        noise = variance * torch.eye(2 * 68, dtype=torch.float64)
        for _ in range(self.config.steps):
            points = self._mean_world + (coefficients @ modes).reshape(frames, 68, 3)
            projected, slope = _project_with_slope(points, view)
            # (T, 136, 144): how each coefficient moves the 136 numbers of the picture.
            jacobian = torch.einsum("tlij,klj->tlik", slope, self._modes_world).reshape(frames, 136, -1)
            residual = (landmarks - projected).reshape(frames, 136) + (jacobian @ coefficients[..., None])[..., 0]
            gram = jacobian @ jacobian.transpose(1, 2) + noise
            solved = torch.linalg.solve(gram, residual[..., None])
            coefficients = (jacobian.transpose(1, 2) @ solved)[..., 0]
        return coefficients

    def fitted_points(self, landmarks: Tensor, camera: Camera) -> Tensor:
        """The 68 points of the fitted face in the world, ``(T, 68, 3)`` float32 scene units; arguments as in :meth:`fit`."""
        found = self.coefficients(landmarks, camera) @ self._modes_world.flatten(1)
        return (self._mean_world + found.reshape(-1, 68, 3)).float()

    def true_beta(self, weights: Tensor) -> Tensor:
        """Exact expression of weights ``(T, 53)``: ``(T, 64)`` float32, 53 modes of unit variance and 11 zeros."""
        check_shape("weights", weights, None, NUM_EXPRESSION)
        scores = (weights.double() - self._mean_weights) @ self._weights_to_scores
        return torch.cat([scores, scores.new_zeros(len(scores), NUM_RESIDUAL)], dim=1).float()

    def save(self, path: str | Path) -> None:
        """Write the extractor as safetensors; the name appears only when the file is complete."""
        path = Path(path)
        config = json.dumps(asdict(self.config), sort_keys=True)
        tensors = {k: v.contiguous() for k, v in self._tensors.items()}
        content = to_bytes(tensors, sealed({"format": "export3d-extractor", "config": config, **self.info}, tensors))
        write_atomically(path, _sorted_metadata(content))

    @staticmethod
    def load(path: str | Path) -> LinearExtractor:
        """Read what :meth:`save` wrote.

        Raises:
            HeadModelError: Missing, damaged, or of another format or version.
        """
        metadata, tensors = read_tensor_file(
            Path(path),
            kind="extractor",
            format_name="export3d-extractor",
            version=EXTRACTOR_VERSION,
            error=HeadModelError,
            remedy="Render the clips anew, which makes it.",
            framework="pt",
        )
        with reading(
            path, "not the contents of an extractor", HeadModelError, "Render the clips anew, which makes it."
        ):
            config = checked(parse_json(metadata["config"]), ExtractorConfig)
            return LinearExtractor(config, tensors, metadata["sha256"])


def _sorted_metadata(content: bytes) -> bytes:
    """A safetensors file with its metadata in alphabetic order; the library's order is another in each process."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    ordered = json.dumps(header, separators=(",", ":")).encode()
    ordered += b" " * (-len(ordered) % 8)  # tensors stay aligned
    return len(ordered).to_bytes(8, "little") + ordered + content[8 + length :]


def _project_with_slope(points: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """World points ``(T, 68, 3)`` -> positions ``(T, 68, 2)`` and their derivatives ``(T, 68, 2, 3)``."""
    rotation = camera.cam_to_world[:, :3, :3]
    local = (points - camera.cam_to_world[:, None, :3, 3]) @ rotation
    focal = torch.stack([camera.intrinsics[:, 0, 0], camera.intrinsics[:, 1, 1]], dim=-1)[:, None]  # (T, 1, 2)
    centre = camera.intrinsics[:, None, :2, 2]
    depth = local[..., 2:]
    ratio = local[..., :2] / depth
    # d(x / z) = (dx - (x / z) dz) / z, then back to the world's axes.
    axes = rotation.transpose(1, 2)[:, None]  # (T, 1, 3, 3), row i is camera axis i in the world
    slope = (focal / depth)[..., None] * (axes[:, :, :2] - ratio[..., None] * axes[:, :, 2:])
    return ratio * focal + centre, slope


def _principal_modes(head: ParametricHead, motions: list[Motion]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean weights ``(53,)`` and the maps weights -> scores, scores -> weights, ``(53, 53)`` each, float64.

    Scores are whitened principal components of the displacement of the face's vertices. With G = R R the Gram
    matrix of the shapes and C the covariance of the weights, R C R = U s^2 U^T gives scores = w R U / s.
    """
    weights = torch.from_numpy(np.concatenate([motion.weights for motion in motions])).double()
    mean = weights.mean(0)
    covariance = torch.cov(weights.T, correction=0)
    shapes = head.expression_basis[:, head.vertices_of("face")].flatten(1).double()
    root, inverse_root = _square_root(shapes @ shapes.T / shapes.shape[1])
    variance, axes = torch.linalg.eigh(root @ covariance @ root)
    variance, axes = variance.flip(0), axes.flip(1)
    # Shapes that always move together (gaze) leave modes without variance; bounded, their scores stay near 0.
    spread = variance.clamp_min(0.0).sqrt()
    spread = spread.clamp_min(1e-3 * float(spread[0]))
    to_scores = root @ axes / spread
    to_weights = (axes * spread).T @ inverse_root
    largest = to_weights.gather(1, to_weights.abs().argmax(1, keepdim=True))[:, 0]  # an eigenvector's sign is free
    return mean, to_scores * largest.sign(), to_weights * largest.sign()[:, None]


def _square_root(gram: Tensor) -> tuple[Tensor, Tensor]:
    """The symmetric square root of a positive definite matrix and its inverse."""
    values, vectors = torch.linalg.eigh(gram)
    roots = values.clamp_min(1e-10 * float(values[-1])).sqrt()
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T


def _hash_of(head: ParametricHead, config: ExtractorConfig) -> str:
    """Hash of what the extractor depends on; in steps of 1/1024 cm, so that a machine's rounding does not count."""
    digest = hashlib.sha256(json.dumps([EXTRACTOR_NAME, EXTRACTOR_VERSION, asdict(config)], sort_keys=True).encode())
    identity = head.identity_basis[: NUM_IDENTITY + NUM_RESIDUAL, head.landmark_vertices]
    expression = head.expression_basis[:, head.vertices_of("face")]
    for tensor in (head.vertices[head.landmark_vertices], identity, expression):
        digest.update(np.rint(tensor.double().numpy() * 1024.0).astype("<i4").tobytes())
    return digest.hexdigest()
