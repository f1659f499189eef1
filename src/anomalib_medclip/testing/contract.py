"""The list of promises, each as something to call."""

import io
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from anomalib_medclip.testing.method_case import MethodCase
from anomalib_medclip.testing.promises import PROMISES, Promise


class BrokenPromiseError(AssertionError):
    """A method does not do what every method promises."""


class PromiseSkipped(Exception):  # noqa: N818 - no error
    """A promise cannot be looked at here; it says what is missing."""


@dataclass(frozen=True)
class Check:
    """A promise, and the method that it is asked of.

    Attributes:
        promise: Which.
        case: The method.
    """

    promise: Promise
    case: MethodCase

    @property
    def name(self) -> str:
        """The promise in one word."""
        return self.promise.__name__

    @property
    def exemption(self) -> str | None:
        """Why the method does not mean to keep it, if so."""
        return self.case.exempt.get(self.name)

    @property
    def missing(self) -> str | None:
        """A package without which the promise cannot be looked at."""
        needed = NEEDS.get(self.name, ())
        return next((package for package in needed if find_spec(package) is None), None)

    def __call__(self) -> None:
        """Look whether the method keeps it.

        Raises:
            BrokenPromiseError: It does not; or it does, and was said not to.
            PromiseSkipped: A package is missing.
        """
        if self.missing:
            msg = f"{self.name} needs {self.missing}: pip install 'anomalib-medclip[export]'"
            raise PromiseSkipped(msg)
        try:
            with redirect_stdout(io.StringIO()):  # Lightning prints a table after every test
                self.promise(self.case)
        except Exception as error:
            if self.exemption is not None:
                return
            says = (self.promise.__doc__ or "").strip().splitlines()[0]
            msg = f"{self.case.name} breaks {self.name} ({says}): {type(error).__name__}: {error}"
            raise BrokenPromiseError(msg) from error
        if self.exemption is not None:
            msg = f"{self.case.name} is exempt from {self.name} ({self.exemption}), and keeps it; "
            msg += "take the exemption out"
            raise BrokenPromiseError(msg)


NEEDS = {
    "exports_to_onnx_what_it_is": ("onnx", "onnxscript", "onnxruntime"),
    "exports_to_openvino_what_it_is": ("onnx", "onnxscript", "openvino"),
}
"""Packages of the extra ``export``, by the promises that need them."""


def method_checks(case: MethodCase) -> list[Check]:
    """Every promise, to be called on a method.

    Raises:
        ValueError: An exemption names no promise.
    """
    names = {promise.__name__ for promise in PROMISES}
    if unknown := sorted(case.exempt.keys() - names):
        msg = f"there is no promise {unknown[0]} to be exempt from; there are {sorted(names)}"
        raise ValueError(msg)
    return [Check(promise, case) for promise in PROMISES]


def check_method(case: MethodCase, report: Callable[[str], Any] = lambda _: None) -> None:
    """Look at every promise.

    Args:
        case: The method.
        report: Is told of each promise that was looked at, or could not be.

    Raises:
        BrokenPromiseError: Some are broken; it names all of them.
    """
    checks, broken = method_checks(case), []
    for check in checks:
        try:
            check()
            report(f"kept: {check.name}")
        except PromiseSkipped as word:
            report(f"not looked at: {word}")
        except BrokenPromiseError as error:
            broken.append(str(error))
            report(f"broken: {check.name}")
    if broken:
        lines = "\n- ".join([f"{len(broken)} of {len(checks)} promises are broken:", *broken])
        raise BrokenPromiseError(lines)


def parametrize_with_checks(cases: Iterable[MethodCase]) -> Any:  # noqa: ANN401 - pytest's mark
    """A test for each promise of each method; it takes ``check``, and calls it.

    Those of one method are a group for pytest-xdist, so that it is trained once.
    """
    import pytest  # only for those who have it

    checks = [check for case in cases for check in method_checks(case)]
    params = []
    for check in checks:
        marks = [pytest.mark.xdist_group(check.case.name)] if find_spec("xdist") else []
        if check.missing:
            marks.append(pytest.mark.skip(reason=f"needs {check.missing}"))
        params.append(pytest.param(check, id=f"{check.case.name}-{check.name}", marks=marks))
    return pytest.mark.parametrize("check", params)
