from .lightning_model import VCPCLIP as VCPCLIP
from .torch_model import VCPCLIPModel as VCPCLIPModel
