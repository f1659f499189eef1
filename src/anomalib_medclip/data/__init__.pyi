from .bmad import BMAD as BMAD
from .bmad import BMADLeaveOneOut as BMADLeaveOneOut
from .cases import VolumeSource as VolumeSource
from .folder import MedicalFolder as MedicalFolder
from .industrial import Industrial as Industrial
from .phantoms import Phantoms as Phantoms
from .volumes import Volumes as Volumes
