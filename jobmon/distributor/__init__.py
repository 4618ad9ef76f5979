"""Distributors: claim queued jobs, hand them to an executor, report."""

from jobmon.distributor.distributor import Distributor

__all__ = ["Distributor"]
