"""The class names of MediCLIP's prompts, the same for all its data sets."""

NORMAL = (
    "normal", "healthy", "negative", "unremarkable", "clear", "asymptomatic", "normal findings",
    "no findings", "in good health", "no evidence of disease",
)  # fmt: skip
ABNORMAL = (
    "abnormal", "positive", "symptomatic", "disease", "lesion", "pathological", "impaired",
    "evidence of disease", "abnormal finding", "pathological condition",
    "pathological abnormality",
)  # fmt: skip
