"""Operators of spatio-temporal prompting, each beside its plain PyTorch meaning."""

from stpn_kernels.prompted_window_attention import prompted_window_attention
from stpn_kernels.support_attend import support_attend
from stpn_kernels.support_pool import support_pool

__all__ = ["prompted_window_attention", "support_attend", "support_pool"]
