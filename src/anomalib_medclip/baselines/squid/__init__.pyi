from .lightning_model import SQUID as SQUID
from .torch_model import SQUIDModel as SQUIDModel
