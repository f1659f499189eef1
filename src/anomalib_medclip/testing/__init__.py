"""The promises that every method keeps, to be checked on one's own, wherever it lives.

    from anomalib_medclip.testing import MethodCase, check_method, parametrize_with_checks

    check_method(MethodCase(Probe))                        # all at once, as a script

    @parametrize_with_checks([MethodCase(Probe)])          # one test each, under pytest
    def test_promise(check):
        check()

Nothing is downloaded: a method is made on a small random CLIP and trained on drawn pictures. A
promise that a method does not mean to keep is named, with the reason, in ``exempt``; that it is
broken is then expected, and that it is kept a fault.
"""

from anomalib_medclip.testing.contract import (
    BrokenPromiseError,
    Check,
    PromiseSkipped,
    check_method,
    method_checks,
    parametrize_with_checks,
)
from anomalib_medclip.testing.method_case import MethodCase

__all__ = [
    "BrokenPromiseError",
    "Check",
    "MethodCase",
    "PromiseSkipped",
    "check_method",
    "method_checks",
    "parametrize_with_checks",
]
