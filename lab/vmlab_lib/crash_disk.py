"""A disk with the kernel and userland that take over when a guest's kernel crashes (puppet: `crash-kernel`)."""

from . import initramfs, kernels

SECTOR = 512


def write(path, kernel_name):
    """The same kernel and userland as the guest's own."""
    kernel = kernels.fetch(kernel_name)
    parts = [kernel.image.read_bytes(), initramfs.build(kernel, False).read_bytes()]
    head = "{} {}\n".format(*map(len, parts)).encode()
    content = head.ljust(SECTOR, b"\0") + b"".join(parts)
    path.write_bytes(content + bytes(-len(content) % SECTOR))
    return path
