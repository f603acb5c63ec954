"""What holds around a plugin in a virtual machine: the walls inside, the machine itself, and the walls around QEMU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from cardcage.launch.vm.machine import MachineSize
from cardcage.sandbox.hypervisor import machine_layer
from cardcage.sandbox.plan import MIB
from cardcage.sandbox.report import EnforcementReport, Layer, LayerName, LayerStatus

_DETAIL_CHARS_MAX: Final = 500


def machine_report(
    rows: Iterable[Sequence[str]], around_qemu: EnforcementReport, size: MachineSize
) -> EnforcementReport:
    """The whole report. `rows` are the guest's own words: layers that it does not know are left out."""
    known = {str(name) for name in LayerName}
    told: dict[str, Layer] = {}
    for name, status, detail in rows:
        if name in known:
            told[name] = Layer(name=name, status=_status(status), detail=str(detail)[:_DETAIL_CHARS_MAX])
    for layer in (machine_layer(), _qemu_layer(around_qemu), *_made_by_host(size)):
        told[str(layer.name)] = layer
    order = [str(name) for name in LayerName]
    return EnforcementReport(layers=tuple(sorted(told.values(), key=lambda layer: order.index(str(layer.name)))))


def _status(told: str) -> LayerStatus:
    """The status that a guest told of; a word that is none counts as nothing that holds."""
    return LayerStatus(told) if told in set(LayerStatus) else LayerStatus.UNAVAILABLE


def _qemu_layer(around: EnforcementReport) -> Layer:
    holding = [layer for layer in around.enforced if layer.name != LayerName.EGRESS]
    return Layer(
        name=LayerName.HYPERVISOR_WALLS,
        status=LayerStatus.ENFORCED,
        detail=f"QEMU runs behind {len(holding)} layers of its own, without network and without files of the host",
    )


def _made_by_host(size: MachineSize) -> tuple[Layer, ...]:
    return (
        Layer(
            name=LayerName.CGROUP_LIMITS,
            status=LayerStatus.ENFORCED,
            detail=f"in the guest's own control group: {size.plugin_memory_bytes // MIB} MiB; "
            f"a machine of {size.memory_bytes // MIB} MiB and {size.cpus} processors",
        ),
        Layer(
            name=LayerName.DISK_LIMITS,
            status=LayerStatus.ENFORCED,
            detail=f"a disk of its own, of {size.disk_bytes // MIB} MiB",
        ),
        Layer(
            name=LayerName.ENCRYPTION,
            status=LayerStatus.ENFORCED,
            detail="mutual TLS 1.3, with a certificate for this start alone; its key stays with the guest's init",
        ),
    )
