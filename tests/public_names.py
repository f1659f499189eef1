"""What a type checker knows of the public names; mypy reads this, nobody runs it.

mypy also says which ``type: ignore`` is not needed, so each stands for an error that it must find.
"""

from typing import assert_type

import anomalib_medclip
from anomalib_medclip import MVFA, Inferencer, data, metrics
from anomalib_medclip.baselines import DRA, SimpleNet, WinCLIP, dra, simplenet, winclip
from anomalib_medclip.data import BMDA, bmad  # type: ignore[attr-defined]
from anomalib_medclip.metrics import ranked
from anomalib_medclip.models.aprilgan import lightning_model as aprilgan
from anomalib_medclip.models.iqeclip import lightning_model as iqeclip
from anomalib_medclip.models.madclip import lightning_model as madclip
from anomalib_medclip.models.mediclip import lightning_model as mediclip
from anomalib_medclip.models.mvfa import lightning_model as mvfa
from anomalib_medclip.models.plain_clip import lightning_model as plain_clip

assert_type(MVFA(), mvfa.MVFA)
assert_type(anomalib_medclip.MVFA(), mvfa.MVFA)
assert_type(anomalib_medclip.MadCLIP(), madclip.MadCLIP)
assert_type(anomalib_medclip.MediCLIP(), mediclip.MediCLIP)
assert_type(anomalib_medclip.IQECLIP(), iqeclip.IQECLIP)
assert_type(anomalib_medclip.APRILGAN(), aprilgan.APRILGAN)
assert_type(anomalib_medclip.PlainCLIP(), plain_clip.PlainCLIP)
assert_type(Inferencer("model.ckpt").predict("image.png").score, float)
assert_type(anomalib_medclip.list_models(), list[str])
assert_type(metrics.AUROC(), ranked.AUROC)
assert_type(data.BMAD(), bmad.BMAD)
assert_type(WinCLIP(), winclip.WinCLIP)
assert_type(SimpleNet(), simplenet.SimpleNet)
assert_type(DRA(), dra.DRA)

print(BMDA)
print(anomalib_medclip.MVFAA)  # type: ignore[attr-defined]
print(metrics.AUROCK)  # type: ignore[attr-defined]
