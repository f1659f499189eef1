"""All targets, by name."""

# What readers import when they need it, here once for all processes of a campaign.
import highdicom  # noqa: F401
import monai.data
import monai.transforms  # noqa: F401
from fuzz import images, model_files, records

TARGETS = {one.name: one for one in (*images.TARGETS, *records.TARGETS, *model_files.TARGETS)}
