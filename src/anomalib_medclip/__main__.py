"""``python -m anomalib_medclip`` is ``anomalib-medclip``."""

import sys

from anomalib_medclip.cli import main

sys.exit(main())
