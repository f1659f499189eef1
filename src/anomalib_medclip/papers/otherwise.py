"""What is known to be done otherwise here than in the papers, for each table's page."""

import re

_OTHERWISE = {
    r".*": "Thresholds are not cross-fitted, since AUROC needs none. The authors' epoch is one for "
    "images and pixels, of looks after each epoch, or as often as the table's config says; some "
    "authors look less often, or choose one epoch for each.",
    r"(mvfa|madclip)-table1|iqeclip-table2": "CFlow-AD, RD4AD, PatchCore and MKD learn from all "
    "normal images of the training split, as rows of full-shot methods are printed. Epochs and "
    "sizes of anomalib's models are our choice: 20 epochs of CFlow-AD and RD4AD, images of 240 px, "
    "of 256 px for RD4AD. MKD's maps are stretched image by image, as in BMAD's copy of its code, "
    "and stand in one AUROC of all pixels.",
    r"(mvfa|madclip|iqeclip)-table\d+": "How the rows of rivals were trained is not printed: those "
    "that learn from a support have the lists of the paper's own method, and this package's "
    "defaults; the card of each method says where these are not its authors'.",
    r"(mvfa|madclip)-table[12]|iqeclip-table[27]": "DRA's authors have no map of pixels, and it is "
    "ours that stands there; BGAD's map counts from the highest value of the support, theirs from "
    "that of all test images. How the row of MedCLIP was made is not said, and its definition is "
    "ours.",
    r"mvfa-table1": "MVFA stands there twice: as its authors scale, by the whole test set, it is "
    "MVFA (transductive).",
    r"mvfa-table3": "MVTec AD has no lists: K + K images of a category are drawn, abnormal ones "
    "from its test split, and not tested. All other images of that split are.",
    r"madclip-table[12]": "The paper's rows of MVFA are those of MVFA's lists; here all learn from "
    "MadCLIP's.",
    r"madclip-table3": "Which images of the four sets are tested is not said: here those that our "
    "split leaves.",
    r"mediclip-table\d": "Three draws as in the paper; which supports these were is not published.",
    r"mediclip-table[12]": "All rows learn from the K normal images of the support. The paper says "
    "224 px of MediCLIP alone: PatchCore has it here, too, other rivals their authors' sizes. "
    "SQUID's authors have no map, AnoDDPM's no score of an image: these are ours. "
    "RegAD stands there without registration, which is learnt from other sets; epochs of AnoDDPM "
    "and PatchSVDD, which are thousands, are not looked at.",
    r"mediclip-table5": "The paper's auxiliary rows learn from all images and masks; here from "
    "K = 16 normal and abnormal ones of all categories.",
    r"iqeclip-table[27]": "VCP-CLIP learns from masks alone, so that sets without are not run.",
}
"""By the tables that it is of."""


def otherwise(table: str) -> list[str]:
    """Sentences on a table.

    >>> len(otherwise("mvfa-table5"))
    2
    """
    return [said for tables, said in _OTHERWISE.items() if re.fullmatch(tables, table)]
