"""Which foreign column becomes which of ours, as SQL, and what may be wrong with its cells.

Called by `table`. It knows names and types only; it never sees a value.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ogsrl.errors import SourceError
from ogsrl.sources.reading import Warned
from ogsrl.spec import Cohort

Role = Literal["id", "number", "text", "flag", "level", "time"]

#: Levels that an error names one by one.
NAMED = 12
_MISSING = "('', 'na', 'nan', 'null', 'none', 'n/a')"
_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT")
_NUMBERS = (*_WHOLE, "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN")
_TRUE = "('true', 't', 'yes', 'y', '1', '1.0')"
_FALSE = "('false', 'f', 'no', 'n', '0', '0.0')"


@dataclass(frozen=True)
class Check:
    """A count that should be zero (or, for `mixed`, zero or all), and what to say otherwise."""

    column: str
    rule: str
    sql: str
    message: str
    severity: Literal["error", "warning"] = "error"
    mixed: bool = False

    def is_wrong(self, found: int, rows: int) -> bool:
        """Whether this many of so many rows is a mistake."""
        return 0 < found < rows if self.mixed else found > 0


@dataclass(frozen=True)
class Item:
    """One of our columns and the foreign one that it is read from."""

    name: str
    foreign: str
    role: Role
    kind: str
    levels: tuple[str, ...] = ()
    required: bool = False

    @property
    def column(self) -> str:
        """The foreign column in SQL."""
        return '"' + self.foreign.replace('"', '""') + '"'

    def _text(self) -> str:
        return f"trim(CAST({self.column} AS VARCHAR))"

    def _given(self) -> str:
        return f"{self.column} IS NOT NULL AND lower({self._text()}) NOT IN {_MISSING}"

    def is_text(self, all_text: bool) -> bool:
        """Whether the cells are text that still has to be read."""
        return all_text or self.kind == "VARCHAR"

    def sql(self, all_text: bool) -> str:
        """The expression that gives our column."""
        text = self.is_text(all_text)
        if self.role in {"id", "text"}:
            return f"CASE WHEN {self._given()} THEN {self._text()} END"
        if self.role == "time":
            return self._hours(text)
        if self.role == "level":
            return self._code()
        if self.role == "flag":
            return (
                f"CASE WHEN lower({self._text()}) IN {_TRUE} THEN true "
                f"WHEN lower({self._text()}) IN {_FALSE} THEN false END"
            )
        number = f"TRY_CAST({self._text()} AS DOUBLE)"
        return f"CASE WHEN {self._given()} THEN {number} END" if text else _double(self.column)

    def _code(self) -> str:
        """The level's code, from its name or, where no name is a number, from the code itself."""
        text = f"lower({self._text()})"
        cases = [
            f"WHEN {text} = {_literal(level.lower())} THEN {code}::DOUBLE"
            for code, level in enumerate(self.levels)
        ]
        number = f"TRY_CAST({self._text()} AS DOUBLE)"
        cases += [  # 3.0 is the level 3
            f"WHEN {number} = {float(level)!r} THEN {code}::DOUBLE"
            for code, level in enumerate(self.levels)
            if level.isdecimal()
        ]
        if not any(_is_number(level) for level in self.levels):
            whole = f"{number} BETWEEN 0 AND {len(self.levels) - 1} AND {number} = floor({number})"
            cases.append(f"WHEN {whole} THEN {number}")
        return f"CASE {' '.join(cases)} END"

    def _hours(self, text: bool) -> str:
        if text:
            number = f"TRY_CAST({self._text()} AS DOUBLE)"
            moment = f"epoch(TRY_CAST({self._text()} AS TIMESTAMPTZ)) / 3600.0"
            return f"coalesce({number}, {moment})"
        if self.kind.startswith(("TIMESTAMP", "DATE")):
            return f"epoch({self.column}) / 3600.0"
        return _double(self.column)

    def checks(self, all_text: bool) -> list[Check]:
        """What to count before any row is believed."""
        text = self.is_text(all_text)
        found = []

        def add(rule: str, where: str, message: str) -> None:
            sql = f"count(*) FILTER (WHERE {where})"
            found.append(Check(self.foreign, rule, sql, message))

        if self.required:
            blank = f"NOT ({self._given()})"
            add(f"missing_{self.name}", blank, f"have no {self.name}; every row needs one")
        if self.name == "step":
            number = f"TRY_CAST({self._text()} AS DOUBLE)"
            add(
                "not_whole",
                f"{number} <> floor({number})",
                "are not whole numbers; number steps from 0",
            )
        if self.role == "id":
            found.extend(self._id_checks(text))
        elif self.role == "number" and text:
            comma = f"regexp_full_match({self._text()}, '[+-]?\\d+,\\d+')"
            broken = f"{self._given()} AND TRY_CAST({self._text()} AS DOUBLE) IS NULL"
            add(
                "decimal_comma",
                f"{self._given()} AND {comma}",
                "have a decimal comma; export with decimal points",
            )
            add("not_a_number", f"{broken} AND NOT {comma}", "are not numbers; mend or blank them")
        elif self.role == "level":
            add(
                "unknown_level",
                f"{self._given()} AND {self._code()} IS NULL",
                f"are none of {_few(self.levels)}; correct them or add the level",
            )
        elif self.role == "flag":
            add(
                "not_a_flag",
                f"{self._given()} AND lower({self._text()}) NOT IN {_TRUE} "
                f"AND lower({self._text()}) NOT IN {_FALSE}",
                "are neither true nor false; write 1 or 0",
            )
        if self.role == "time" and (text or not self.kind.startswith(("TIMESTAMP", "DATE"))):
            found.append(self._serial_dates())
        if self.role == "time" and text:
            add(
                "unreadable_time",
                f"{self._given()} AND {self._hours(text)} IS NULL",
                "are not times; write ISO 8601 (2001-02-03 04:05:06) or hours",
            )
            zone = f"regexp_matches({self._text()}, '\\d\\s*(Z|UTC|[+-]\\d{{2}}:?\\d{{2}})$')"
            found.append(
                Check(
                    self.foreign,
                    "mixed_timezones",
                    f"count(*) FILTER (WHERE {zone})",
                    "have a time zone and the others none; write all in one",
                    mixed=True,
                )
            )
        return found

    def _serial_dates(self) -> Check:
        days = f"TRY_CAST({self._text()} AS DOUBLE)"
        fractions = f"count(*) FILTER (WHERE {days} <> floor({days}))"
        like = f"min({days}) > 20000 AND max({days}) < 80000 AND {fractions} > 0"
        return Check(
            self.foreign,
            "serial_dates",
            f"CASE WHEN {like} THEN count(*) ELSE 0 END",
            "look like days of a spreadsheet; write ISO 8601 (2001-02-03 04:05:06) or hours",
        )

    def _id_checks(self, text: bool) -> Iterable[Check]:
        if not text:
            return
        plain = f"CASE WHEN {self._given()} THEN {self._text()} END"
        same = f"lower(regexp_replace(regexp_replace({plain}, '\\.0+$', ''), '^0+(\\d)', '\\1'))"
        yield Check(
            self.foreign,
            "ambiguous_ids",
            f"count(DISTINCT {plain}) - count(DISTINCT {same})",
            "differ from another only by case, leading zeros or a trailing .0; write each one way",
        )
        yield Check(
            self.foreign,
            "mixed_id_types",
            f"count(*) FILTER (WHERE regexp_full_match({self._text()}, '\\d+(\\.0+)?'))",
            "are plain numbers while others are not; check that ids are not from two systems",
            severity="warning",
            mixed=True,
        )


