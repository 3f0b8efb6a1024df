"""Operators of spatio-temporal prompting, each beside its plain PyTorch meaning."""

from stpn_kernels.asymmetric_attention import KeyValueBuffer, asymmetric_attention
from stpn_kernels.backend import Backend
from stpn_kernels.prompted_window_attention import prompted_window_attention
from stpn_kernels.support_attend import support_attend
from stpn_kernels.support_pool import support_pool

__all__ = [
    "Backend",
    "KeyValueBuffer",
    "asymmetric_attention",
    "prompted_window_attention",
    "support_attend",
    "support_pool",
]
