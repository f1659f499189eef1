from . import baselines as baselines
from . import data as data
from . import errors as errors
from . import metrics as metrics
from . import models as models
from .models import get_model as get_model
from .models import list_models as list_models
from .models.adaclip import AdaCLIP as AdaCLIP
from .models.anomalyclip import AnomalyCLIP as AnomalyCLIP
from .models.aprilgan import APRILGAN as APRILGAN
from .models.iqeclip import IQECLIP as IQECLIP
from .models.madclip import MadCLIP as MadCLIP
from .models.mediclip import MediCLIP as MediCLIP
from .models.mvfa import MVFA as MVFA
from .models.plain_clip import PlainCLIP as PlainCLIP
from .models.vcpclip import VCPCLIP as VCPCLIP
from .score.inferencer import Inferencer as Inferencer

__version__: str
