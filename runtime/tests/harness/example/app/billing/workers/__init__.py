"""Background workers of the billing service."""

from chancy_runtime import require_version

require_version("0.8")
