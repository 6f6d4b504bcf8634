"""The verdict: whether the student shows what the pictures show, and the likeliest mistake if not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from distill.alignment.comparison import Comparison, Gate, Loaded, measure
from distill.alignment.depth_mistakes import misplaced, wrong_kind
from distill.alignment.depth_reading import DepthReading, depth_readings
from distill.alignment.hypotheses import ALPHA_ADVICE, AS_IT_IS, Cause, Finding, on_background
from distill.alignment.hypothesis_search import SEARCH_FRAMES, SEARCH_WIDTH, Trial, Trials, try_all
from distill.alignment.picture_evidence import colour_name, other_border, premultiplied_evidence
from distill.evaluation.metrics import GATE_DB, is_collapsed
from settings.words import counted
from teacher.depth import DepthKind

THRESHOLD_DB = GATE_DB
"""The gate of the alignment prototype: mean PSNR against the teacher."""
ABOVE_BLANK_DB = 2.0
"""Pictures that are less far above the best single colour have nothing in common."""

STUDENT, GAUSSIANS = "the student scores", "the teacher's own Gaussians score"
"""What is tried, in words."""
OTHER_WORLD = (
    "teacher.ply may be of another world than data.transforms (nerfstudio and gsplat's trainer move, turn and scale "
    "a scene: data.dataparser_transforms) or of another scene: use the PLY and the poses of one export."
)

_TRAIN_BETTER = "Train longer, or look at data.box, the losses and the learning rate."
# Causes that strays among the Gaussians may be behind: the views themselves show no mistake.
_MAYBE_STRAYS = (Cause.BLANK, Cause.DENSITY, Cause.STUDENT, Cause.UNKNOWN)

# A mistake is likely when undoing it gains so many dB ...
_GAIN_TO_GATE_DB, _GAIN_BELOW_DB = 1.5, 3.0
# ... and leaves the picture far enough above a blank one. Equally good ones: the simplest, which is tried first.
_EQUAL_DB = 0.3
# Mean alpha of a student, as a share of the teacher's coverage, under which nothing ever became dense.
_NEVER_DENSE = 0.1
# Renders this close to one colour are blank: an RMS difference of 2%.
_FLAT_DB = 34.0


@dataclass(frozen=True)
class Diagnosis:
    """What undoing each mistake does for one renderer, at the width of the search.

    Attributes:
        trials: all that were tried, ``AS_IT_IS`` the first.
        likeliest: the one that explains the pictures; None when none does.
        psnr_blank: of the best single-colour pictures, dB.
        is_flat: whether the renders are a single colour.
        basis: what they were tried on, in words.
    """

    trials: list[Trial]
    likeliest: Trial | None
    psnr_blank: float
    is_flat: bool
    basis: str

    @property
    def as_it_is(self) -> float:
        """PSNR with nothing undone, dB."""
        return self.trials[0].psnr


@dataclass(frozen=True)
class Verdict:
    """The answer of the gate.

    Attributes:
        passed: at least ``threshold``, and not a blank picture.
        gate: the figures, at full size.
        cause: the likeliest mistake; ``Cause.NONE`` when all is well. A student can pass in spite of one.
        sentence: the cause with its evidence.
        advice: what to change; empty when nothing needs to.
        student: what was tried on it.
        witness: the same with the teacher's own Gaussians in its place; None when they were not needed or not there.
        readings: the depth files as each kind; empty without any.
        depth_kind: the kind in use.
        subject: what was tried, in words: the student, or the teacher's Gaussians in its place.
    """

    passed: bool
    threshold: float
    gate: Gate
    cause: Cause
    sentence: str
    advice: str
    student: Diagnosis
    witness: Diagnosis | None
    readings: list[DepthReading]
    depth_kind: DepthKind | None
    subject: str = STUDENT


def diagnose(comparison: Comparison, threshold: float, step: Callable[[], None] = lambda: None) -> Diagnosis:
    """Tries every mistake on one renderer."""
    trials, basis = try_all(comparison, step)
    likeliest = likeliest_trial(trials, basis.psnr_blank, threshold)
    tried = basis.comparison
    # The gate's pictures are in 8 bits, where one that is right by chance has no error at all, and so another mean.
    views, size = counted(len(tried.frames), "view"), f"{tried.cameras.width}x{tried.cameras.height}"
    words = f"{views} at {size}, before they are rounded to 8 bits"
    return Diagnosis(trials, likeliest, basis.psnr_blank, basis.psnr_flat >= _FLAT_DB, words)


def likeliest_trial(trials: Sequence[Trial], psnr_blank: float, threshold: float) -> Trial | None:
    """The simplest of the best trials, if it is so much better than the first, ``AS_IT_IS``, as to explain it."""
    best = max(trial.psnr for trial in trials)
    chosen = next(trial for trial in trials if trial.psnr >= best - _EQUAL_DB)
    needed = _GAIN_TO_GATE_DB if best >= threshold else _GAIN_BELOW_DB
    gain = chosen.psnr - trials[0].psnr
    is_convincing = gain >= needed and chosen.psnr >= psnr_blank + ABOVE_BLANK_DB
    return chosen if is_convincing and chosen.hypothesis is not AS_IT_IS else None


def check(
    loaded: Loaded, threshold: float = THRESHOLD_DB, subject: str = STUDENT, step: Callable[[], None] = lambda: None
) -> Verdict:
    """Measures the student against the gate and looks for mistakes, whether or not it passes.

    Args:
        loaded: its witness is asked when the student itself explains nothing or does not show what the pictures show,
            and about depth.
        threshold: dB.
        subject: what the comparison renders, in words.
        step: called once in a while.
    """
    comparison, witness = loaded.comparison, loaded.witness
    gate = measure(comparison)
    passed = gate.psnr >= threshold and not is_collapsed(gate.psnr, gate.psnr_blank)
    student = diagnose(comparison, threshold, step)
    other = None
    explained = student.likeliest is not None and student.likeliest.psnr >= threshold
    if witness is not None and not explained:
        beside = replace(comparison, render=witness)
        if not passed or psnr_as_it_is(beside) < threshold:
            other = diagnose(beside, threshold, step)
    is_explained = any(one is not None and one.likeliest is not None for one in (student, other))
    readings, mistaken = _depth_says(loaded, subject, passed, is_explained)
    kind = None if comparison.depth is None else comparison.depth.kind
    written = None if student.is_flat else pictures_say(comparison)
    cause, sentence, advice = _conclusion(passed, gate, student, other, written, mistaken, subject, loaded.is_drawn)
    if loaded.strays and cause in _MAYBE_STRAYS:
        advice = loaded.strays
    elif loaded.outliers and cause in (*_MAYBE_STRAYS, Cause.WORLD):
        advice = f"{loaded.outliers} Otherwise: {advice}"
    passed &= subject == STUDENT or cause == Cause.NONE  # they are the pictures' own, so nothing may be wrong
    return Verdict(passed, threshold, gate, cause, sentence, advice, student, other, readings, kind, subject)


def _depth_says(
    loaded: Loaded, subject: str, passed: bool, is_explained: bool
) -> tuple[list[DepthReading], Finding | None]:
    """The depth files as each kind, and what is wrong with them; None: nothing shows.

    Misplaced depth is looked for only where the renders are right, and where no mistake has been found yet.
    """
    depth, witness = loaded.comparison.depth, loaded.witness
    if depth is None:
        return [], None
    render = witness or loaded.comparison.render
    readings = depth_readings(render, depth)
    mistaken = wrong_kind(readings, depth.kind)
    is_exact = render is witness or subject == GAUSSIANS
    if mistaken is None and not is_explained and (is_exact or passed):
        mistaken = misplaced(render, depth, readings, is_exact=is_exact)
    return readings, mistaken


def psnr_as_it_is(comparison: Comparison) -> float:
    """PSNR of the renders in dB, on the few and small pictures that mistakes are searched for on."""
    return Trials(comparison.some_frames(SEARCH_FRAMES).shrunk(SEARCH_WIDTH)).psnr(AS_IT_IS)


def pictures_say(comparison: Comparison) -> Finding | None:
    """What is wrong with the compared pictures by themselves; None: nothing shows."""
    chosen = list(comparison.frames)
    pictures, coverage, background = comparison.pictures[chosen], comparison.coverage[chosen], comparison.background
    known = None if comparison.counted is None else comparison.counted[chosen]
    if known is not None:  # what does not count is as if nothing were there
        pictures = torch.where(known[..., None], pictures, pictures.new_tensor(background))
        coverage = coverage * known
    if comparison.has_alpha:
        evidence = premultiplied_evidence(pictures, coverage, background)
        return None if evidence is None else Finding(Cause.ALPHA, evidence, ALPHA_ADVICE)
    color = other_border(pictures, background, known)
    if color is None:
        return None
    evidence = f"the border of the pictures is {colour_name(color)}, the background set is {colour_name(background)}"
    return Finding(Cause.BACKGROUND, evidence, on_background(color, colour_name(color)).advice)


def _conclusion(
    passed: bool,
    gate: Gate,
    student: Diagnosis,
    witness: Diagnosis | None,
    written: Finding | None,
    mistaken: Finding | None,
    subject: str,
    is_drawn: bool,
) -> Finding:
    """The likeliest of what the trials, the pictures and the depth files say."""
    # Of two explanations the better one: a student that learnt from wrong views explains nothing well.
    subjects = ((subject, student), (GAUSSIANS, witness))
    found = [(name, one) for name, one in subjects if one is not None and one.likeliest is not None]
    if found:
        name, one = max(found, key=lambda pair: pair[1].likeliest.psnr)
        hypothesis, value = one.likeliest.hypothesis, one.likeliest.psnr
        evidence = f"supposing that {hypothesis.name}, {name} {value:.2f} dB instead of {one.as_it_is:.2f} dB"
        evidence += f" on {one.basis}"
        return Finding(hypothesis.cause, evidence, hypothesis.advice)
    if written is not None:
        return written
    gaussians = student if subject == GAUSSIANS else witness
    if gaussians is not None and gaussians.as_it_is < gaussians.psnr_blank + ABOVE_BLANK_DB:
        figures = f"{GAUSSIANS} {gaussians.as_it_is:.2f} dB, a blank picture {gaussians.psnr_blank:.2f} dB"
        return Finding(Cause.WORLD, f"nothing that was tried brings them to the pictures ({figures})", OTHER_WORLD)
    if student.is_flat:
        never_dense = gate.alpha_mean < _NEVER_DENSE * gate.coverage_mean
        cause = Cause.DENSITY if never_dense else Cause.BLANK
        return Finding(cause, _blank_evidence(gate), _blank_advice(gate, witness, never_dense))
    if mistaken is not None:
        return mistaken
    if passed:
        return Finding(Cause.NONE, "no alternative fits the pictures better")
    if _bears_out(witness, gate):
        evidence = f"the views are right: {GAUSSIANS} {witness.as_it_is:.2f} dB with these cameras"
        return Finding(Cause.STUDENT, evidence, _TRAIN_BETTER)
    if is_drawn:
        return Finding(Cause.STUDENT, "the views are drawn from the teacher's own Gaussians", _TRAIN_BETTER)
    advice = "A student that learnt from wrong views shows no one mistake: "
    if gaussians is None:
        advice += "set teacher.ply, whose Gaussians are a witness."
    else:
        advice += "draw the pictures here, from the Gaussians of teacher.ply, with --set teacher.kind=gaussians."
    return Finding(Cause.UNKNOWN, "nothing that was tried fits the pictures", advice)


def _blank_evidence(gate: Gate) -> str:
    alpha = f"mean alpha {gate.alpha_mean:.3f} where the teacher covers {gate.coverage_mean:.3f}"
    return (
        f"the renders are a single colour from any camera ({alpha}): {gate.psnr:.2f} dB, "
        f"the best single colour has {gate.psnr_blank:.2f} dB"
    )


def _blank_advice(gate: Gate, witness: Diagnosis | None, never_dense: bool) -> str:
    seen = ""
    if _bears_out(witness, gate):
        seen = f" The views are right: {GAUSSIANS} {witness.as_it_is:.2f} dB with these cameras."
    why = "look at alpha_mean in training_metrics.csv, data.box, teacher.background"
    if never_dense:
        why = (
            "if alpha_mean in training_metrics.csv is near 0 from the first rows on, the density's activation is dead "
            "(a ReLU that starts below 0 has no gradient; too high a learning rate ends there too), or data.box holds "
            "nothing; if it fell later, look at teacher.background and the losses"
        )
    return f"Train anew: {why}.{seen}"


def _bears_out(witness: Diagnosis | None, gate: Gate) -> bool:
    """Whether the witness, with the cameras as they are, is clearly closer to the pictures than the student."""
    return witness is not None and witness.as_it_is >= gate.psnr + _GAIN_BELOW_DB