@dataclass(frozen=True)
class Mapping:
    """All of our columns that the foreign table has."""

    items: tuple[Item, ...]
    clock: Literal["step", "hours"]
    ignored: tuple[str, ...]

    def has(self, name: str) -> bool:
        """Whether the foreign table gives this column."""
        return any(item.name == name for item in self.items)

    def select(self, all_text: bool) -> str:
        """The SELECT list that gives our columns."""
        return ", ".join(f'{item.sql(all_text)} AS "{item.name}"' for item in self.items)

    def provenance(self) -> dict[str, str]:
        """Our name -> foreign name, where they differ."""
        return {item.name: item.foreign for item in self.items if item.name != item.foreign}

    def derived(self) -> list[str]:
        """Columns of the table that ingest derives because the foreign table has none."""
        wanted = ("step", "hours", "site", "end", "died")
        return [name for name in wanted if not self.has(name)]


def map_columns(cohort: Cohort, types: dict[str, str], warnings: list[Warned]) -> Mapping:
    """Find every column of the cohort in the foreign table, or say all that is missing."""
    renamed = dict(cohort.source.columns)
    if cohort.outcome is not None and "died" not in renamed:
        renamed["died"] = cohort.outcome.death
    foreign_of = {
        name: renamed.get(name, name) for name in (*cohort.table_columns, "time", "split")
    }
    items: list[Item] = []
    mistakes: list[str] = []

    def add(name: str, role: Role, *, required: bool, levels: tuple[str, ...] = ()) -> None:
        foreign = foreign_of[name]
        if foreign not in types:
            if required:
                mistakes.append(_missing(name, foreign, types))
            return
        kind = types[foreign]
        wrong = _wrong_type(foreign, role, kind)
        if wrong:
            mistakes.append(wrong)
            return
        must = required and role in {"id", "time"}
        items.append(Item(name, foreign, role, kind, levels, must))

    add("patient_id", "id", required=True)
    add("stay_id", "id", required=True)
    stepped = foreign_of["step"] in types
    timed = next((n for n in ("time", "hours") if foreign_of[n] in types), None)
    if stepped:
        items.append(
            Item("step", foreign_of["step"], "number", types[foreign_of["step"]], (), True)
        )
    elif timed is None:
        mistakes.append(_missing("step", foreign_of["step"], types) + ", or a column time or hours")
    if timed is not None:
        foreign = foreign_of[timed]
        items.append(Item("hours", foreign, "time", types[foreign], (), not stepped))
    add("site", "text", required=False)
    for name, column in cohort.states.items():
        role: Role = "level" if column.kind == "categorical" else "number"
        add(name, role, required=True, levels=column.levels)
    for name, action in cohort.actions.items():
        ordinal = action.kind == "ordinal" and types.get(foreign_of[name]) == "VARCHAR"
        levels = action.levels if ordinal else ()
        add(name, "level" if ordinal else "number", required=True, levels=levels)
    add("end", "text", required=False)
    add("died", "flag", required=False)
    add("split", "text", required=False)
    if mistakes:
        raise SourceError("\n".join(mistakes))
    used = {item.foreign for item in items}
    ignored = tuple(sorted(set(types) - used))
    if ignored:
        # A heading that is no plain name may be a patient's: it is counted, not quoted.
        plain = [name for name in ignored if re.fullmatch(r"(?!.*\d{3})[A-Za-z_]\w{0,39}", name)]
        named = f": {', '.join(plain)}" if plain else ""
        odd = f" ({len(ignored) - len(plain)} with odd names)" if len(plain) < len(ignored) else ""
        message = (
            f"{len(ignored)} columns are not in the cohort file and are ignored{named}{odd}; "
            "add them to it if they matter"
        )
        warnings.append(Warned("unknown_columns", None, len(ignored), message))
    return Mapping(tuple(items), "step" if stepped else "hours", ignored)


