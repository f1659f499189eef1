from types import SimpleNamespace

import pytest

from anomalib_medclip.errors import ParityError
from anomalib_medclip.export.compression import compress


def operation(kind, name):
    return SimpleNamespace(get_type_name=lambda: kind, get_friendly_name=lambda: name)


def test_a_graph_without_clips_blocks_is_not_called_compressed():
    graph = [operation("Constant", "in_the_tower"), operation("MatMul", "head/1")]
    model = SimpleNamespace(get_ops=lambda: graph)
    with pytest.raises(ParityError, match="none of CLIP's blocks is found"):
        compress(model, {"in_the_tower"})
