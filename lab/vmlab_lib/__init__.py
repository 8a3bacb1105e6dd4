"""Boots stock Debian kernels with a puppet inside, and reports the guest's own word."""

from .errors import LabError
from .guest import Guest
from .kernels import KERNELS

__all__ = ["Guest", "KERNELS", "LabError"]
