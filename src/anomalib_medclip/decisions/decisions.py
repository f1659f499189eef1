"""All that a trained model knows of how to decide, and what it says of a volume or patient."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from anomalib_medclip.decisions.aggregation import Aggregation, Choice
from anomalib_medclip.decisions.conformal import PValue, p_value
from anomalib_medclip.decisions.familiarity import Unlike
from anomalib_medclip.decisions.probability import Calibration, log_odds
from anomalib_medclip.decisions.reference import LEVELS, Level, Reference, way_at
from anomalib_medclip.decisions.thresholds import Rule, Threshold, described, threshold
from anomalib_medclip.errors import CheckpointError, ConfigError

_NONE = "too few patients: the model knows none to compare with"


@dataclass(frozen=True)
class Asked:
    """What a user wants to be told.

    Attributes:
        rule: By which the threshold is chosen; by default that of training.
        insist: Whether to give a verdict by a threshold that does not hold what the rule asks for.
        prevalence: Share of abnormal patients where the model is used; by default that of the
            patients that probabilities were fitted on.

    Raises:
        ConfigError: The prevalence is no share.
    """

    rule: Rule | None = None
    insist: bool = False
    prevalence: float | None = None

    def __post_init__(self) -> None:
        """Refuse a prevalence that cannot be, even where no probability is known."""
        if self.prevalence is not None:
            log_odds(self.prevalence)


class Verdict(NamedTuple):
    """What is said of a unit.

    Attributes:
        level: What the unit is decided as.
        score: Of all its images together.
        threshold: Above which it is abnormal, and how often that is wrong; ``None`` where none is
            known.
        label: Whether it is abnormal; ``None`` without a verdict.
        no_label: Why there is none; else empty.
        p: The share of normal patients with such a score or a higher one.
        probability: That it is abnormal; ``None`` where too few patients are known to say.
        no_probability: Why there is none; else empty.
        prevalence: Share of abnormal patients that the probability is for.
        unlike: How far its images are from those that the model was made with; ``None`` where
            nobody can say. Where that is too far, nothing is decided.
        no_unlike: Why nobody can say; else empty.
    """

    level: Level
    score: float
    threshold: Threshold | None
    label: bool | None
    no_label: str
    p: PValue | None
    probability: float | None
    no_probability: str
    prevalence: float | None
    unlike: Unlike | None = None
    no_unlike: str = ""

    def as_plain(self) -> dict[str, Any]:
        """In values that JSON has."""
        known = self.threshold
        return {
            "level": self.level,
            "score": self.score,
            "label": None if self.label is None else int(self.label),
            "no_verdict": self.no_label or None,
            "threshold": known and {
                "value": known.value,
                "rule": known.rule.words,
                "sensitivity": known.sensitivity and known.sensitivity._asdict(),
                "false_alarms": known.false_alarms and known.false_alarms._asdict(),
                "holds": known.holds,
                "words": known.words,
            },
            "p_value": self.p and self.p._asdict(),
            "probability": self.probability,
            "no_probability": self.no_probability or None,
            "prevalence": self.prevalence,
            "unlike": self.unlike and {
                "abstains": self.unlike.abstains,
                "distance": self.unlike.distance,
                "limit": self.unlike.limit,
                "words": self.unlike.words,
            },
            "no_unlike": self.no_unlike or None,
        }  # fmt: skip


@dataclass(frozen=True)
class Decisions:
    """What was found on patients that the model has not learnt from.

    Attributes:
        aggregation: How images become one score.
        aggregated: Why so.
        references: Scores of these patients at each level that is known.
        source: Which images they are, in words.
        calibrations: Curves of probability, by level.
        no_probability: Why a level has none.
        rule: By which thresholds are chosen where nobody asks for another.
        insist: Whether to give a verdict by a threshold that does not hold what the rule asks for.
        image_threshold: Where a single image becomes abnormal by the largest F1; ``None`` where
            nobody knows.
        pixel_threshold: Where a pixel is above the threshold, for areas.
    """

    aggregation: Aggregation = Aggregation()
    aggregated: str = ""
    references: Mapping[Level, Reference] = field(default_factory=dict)
    source: str = ""
    calibrations: Mapping[Level, Calibration] = field(default_factory=dict)
    no_probability: Mapping[Level, str] = field(default_factory=dict)
    rule: Rule = Rule()
    insist: bool = False
    image_threshold: float | None = None
    pixel_threshold: float = 0.5

    def of_images(
        self, image_threshold: float | None, pixel_threshold: float, source: str
    ) -> "Decisions":
        """The same, with what is known of single images, and which they are."""
        return replace(
            self, image_threshold=image_threshold, pixel_threshold=pixel_threshold, source=source
        )

    def found(
        self,
        choice: Choice,
        references: Mapping[Level, Reference],
        calibrations: Mapping[Level, Calibration],
        no_probability: Mapping[Level, str],
    ) -> "Decisions":
        """The same, with what validation has found."""
        return replace(
            self, aggregation=choice.aggregation, aggregated=choice.reason, references=references,
            calibrations=calibrations, no_probability=no_probability,
        )  # fmt: skip

    def level_of(self, *, is_volume: bool) -> Level:
        """As what a volume or a picture by itself is decided."""
        if not is_volume:
            return "image"
        return "volume" if "volume" in self.references else "patient"

    def threshold(self, level: Level, rule: Rule | None = None) -> Threshold | None:
        """Where units of a level become abnormal; ``None`` where nobody knows.

        That of single images by the largest F1 is of all of them, however many a patient has.
        """
        known, asked = self.references.get(level), rule or self.rule
        if level == "image" and asked.aim == "f1":
            if self.image_threshold is None:
                return None
            return described(self.image_threshold, asked, known or Reference((), ()), holds=True)
        return None if known is None else threshold(known, asked)

    def verdict(
        self,
        level: Level,
        scores: npt.ArrayLike,
        areas: npt.ArrayLike | None = None,
        asked: Asked = Asked(),
        unlike: Unlike | None = None,
        unfit: str = "",
        no_unlike: str = "",
    ) -> Verdict:
        """Decide about a unit.

        Args:
            level: What it is decided as.
            scores: Of its images, as those of the references: around one half.
            areas: Share of each image above the threshold of pixels, where units are aggregated by
                area.
            asked: What is wanted.
            unlike: How far its images are from those that the model was made with.
            unfit: Why its score cannot be compared with those of validation, if it cannot.
            no_unlike: Why nobody can say.
        """
        score = way_at(level, self.aggregation).of(scores, areas)
        known, curve = self.references.get(level), self.calibrations.get(level)
        count = np.size(scores)
        if known is not None and not known.is_of_size(count):
            fewest, most = known.images
            about = "single images" if most == 1 else f"{fewest} to {most} images at a time"
            unfit = f"the model was validated on {about}, and these are {count} together"
        insists = self.insist or asked.insist
        if unfit and not insists:
            known = curve = None
        found = self.threshold(level, asked.rule) if known or level == "image" else None
        if found is not None and unfit:
            found = found._replace(holds=False, words=f"{unfit}; {found.words}")
        why = ""
        if found is None and insists and self.image_threshold is not None:
            found = self._of_single_images(self.image_threshold)
        elif found is None:
            why = unfit or self._why_no_threshold(level, asked.rule or self.rule)
        elif not (found.holds or insists):
            why = found.words
        verdict = Verdict(
            level=level,
            score=score,
            threshold=found,
            label=None if why or found is None else score > found.value,
            no_label=why,
            p=None if known is None else p_value(score, known),
            probability=None if curve is None else curve.probability(score, asked.prevalence),
            no_probability="" if curve else unfit or self._why_no_probability(level),
            prevalence=None if curve is None else asked.prevalence or curve.prevalence,
            unlike=unlike,
            no_unlike=no_unlike,
        )
        return _abstained(verdict) if unlike and unlike.abstains else verdict

    def _of_single_images(self, value: float) -> Threshold:
        words = (
            "the threshold of single images, which calls more abnormal the more images there are"
        )
        return Threshold(value, Rule(), None, None, False, words)

    def _why_no_threshold(self, level: Level, rule: Rule) -> str:
        known = self.references.get(level)
        if self.image_threshold is None:
            return "no threshold is known"
        if known is None:
            return f"{_NONE}; its threshold of single images is from {self.source}"
        counts = f"{len(known.normal)} normal and {len(known.abnormal)} abnormal ones"
        return f"too few patients: the model knows {counts}, and {rule.words} needs {rule.needs}"

    def _why_no_probability(self, level: Level) -> str:
        return self.no_probability.get(level, _NONE)

    def as_plain(self) -> dict[str, Any]:
        """In values that JSON has; ``from_plain`` undoes it."""
        rule = self.rule
        return {
            "aggregation": self.aggregation.as_plain(),
            "aggregated": self.aggregated,
            "references": {name: one.as_plain() for name, one in self.references.items()},
            "source": self.source,
            "calibrations": {name: one.as_plain() for name, one in self.calibrations.items()},
            "no_probability": dict(self.no_probability),
            "rule": {"aim": rule.aim, "rate": rule.rate, "confidence": rule.confidence},
            "insist": self.insist,
            "image_threshold": self.image_threshold,
            "pixel_threshold": self.pixel_threshold,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Decisions":
        """Undo ``as_plain``.

        Raises:
            CheckpointError: They are damaged, or of a later version.
        """
        try:
            references, curves = plain["references"], plain["calibrations"]
            parts = {
                "aggregation": Aggregation(**plain["aggregation"]),
                "references": {
                    k: Reference.from_plain(references[k]) for k in LEVELS if k in references
                },
                "calibrations": {
                    k: Calibration.from_plain(curves[k]) for k in LEVELS if k in curves
                },
                "rule": Rule(**plain["rule"]),
            }
            return replace(cls(), **{**plain, **parts})
        except (AttributeError, KeyError, TypeError, ValueError, ConfigError) as error:
            msg = f"what it says of its decisions cannot be read ({type(error).__name__}: {error})"
            msg += "; update anomalib-medclip, or train or export it again"
            raise CheckpointError(msg) from error


def _abstained(verdict: Verdict) -> Verdict:
    """The same without anything that is decided, since nothing known is like these images."""
    found = verdict.unlike
    assert found is not None
    why = (
        "abstained: unlike the images that the model was made with, at a distance of "
        f"{found.distance:.2f} beyond {found.limit:.2f}"
    )
    return verdict._replace(
        label=None, no_label=why, p=None, probability=None, no_probability=why, prevalence=None
    )
