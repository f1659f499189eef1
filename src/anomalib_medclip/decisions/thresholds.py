"""Where a score becomes abnormal, by three rules, and how often that is wrong at most."""

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from anomalib_medclip.decisions.aggregation import FloatArray
from anomalib_medclip.decisions.reference import Reference
from anomalib_medclip.errors import ConfigError

Aim = Literal["f1", "sensitivity", "false_alarms"]

CONFIDENCE = 0.95
"""Of bounds, where nobody asks for another."""


@dataclass(frozen=True)
class Rule:
    """By what a threshold is chosen.

    Attributes:
        aim: ``f1`` is the largest F1 on the reference; ``sensitivity`` the highest threshold with
            at least this sensitivity; ``false_alarms`` the lowest with at most this share of normal
            patients called abnormal.
        rate: The sensitivity or the share, between 0 and 1; of no meaning for ``f1``.
        confidence: How often the sensitivity is to hold, over references drawn anew.

    Raises:
        ConfigError: The aim is not known, or a share lies outside (0, 1).
    """

    aim: Aim = "f1"
    rate: float | None = None
    confidence: float = CONFIDENCE

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        if self.aim not in ("f1", "sensitivity", "false_alarms"):
            msg = f"the rule {self.aim!r} is not known; take f1, sensitivity or false_alarms"
            raise ConfigError(msg)
        rate = 0.5 if self.aim == "f1" and self.rate is None else self.rate
        for name, value in (("rate", rate), ("confidence", self.confidence)):
            if not (isinstance(value, int | float) and 0 < value < 1):
                msg = f"the {name} of the rule {self.aim} is {value}; give a share such as 0.95"
                raise ConfigError(msg)

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """What a command line or a config says: the aim, its rate, and after ``@`` the confidence.

        >>> Rule.parse("f1")
        Rule(aim='f1', rate=None, confidence=0.95)
        >>> Rule.parse("sensitivity=0.9@0.8")
        Rule(aim='sensitivity', rate=0.9, confidence=0.8)

        Raises:
            ConfigError: It is no rule.
        """
        found = re.fullmatch(r"(\w+)(?:=([^@]+)(?:@(.+))?)?", text.strip())
        try:
            aim, rate, confidence = found.groups() if found else ("", None, None)
            shares = [None if one is None else float(one) for one in (rate, confidence)]
        except ValueError:
            aim = ""
        if not aim or (aim == "f1" and shares != [None, None]):
            msg = f"{text!r} is no rule; give f1, sensitivity=0.95 or false_alarms=0.05"
            raise ConfigError(msg)
        return cls(aim, shares[0], CONFIDENCE if shares[1] is None else shares[1])  # type: ignore[arg-type]

    @property
    def words(self) -> str:
        """What a reader is told."""
        if self.aim == "f1":
            return "the largest F1"
        share = f"{100 * (self.rate or 0):g} %"
        if self.aim == "false_alarms":
            return f"at most {share} false alarms"
        return f"a sensitivity of {share} at {100 * self.confidence:g} % confidence"

    @property
    def needs(self) -> str:
        """Whom it needs to know, in words."""
        return {
            "f1": "some of both",
            "sensitivity": "abnormal ones",
            "false_alarms": "normal ones",
        }[self.aim]


class Share(NamedTuple):
    """A share of patients, and its bound.

    Attributes:
        found: Patients who were called abnormal.
        of: Patients there were.
        bound: One-sided bound of the share among new patients, at the confidence of the rule: a
            lower one, or an upper one of false alarms.
    """

    found: int
    of: int
    bound: float


class Threshold(NamedTuple):
    """Where a score becomes abnormal.

    Attributes:
        value: A score above it is abnormal.
        rule: By what it was chosen.
        sensitivity: Abnormal patients of the reference that it finds; ``None`` without any.
        false_alarms: Normal ones that it calls abnormal, likewise.
        holds: Whether what the rule asks for is met.
        words: How often it is wrong, or why nobody can say.
    """

    value: float
    rule: Rule
    sensitivity: Share | None
    false_alarms: Share | None
    holds: bool
    words: str


