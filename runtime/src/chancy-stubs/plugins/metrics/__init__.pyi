from chancy.plugins.metrics.metrics import Metrics

__all__ = ["Metrics"]
