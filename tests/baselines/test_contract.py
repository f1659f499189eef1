"""Every baseline that is a folder keeps the promises of methods: it is tested by existing."""

from tiny import RIVALS, case_of

from anomalib_medclip.testing import parametrize_with_checks


@parametrize_with_checks([case_of(baseline) for baseline in RIVALS])
def test_promise(check):
    check()