def threshold(reference: Reference, rule: Rule = Rule()) -> Threshold | None:
    """The threshold by a rule; ``None`` where the reference lacks a class that the rule needs.

    Where patients are too few for what is asked, it is the one that passes all abnormal patients,
    or lies above all normal ones; it does not hold then, and its bounds say what is known.

    Of n abnormal patients, a threshold just below the k-th lowest has a sensitivity of at least s
    with the probability that at least k of n are among the lowest share of 1 - s, exactly so for
    continuous scores and more for ties (Wilks 1941). Of n normal ones, a new one is above the k-th
    highest with probability k / (n + 1); given these patients that share is Beta(k, n + 1 - k).
    """
    normal, abnormal = np.array(reference.normal), np.array(reference.abnormal)
    if rule.aim == "f1":
        if not (len(normal) and len(abnormal)):
            return None
        return described(_of_largest_f1(normal, abnormal), rule, reference, holds=True)
    if rule.aim == "sensitivity":
        if not len(abnormal):
            return None
        missed = _allowed_misses(len(abnormal), rule)
        value = _halfway_below(abnormal[max(missed, 0)], reference.scores)
        return described(value, rule, reference, holds=missed >= 0)
    if not len(normal):
        return None
    alarms = int((rule.rate or 0) * (len(normal) + 1) + 1e-9)  # 0.29 x 100 is 28.999999999999996
    return described(normal[-max(alarms, 1)], rule, reference, holds=alarms > 0)


def _allowed_misses(count: int, rule: Rule) -> int:
    """How many abnormal patients may be missed; -1 where even none is too many."""
    misses = np.arange(count)
    sure = stats.binom.sf(misses, count, 1 - (rule.rate or 0))
    return int(np.count_nonzero(sure >= rule.confidence)) - 1


def _of_largest_f1(normal: FloatArray, abnormal: FloatArray) -> float:
    """Halfway below the lowest score called abnormal, the largest threshold of those that tie."""
    scores = np.unique([*normal, *abnormal])
    found = len(abnormal) - np.searchsorted(abnormal, scores)
    called = found + len(normal) - np.searchsorted(normal, scores)
    f1 = 2 * found / (called + len(abnormal))
    best = np.flatnonzero(f1 == f1.max())[-1]
    return _halfway_below(scores[best], scores)


def _halfway_below(score: float, scores: FloatArray) -> float:
    """Halfway to the next lower score; just below where there is none, or no room."""
    lower = scores[scores < score]
    middle = (float(lower.max()) + score) / 2 if len(lower) else -np.inf
    below = float(np.nextafter(score, -np.inf))
    return float(middle) if len(lower) and middle < score else below


def described(value: float, rule: Rule, reference: Reference, *, holds: bool) -> Threshold:
    """A threshold, and how often it is wrong on a reference.

    Args:
        value: The threshold.
        rule: By what it was chosen.
        reference: Patients that it is tried on.
        holds: Whether what the rule asks for is met.
    """
    normal, abnormal = np.array(reference.normal), np.array(reference.abnormal)
    found = _share(int((abnormal > value).sum()), len(abnormal), rule.confidence, lower=True)
    alarms = _share(int((normal > value).sum()), len(normal), rule.confidence, lower=False)
    said = []
    # The largest F1 was looked for on these very patients, which makes its bounds a little good.
    about = "about " if rule.aim == "f1" else ""
    if found:
        said.append(
            f"it finds {found.found} of {found.of} abnormal patients, and of new ones at least "
            f"{about}{100 * found.bound:.0f} % with {100 * rule.confidence:g} % confidence"
        )
    if alarms:
        said.append(
            f"it calls {alarms.found} of {alarms.of} normal patients abnormal, and of new ones at "
            f"most {about}{100 * alarms.bound:.0f} %"
        )
    if not holds:
        said.insert(0, f"too few patients for {rule.words}, {_wanted(rule)}")
    if reference.is_approximate:
        said.append("approximate, since these patients are not quite like new ones")
    return Threshold(float(value), rule, found, alarms, holds, "; ".join(said))


def _wanted(rule: Rule) -> str:
    """How many patients a rule needs."""
    rate = rule.rate or 0
    if rule.aim == "false_alarms":
        return f"which needs {int(np.ceil(1 / rate - 1e-9)) - 1} normal ones"
    needed = int(np.ceil(np.log(1 - rule.confidence) / np.log(rate) - 1e-9))
    return f"which needs {needed} abnormal ones without a miss"


def _share(found: int, of: int, confidence: float, *, lower: bool) -> Share | None:
    """With the bound by Clopper and Pearson (1934)."""
    if not of:
        return None
    if lower:
        bound = stats.beta.ppf(1 - confidence, found, of - found + 1) if found else 0.0
    else:
        bound = stats.beta.ppf(confidence, found + 1, of - found) if found < of else 1.0
    return Share(found, of, float(bound))
