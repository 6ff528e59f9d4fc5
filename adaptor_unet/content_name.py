"""A name for tensors that is equal for equal ones: of every value, none left out."""

from collections.abc import Iterable
from hashlib import blake2b

from safetensors.torch import save
from torch import Tensor


def content_name(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hexadecimal digits, of names, dtypes, shapes and all bytes of tensors of any shape, on any device, in order."""
    digest = blake2b(digest_size=20)
    for name, tensor in tensors:
        told = f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode("utf-8", "surrogatepass")
        digest.update(len(told).to_bytes(8, "big") + told)
        digest.update(save({"values": tensor.detach().cpu().contiguous()}))  # NumPy does not know all dtypes
    return digest.hexdigest()
