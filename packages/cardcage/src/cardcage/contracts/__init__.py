"""Extension points: a Python Protocol with a name and a version, from which everything else is derived.

The typed proxy that a host calls, the check of its arguments, the JSON Schema that other languages read and the
check of what a plugin offers all come from one declaration. Pure: nothing here does any input or output.
"""

from cardcage.contracts.binding import bind_arguments
from cardcage.contracts.definition import extension_point, extension_point_of, idempotent, index_points
from cardcage.contracts.pack import Pack
from cardcage.contracts.point import ExtensionPoint, MethodSpec, ParameterSpec
from cardcage.contracts.provider import check_provider
from cardcage.contracts.proxy import make_proxy
from cardcage.contracts.service import ServiceInterface, service, service_of

__all__ = [
    "ExtensionPoint",
    "MethodSpec",
    "Pack",
    "ParameterSpec",
    "ServiceInterface",
    "bind_arguments",
    "check_provider",
    "extension_point",
    "extension_point_of",
    "idempotent",
    "index_points",
    "make_proxy",
    "service",
    "service_of",
]
