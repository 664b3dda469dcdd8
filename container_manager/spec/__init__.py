"""The spec: what a caller says of the container that is to run. Pure; the model is the document.

Everything that a field accepts is named here, and everything else is refused. What an engine is
finally asked for is compiled from these fields alone (`engine.document`), so that a capability
which no field grants cannot be asked for. One module a concept; `spec` puts them together.
"""

from container_manager.spec.image import Reference
from container_manager.spec.model import LABEL_PREFIX, MAX_SECONDS, Model
from container_manager.spec.policy import DENIED_FIELDS, check_fields, check_policy
from container_manager.spec.restart import Retry
from container_manager.spec.spec import Spec

__all__ = [
    "DENIED_FIELDS",
    "LABEL_PREFIX",
    "MAX_SECONDS",
    "Model",
    "Reference",
    "Retry",
    "Spec",
    "check_fields",
    "check_policy",
]
