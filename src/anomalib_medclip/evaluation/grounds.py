"""What is known of how to decide about units: thresholds, p-values, probabilities, in words."""

from dataclasses import dataclass

from anomalib_medclip.decisions.decisions import Decisions, Verdict


@dataclass(frozen=True, kw_only=True)
class Grounds:
    """On what a model decides about the units of a level.

    Attributes:
        rule: By which the threshold is chosen, in words.
        normal: Normal patients that it is tried on, and that p-values compare with.
        abnormal: Abnormal ones.
        is_approximate: Whether these patients are not quite like new ones.
        smallest_p: The smallest p-value that can be; ``None`` where none is known.
        calibration: Kind of the curve of probability; empty where none is known.
        calibrated_on: Patients that it was fitted on.
        prevalence: Share of abnormal ones among them.
        no_probability: Why no probability is known; else empty.
    """

    rule: str
    normal: int = 0
    abnormal: int = 0
    is_approximate: bool = False
    smallest_p: float | None = None
    calibration: str = ""
    calibrated_on: int = 0
    prevalence: float | None = None
    no_probability: str = ""

    @classmethod
    def of(cls, decisions: Decisions, verdict: Verdict) -> "Grounds":
        """Those of a verdict about a unit of this level."""
        known = decisions.references.get(verdict.level)
        curve = decisions.calibrations.get(verdict.level)
        if verdict.prevalence is None:  # the curve is of units of another size
            curve = None
        return cls(
            rule=decisions.rule.words,
            normal=len(known.normal) if known else 0,
            abnormal=len(known.abnormal) if known else 0,
            is_approximate=bool(known and known.is_approximate),
            smallest_p=verdict.p and verdict.p.smallest,
            calibration=curve.kind if curve else "",
            calibrated_on=curve.patients if curve else 0,
            prevalence=curve and curve.prevalence,
            no_probability=verdict.no_probability,
        )

    @property
    def p_words(self) -> str:
        """Whether p-values are known, in a sentence without its end.

        >>> Grounds(rule="the largest F1", normal=4, smallest_p=0.2).p_words
        'no p-value is below 0.2, since it compares with 4 normal patients'
        """
        if self.smallest_p is None:
            known = "no normal patient" if not self.normal else "none that fits"
            return f"no p-value is known, since the model has {known} to compare with"
        of = f"{self.normal} normal patient{'s' * (self.normal != 1)}"
        about = "; it is approximate, since these are not quite like new ones"
        return (
            f"no p-value is below {self.smallest_p:.2g}, since it compares with {of}"
            f"{about * self.is_approximate}"
        )

    @property
    def probability_words(self) -> str:
        """Whether probabilities are known, likewise.

        >>> Grounds(rule="the largest F1", no_probability="too few patients").probability_words
        'no probability is known; too few patients'
        """
        if self.prevalence is None:
            return f"no probability is known; {self.no_probability}"
        return (
            f"a probability is known, by a curve ({self.calibration}) of {self.calibrated_on} "
            f"patients, for a share of {100 * self.prevalence:.0f} % abnormal ones"
        )
