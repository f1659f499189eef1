"""Buffers whose size is known only when they are filled, or restored."""

from typing import Any

from torch import nn


class SizedByState(nn.Module):
    """A module whose own buffers take the size of those in the state that is loaded."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:  # noqa: ANN401 - torch's
        for name, buffer in self.named_buffers(recurse=False):
            if prefix + name in state_dict:
                buffer.resize_(state_dict[prefix + name].shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
