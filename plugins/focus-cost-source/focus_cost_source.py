"""A cost source for FOCUS bills: CSV, plain or gzip, with the columns of version 1.0, 1.1 or 1.2."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from cardcage_finops.bills import (
    NULLS,
    BillError,
    BillFile,
    Column,
    RawRows,
    RowLedger,
    dates,
    decimals,
    require,
    texts,
)
from cardcage_finops.focus import COSTS, MANDATORY, canonical_name, kind_of, version_of
from cardcage_finops.interfaces import CostSourcePlugin
from cardcage_finops.models import BillProfile, ChargeBatch, RowIssue

NEEDED = ("BilledCost", "ChargePeriodStart")
"""Without one of these there is no analysis, and nothing they could be derived from."""

DISTINCT = (*NEEDED, "BillingCurrency", "ServiceName")
"""Columns that say what a row is; where one stands there twice nobody can say which counts."""

ABSENT = {
    "BillingCurrency": "amounts are kept under XXX, no currency",
    "ServiceName": "the totals by service are under one key, no service",
}
"""What becomes of a bill that lacks the column altogether; a row that lacks the value in a bill that has it is refused
for the first and counted under no service for the second."""

DERIVED = {
    "EffectiveCost": "BilledCost",
    "ContractedCost": "EffectiveCost",
    "ListCost": "ContractedCost",
}
"""A cost column that the file lacks altogether is taken from this one: exact where there are no discounts."""

VITAL = (*COSTS, "ChargePeriodStart", "ChargePeriodEnd")
"""A value in one of these that cannot be read refuses its row, so that all totals are over the same rows."""

QUANTITIES = ("ConsumedQuantity", "PricingQuantity")


class FocusCostSource(CostSourcePlugin):
    """Reads the file that the config names as `bill`."""

    def load(self, config: dict[str, Any]) -> None:
        """Remember which bill to read."""
        self.bill = str(config["bill"])

    def probe(self) -> BillProfile:
        """Look at the header. Raises `BillError` where a column is missing that nothing can stand in for."""
        with BillFile(self.bill) as file:
            layout = Layout(self.bill, file.header)
            return BillProfile(
                format="focus",
                version=version_of(frozenset(layout.found)),
                columns=[*layout.found, *layout.derived],
                issues=[*file.issues, *layout.issues],
                size_bytes=file.size_bytes,
            )

    def read(self, columns: list[str]) -> Iterator[ChargeBatch]:
        """Stream the bill. A column that it lacks comes as Nones; what `probe` told of the file is not told again."""
        with BillFile(self.bill) as file:
            layout = Layout(self.bill, file.header)
            reader = Reader(layout, columns)
            for rows in file.batches():
                yield reader.batch(rows)


class Layout:
    """Which column stands where in one file, what stands in for what, and what is odd about the header."""

    def __init__(self, path: str, header: list[str]) -> None:
        self.found: dict[str, int] = {}
        self.derived: dict[str, str] = {}
        self.issues: list[RowIssue] = []
        for index, written in enumerate(header):
            self._place(path, header, index, written)
        missing = [name for name in NEEDED if name not in self.found]
        if missing:
            raise BillError(
                f'the bill "{path}" has no column {" and no ".join(missing)}, which a FOCUS bill must have; '
                f"found {len(header)} columns: {', '.join(header)[:600]}"
            )
        self._stand_in()

    def _place(self, path: str, header: list[str], index: int, written: str) -> None:
        name = canonical_name(written)
        if name is None:
            if written:
                self._say(written, "unknown_column", f'column "{written}" is no FOCUS column and was left out', "noted")
            return
        if name not in self.found:
            self.found[name] = index
        elif header[self.found[name]] == written and name in (*VITAL, *DISTINCT):
            places = f"{self.found[name] + 1} and {index + 1}"
            raise BillError(f'the bill "{path}" has the column "{written}" twice (columns {places}): which one counts?')
        else:
            if written == name:
                self.found[name], index = index, self.found[name]
            message = (
                f'columns "{header[self.found[name]]}" and "{header[index]}" are one FOCUS column; the first counts'
            )
            self._say(name, "duplicate_column", message, "corrected")
        if written != name and self.found[name] == index:
            self._say(name, "renamed_column", f'column "{written}" was read as {name}', "corrected")

    def _stand_in(self) -> None:
        for name, source in DERIVED.items():
            if name not in self.found:
                self.derived[name] = source
                self._say(name, "missing_column", f"column {name} is missing and was taken as {source}", "corrected")
        for name in sorted(MANDATORY - set(self.found) - set(DERIVED)):
            became = ABSENT.get(name, "it was left empty")
            self._say(name, "missing_column", f"column {name} is missing: {became}", "corrected")

    def _say(self, column: str, code: str, message: str, action: Any) -> None:
        self.issues.append(RowIssue(row=0, column=column, code=code, message=message, action=action))


class Reader:
    """Turns raw rows into batches of the columns asked for."""

    def __init__(self, layout: Layout, columns: list[str]) -> None:
        self.layout = layout
        self.asked = list(dict.fromkeys(columns))
        self.currencies: set[str] = set()
        self._dates: dict[str, str | None] = {}

    def batch(self, rows: RawRows) -> ChargeBatch:
        """Check the vital columns always, so that the same rows are taken whatever is asked for; then the others."""
        ledger = RowLedger(rows=rows)
        checked: dict[str, Column] = {}
        for name in VITAL:
            if name in self.layout.found:
                checked[name] = self._column(ledger, rows, name)
        self._mend_costs(ledger, checked)
        for name in ("BilledCost", "ChargePeriodStart"):
            require(ledger, name, checked[name])
        if "BillingCurrency" in self.layout.found:
            currency = checked["BillingCurrency"] = self._column(ledger, rows, "BillingCurrency")
            require(ledger, "BillingCurrency", currency)
            self._note_currencies(ledger, currency)
        self._note_negative_usage(ledger, rows, checked["BilledCost"])
        for name in self.asked:
            if name not in checked:
                checked[name] = self._asked(ledger, rows, checked, name)
        return ledger.close({name: checked[name] for name in self.asked})

    def _asked(self, ledger: RowLedger, rows: RawRows, checked: dict[str, Column], name: str) -> Column:
        if name in self.layout.found:
            return self._column(ledger, rows, name)
        source = self.layout.derived.get(name)
        if source is None:
            return [None] * len(rows.cells)
        return checked[source] if source in checked else self._asked(ledger, rows, checked, source)

    def _column(self, ledger: RowLedger, rows: RawRows, name: str) -> Column:
        values = rows.column(self.layout.found[name])
        match kind_of(name):
            case "decimal":
                return decimals(ledger, name, values, vital=name in VITAL)
            case "date":
                return dates(ledger, name, values, self._dates, vital=name in VITAL)
            case _:
                return texts(values)

    def _mend_costs(self, ledger: RowLedger, checked: dict[str, Column]) -> None:
        """A single empty cost: EffectiveCost is taken as BilledCost; the other two stay empty and add nothing."""
        billed = checked["BilledCost"]
        for name in ("EffectiveCost", "ListCost", "ContractedCost"):
            values = checked.get(name, [])
            if None not in values:
                continue
            for position, value in enumerate(values):
                if value is not None or position in ledger.refused:
                    continue
                if name == "EffectiveCost":
                    values[position] = billed[position]
                    message = f"no value: taken as BilledCost, {billed[position]}"
                else:
                    message = "no value: left empty, and adds nothing to the total"
                ledger.correct(position, name, "missing_value", message)

    def _note_currencies(self, ledger: RowLedger, values: Column) -> None:
        for value in sorted(set(values) - self.currencies - {None}, key=values.index):
            assert value is not None
            if self.currencies:
                known = ", ".join(sorted(self.currencies))
                message = f"charges in {value} beside {known}: kept apart, never added together"
                ledger.note(values.index(value), "BillingCurrency", "mixed_currency", message)
            self.currencies.add(value)

    def _note_negative_usage(self, ledger: RowLedger, rows: RawRows, billed: Column) -> None:
        """Credits and refunds are negative by right; usage that is neither is worth a look."""
        signed: set[int] = {i for i, value in enumerate(billed) if value and value[0] == "-" and Decimal(value)}
        for name in QUANTITIES:
            if name in self.layout.found:
                values = rows.column(self.layout.found[name])
                signed.update(i for i, value in enumerate(values) if value[:1] == "-")
        for position in sorted(signed - ledger.refused):
            category, charge_class = (self._raw(rows, position, name) for name in ("ChargeCategory", "ChargeClass"))
            if category == "Usage" and charge_class != "Correction":
                message = "usage is negative, but is no credit, refund or correction; taken as it stands"
                ledger.note(position, "BilledCost", "negative_usage", message)

    def _raw(self, rows: RawRows, position: int, name: str) -> str | None:
        if name not in self.layout.found:
            return None
        value = rows.cells[position][self.layout.found[name]]
        return None if value in NULLS else value