def _missing(name: str, foreign: str, types: dict[str, str]) -> str:
    near = difflib.get_close_matches(foreign, types, n=1, cutoff=0.5)
    hint = f"; the nearest is {near[0]}" if near else ""
    mapped = f" (for {name})" if name != foreign else ""
    return (
        f"{foreign}{mapped}: no such column among {len(types)} (rule missing_column){hint}; "
        "add it, or name it under source.columns"
    )


def _wrong_type(foreign: str, role: Role, kind: str) -> str | None:
    if role == "id" and kind.startswith(("FLOAT", "DOUBLE", "DECIMAL")):
        return (
            f"{foreign}: identifiers are stored as {kind.lower()} (rule float_ids); store them as "
            "text or whole numbers, since floating point loses digits"
        )
    if role == "number" and not kind.startswith((*_NUMBERS, "VARCHAR")):
        return f"{foreign}: has type {kind.lower()} (rule wrong_type); export it as a number"
    if role in {"id", "text"} and kind.startswith(("STRUCT", "MAP", "BLOB")):
        return f"{foreign}: has type {kind.lower()} (rule wrong_type); export it as text"
    return None


def _few(names: tuple[str, ...]) -> str:
    """Names, where there are many the first and the last."""
    return ", ".join(names if len(names) <= NAMED else (*names[:3], "...", names[-1]))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _double(column: str) -> str:
    return f"CAST({column} AS DOUBLE)"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
