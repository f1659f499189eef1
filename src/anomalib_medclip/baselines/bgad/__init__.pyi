from .lightning_model import BGAD as BGAD
from .torch_model import BGADModel as BGADModel
