"""An exported ONNX file as a network: rainy to derained, B x 3 x H x W, in onnxruntime."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from rgsud_lib.errors import BundleError


class OnnxModel(nn.Module):
    """Runs on the CPU with as many threads as torch, or on a GPU where onnxruntime is built for one.

    Raises BundleError: not an ONNX file, or one with other than one input and one output.
    """

    def __init__(self, file: Path, device: str | torch.device = "cpu"):
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        wanted = ["CUDAExecutionProvider"] if torch.device(device).type == "cuda" else []
        known = [name for name in wanted if name in onnxruntime.get_available_providers()]
        try:
            self.session = onnxruntime.InferenceSession(str(file), options, [*known, "CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception class a kind of fault, without a common base
            reason = " ".join(str(error).split())[:300]
            raise BundleError(f"{file} is not a readable ONNX file ({reason}); copy or export it again") from None
        names = [value.name for value in (*self.session.get_inputs(), *self.session.get_outputs())]
        if len(names) != 2:
            raise BundleError(f"{file} has inputs and outputs {names}, expected one each; give one of `rgsud export`")
        self.input, self.output = names

    def forward(self, images: Tensor) -> Tensor:
        outputs = self.session.run([self.output], {self.input: images.float().cpu().contiguous().numpy()})
        return torch.from_numpy(outputs[0]).to(images.device)
