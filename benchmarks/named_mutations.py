"""The named mutations: faults that once went through the whole test suite unseen, and the test that sees each now."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Named:
    """`old`, which stands once in `path` under src/export3d, becomes `new`; `test` must fail."""

    name: str
    path: str
    old: str
    new: str
    test: str


NAMED = (
    Named(
        "the adversarial term is missing from the total",
        "training/phases/steps.py",
        'total = total_loss(total, terms["adversarial"], self._weight_rec, self._weight_adv)',
        "pass",
        "tests/training/test_adversary.py::test_the_total_of_phase_2_is_equation_14_and_that_of_phase_1_has_no_adversarial_term",
    ),
    Named(
        "the discriminator is never stepped",
        "training/phases/adversary.py",
        "        self._optimizer.step()\n",
        "",
        "tests/training/test_adversary.py::test_the_discriminator_learns_in_phase_2_and_only_there",
    ),
    Named(
        "R1 is never applied",
        "training/phases/adversary.py",
        "penalised = config.r1_gamma > 0 and (step - self._first) % config.r1_every == 0",
        "penalised = False",
        "tests/training/test_adversary.py::test_r1_is_added_every_third_step_with_half_gamma_times_three",
    ),
    Named(
        "R1 lacks the factor of its interval",
        "training/phases/adversary.py",
        "0.5 * config.r1_gamma * config.r1_every if",
        "0.5 * config.r1_gamma if",
        "tests/training/test_adversary.py::test_r1_is_added_every_third_step_with_half_gamma_times_three",
    ),
    Named(
        "negatives are taken across clips",
        "expression/contrastive.py",
        "similarity = cosine_matrix(expression_codes, image_codes) / temperature  # (C, K, K)",
        "similarity = cosine_matrix(expression_codes.flatten(0, 1)[None], image_codes.flatten(0, 1)[None]) / temperature",
        "tests/expression/test_contrastive.py::test_clips_never_serve_as_each_others_negatives",
    ),
    Named(
        "pre-training takes its negatives across clips",
        "training/phases/pretrain.py",
        "                expression_codes,\n                image_codes,",
        "                expression_codes.flatten(0, 1)[None],\n                image_codes.flatten(0, 1)[None],",
        "tests/training/test_pretrain.py::test_the_loss_of_a_step_is_equation_1_of_each_clip_alone_at_the_asked_temperature",
    ),
    Named(
        "the temperature option is ignored",
        "training/phases/pretrain.py",
        "                temperature=self.config.temperature,\n",
        "",
        "tests/training/test_pretrain.py::test_the_loss_of_a_step_is_equation_1_of_each_clip_alone_at_the_asked_temperature",
    ),
    Named(
        "csim_source is measured against the driver",
        "evaluation/scores/scoring.py",
        "csim(embedded, identities.embeddings(source[None])[0])",
        "csim(embedded, identities.embeddings(driving))",
        "tests/evaluation/test_scoring.py::test_csim_source_compares_with_the_portrait_and_csim_driving_with_the_driver",
    ),
    Named(
        "the source's beta is that of the driving frame",
        "training/batches/pair_batches.py",
        '"source_beta": arrays[change.beta_name][source],',
        '"source_beta": arrays[change.beta_name][driving],',
        "tests/training/test_batches.py::test_without_augmentation_frames_and_labels_are_those_of_the_clip",
    ),
    Named(
        "the low-pass is missing after the second shuffle",
        "model/generator.py",
        "x = torch.cat([self._shuffle(head_tokens, (side, side)), low], dim=1)",
        "x = torch.cat([F.pixel_shuffle(tokens_to_map(head_tokens, (side, side)), 2), low], dim=1)",
        "tests/model/test_generator.py::test_the_low_pass_follows_the_second_shuffle_too",
    ),
    Named(
        "depths are jittered alike in every step",
        "training/phases/train.py",
        "words = (self.config.seed, _JITTER_STREAM, step, self._world.rank)",
        "words = (self.config.seed, _JITTER_STREAM, self._world.rank)",
        "tests/training/test_adversary.py::test_random_depths_differ_between_steps_processes_and_seeds_and_come_again_in_a_resumed_run",
    ),
    Named(
        "importance depths snap to the edge of their bin",
        "rendering/sampling.py",
        "(edge_below + fraction.clamp(0.0, 1.0) * (edge_above - edge_below))",
        "torch.where(fraction < 0.5, edge_below, edge_above)",
        "tests/rendering/test_sampling.py::test_importance_depths_equal_the_slow_reference",
    ),
    Named(
        "fine samples are stratified instead of drawn by importance",
        "rendering/renderer.py",
        "fine = importance_depths(coarse, weights, config.num_fine, config.importance_floor, jitter)",
        "fine = stratified_depths(near, far, rays, config.num_fine, jitter)",
        "tests/rendering/test_renderer.py::test_the_renderer_equals_a_slow_float64_loop",
    ),
    Named(
        "the start of copied sound is ignored",
        "video/audio.py",
        "offset = round(self._start / packet.time_base) - self._shift",
        "offset = -self._shift",
        "tests/video/test_writer.py::test_sound_that_begins_after_the_picture_does_so_in_the_result",
    ),
    Named(
        "the start of re-encoded sound is ignored",
        "video/audio.py",
        "seconds = sound.pts * sound.time_base - self._start if sound.pts is not None else Fraction(0)",
        "seconds = Fraction(0)",
        "tests/video/test_writer.py::test_sound_that_begins_after_the_picture_does_so_in_the_result",
    ),
    Named(
        "re-encoded sound is not taken relative to the film's start",
        "video/audio.py",
        "sound.pts * sound.time_base - self._start if",
        "sound.pts * sound.time_base if",
        "tests/video/test_writer.py::test_sound_that_begins_after_the_picture_does_so_in_the_result",
    ),
)
