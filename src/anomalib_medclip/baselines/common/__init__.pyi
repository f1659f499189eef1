from .baseline import Baseline as Baseline
from .network_model import NetworkModel as NetworkModel
from .network_source import NetworkSource as NetworkSource
from .pixels import Pixels as Pixels
from .redrawn import Redrawn as Redrawn
from .stepwise import Stepwise as Stepwise
from .trunk import Trunk as Trunk
